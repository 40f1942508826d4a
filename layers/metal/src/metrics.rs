//! The metal layer's metrics (runbook 2.1, and what 2.4 and 3 imply). Names are the manual's.

use std::time::Duration;

use jiff::Timestamp;
use observe::metrics::{Counter, Counters, Gauge, Gauges, Histogram, Histograms, Registry};

use crate::model::{Job, JobOutcome, Phase, Status};
use crate::store::Ending;

const BMC_BOUNDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const JOB_BOUNDS: &[f64] =
    &[60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 2700.0, 3600.0, 5400.0, 6600.0, 7200.0, 9000.0, 14400.0];
const PHASE_BOUNDS: &[f64] = &[0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0];
const WEBHOOK_BOUNDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const ISO_BOUNDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

const TARGET: &str = "install-linux.target";

/// Every family is there from the start, at 0.
#[derive(Clone)]
pub struct Metrics {
    /// `job_total{status}`: jobs that entered a state.
    pub jobs: Counters<1>,
    /// `job_duration_seconds{outcome,task_target}`: from POST to the end of the work on the machine.
    pub job_duration: Histograms<2>,
    /// `job_transitions_total{from,to}`.
    pub transitions: Counters<2>,
    /// `jobs_active{status}`.
    pub active: Gauges<1>,
    /// `jobs_provisioning_stuck{task_target}`.
    pub stuck: Gauges<1>,
    /// `job_failures_total{step,task_target}`.
    pub failures: Counters<2>,
    /// `provisioning_phase_duration_seconds{phase}`.
    pub phase_duration: Histograms<1>,
    /// `cleanup_duration_seconds`.
    pub cleanup_duration: Histogram,
    /// `redfish_request_duration_seconds{op,vendor}`.
    pub bmc_duration: Histograms<2>,
    /// `redfish_requests_total{op,code,vendor}`.
    pub bmc_requests: Counters<3>,
    /// `redfish_retries_total{op,vendor}`.
    pub bmc_retries: Counters<2>,
    /// `redfish_poll_timeout_total`.
    pub bmc_poll_timeouts: Counter,
    /// `redfish_ready_duration_seconds`: from switching on to the BMC saying On.
    pub bmc_ready: Histogram,
    /// `webhook_received_total{status}`.
    pub webhooks: Counters<1>,
    /// `webhook_processing_duration_seconds`.
    pub webhook_duration: Histogram,
    /// `webhook_auth_failures_total`.
    pub webhook_auth_failures: Counter,
    /// `webhook_duplicates_total`.
    pub webhook_duplicates: Counter,
    /// `webhook_old_secret_total`: how far a rotation has come.
    pub webhook_old_secret: Counter,
    /// `iso_build_duration_seconds`.
    pub iso_duration: Histogram,
    /// `iso_build_failures_total`.
    pub iso_failures: Counter,
    /// `iso_size_bytes`: of the newest task ISO.
    pub iso_size: Gauge,
    /// `media_requests_total{code}`.
    pub media_requests: Counters<1>,
    /// `media_signed_url_validation_failures_total`.
    pub media_refused: Counter,
    /// `login_auth_failures_total`.
    pub login_failures: Counter,
    /// `first_boot_total{result}`.
    pub first_boots: Counters<1>,
}

