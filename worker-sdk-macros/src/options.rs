//! The words in the brackets of `#[task(…)]`: one table of what may be written, and every
//! mistake told where it stands.

mod words;

use proc_macro2::{Ident, Span, TokenStream};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Lit, Meta, Path, Token};

use crate::values;
use words::{aliases, bool, explained, nameless, once, path, text, unknown, upgrades, value_of, word_of};

/// What the attribute says.
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) is_singleton: bool,
    pub(crate) blocks: bool,
    pub(crate) settings: Vec<Setting>,
    /// The payload's version, if it is written.
    pub(crate) version: Option<u32>,
    /// The steps to this version, the last one from the version before it.
    pub(crate) upgrades: Vec<Path>,
    /// The names it had before.
    pub(crate) aliases: Vec<String>,
    /// Where the SDK is.
    pub(crate) sdk: Path,
}

/// A method of `TaskSettings` and what it is given.
pub(crate) struct Setting {
    pub(crate) method: Ident,
    pub(crate) value: Value,
}

/// A value that was checked.
pub(crate) enum Value {
    /// A duration in milliseconds.
    Span(u64),
    /// A plain number.
    Number(u32),
    /// A number of percent.
    Percent(u8),
}

/// What an option takes.
#[derive(Clone, Copy)]
enum Takes {
    Name,
    Flag,
    Bool,
    Crate,
    Version,
    Upgrade,
    Alias,
    One(Kind),
    /// Options of its own, each a setting `<option>_<word>`, and how they are written.
    Several(&'static [(&'static str, Kind)], &'static str),
}

/// What a value may be.
#[derive(Clone, Copy)]
enum Kind {
    /// A duration of so many milliseconds, and the bounds as they are written.
    Span {
        least: u64,
        most: u64,
        bounds: &'static str,
    },
    Number {
        least: u32,
        most: u32,
    },
    Percent,
}

const ANY_SPAN: Kind = Kind::Span { least: 0, most: u64::MAX, bounds: "" };

/// All there is.
const OPTIONS: &[(&str, Takes)] = &[
    ("name", Takes::Name),
    ("singleton", Takes::Flag),
    ("blocking", Takes::Bool),
    ("crate", Takes::Crate),
    ("version", Takes::Version),
    ("upgrade", Takes::Upgrade),
    ("alias", Takes::Alias),
    ("timeout", Takes::One(Kind::Span { least: 1_000, most: 86_400_000, bounds: "1s to 24h" })),
    ("max_attempts", Takes::One(Kind::Number { least: 1, most: 100 })),
    ("max_disruptions", Takes::One(Kind::Number { least: 1, most: 100 })),
    ("concurrency", Takes::One(Kind::Number { least: 1, most: 1000 })),
    (
        "backoff",
        Takes::Several(
            &[
                ("initial", ANY_SPAN),
                ("factor", Kind::Number { least: 1, most: 10 }),
                ("max", ANY_SPAN),
                ("jitter", Kind::Percent),
            ],
            "backoff(initial = \"1s\", factor = 2, max = \"5m\", jitter = \"20%\")",
        ),
    ),
    (
        "retention",
        Takes::Several(
            &[("succeeded", ANY_SPAN), ("failed", ANY_SPAN)],
            "retention(succeeded = \"10m\", failed = \"168h\")",
        ),
    ),
];

impl Options {
    /// Reads the brackets; collects all that is wrong in them. `function` is asked for when
    /// there is no name.
    pub(crate) fn read(brackets: TokenStream, function: &Ident) -> Result<Self, Vec<Error>> {
        let written = Punctuated::<Meta, Token![,]>::parse_terminated
            .parse2(brackets)
            .map_err(|error| vec![explained(&error)])?;
        let mut reader = Reader::default();
        let mut seen: Vec<String> = Vec::new();
        for meta in &written {
            if let Err(error) = once(meta.path(), &mut seen).and_then(|()| reader.option(meta)) {
                reader.wrong.push(error);
            }
        }
        if reader.name.is_none() && !seen.iter().any(|word| word == "name") {
            reader.wrong.push(nameless(function));
        }
        reader.ordered_backoff();
        reader.sound_upgrade();
        match reader.name {
            Some(name) if reader.wrong.is_empty() => Ok(Self {
                name,
                is_singleton: reader.is_singleton,
                blocks: reader.blocks,
                settings: reader.settings,
                version: reader.version.map(|(version, _)| version),
                upgrades: reader.upgrades,
                aliases: reader.aliases,
                sdk: reader.sdk.unwrap_or_else(|| syn::parse_quote!(::bellows_sdk)),
            }),
            _ => Err(reader.wrong),
        }
    }
}

#[derive(Default)]
struct Reader {
    name: Option<String>,
    is_singleton: bool,
    blocks: bool,
    settings: Vec<Setting>,
    version: Option<(u32, Span)>,
    upgrades: Vec<Path>,
    aliases: Vec<String>,
    sdk: Option<Path>,
    wrong: Vec<Error>,
}

