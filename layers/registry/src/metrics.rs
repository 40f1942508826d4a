//! The registry's metrics: those of the runbook's section 2.1, and what its sections 2.4 and 3 imply. Every family and
//! every label set is there from the start, at 0.

use std::time::Duration;

use observe::metrics::{Counter, Counters, Gauge, Gauges, Histograms, Registry};
use oci_registry::server::Route;

use crate::model::RunKind;

const BOUNDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0];

/// Statuses that requests end with; any other is counted as `other`.
const CODES: &[u16] =
    &[200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 405, 408, 409, 413, 416, 429, 499, 500, 502, 503, 507];
/// Those that every route has from the start.
const COMMON: &[&str] = &["200", "401", "404", "500", "other"];

/// `registry_*`.
#[derive(Clone)]
pub struct RegistryMetrics {
    /// `registry_upload_bytes_total`.
    pub upload_bytes: Counter,
    /// `registry_download_bytes_total`.
    pub download_bytes: Counter,
    /// `registry_inflight_uploads`.
    pub inflight_uploads: Gauge,
    /// `registry_upload_errors_total`: requests to upload sessions that failed, other than for lack of a login.
    pub upload_errors: Counter,
    /// `registry_blob_count`.
    pub blobs: Gauge,
    /// `registry_storage_bytes`.
    pub bytes: Gauge,
    /// `registry_quarantine_bytes`.
    pub quarantine_bytes: Gauge,
    /// `registry_free_bytes`: on the disk of the registry.
    pub free_bytes: Gauge,
    /// `registry_read_only`: 1 when nobody may push or delete.
    pub read_only: Gauge,
    /// `registry_login_failures_total`: wrong passwords for users of the registry's own file.
    pub login_failures: Counter,
    /// `registry_audit_lost_total`: entries that are missing in the table or in the file.
    pub audit_lost: Counter,
    /// `registry_gc_freed_bytes_total`: bytes of blobs that went to quarantine.
    pub freed_bytes: Counter,
    /// `registry_gc_blobs_deleted_total`: blobs that went to quarantine.
    pub freed_blobs: Counter,
    /// `registry_retention_tags_removed_total`.
    pub tags_removed: Counter,
    duration: Histograms<2>,
    runs: Counters<2>,
    last_success: Gauges<1>,
    last_duration: Gauges<1>,
}

impl RegistryMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let requests: Vec<[&str; 2]> = Route::ALL
            .into_iter()
            .flat_map(|route| COMMON.iter().map(move |code| [route.as_str(), *code]))
            .chain([["uploads", "201"], ["uploads", "202"], ["manifest", "201"], ["blob", "206"]])
            .collect();
        let kinds = RunKind::ALL.map(|kind| [kind.as_str()]);
        let results: Vec<[&str; 2]> = RunKind::ALL
            .into_iter()
            .flat_map(|kind| ["done", "failed", "skipped"].map(move |result| [kind.as_str(), result]))
            .collect();
        Self {
            upload_bytes: registry.counter("registry_upload_bytes_total", "Bytes pushed"),
            download_bytes: registry.counter("registry_download_bytes_total", "Bytes pulled"),
            inflight_uploads: registry.gauge("registry_inflight_uploads", "Uploads under way"),
            upload_errors: registry.counter("registry_upload_errors_total", "Requests to upload sessions that failed"),
            blobs: registry.gauge("registry_blob_count", "Blobs stored"),
            bytes: registry.gauge("registry_storage_bytes", "Bytes stored"),
            quarantine_bytes: registry.gauge("registry_quarantine_bytes", "Bytes in quarantine"),
            free_bytes: registry.gauge("registry_free_bytes", "Bytes free on the disk of the registry"),
            read_only: registry.gauge("registry_read_only", "1 when nobody may push or delete"),
            login_failures: registry
                .counter("registry_login_failures_total", "Wrong passwords for users of the registry's own file"),
            audit_lost: registry
                .counter("registry_audit_lost_total", "Audit entries that are missing in the table or in the file"),
            freed_bytes: registry.counter("registry_gc_freed_bytes_total", "Bytes of blobs that were collected"),
            freed_blobs: registry.counter("registry_gc_blobs_deleted_total", "Blobs that were collected"),
            tags_removed: registry.counter("registry_retention_tags_removed_total", "Tags that retention has removed"),
            duration: registry.histograms(
                "registry_request_duration_seconds",
                "Requests to the registry",
                ["route", "code"],
                BOUNDS,
                &requests,
            ),
            runs: registry.counters(
                "registry_gc_runs_total",
                "Collections, restores, retentions and checks by how they ended",
                ["kind", "result"],
                &results,
            ),
            last_success: registry.gauges(
                "registry_gc_last_success_timestamp_seconds",
                "When such a run last ended well",
                ["kind"],
                &kinds,
            ),
            last_duration: registry.gauges(
                "registry_gc_last_duration_seconds",
                "How long the last such run took",
                ["kind"],
                &kinds,
            ),
        }
    }

    pub(crate) fn request(&self, route: Route, status: u16, duration: Duration) {
        let code = if CODES.contains(&status) { status.to_string() } else { "other".to_owned() };
        self.duration.with([route.as_str(), &code]).observe(duration.as_secs_f64());
        if route == Route::Uploads && status >= 400 && !matches!(status, 401 | 403..=405) {
            self.upload_errors.inc();
        }
    }

    /// A run of this kind ended well at `now` (Unix seconds).
    pub(crate) fn run_done(&self, kind: RunKind, now: i64, took: Duration) {
        self.runs.with([kind.as_str(), "done"]).inc();
        self.run_known(kind, now);
        self.last_duration.with([kind.as_str()]).set(i64::try_from(took.as_secs()).unwrap_or(i64::MAX));
    }

    /// A run of this kind ended well at that time, maybe in an earlier process.
    pub(crate) fn run_known(&self, kind: RunKind, at: i64) {
        self.last_success.with([kind.as_str()]).set(at);
    }

    pub(crate) fn run_failed(&self, kind: RunKind) {
        self.runs.with([kind.as_str(), "failed"]).inc();
    }

    pub(crate) fn run_skipped(&self, kind: RunKind) {
        self.runs.with([kind.as_str(), "skipped"]).inc();
    }
}

/// A number as a gauge takes it.
pub(crate) fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
