//! Reads the text format of /metrics.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(pub String);

impl Metrics {
    /// Sum over the samples of `name` whose labels contain all of `labels`; nothing when there is no such sample.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let values: Vec<f64> = self
            .samples()
            .filter(|(series, _)| {
                let (family, labels) = series.split_once('{').unwrap_or((series, ""));
                family == name && wanted.iter().all(|label| labels.contains(label.as_str()))
            })
            .map(|(_, value)| value)
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Families and their types.
    pub(crate) fn families(&self) -> BTreeMap<&str, &str> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        lines.collect()
    }

    /// Families that have at least one sample.
    pub(crate) fn sampled(&self) -> BTreeSet<&str> {
        let families = self.families();
        self.samples()
            .filter_map(|(series, _)| {
                let name = series.split('{').next().unwrap_or_default();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                [Some(name), base].into_iter().flatten().find_map(|name| families.get_key_value(name))
            })
            .map(|(name, _)| *name)
            .collect()
    }

    /// Upper bounds of a histogram.
    pub(crate) fn bounds(&self, name: &str) -> BTreeSet<String> {
        let bucket = format!("{name}_bucket{{");
        let bound = |line: &str| {
            let (_, rest) = line.strip_prefix(bucket.as_str())?.split_once("le=\"")?;
            Some(rest.split('"').next()?.to_owned())
        };
        self.0.lines().filter_map(bound).collect()
    }

    fn samples(&self) -> impl Iterator<Item = (&str, f64)> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series, value.parse().ok()?))
        })
    }
}