impl Reader {
    fn option(&mut self, meta: &Meta) -> Result<(), Error> {
        let word = word_of(meta.path());
        let Some((option, takes)) = OPTIONS.iter().find(|(option, _)| *option == word) else {
            let known: Vec<_> = OPTIONS.iter().map(|(option, _)| *option).collect();
            return Err(unknown(meta.path(), "a task has no option", &word, &known));
        };
        match takes {
            Takes::Flag => match meta {
                Meta::Path(_) => self.is_singleton = true,
                _ => {
                    return Err(Error::new_spanned(
                        meta,
                        format!("`{option}` takes no value: write it alone"),
                    ));
                }
            },
            Takes::Bool => self.blocks = bool(meta)?,
            Takes::Version => {
                let kind = Kind::Number { least: 1, most: 1_000_000 };
                if let Value::Number(version) = kind.read(option, value_of(meta, "version = 2")?)? {
                    self.version = Some((version, meta.path().span()));
                }
            }
            Takes::Upgrade => self.upgrades = upgrades(meta)?,
            Takes::Alias => self.aliases = aliases(meta)?,
            Takes::Name => {
                let text =
                    text(value_of(meta, "name = \"resize-image\"")?, "the name is a text", "resize-image")?;
                values::name(&text.value()).map_err(|says| Error::new(text.span(), says))?;
                self.name = Some(text.value());
            }
            Takes::Crate => self.sdk = Some(path(value_of(meta, "crate = path::to::bellows_sdk")?)?),
            Takes::One(kind) => {
                let value = kind.read(option, value_of(meta, &format!("{option} = {}", kind.example()))?)?;
                self.settings.push(Setting { method: Ident::new(option, meta.path().span()), value });
            }
            Takes::Several(words, example) => self.several(option, words, example, meta)?,
        }
        Ok(())
    }

    fn several(
        &mut self,
        option: &str,
        words: &[(&str, Kind)],
        example: &str,
        meta: &Meta,
    ) -> Result<(), Error> {
        let Meta::List(list) = meta else {
            return Err(Error::new_spanned(
                meta,
                format!("`{option}` takes several values: write `{example}`"),
            ));
        };
        let inner = list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .map_err(|error| explained(&error))?;
        if inner.is_empty() {
            return Err(Error::new_spanned(meta, format!("`{option}` says nothing: write `{example}`")));
        }
        let mut seen = Vec::new();
        for meta in &inner {
            let word = word_of(meta.path());
            let Some((_, kind)) = words.iter().find(|(known, _)| *known == word) else {
                let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                return Err(unknown(meta.path(), &format!("`{option}` has no part"), &word, &known));
            };
            once(meta.path(), &mut seen)?;
            let value = kind.read(&word, value_of(meta, &format!("{word} = {}", kind.example()))?)?;
            self.settings
                .push(Setting { method: Ident::new(&format!("{option}_{word}"), meta.span()), value });
        }
        Ok(())
    }

    /// Steps lead to a version, and not from before the first.
    fn sound_upgrade(&mut self) {
        let steps = u32::try_from(self.upgrades.len()).unwrap_or(u32::MAX);
        let (Some(first), wrong) = (self.upgrades.first(), &mut self.wrong) else { return };
        match self.version {
            None => wrong.push(Error::new_spanned(
                first,
                "`upgrade` leads to a version: write it too, as in `version = 2, upgrade(from_v1)`",
            )),
            Some((version, at)) if steps >= version => wrong.push(Error::new(
                at,
                format!("version {version} has {} before it, and `upgrade` has {steps} steps", version - 1),
            )),
            Some(_) => {}
        }
        if self.is_singleton {
            wrong.push(Error::new_spanned(first, "a singleton carries nothing that could be upgraded"));
        }
    }

    /// The one rule about two values.
    fn ordered_backoff(&mut self) {
        let find = |method: &str| {
            self.settings.iter().find(|setting| setting.method == method).and_then(|setting| {
                let Value::Span(ms) = setting.value else { return None };
                Some((ms, setting.method.span()))
            })
        };
        if let (Some((initial, at)), Some((max, _))) = (find("backoff_initial"), find("backoff_max"))
            && initial > max
        {
            self.wrong.push(Error::new(at, "the first wait (`initial`) is longer than the longest (`max`)"));
        }
    }
}

impl Kind {
    fn example(self) -> &'static str {
        match self {
            Self::Span { .. } => "\"30s\"",
            Self::Number { .. } => "8",
            Self::Percent => "\"20%\"",
        }
    }

    fn read(self, option: &str, value: &Expr) -> Result<Value, Error> {
        match self {
            Self::Span { least, most, bounds } => {
                let text = text(value, &format!("`{option}` is a duration"), "30s")?;
                let ms = values::duration(&text.value()).map_err(|says| Error::new(text.span(), says))?;
                if ms < least || ms > most {
                    let says = format!("`{option}` may be from {bounds}, not {}", text.value());
                    return Err(Error::new(text.span(), says));
                }
                Ok(Value::Span(ms))
            }
            Self::Percent => {
                let text = text(value, &format!("`{option}` is a percentage"), "20%")?;
                values::percent(&text.value())
                    .map(Value::Percent)
                    .map_err(|says| Error::new(text.span(), says))
            }
            Self::Number { least, most } => {
                let says = || format!("`{option}` is a number from {least} to {most}");
                let Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) = value else {
                    return Err(Error::new_spanned(value, says()));
                };
                let parsed = number.base10_parse::<u32>().ok().filter(|n| (least..=most).contains(n));
                parsed
                    .map(Value::Number)
                    .ok_or_else(|| Error::new(number.span(), format!("{}, not {number}", says())))
            }
        }
    }
}
