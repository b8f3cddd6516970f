//! Headers, checked before anything is written.

use std::collections::BTreeMap;

use bellows_registry::id::TaskId;
use bellows_registry::record::limits;

use super::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use super::undecodable::cut;
use crate::draft::header_bytes;
use crate::error::{OptionError, PublishError};

/// The headers as they are published: checked, and with a trace.
pub(crate) fn checked(
    headers: BTreeMap<String, String>,
    published_by: Option<TraceParent>,
    task: TaskId,
) -> Result<BTreeMap<String, String>, PublishError> {
    let mut all = BTreeMap::new();
    for (name, value) in headers {
        check_name(&name)?;
        check_value(&name, &value)?;
        all.insert(trace_name(&name).map_or(name, str::to_owned), value);
    }
    if all.len() > limits::HEADERS {
        let (count, limit) = (all.len(), limits::HEADERS);
        return Err(PublishError::Invalid(format!("{count} headers are attached; the limit is {limit}")));
    }
    let bytes = header_bytes(&all);
    if bytes > limits::HEADER_BYTES {
        let what = "the headers together";
        return Err(PublishError::TooLarge { what, bytes, limit: limits::HEADER_BYTES });
    }
    match all.get(TRACEPARENT) {
        Some(given) => {
            given.parse::<TraceParent>().map_err(|error| option("header traceparent", given, &error))?;
        }
        // Not counted above: what nobody attached cannot be too much.
        None => {
            let parent = published_by.unwrap_or_else(|| TraceParent::of_task(task));
            all.insert(TRACEPARENT.to_owned(), parent.to_string());
        }
    }
    Ok(all)
}

/// The one spelling of the two headers whose names are not the user's.
fn trace_name(name: &str) -> Option<&'static str> {
    [TRACEPARENT, TRACESTATE].into_iter().find(|known| known.eq_ignore_ascii_case(name))
}

fn check_name(name: &str) -> Result<(), OptionError> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > limits::HEADER_NAME || !name.bytes().all(token) {
        let limit = format!("1 to {} letters, digits or any of !#$%&'*+-.^_`|~", limits::HEADER_NAME);
        return Err(option("header name", name, &limit));
    }
    Ok(())
}

fn check_value(name: &str, value: &str) -> Result<(), OptionError> {
    if value.chars().any(char::is_control) {
        // The value itself may be secret.
        return Err(option("the value of header", name, &"text without control characters"));
    }
    Ok(())
}

fn option(option: &'static str, value: &str, limit: &dyn std::fmt::Display) -> OptionError {
    OptionError { option, value: cut(value), limit: limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(headers: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        checked(headers, None, TaskId::from_bits(0xab)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_task_without_a_trace_begins_one_that_is_named_like_the_task() {
        let headers = published(&[("tenant", "a")]).unwrap();
        assert_eq!(headers["tenant"], "a");
        assert_eq!(headers["traceparent"], "00-000000000000000000000000000000ab-00000000000000ab-00");
    }

    #[test]
    fn a_trace_that_is_given_is_kept_in_whatever_case_its_header_is_written() {
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(published(&[("Traceparent", given)]).unwrap()["traceparent"], given);
    }

    #[test]
    fn what_is_refused_names_the_header_and_what_is_allowed() {
        let said = |name: &str, value: &str| published(&[(name, value)]).unwrap_err();
        assert!(said("a b", "x").starts_with("header name \"a b\" is not allowed: use 1 to 128 letters"));
        assert!(said("", "x").starts_with("header name \"\" is not allowed: use 1 to 128"));
        assert!(said(&"n".repeat(129), "x").contains("is not allowed: use 1 to 128"));
        let secret = said("token", "s3cret\n");
        assert_eq!(
            secret,
            "the value of header \"token\" is not allowed: use text without control characters"
        );
        assert!(
            said("traceparent", "00-xyz")
                .starts_with("header traceparent \"00-xyz\" is not allowed: use 00-<32 hex")
        );
    }
}
