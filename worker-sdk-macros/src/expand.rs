//! What the attribute becomes: the function as it was, and beside it what one could have
//! written by hand.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, ItemFn, Path, Type};

use crate::handler::{Argument, Handler};
use crate::options::{Options, Setting, Value};

/// `#[task(brackets)] item`.
pub(crate) fn task(brackets: TokenStream, item: &TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            let error = Error::new(error.span(), format!("#[task] goes on an async function: {error}"));
            return both(&[error], item);
        }
    };
    let options = Options::read(brackets, &function.sig.ident);
    let is_singleton = options.as_ref().ok().map(|options| options.is_singleton);
    let handler = Handler::read(&function, is_singleton);
    match (options, handler) {
        (Ok(options), Ok(handler)) => expanded(&options, &handler, &function),
        // The function stays, so that its own mistakes are told as well.
        (Err(wrong), Ok(_)) | (Ok(_), Err(wrong)) => both(&wrong, item),
        (Err(mut wrong), Err(more)) => {
            wrong.extend(more);
            both(&wrong, item)
        }
    }
}

fn both(wrong: &[Error], item: &TokenStream) -> TokenStream {
    let errors = wrong.iter().map(Error::to_compile_error);
    quote! { #(#errors)* #item }
}

fn expanded(options: &Options, handler: &Handler, function: &ItemFn) -> TokenStream {
    let (sdk, name, vis, task) = (&options.sdk, &options.name, &function.vis, &function.sig.ident);
    let docs = docs(options, &function.attrs);
    let output = &handler.output;
    let callback = quote_spanned!(output.span()=> <#output as #sdk::HandlerOutput>::Callback);
    let trigger = trigger(sdk, handler);
    let publish = handler.input().map(|input| publish(sdk, vis, task, input));
    let settings = settings(options, handler);
    let (version, upgrade) = (version(options), upgrade(options));
    let aliases = aliases(&options.aliases);
    let handle = handle(sdk, handler, task);
    quote! {
        // A task is async whether it awaits anything or not.
        #[allow(clippy::unused_async)]
        #function

        #docs
        #[allow(non_camel_case_types)]
        #vis struct #task {}

        impl #sdk::TaskDefinition for #task {
            const NAME: &'static str = #name;
            #version
            #aliases
            type Callback = #callback;
            type Trigger = #trigger;
            #upgrade
        }

        impl #sdk::TaskHandler for #task {
            #settings
            #handle
        }

        #publish
    }
}

