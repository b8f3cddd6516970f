//! What must not compile does not, and says why in words a person understands.

#[test]
fn publishing_a_singleton_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/singleton_published.rs");
}
