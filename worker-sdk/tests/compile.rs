//! What must not compile does not, and says why in words a person understands.

use bellows_registry::id::DefinitionName;
use bellows_sdk::spec::Span;

/// The macro's own rules: a crate of macros can export nothing else.
#[allow(dead_code, reason = "the rest is for the macro")]
#[path = "../../worker-sdk-macros/src/values.rs"]
mod values;

#[test]
fn every_mistake_is_told_where_it_stands() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

#[test]
fn durations_are_those_of_the_registry() {
    for text in [
        "30s", "1h30m", "90s", "168h", "0s", "1s500ms", "8760h", "", "s", "5", "5 s", "-5s", "5d", "1s1h",
        "1s1s", "9000h", "1.5s", "٣s",
    ] {
        let registrys = text.parse::<Span>().ok().map(|span| span.get().as_millis());
        assert_eq!(values::duration(text).ok().map(u128::from), registrys, "{text:?}");
    }
}

#[test]
fn names_are_those_of_the_registry() {
    let (just, over) = ("a".repeat(63), "a".repeat(64));
    for text in
        ["a", "resize-image", "v1.resize", "", "Resize", "resize_image", "-a", "a-", "a/b", "ä", &just, &over]
    {
        assert_eq!(values::name(text).is_ok(), DefinitionName::new(text).is_ok(), "{text:?}");
    }
}
