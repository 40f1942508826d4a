//! What all tests share: quick options, and an observer that remembers.

use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use redfish::{Bmc, Code, Credentials, Error, Observer, Options, Phase, Retry};
use secrecy::SecretString;
use url::Url;

pub(crate) const USER: &str = "admin";
pub(crate) const PASSWORD: &str = "Planted-Password-7f3a";

/// A signature as media addresses carry it: it must not be shown anywhere.
pub(crate) const SIGNATURE: &str = "c2lnbmF0dXJlLXRoYXQtbXVzdC1ub3QtYmUtc2hvd24";

/// Budget of a phase that is expected to end well.
pub(crate) fn phase(op: &'static str) -> Phase {
    Phase::new(op, Duration::from_secs(60))
}

/// Options under which nothing waits for long.
pub(crate) fn quick() -> Options {
    Options {
        retry: Some(Retry { attempts: 4, base: Duration::from_millis(2), cap: Duration::from_millis(10) }),
        settle: Duration::from_secs(2),
        poll: (Duration::from_millis(10), Duration::from_millis(50)),
        ..Options::default()
    }
}

pub(crate) fn credentials(password: &str) -> Credentials {
    Credentials { username: USER.to_owned(), password: SecretString::from(password) }
}

/// A client builder with ring as the process's TLS provider and without proxies.
pub(crate) fn http() -> reqwest::ClientBuilder {
    static RING: Once = Once::new();
    RING.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy()
}

pub(crate) async fn connect(base: &Url, options: Options, observer: &Arc<Seen>) -> Result<Bmc, Error> {
    connect_as(base, PASSWORD, options, observer).await
}

pub(crate) async fn connect_as(
    base: &Url,
    password: &str,
    options: Options,
    observer: &Arc<Seen>,
) -> Result<Bmc, Error> {
    Bmc::connect(http(), base.clone(), credentials(password), options, Arc::clone(observer) as _, phase("discover"))
        .await
}

/// Everything an error shows, causes included.
pub(crate) fn text_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text.push_str(&format!(" {source} {source:?}"));
        next = source.source();
    }
    text
}

/// No secret of these tests is in what the error shows.
pub(crate) fn assert_clean(error: &Error) {
    let text = text_of(error);
    for secret in [PASSWORD, SIGNATURE, "planted-token"] {
        assert!(!text.contains(secret), "{secret} is shown in {text}");
    }
}

/// An observer that remembers what it was told.
#[derive(Default)]
pub(crate) struct Seen(Mutex<Vec<(&'static str, String, String)>>);

impl Seen {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Codes of an operation's requests, and `retry`, in order.
    pub(crate) fn codes(&self, op: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|(seen, ..)| *seen == op).map(|(_, _, code)| code.clone()).collect()
    }

    pub(crate) fn vendors(&self) -> Vec<String> {
        let mut vendors: Vec<String> = self.0.lock().unwrap().iter().map(|(_, vendor, _)| vendor.clone()).collect();
        vendors.dedup();
        vendors
    }
}

impl Observer for Seen {
    fn request(&self, op: &'static str, vendor: &str, code: Code, _duration: Duration) {
        self.0.lock().unwrap().push((op, vendor.to_owned(), code.to_string()));
    }

    fn retry(&self, op: &'static str, vendor: &str) {
        self.0.lock().unwrap().push((op, vendor.to_owned(), "retry".to_owned()));
    }
}

/// Says that a test could not run, where the test harness does not swallow it.
pub(crate) fn not_run(test: &str, missing: &str) {
    // In one piece, so that lines of tests that run beside it do not mix with it.
    let _ = std::io::stderr().write_all(format!("NOT RUN: {test}: {missing} is missing\n").as_bytes());
}
