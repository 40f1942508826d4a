//! How many requests, and how long they took.

use std::time::Duration;

use observe::metrics::{Counters, Histograms, Registry};

const BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Route of a request that none matched.
pub(crate) const UNMATCHED: &str = "unmatched";

/// `http_requests_total` and `http_request_duration_seconds`, each by route and code (Shoal manual, section 2.1). The
/// route is the pattern, never the path, so that the number of series is bounded.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Counters<2>,
    duration: Histograms<2>,
}

impl HttpMetrics {
    /// Registers both families.
    pub fn register(registry: &mut Registry) -> Self {
        let labels = ["route", "code"];
        let known = &[[UNMATCHED, "404"]];
        Self {
            requests: registry.counters("http_requests_total", "HTTP requests answered", labels, known),
            duration: registry.histograms(
                "http_request_duration_seconds",
                "Time from a request to the head of its response",
                labels,
                BOUNDS,
                known,
            ),
        }
    }

    pub(crate) fn record(&self, route: &str, code: u16, duration: Duration) {
        let code = code.to_string();
        self.requests.with([route, &code]).inc();
        self.duration.with([route, &code]).observe(duration.as_secs_f64());
    }
}
