//! The registry: names, digests, references, manifests, challenges, and requests in sequence. What is judged stands beside
//! the tests of the registry, which run some hundred inputs with every `cargo test`.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

#[path = "../../libs/oci-registry/tests/all/hostile/asks.rs"]
mod asks;
#[path = "../../libs/oci-registry/tests/all/hostile/challenge.rs"]
mod challenge;
#[path = "../../libs/oci-registry/tests/all/hostile/judge.rs"]
mod judge;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| judge::input(&RUNTIME, bytes));
