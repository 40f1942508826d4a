//! What is counted: a hook.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::Route;

/// Status of a request whose client went away before there was an answer.
const CLIENT_GONE: u16 = 499;

/// Hears what the registry does. Every method has an empty default.
pub trait Observer: Send + Sync {
    /// So many bytes of a blob have come in.
    fn uploaded(&self, bytes: u64) {
        let _ = bytes;
    }

    /// So many bytes of a blob have gone out.
    fn downloaded(&self, bytes: u64) {
        let _ = bytes;
    }

    /// A request begins to send a blob's bytes.
    fn upload_started(&self) {}

    /// That request is over, well or not.
    fn upload_ended(&self) {}

    /// A request is over, the body of its answer included. Status 499: the client went away before the answer.
    fn request(&self, route: Route, status: u16, duration: Duration) {
        let _ = (route, status, duration);
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}

/// Reports a request when it is dropped.
pub(super) struct RequestReport {
    observer: Arc<dyn Observer>,
    route: Route,
    pub(super) status: u16,
    begun: Instant,
}

impl RequestReport {
    pub(super) fn new(observer: Arc<dyn Observer>, route: Route) -> Self {
        Self { observer, route, status: CLIENT_GONE, begun: Instant::now() }
    }
}

impl Drop for RequestReport {
    fn drop(&mut self) {
        self.observer.request(self.route, self.status, self.begun.elapsed());
    }
}

/// Counts an upload as in flight until it is dropped.
pub(super) struct InFlight {
    observer: Arc<dyn Observer>,
}

impl InFlight {
    pub(super) fn new(observer: Arc<dyn Observer>) -> Self {
        observer.upload_started();
        Self { observer }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.observer.upload_ended();
    }
}
