//! Numbers for Prometheus.
//!
//! Every family is registered at start and is there from the first scrape on, at 0: an alert on a rate needs a first
//! value to compare with. Names are written as they are sampled, so that a search for `job_total` finds its home.

mod exposition;
mod process;

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::registry::Metric;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;

pub use process::Disk;

/// One family, as it is listed in the golden file of metric names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The name as sampled.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of the labels.
    pub labels: Vec<&'static str>,
    /// What it counts.
    pub help: String,
}

/// All families of a process. Filled with `&mut` at start, then shared.
#[derive(Debug, Default)]
pub struct Registry {
    inner: prometheus_client::registry::Registry,
    described: Vec<Described>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter; `name` ends in `_total`.
    ///
    /// # Panics
    /// When the name is malformed or taken: a mistake in the program, seen at the first start. So do all the others.
    pub fn counter(&mut self, name: &str, help: &str) -> Counter {
        self.add(name, "counter", &[], help, Counter::default())
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        self.add(name, "gauge", &[], help, Gauge::default())
    }

    /// A histogram with these upper bounds; `+Inf` is added.
    pub fn histogram(&mut self, name: &str, help: &str, bounds: &'static [f64]) -> Histogram {
        self.add(name, "histogram", &[], help, Bounds(bounds).new_metric())
    }

    /// Counters told apart by labels. `known` label sets are there from start; give at least one.
    pub fn counters<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        known: &[[&str; N]],
    ) -> Counters<N> {
        let family = Labelled::new(labels, Family::default(), known);
        self.add(name, "counter", &labels, help, family.family.clone());
        Counters(family)
    }

    /// Gauges told apart by labels. `known` label sets are there from start; give at least one.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        known: &[[&str; N]],
    ) -> Gauges<N> {
        let family = Labelled::new(labels, Family::default(), known);
        self.add(name, "gauge", &labels, help, family.family.clone());
        Gauges(family)
    }

    /// Histograms told apart by labels. `known` label sets are there from start; give at least one.
    pub fn histograms<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        bounds: &'static [f64],
        known: &[[&str; N]],
    ) -> Histograms<N> {
        let family = Labelled::new(labels, Family::new_with_constructor(Bounds(bounds)), known);
        self.add(name, "histogram", &labels, help, family.family.clone());
        Histograms(family)
    }

    /// What the kernel says about this process: CPU, memory, descriptors, threads, start.
    pub fn process(&mut self) {
        for (name, kind, help) in process::PROCESS_FAMILIES {
            self.describe(name, kind, &[], help);
        }
        self.inner.register_collector(Box::new(process::ProcessCollector));
    }

    /// `go_goroutines`: tasks of the runtime in which this is called. The name is the one that metald's guide watches.
    pub fn tasks(&mut self) {
        let runtime = tokio::runtime::Handle::try_current().ok();
        let alive = move || runtime.as_ref().map_or(0, |runtime| runtime.metrics().num_alive_tasks());
        self.reading("go_goroutines", "Live tasks of this process", move || alive() as f64);
    }

    /// `disk_free_bytes` and `disk_total_bytes` of these directories.
    pub fn disks(&mut self, disks: Vec<Disk>) {
        for (name, help) in [process::DISK_FREE, process::DISK_TOTAL] {
            self.describe(name, "gauge", &["path"], help);
        }
        self.inner.register_collector(Box::new(process::DiskCollector(disks)));
    }

    /// A gauge whose value is read at every scrape.
    pub fn reading(&mut self, name: &str, help: &str, read: impl Fn() -> f64 + Send + Sync + 'static) {
        self.describe(name, "gauge", &[], help);
        let reading = process::Reading { name: name.to_owned(), help: help.to_owned(), read: Box::new(read) };
        self.inner.register_collector(Box::new(reading));
    }

    /// Content type and text of a scrape: Prometheus text 0.0.4, or OpenMetrics when the `Accept` header asks for it.
    pub fn render(&self, accept: Option<&str>) -> (&'static str, String) {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.inner).is_err() {
            tracing::error!("metrics could not be written");
        }
        if exposition::wants_open_metrics(accept) {
            return (exposition::OPEN_METRICS, text);
        }
        (exposition::TEXT, exposition::to_prometheus_text(&text))
    }

    /// Every family, in the order it was registered.
    pub fn described(&self) -> &[Described] {
        &self.described
    }

    fn add<M: Metric + Clone>(
        &mut self,
        name: &str,
        kind: &'static str,
        labels: &[&'static str],
        help: &str,
        metric: M,
    ) -> M {
        self.describe(name, kind, labels, help);
        // The library adds `_total` to the samples of a counter by itself.
        let family = if kind == "counter" { name.trim_end_matches("_total") } else { name };
        self.inner.register(family, help, metric.clone());
        metric
    }

    fn describe(&mut self, name: &str, kind: &'static str, labels: &[&'static str], help: &str) {
        let well_formed = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        assert!(well_formed(name), "{name:?} is no metric name");
        assert!(labels.iter().all(|label| well_formed(label)), "{name}: a label of {labels:?} is malformed");
        assert!(kind != "counter" || name.ends_with("_total"), "{name}: the name of a counter ends in _total");
        assert!(self.described.iter().all(|other| other.name != name), "{name} is registered twice");
        self.described.push(Described { name: name.to_owned(), kind, labels: labels.to_vec(), help: help.to_owned() });
    }
}

