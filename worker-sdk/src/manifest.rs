//! The TaskDefinition of a kind of work, from what the code states: pure, but for
//! [`answer`], which prints it.

use std::fmt::Write as _;
use std::io::Write as _;

use bellows_registry::spec::{Policy, Trigger};
use serde_json::{Map, Value};

use crate::settings::merge;
use crate::tasks::{Kind, Tasks};

/// What a manifest begins with; the operator's CRD.
const HEAD: &str = "apiVersion: bellows.dev/v1alpha1\nkind: TaskDefinition\n";
/// The order in which a `spec` is read.
const ORDER: [&str; 4] = ["trigger", "mode", "worker", "execution"];

impl Tasks {
    /// The manifests of all kinds of work, as YAML for `kubectl apply`: what the code
    /// states, and nothing else. `image` is the workers' image; without one a placeholder
    /// stands there.
    ///
    /// [`serve`](crate::serve()) prints it when the program is started with
    /// `--print-manifest`.
    ///
    /// ```
    /// # use bellows_sdk::prelude::*;
    /// #[task(name = "resize-image", timeout = "30s")]
    /// async fn resize_image(url: String) -> Result<String, TaskError> {
    ///     Ok(url)
    /// }
    ///
    /// assert_eq!(tasks![resize_image].manifest(Some("registry.example/resize:1.4")), "\
    /// apiVersion: bellows.dev/v1alpha1
    /// kind: TaskDefinition
    /// metadata:
    ///   name: resize-image
    /// spec:
    ///   trigger: Publish
    ///   worker:
    ///     image: registry.example/resize:1.4
    ///   execution:
    ///     timeout: 30s
    /// ");
    /// ```
    pub fn manifest(&self, image: Option<&str>) -> String {
        self.kinds.iter().map(|kind| one(kind, image)).collect::<Vec<_>>().join("---\n")
    }
}

fn one(kind: &Kind, image: Option<&str>) -> String {
    let placeholder = || format!("registry.example/{}:latest", kind.name);
    let image = image.map_or_else(placeholder, str::to_owned);
    let mut spec = Value::Object(stated(kind));
    spec["worker"]["image"] = Value::String(image);
    let mut yaml = HEAD.to_owned();
    let _ = writeln!(yaml, "metadata:\n  name: {}\nspec:", scalar(&Value::from(kind.name)));
    if let Value::Object(spec) = &spec {
        block(&mut yaml, spec, 1);
    }
    yaml
}

/// What the code says that differs from a TaskDefinition that says nothing.
fn stated(kind: &Kind) -> Map<String, Value> {
    let default = Policy { trigger: Trigger::default(), ..Policy::default() };
    let mut policy = serde_json::to_value(&kind.policy).unwrap_or_default();
    let default = serde_json::to_value(default).unwrap_or_default();
    without(&mut policy, &default);
    if !kind.is_whole {
        merge(&mut policy, kind.stated.fields());
    }
    if let Some(slots) = kind.concurrency {
        policy["worker"]["concurrency"] = slots.into(); // a TaskDefinition that says nothing has 1
    }
    policy["trigger"] = serde_json::to_value(kind.trigger).unwrap_or_default();
    match policy {
        Value::Object(policy) => policy,
        _ => Map::new(),
    }
}

/// Takes away what is the same in both.
fn without(value: &mut Value, same: &Value) {
    let (Value::Object(fields), Value::Object(same)) = (value, same) else { return };
    fields.retain(|name, field| {
        let other = same.get(name).unwrap_or(&Value::Null);
        without(field, other);
        field != other && field.as_object().is_none_or(|inner| !inner.is_empty())
    });
}

fn block(yaml: &mut String, fields: &Map<String, Value>, depth: usize) {
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| (place(name), *name != "image", *name));
    for (name, field) in fields {
        let _ = write!(yaml, "{:1$}{name}:", "", 2 * depth);
        match field {
            Value::Object(inner) if !inner.is_empty() => {
                yaml.push('\n');
                block(yaml, inner, depth + 1);
            }
            scalar_or_empty => {
                let _ = writeln!(yaml, " {}", scalar(scalar_or_empty));
            }
        }
    }
}

