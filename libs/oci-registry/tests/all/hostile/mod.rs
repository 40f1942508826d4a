//! Whatever comes in. The fuzz target (`fuzz/`) feeds the same with bytes of its own.

mod asks;
mod challenge;
mod judge;

use proptest::prelude::*;
use tokio::runtime::Runtime;

#[test]
fn whatever_is_asked_is_answered_properly() {
    let runtime = Runtime::new().unwrap();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let bytes = proptest::collection::vec(any::<u8>(), 1..600);
    runner
        .run(&bytes, |bytes| {
            judge::input(&runtime, &bytes);
            Ok(())
        })
        .unwrap();
}

proptest! {
    #[test]
    fn whatever_is_parsed_is_written_as_it_was(text in "[a-zA-Z0-9._:/@%-]{0,90}|\\PC{0,60}|sha(256|512):[0-9a-f]{60,130}") {
        judge::texts(&text);
    }
}

#[test]
fn whatever_a_registry_demands_of_a_client() {
    let runtime = Runtime::new().unwrap();
    for challenge in [
        "Bearer realm=\"http://169.254.169.254/latest\",service=\"x\"",
        "Bearer realm=\"https://evil.example/token\"",
        "Bearer realm=\"file:///etc/passwd\"",
        "Bearer realm=\"\"",
        "Bearer realm",
        "Basic",
        "Basic realm=\"a\", Bearer realm=\"b\"",
        "bearer REALM=x,,,=,\"",
        "",
        "Digest nonce=\"x\"",
        "Bearer realm=\"http://[::1\"",
        "\u{ff}\u{fe}",
    ] {
        runtime.block_on(challenge::meet(challenge.as_bytes()));
    }
}