/// The function's own documentation, or else a sentence.
fn docs(options: &Options, attributes: &[Attribute]) -> TokenStream {
    let written: Vec<_> = attributes.iter().filter(|attribute| attribute.path().is_ident("doc")).collect();
    if written.is_empty() {
        let sentence = format!("The task `{}`.", options.name);
        return quote!(#[doc = #sentence]);
    }
    quote!(#(#written)*)
}

fn trigger(sdk: &Path, handler: &Handler) -> TokenStream {
    match handler.input() {
        Some(input) => quote_spanned!(input.span()=> #sdk::PublishTrigger<#input>),
        None => quote!(#sdk::SingletonTrigger),
    }
}

fn version(options: &Options) -> Option<TokenStream> {
    options.version.map(|version| quote!(const VERSION: u32 = #version;))
}

fn aliases(names: &[String]) -> Option<TokenStream> {
    (!names.is_empty()).then(|| quote!(const ALIASES: &'static [&'static str] = &[#(#names),*];))
}

/// The chain of steps, the last one from the version before this one.
fn upgrade(options: &Options) -> Option<TokenStream> {
    let (version, steps, sdk) = (options.version?, &options.upgrades, &options.sdk);
    let first = version.checked_sub(u32::try_from(steps.len()).ok()?)?;
    let arms = (first..version).zip(steps).map(|(from, step)| {
        let call = quote_spanned!(step.span()=> #sdk::upgrade::step(payload, #step));
        quote!(#from => #call,)
    });
    (!steps.is_empty()).then(|| {
        quote! {
            fn upgrade(
                version: u32,
                payload: #sdk::upgrade::Value,
            ) -> ::core::result::Result<#sdk::upgrade::Value, #sdk::upgrade::UpgradeError> {
                match version {
                    #(#arms)*
                    _ => ::core::result::Result::Err(#sdk::upgrade::UpgradeError::NoStep(version)),
                }
            }
        }
    })
}

fn publish(sdk: &Path, vis: &syn::Visibility, task: &Ident, input: &Type) -> TokenStream {
    quote! {
        impl #task {
            /// Publishes a task: a builder that is a future.
            #[allow(dead_code)]
            #vis fn publish(bellows: &#sdk::Bellows, input: #input) -> #sdk::Publish<'_, Self> {
                bellows.publish::<Self>(input)
            }
        }
    }
}

/// What the attribute states, and what the function must be given.
fn settings(options: &Options, handler: &Handler) -> TokenStream {
    let sdk = &options.sdk;
    let stated = options.settings.iter().map(|Setting { method, value }| {
        let value = match value {
            Value::Number(number) => quote!(#number),
            Value::Percent(percent) => quote!(#percent),
            Value::Span(ms) if ms % 1_000 == 0 => {
                let secs = ms / 1_000;
                quote!(#sdk::spec::Span::secs(#secs))
            }
            Value::Span(ms) => quote!(#sdk::spec::Span::millis(#ms)),
        };
        // Without the place of the word: nothing here can be wrong any more.
        let method = Ident::new(&method.to_string(), Span::call_site());
        quote!(.#method(#value))
    });
    let blocking = options.blocks.then(|| quote!(.blocking()));
    let needs = handler.arguments.iter().filter_map(|argument| match argument {
        Argument::Injected(ty) => Some(quote_spanned!(ty.span()=> .needs::<#ty>())),
        Argument::Input(_) => None,
    });
    quote! {
        fn settings() -> #sdk::TaskSettings {
            #sdk::TaskSettings::new() #(#stated)* #blocking #(#needs)*
        }
    }
}

/// The call of the function.
fn handle(sdk: &Path, handler: &Handler, function: &Ident) -> TokenStream {
    // Names that cannot meet those of the user's items.
    let local = |name: &str| Ident::new(name, Span::mixed_site());
    let injects = handler.arguments.iter().any(|argument| matches!(argument, Argument::Injected(_)));
    let (context, states) = if injects { ("context", "states") } else { ("_context", "_states") };
    let (context, input, states) = (local(context), local("input"), local(states));
    let arguments = handler.arguments.iter().map(|argument| match argument {
        Argument::Input(_) => quote!(#input),
        Argument::Injected(ty) => {
            quote_spanned!(ty.span()=> <#ty as #sdk::Injected>::take(&#context, &#states)?)
        }
    });
    let given = if handler.input().is_some() { quote!(#input) } else { quote!(()) };
    let output = &handler.output;
    let into_result = quote_spanned!(output.span()=> #sdk::HandlerOutput::into_result);
    let payload = handler.input().map_or_else(|| quote!(()), |input| quote!(#input));
    quote! {
        async fn handle(
            #context: #sdk::TaskContext,
            #given: #payload,
            #states: #sdk::States,
        ) -> #sdk::TaskResult<Self::Callback> {
            #into_result(#function(#(#arguments),*).await)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(brackets: &str, item: &str) -> String {
        let expanded = task(brackets.parse().unwrap(), &item.parse().unwrap());
        prettyplease::unparse(&syn::parse2(expanded).unwrap())
    }

    fn assert_same(expanded: &str, expected: &str) {
        let expected = prettyplease::unparse(&syn::parse_str(expected).unwrap());
        assert!(expanded == expected, "it expanded to:\n{expanded}\ninstead of:\n{expected}");
    }

    #[test]
    fn a_task_expands_to_what_one_could_have_written() {
        let expanded = read(
            r#"name = "resize-image", timeout = "30s", max_attempts = 8, backoff(initial = "300ms")"#,
            "pub async fn resize_image(input: Resize, ctx: TaskContext, db: State<Db>) -> Result<Thumb, TaskError> { db.save(input).await }",
        );
        assert_same(&expanded, include_str!("expand/resize_image.rs"));
    }

    #[test]
    fn versions_aliases_and_blocking_expand_to_what_the_traits_have() {
        let expanded = read(
            r#"name = "shrink", blocking = true, version = 3, upgrade(from_v1, from_v2), alias("old", "older")"#,
            "async fn shrink(input: Photo) -> Result<(), TaskError> { Ok(()) }",
        );
        for line in [
            "const VERSION: u32 = 3u32;",
            "const ALIASES: &'static [&'static str] = &[\"old\", \"older\"];",
            "1u32 => ::bellows_sdk::upgrade::step(payload, from_v1),",
            "2u32 => ::bellows_sdk::upgrade::step(payload, from_v2),",
            "::bellows_sdk::upgrade::UpgradeError::NoStep(version),",
            "::bellows_sdk::TaskSettings::new().blocking()",
        ] {
            assert!(expanded.contains(line), "{line} is missing in:\n{expanded}");
        }
    }

    #[test]
    fn a_singleton_expands_without_an_input_and_without_a_way_to_publish() {
        let expanded = read(
            r#"singleton, name = "sweep""#,
            "/// Sweeps.\nasync fn sweep() -> Result<(), TaskError> { Ok(()) }",
        );
        assert_same(&expanded, include_str!("expand/sweep.rs"));
    }
}