/// A label set: the names are those of the family, so only the values tell two of them apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels<const N: usize>([(&'static str, String); N]);

impl<const N: usize> EncodeLabelSet for Labels<N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Debug, Clone, Copy)]
struct Bounds(&'static [f64]);

impl MetricConstructor<Histogram> for Bounds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[derive(Debug)]
struct Labelled<const N: usize, M, C = fn() -> M> {
    names: [&'static str; N],
    family: Family<Labels<N>, M, C>,
}

impl<const N: usize, M, C: Clone> Clone for Labelled<N, M, C> {
    fn clone(&self) -> Self {
        Self { names: self.names, family: self.family.clone() }
    }
}

impl<const N: usize, M: Clone, C: MetricConstructor<M>> Labelled<N, M, C> {
    fn new(names: [&'static str; N], family: Family<Labels<N>, M, C>, known: &[[&str; N]]) -> Self {
        let labelled = Self { names, family };
        for values in known {
            labelled.with(*values);
        }
        labelled
    }

    fn with(&self, values: [&str; N]) -> M {
        self.family.get_or_create_owned(&self.labels(values))
    }
}

impl<const N: usize, M, C> Labelled<N, M, C> {
    fn labels(&self, values: [&str; N]) -> Labels<N> {
        Labels(std::array::from_fn(|at| (self.names[at], values[at].to_owned())))
    }
}

/// Counters told apart by labels.
#[derive(Debug, Clone)]
pub struct Counters<const N: usize>(Labelled<N, Counter>);

impl<const N: usize> Counters<N> {
    /// The counter with these label values, in the order of the names.
    pub fn with(&self, values: [&str; N]) -> Counter {
        self.0.with(values)
    }
}

/// Gauges told apart by labels.
#[derive(Debug, Clone)]
pub struct Gauges<const N: usize>(Labelled<N, Gauge>);

impl<const N: usize> Gauges<N> {
    /// The gauge with these label values, in the order of the names.
    pub fn with(&self, values: [&str; N]) -> Gauge {
        self.0.with(values)
    }

    /// Takes a series away whose subject is gone, so that it is not shown for ever.
    pub fn forget(&self, values: [&str; N]) {
        self.0.family.remove(&self.0.labels(values));
    }
}

/// Histograms told apart by labels.
#[derive(Debug, Clone)]
pub struct Histograms<const N: usize>(Labelled<N, Histogram, Bounds>);

impl<const N: usize> Histograms<N> {
    /// The histogram with these label values, in the order of the names.
    pub fn with(&self, values: [&str; N]) -> Histogram {
        self.0.with(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_there_from_start() {
        let mut registry = Registry::new();
        let jobs = registry.counters("job_total", "Jobs", ["status"], &[["failed"], ["succeeded"]]);
        registry.gauge("registry_inflight_uploads", "Uploads under way");
        registry.histogram("webhook_processing_duration_seconds", "Webhooks", &[0.5, 1.0]);
        jobs.with(["failed"]).inc();
        let (kind, text) = registry.render(None);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        for line in [
            "# TYPE job_total counter",
            "job_total{status=\"failed\"} 1",
            "job_total{status=\"succeeded\"} 0",
            "registry_inflight_uploads 0",
            "webhook_processing_duration_seconds_bucket{le=\"+Inf\"} 0",
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn a_series_can_go_and_a_reading_is_read_at_every_scrape() {
        let mut registry = Registry::new();
        let active = registry.gauges("active", "Active", ["who"], &[["a"], ["b"]]);
        registry.reading("half", "Half", || 0.5);
        active.forget(["a"]);
        let (_, text) = registry.render(None);
        assert!(text.contains("active{who=\"b\"} 0") && !text.contains("who=\"a\""), "{text}");
        assert!(text.contains("# TYPE half gauge\nhalf 0.5\n"), "{text}");
    }

    #[test]
    fn open_metrics_is_given_when_asked_for() {
        let mut registry = Registry::new();
        registry.counter("job_total", "Jobs");
        let (kind, text) = registry.render(Some("application/openmetrics-text"));
        assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(text.contains("# TYPE job counter\n") && text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    #[should_panic(expected = "job_total is registered twice")]
    fn a_name_is_taken_once() {
        let mut registry = Registry::new();
        registry.counter("job_total", "Jobs");
        registry.counter("job_total", "Jobs");
    }

    #[test]
    #[should_panic(expected = "the name of a counter ends in _total")]
    fn a_counter_is_named_as_sampled() {
        Registry::new().counter("jobs", "Jobs");
    }
}