/// One value. JSON is YAML; texts that mean nothing else in YAML go without their quotes.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let is_span = text.parse::<bellows_registry::spec::Span>().is_ok();
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/:@-".contains(c))
        && !text.ends_with(':');
    let lower = text.to_ascii_lowercase();
    let means_more = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&&*lower);
    (is_span || is_word) && !means_more
}

/// Arguments that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--image {image:?} names no image: write --image registry.example/resize:1.4")]
pub struct ImageError {
    image: String,
}

/// If the program was started with `--print-manifest`, prints the manifests (of the
/// `--image` given there) on standard output, and answers `true`: the program should end.
///
/// [`serve`](crate::serve()) does this first. A program that needs its environment before
/// it can call `serve` (for a database, say) asks here before.
///
/// # Errors
/// `--image` without the name of an image.
///
/// # Panics
/// Never; what cannot be printed is lost, as with a closed pipe.
pub fn print_manifest_if_asked(tasks: &Tasks) -> Result<bool, ImageError> {
    let Some(image) = asked(std::env::args().skip(1))? else { return Ok(false) };
    let text = tasks.manifest(image.as_deref());
    let mut out = std::io::stdout().lock();
    // Whoever closes the pipe has read enough.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(true)
}

/// The image of a manifest that is asked for.
fn asked(mut arguments: impl Iterator<Item = String>) -> Result<Option<Option<String>>, ImageError> {
    let (mut wanted, mut image) = (false, None);
    while let Some(argument) = arguments.next() {
        match argument.strip_prefix("--image") {
            _ if argument == "--print-manifest" => wanted = true,
            Some("") => image = Some(arguments.next().unwrap_or_default()),
            Some(rest) if rest.starts_with('=') => image = Some(rest[1..].to_owned()),
            Some(_) | None => {}
        }
    }
    if !wanted {
        return Ok(None);
    }
    match image {
        Some(image) if image.is_empty() || image.starts_with('-') || image.contains(char::is_whitespace) => {
            Err(ImageError { image })
        }
        image => Ok(Some(image)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(line: &str) -> Result<Option<Option<String>>, ImageError> {
        asked(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn a_manifest_is_printed_only_when_it_is_asked_for() {
        assert_eq!(arguments("--image a:1"), Ok(None));
        assert_eq!(arguments("serve --verbose"), Ok(None));
        assert_eq!(arguments("--print-manifest"), Ok(Some(None)));
        assert_eq!(arguments("--print-manifest --image a:1"), Ok(Some(Some("a:1".to_owned()))));
        assert_eq!(arguments("--image=a:1 --print-manifest"), Ok(Some(Some("a:1".to_owned()))));
        let refused = arguments("--print-manifest --image").unwrap_err().to_string();
        assert!(refused.contains("--image registry.example/resize:1.4"), "{refused}");
        assert!(arguments("--image --print-manifest").is_ok_and(|asked| asked.is_none()), "the image's name");
    }

    #[test]
    fn the_programs_concurrency_and_its_whole_policy_are_in_its_manifest() {
        use crate::definition::{PublishTrigger, TaskDefinition};
        use bellows_registry::spec::{Execution, Span};

        struct Act;
        impl TaskDefinition for Act {
            const NAME: &'static str = "act";
            type Callback = String;
            type Trigger = PublishTrigger<String>;
        }
        let execution = Execution { timeout: Span::secs(60), ..Execution::default() };
        let tasks = Tasks::new()
            .with_blocking_fn::<Act, _>(|_, text| Ok(text.into()))
            .concurrency(32)
            .policy(Policy { execution, ..Policy::default() });
        let manifest = tasks.manifest(Some("a:1"));
        let spec = manifest.split("spec:\n").nth(1).unwrap();
        assert_eq!(
            spec,
            "  trigger: Publish\n  worker:\n    image: a:1\n    concurrency: 32\n  execution:\n    timeout: 1m\n"
        );
    }

    #[test]
    fn texts_that_mean_something_else_in_yaml_are_quoted() {
        for (text, yaml) in [
            ("30s", "30s"),
            ("Publish", "Publish"),
            ("registry.example/a:1.4", "registry.example/a:1.4"),
            ("20%", "\"20%\""),
            ("no", "\"no\""),
            ("1e3", "\"1e3\""),
            ("a: b", "\"a: b\""),
        ] {
            assert_eq!(scalar(&Value::from(text)), yaml);
        }
    }
}
