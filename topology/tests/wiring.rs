//! Mis-wiring does not compile, and says what to do.

#[test]
fn wiring_a_stream_of_another_type_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/wiring/right.rs");
    cases.compile_fail("tests/wiring/wrong_*.rs");
}