impl Metrics {
    /// Registers all of the layer's families.
    pub fn register(registry: &mut Registry) -> Self {
        let statuses = Status::ALL.map(|status| [status.as_str()]);
        let outcomes = [JobOutcome::Succeeded, JobOutcome::Failed, JobOutcome::Cancelled];
        Self {
            jobs: registry.counters("job_total", "Jobs that entered a state", ["status"], &statuses),
            job_duration: registry.histograms(
                "job_duration_seconds",
                "From POST to the end of the work on the machine",
                ["outcome", "task_target"],
                JOB_BOUNDS,
                &outcomes.map(|outcome| [outcome.as_str(), TARGET]),
            ),
            transitions: registry.counters(
                "job_transitions_total",
                "Changes of state",
                ["from", "to"],
                &[
                    ["none", "queued"],
                    ["queued", "provisioning"],
                    ["queued", "failed"],
                    ["provisioning", "succeeded"],
                    ["provisioning", "failed"],
                    ["succeeded", "complete"],
                    ["failed", "complete"],
                ],
            ),
            active: registry.gauges("jobs_active", "Jobs in a state now", ["status"], &statuses[..4]),
            stuck: registry.gauges(
                "jobs_provisioning_stuck",
                "Provisioning jobs without a change for longer than their workflow may take",
                ["task_target"],
                &[[TARGET]],
            ),
            failures: registry.counters(
                "job_failures_total",
                "Failed jobs by step of the error taxonomy",
                ["step", "task_target"],
                &FAILURE_STEPS.map(|step| [step, TARGET]),
            ),
            phase_duration: registry.histograms(
                "provisioning_phase_duration_seconds",
                "Time in a phase of a job",
                ["phase"],
                PHASE_BOUNDS,
                &Phase::TIMED.map(|phase| [phase.as_str()]),
            ),
            cleanup_duration: registry.histogram(
                "cleanup_duration_seconds",
                "From the end of the work on the machine to complete",
                PHASE_BOUNDS,
            ),
            bmc_duration: registry.histograms(
                "redfish_request_duration_seconds",
                "Requests to BMCs",
                ["op", "vendor"],
                BMC_BOUNDS,
                &BMC_OPS.map(|op| [op, "unknown"]),
            ),
            bmc_requests: registry.counters(
                "redfish_requests_total",
                "Requests to BMCs; code is the HTTP status or error",
                ["op", "code", "vendor"],
                &BMC_OPS.map(|op| [[op, "200", "unknown"], [op, "error", "unknown"]]).concat(),
            ),
            bmc_retries: registry.counters(
                "redfish_retries_total",
                "Requests to BMCs that were tried again",
                ["op", "vendor"],
                &BMC_OPS.map(|op| [op, "unknown"]),
            ),
            bmc_poll_timeouts: registry.counter("redfish_poll_timeout_total", "Waits for a BMC that ran out of time"),
            bmc_ready: registry.histogram(
                "redfish_ready_duration_seconds",
                "From switching a machine on to its BMC saying so",
                BMC_BOUNDS,
            ),
            webhooks: registry.counters(
                "webhook_received_total",
                "Terminal reports",
                ["status"],
                &[["success"], ["failed"], ["duplicate"]],
            ),
            webhook_duration: registry.histogram(
                "webhook_processing_duration_seconds",
                "From receipt of a report to the change of state",
                WEBHOOK_BOUNDS,
            ),
            webhook_auth_failures: registry
                .counter("webhook_auth_failures_total", "Reports with a wrong secret or none"),
            webhook_duplicates: registry.counter("webhook_duplicates_total", "Reports that came again"),
            webhook_old_secret: registry
                .counter("webhook_old_secret_total", "Reports proved with the secret before the rotation"),
            iso_duration: registry.histogram("iso_build_duration_seconds", "Building a task ISO", ISO_BOUNDS),
            iso_failures: registry.counter("iso_build_failures_total", "Task ISOs that could not be built"),
            iso_size: registry.gauge("iso_size_bytes", "Size of the newest task ISO"),
            media_requests: registry.counters(
                "media_requests_total",
                "Requests for media",
                ["code"],
                &[["200"], ["206"], ["304"], ["403"], ["404"], ["416"]],
            ),
            media_refused: registry.counter(
                "media_signed_url_validation_failures_total",
                "Requests for media with an expired, tampered or missing signature",
            ),
            login_failures: registry.counter("login_auth_failures_total", "Failed logins"),
            first_boots: registry.counters(
                "first_boot_total",
                "First boots of installed systems",
                ["result"],
                &[["reported"], ["overdue"], ["unsupported"]],
            ),
        }
    }

    /// Counts a change of state.
    pub fn transition(&self, from: Option<Status>, to: Status) {
        self.jobs.with([to.as_str()]).inc();
        self.transitions.with([from.map_or("none", Status::as_str), to.as_str()]).inc();
    }

    /// Counts the end of a job's work on its machine.
    pub fn ended(&self, job: &Job, ending: &Ending, now: Timestamp) {
        let to = if ending.outcome == JobOutcome::Succeeded { Status::Succeeded } else { Status::Failed };
        self.transition(Some(Status::Provisioning), to);
        let duration = now.duration_since(job.created_at);
        let target = job.task_target.as_str();
        self.job_duration.with([ending.outcome.as_str(), target]).observe(duration.as_secs_f64());
        if let Some(failure) = ending.failure.as_ref().filter(|_| ending.outcome == JobOutcome::Failed) {
            let known = FAILURE_STEPS.into_iter().find(|step| *step == failure.step).unwrap_or("workflow.unknown");
            self.failures.with([known, target]).inc();
        }
        if ending.outcome == JobOutcome::Succeeded && !ending.first_boot_reporter {
            self.first_boots.with(["unsupported"]).inc();
        }
    }

    /// Observes how long something took.
    pub fn seconds(histogram: &Histogram, duration: Duration) {
        histogram.observe(duration.as_secs_f64());
    }
}

/// What is done at a BMC (spec of `op`, runbook 6.3).
const BMC_OPS: [&str; 9] = [
    "discover",
    "session.login",
    "session.logout",
    "mount.maintenance",
    "mount.task",
    "boot.override",
    "reset",
    "power",
    "cleanup.unmount",
];

/// Keys of the error taxonomy (design 032).
pub const FAILURE_STEPS: [&str; 17] = [
    "validation.server",
    "iso.build",
    "redfish.discover",
    "redfish.mount.maintenance",
    "redfish.mount.task",
    "redfish.boot-override",
    "redfish.reset",
    "redfish.poll",
    "workflow.dispatcher",
    "workflow.prepare-provision-mounts",
    "workflow.partition",
    "workflow.image-linux",
    "workflow.bootloader-linux",
    "workflow.config-drive",
    "workflow.unknown",
    "webhook.wait",
    "cleanup.unmount",
];
