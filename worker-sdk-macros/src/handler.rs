//! What the function's signature says: which argument is the input, and what the others
//! are given.

use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, PatType, Path, ReturnType, Type};

/// A function as the handler of a task.
pub(crate) struct Handler {
    /// The types of the arguments, in the function's order.
    pub(crate) arguments: Vec<Argument>,
    /// What it returns.
    pub(crate) output: Type,
}

/// One argument.
pub(crate) enum Argument {
    /// What the task carries.
    Input(Type),
    /// What the SDK gives: the context, or the program's state.
    Injected(Type),
}

impl Handler {
    /// The type of what a task carries, if the function takes any.
    pub(crate) fn input(&self) -> Option<&Type> {
        self.arguments.iter().find_map(|argument| match argument {
            Argument::Input(input) => Some(input),
            Argument::Injected(_) => None,
        })
    }

    /// Reads a signature; collects all that is wrong with it. Whether the task is a
    /// singleton is not known where the attribute cannot be read.
    pub(crate) fn read(function: &ItemFn, is_singleton: Option<bool>) -> Result<Self, Vec<Error>> {
        let mut wrong = shape(function);
        let mut arguments: Vec<Argument> = Vec::new();
        for argument in &function.sig.inputs {
            match argument {
                FnArg::Receiver(own) => wrong.push(Error::new_spanned(
                    own,
                    "a task is a free function: what it needs of the program is a `State<T>` argument",
                )),
                FnArg::Typed(typed) => match read_argument(typed, &arguments, is_singleton) {
                    Ok(argument) => arguments.push(argument),
                    Err(error) => wrong.push(error),
                },
            }
        }
        let has_input = arguments.iter().any(|argument| matches!(argument, Argument::Input(_)));
        if wrong.is_empty() && !has_input && is_singleton == Some(false) {
            wrong.push(Error::new(
                function.sig.paren_token.span.join(),
                "a published task takes an input: add an argument such as `input: Resize` (`_: ()` if it \
                 carries nothing), or write `singleton` in #[task(…)]",
            ));
        }
        let output = match &function.sig.output {
            ReturnType::Type(_, output) => (**output).clone(),
            ReturnType::Default => {
                wrong.push(Error::new(
                    function.sig.ident.span(),
                    "a task returns a Result: write `-> Result<(), TaskError>` if there is nothing to await",
                ));
                Type::Verbatim(proc_macro2::TokenStream::new())
            }
        };
        if wrong.is_empty() { Ok(Self { arguments, output }) } else { Err(wrong) }
    }
}

/// What cannot be a task at all.
fn shape(function: &ItemFn) -> Vec<Error> {
    let sig = &function.sig;
    let mut wrong = Vec::new();
    if sig.asyncness.is_none() {
        wrong.push(Error::new_spanned(sig.fn_token, "a task is an `async fn`: write `async` before `fn`"));
    }
    if !sig.generics.params.is_empty() {
        wrong.push(Error::new_spanned(
            &sig.generics,
            "a task cannot be generic: its payloads are stored, and are of one type",
        ));
    }
    if let Some(clause) = &sig.generics.where_clause {
        wrong.push(Error::new_spanned(clause, "a task cannot have a `where` clause: it is not generic"));
    }
    if let Some(variadic) = &sig.variadic {
        wrong.push(Error::new_spanned(variadic, "a task cannot have variable arguments"));
    }
    wrong
}

fn read_argument(
    typed: &PatType,
    before: &[Argument],
    is_singleton: Option<bool>,
) -> Result<Argument, Error> {
    let ty = &*typed.ty;
    if let Type::Reference(reference) = ty {
        return Err(Error::new_spanned(
            reference,
            "a task owns its arguments, since it outlives whoever started it: take the value instead of a \
             reference",
        ));
    }
    if let Type::ImplTrait(any) = ty {
        return Err(Error::new_spanned(any, "a task's arguments are of one type each: name it"));
    }
    if is_injected(ty) {
        return Ok(Argument::Injected(ty.clone()));
    }
    if is_singleton == Some(true) {
        return Err(Error::new(
            ty.span(),
            "a singleton takes no input: its one task carries nothing. What it needs of the program is a \
             `State<T>` argument",
        ));
    }
    if before.iter().any(|argument| matches!(argument, Argument::Input(_))) {
        return Err(Error::new(
            ty.span(),
            "a task carries one input, and this is the second: put both into one struct. What comes from \
             the program and not from the publisher is a `State<T>`",
        ));
    }
    Ok(Argument::Input(ty.clone()))
}

/// By the name of the type, which is all that a macro sees.
fn is_injected(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    last(&path.path).is_some_and(|name| name == "TaskContext" || name == "State")
}

fn last(path: &Path) -> Option<String> {
    path.segments.last().map(|segment| segment.ident.to_string())
}
