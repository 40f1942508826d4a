//! The terminal report, and what comes after it.

use std::path::Path;
use std::time::Duration;

use cairn_core::Clock;
use host::{Command, Host, LockError, LockFile};
use recipe::callback::{Report, ReportStatus};
use uuid::Uuid;

use super::post::{Patience, Taken, deliver};
use crate::arguments::Ending;
use crate::failure::{FailedUnit, Failure, code};
use crate::http::{self, Trust};
use crate::workspace::{Paths, Workspace};

/// File of the workspace that says whether the new system can report its first boot.
pub const FIRST_BOOT_REPORTER: &str = "first-boot-reporter.json";

/// Time for one attempt.
const TIME: Duration = Duration::from_secs(15);

/// How reporting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// The controller has taken it.
    Accepted,
    /// The controller does not want it; another attempt would change nothing.
    Refused(String),
    /// Another process reports already.
    Elsewhere,
}

/// Reports the ending and, when the controller has taken it, powers the machine off.
///
/// Before a success everything is unmounted and written back; when that fails, the report says failed.
///
/// # Errors
/// The controller could not be reached, or there is no job to report about. The machine stays on.
pub fn run(
    host: &dyn Host,
    paths: &Paths,
    ending: &Ending,
    power_off: bool,
    patience: Patience,
    clock: &dyn Clock,
) -> Result<Reported, Failure> {
    let workspace = Workspace::new(&paths.run);
    let callback = workspace
        .callback()?
        .ok_or_else(|| Failure::new(code::MEDIUM_MISSING, "no job is known, so nobody can be told"))?;
    // Several units can set off a report at the same time; one is enough.
    let _lock = match LockFile::acquire(&workspace.path("report.lock"), &format!("process {}", std::process::id())) {
        Ok(lock) => lock,
        Err(LockError::Held { .. }) => return Ok(Reported::Elsewhere),
        Err(error) => return Err(Failure::of(code::STATE_UNWRITABLE)(error)),
    };
    let failed = match ending {
        Ending::Failed { unit } => Some(failed_unit(&workspace, unit)),
        Ending::Success => settle(host, &paths.new_root)
            .err()
            .map(|failure| FailedUnit { unit: "provision-success.service".to_owned(), failure }),
    };
    let report = Report { job_id: Some(callback.job_id), ..report(&workspace, failed, clock)? };
    let body = serde_json::to_vec(&report).map_err(Failure::of(code::STATE_UNWRITABLE))?;
    let client = http::client(Some(TIME), TIME, Trust::System)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::of(code::STATE_UNWRITABLE))?;
    match runtime.block_on(deliver(&client, &callback.webhook_url, &callback.webhook_token, &body, patience)) {
        Taken::Accepted => {
            if power_off {
                host.run(&Command::new("systemctl").arg("poweroff")).map_err(Failure::of(code::START_FAILED))?;
            }
            Ok(Reported::Accepted)
        }
        Taken::Refused(reason) => Ok(Reported::Refused(reason)),
        Taken::Lost(reason) => Err(Failure::new("webhook_unreachable", format!("the report was not taken: {reason}"))),
    }
}

/// The unit that failed first and why, if it was kept; else the unit that systemd names.
fn failed_unit(workspace: &Workspace, unit: &str) -> FailedUnit {
    workspace.failure().ok().flatten().unwrap_or_else(|| {
        let failure = Failure::new("unit_failed", format!("{unit} failed; its log is on the console"));
        FailedUnit { unit: unit.to_owned(), failure }
    })
}

/// Everything that was written is on the disk, and nothing of the new system is mounted.
fn settle(host: &dyn Host, new_root: &Path) -> Result<(), Failure> {
    host::unmount_below(host, new_root).map_err(Failure::of(code::MOUNT_FAILED))?;
    let left = host.mounts().map_err(Failure::of(code::MOUNT_FAILED))?;
    if let Some(mounted) = left.iter().find(|mounted| mounted.target.starts_with(new_root)) {
        return Err(Failure::new(code::MOUNT_FAILED, format!("{} is still mounted", mounted.target.display())));
    }
    rustix::fs::sync();
    Ok(())
}

fn report(workspace: &Workspace, failed: Option<FailedUnit>, clock: &dyn Clock) -> Result<Report, Failure> {
    let workflow = workspace.workflow().unwrap_or_default();
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let first_boot_reporter = workspace.read_json(FIRST_BOOT_REPORTER).ok().flatten();
    let status = if failed.is_some() { ReportStatus::Failed } else { ReportStatus::Success };
    let (unit, failure) = failed.map(|failed| (failed.unit, failed.failure)).unzip();
    let (message, code) = failure.map(|failure| (failure.message, failure.code)).unzip();
    Ok(Report {
        status,
        failed_step: unit,
        delivery_id: Some(delivery_id(workspace, status)?),
        job_id: None,
        task_target: given(workflow.task_target),
        dispatcher_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        schema_id: workflow.schema_id,
        started_at: given(workflow.started_at),
        finished_at: Some(clock.now().to_string()),
        message,
        code,
        first_boot_reporter,
    })
}

/// Made once for each ending and kept, so that the controller can tell a retry from another report.
fn delivery_id(workspace: &Workspace, status: ReportStatus) -> Result<String, Failure> {
    let name = match status {
        ReportStatus::Success => "delivery-id-success",
        ReportStatus::Failed => "delivery-id-failed",
    };
    if let Some(id) = workspace.read(name)?.and_then(|text| Uuid::try_parse_ascii(text.trim_ascii()).ok()) {
        return Ok(id.to_string());
    }
    let id = Uuid::new_v4().to_string();
    workspace.write(name, id.as_bytes())?;
    Ok(id)
}
