//! The words themselves: what stands on either side of an option's `=`, and the mistakes in it.

use proc_macro2::{Ident, Span};
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitStr, Meta, Path, Token};

use crate::values;

pub(super) fn bool(meta: &Meta) -> Result<bool, Error> {
    match meta {
        Meta::Path(_) => Ok(true),
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Bool(value), .. }) => Ok(value.value),
            other => Err(Error::new_spanned(other, "`blocking` is `true` or `false`")),
        },
        Meta::List(_) => Err(Error::new_spanned(meta, "`blocking` takes a value: write `blocking = true`")),
    }
}

pub(super) fn upgrades(meta: &Meta) -> Result<Vec<Path>, Error> {
    let example = "`upgrade` names functions, oldest first: write `upgrade(from_v1, from_v2)`";
    let Meta::List(list) = meta else { return Err(Error::new_spanned(meta, example)) };
    let steps = list
        .parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated)
        .map_err(|error| Error::new(error.span(), example))?;
    if steps.is_empty() { Err(Error::new_spanned(meta, example)) } else { Ok(steps.into_iter().collect()) }
}

pub(super) fn aliases(meta: &Meta) -> Result<Vec<String>, Error> {
    let names: Vec<LitStr> = match meta {
        Meta::NameValue(pair) => vec![text(&pair.value, "a name is a text", "old-name")?.clone()],
        Meta::List(list) => {
            list.parse_args_with(Punctuated::<LitStr, Token![,]>::parse_terminated)?.into_iter().collect()
        }
        Meta::Path(_) => {
            return Err(Error::new_spanned(meta, "`alias` takes a name: write `alias = \"old-name\"`"));
        }
    };
    for name in &names {
        values::name(&name.value()).map_err(|says| Error::new(name.span(), says))?;
    }
    Ok(names.iter().map(LitStr::value).collect())
}

/// An option written twice is a mistake, whichever was meant.
pub(super) fn once(path: &Path, seen: &mut Vec<String>) -> Result<(), Error> {
    let word = word_of(path);
    if seen.contains(&word) {
        return Err(Error::new_spanned(path, format!("`{word}` is written twice")));
    }
    seen.push(word);
    Ok(())
}

pub(super) fn word_of(path: &Path) -> String {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>().join("::")
}

pub(super) fn value_of<'a>(meta: &'a Meta, example: &str) -> Result<&'a Expr, Error> {
    match meta {
        Meta::NameValue(pair) => Ok(&pair.value),
        _ => Err(Error::new_spanned(
            meta,
            format!("`{}` takes a value: write `{example}`", word_of(meta.path())),
        )),
    }
}

pub(super) fn text<'a>(value: &'a Expr, is: &str, example: &str) -> Result<&'a LitStr, Error> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text),
        _ => Err(Error::new_spanned(value, format!("{is}: write it as \"{example}\""))),
    }
}

pub(super) fn path(value: &Expr) -> Result<Path, Error> {
    match value {
        Expr::Path(path) => Ok(path.path.clone()),
        _ => Err(Error::new_spanned(
            value,
            "`crate` is the path of the SDK: write `crate = path::to::bellows_sdk`",
        )),
    }
}

pub(super) fn unknown(path: &Path, no: &str, word: &str, known: &[&str]) -> Error {
    let help = match values::meant(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Error::new_spanned(path, format!("{no} `{word}`: {help}"))
}

pub(super) fn nameless(function: &Ident) -> Error {
    let name = values::instead(&function.to_string()).unwrap_or_else(|| "resize-image".to_owned());
    Error::new(
        Span::call_site(),
        format!(
            "a task needs a name: write #[task(name = \"{name}\")]. Waiting tasks are stored under it, so it \
             stays when the function is called differently"
        ),
    )
}

/// The parser's own words, with an example where they help little.
pub(super) fn explained(error: &Error) -> Error {
    let says = format!("{error}; options are written as #[task(name = \"resize-image\", timeout = \"30s\")]");
    Error::new(error.span(), says)
}
