//! From OpenMetrics text, which the metrics library writes, to the Prometheus text format 0.0.4, which everything reads.

/// Content type of Prometheus text (prometheus.io/docs/instrumenting/exposition_formats).
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Content type of OpenMetrics text (OpenMetrics 1.0, section "Negotiation").
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the caller wants OpenMetrics: it names it, and likes it at least as much as plain text.
pub(super) fn wants_open_metrics(accept: Option<&str>) -> bool {
    let Some(accept) = accept else { return false };
    let quality = |wanted: &str| {
        accept
            .split(',')
            .filter(|range| range.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(wanted)))
            .map(|range| {
                let q = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
                q.and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0)
            })
            .fold(0.0, f32::max)
    };
    let open_metrics = quality("application/openmetrics-text");
    open_metrics > 0.0 && open_metrics >= quality("text/plain")
}

/// The same samples in Prometheus text. There the HELP and TYPE lines of a counter carry the name as sampled
/// (`job_total`), while OpenMetrics names the family (`job`); UNIT and EOF lines do not exist, `unknown` is `untyped`.
pub(super) fn to_prometheus_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // HELP comes before TYPE, and only TYPE tells the name that HELP must carry.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').or(Some((rest, "")));
            continue;
        }
        let Some((family, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let (suffix, kind) = match kind {
            "counter" => ("_total", "counter"),
            "info" => ("_info", "gauge"),
            "unknown" => ("", "untyped"),
            other => ("", other),
        };
        if let Some((_, help)) = help.take().filter(|(name, _)| *name == family) {
            text.push_str(&format!("# HELP {family}{suffix} {help}\n"));
        }
        text.push_str(&format!("# TYPE {family}{suffix} {kind}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_get_the_name_of_their_samples() {
        let open_metrics = "# HELP job Jobs.\n# TYPE job counter\njob_total{status=\"failed\"} 0\n\
            # HELP took_seconds How long.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\n\
            took_seconds_sum 0.0\ntook_seconds_count 0\ntook_seconds_bucket{le=\"+Inf\"} 0\n\
            # HELP build Build.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
            # TYPE odd unknown\nodd 4\n# EOF\n";
        assert_eq!(
            to_prometheus_text(open_metrics),
            "# HELP job_total Jobs.\n# TYPE job_total counter\njob_total{status=\"failed\"} 0\n\
            # HELP took_seconds How long.\n# TYPE took_seconds histogram\n\
            took_seconds_sum 0.0\ntook_seconds_count 0\ntook_seconds_bucket{le=\"+Inf\"} 0\n\
            # HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
            # TYPE odd untyped\nodd 4\n"
        );
    }

    #[test]
    fn open_metrics_only_when_asked() {
        assert!(!wants_open_metrics(None));
        assert!(!wants_open_metrics(Some("*/*")));
        assert!(!wants_open_metrics(Some("text/plain;version=0.0.4")));
        assert!(!wants_open_metrics(Some("application/openmetrics-text;q=0")));
        assert!(!wants_open_metrics(Some("application/openmetrics-text;q=0.1, text/plain;q=0.5")));
        assert!(wants_open_metrics(Some(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
        )));
    }
}
