//! A controller, a BMC and an artifact, ready for jobs; and the API as a script would use it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::controller::Controller;
use testkit::http::{self, Response};
use testkit::machine::Firmware;
use testkit::process::run;
use testkit::{commands, wait};

use super::bmc::{self, System};
use super::metrics::Metrics;
use super::{LIMIT, LOOK, media};

/// The controller's webhook secret.
pub(crate) const WEBHOOK_SECRET: &str = "webhook/secret-of-the-floor";
/// What signs the media URLs.
pub(crate) const SIGNING_SECRET: &str = "signed-url/secret-of-the-floor";
/// What is installed.
pub(crate) const ARTIFACT: &str = "os-images/tiny:1";

/// Settings that make waits short and let a script ask as often as it likes.
const SETTINGS: [(&str, &str); 7] = [
    ("CALLBACK_URL", ""),
    ("MEDIA_URL", ""),
    ("SIGNED_URL_SECRET", SIGNING_SECRET),
    ("RATE_LIMIT_RPM", "60000"),
    ("RATE_LIMIT_BURST", "10000"),
    ("JOB_POWER_POLL", "500ms"),
    ("REDFISH_RETRIES", "2"),
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Floor {
    pub controller: Controller,
    work: PathBuf,
    user: Option<(String, String)>,
}

impl Floor {
    /// Starts a controller that has a maintenance ISO and an artifact. `settings` override those of the floor.
    pub(crate) fn start(work: &Path, maintenance: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let floor = Self::bare(work, settings)?;
        floor.add_maintenance_iso(maintenance)?;
        floor.push_artifact()?;
        Ok(floor)
    }

    /// Starts a controller that has neither.
    pub(crate) fn bare(work: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        std::fs::create_dir_all(work).with_context(|| format!("make {}", work.display()))?;
        let all: Vec<(&str, &str)> = SETTINGS.iter().chain(settings).copied().collect();
        let controller = Controller::start(work, WEBHOOK_SECRET, &all)?;
        Ok(Self { controller, work: work.to_owned(), user: None })
    }

    /// Logs in with HTTP Basic from now on.
    pub(crate) fn log_in(&mut self, user: &str, password: &str) -> Result<()> {
        let file = self.work.join("user-password");
        write_secret(&file, password)?;
        let file = file.display().to_string();
        self.controller.set_client(&[("CAIRN_USER", user), ("CAIRN_PASSWORD_FILE", &file)]);
        self.user = Some((user.to_owned(), password.to_owned()));
        Ok(())
    }

    /// Puts the maintenance ISO where it is served from.
    pub(crate) fn add_maintenance_iso(&self, iso: &Path) -> Result<()> {
        let place = self.controller.data().join("static/isos/bootc-maintenance.iso");
        std::fs::copy(iso, &place).with_context(|| format!("put the maintenance ISO to {}", place.display()))?;
        Ok(())
    }

    /// Pushes what is installed.
    pub(crate) fn push_artifact(&self) -> Result<()> {
        // Not a root file system: nobody unpacks it here.
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let file = tar_of(&self.work, "tiny", &bytes)?;
        self.controller.command(&commands::artifact_push(ARTIFACT, &file)).map(drop)
    }

    /// The directory of this floor.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// Makes a server's record; `bmc` is the BMC's address, `more` further keys of the record.
    pub(crate) fn add_server(&self, serial: &str, bmc: &str, system: System, more: &Value) -> Result<Response> {
        let mut record = json!({
            "bmc": {"address": bmc, "username": bmc::USER, "password": bmc::PASSWORD, "system": system.uuid}
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            record[key] = value.clone();
        }
        let answer = self.put(&format!("/api/v1/servers/{serial}"), &record)?;
        ensure!(matches!(answer.status, 200 | 201), "PUT {serial}: {} {}", answer.status, answer.text());
        Ok(answer)
    }

    /// The recipe of most jobs.
    pub(crate) fn recipe() -> Value {
        commands::recipe(Firmware::Uefi, "DISK-1", ARTIFACT)
    }

    /// Posts a job that must be taken; gives back its id.
    pub(crate) fn order(&self, serial: &str) -> Result<String> {
        let answer = self.post_job(serial, &Self::recipe(), &[])?;
        ensure!(answer.status == 202, "POST for {serial}: {} {}", answer.status, answer.text());
        text(&answer.json()?, "job_id")
    }

    /// Posts a job.
    pub(crate) fn post_job(&self, serial: &str, recipe: &Value, headers: &[(&str, &str)]) -> Result<Response> {
        let body = json!({"server_serial": serial, "recipe": recipe}).to_string();
        self.request("POST", "/api/v1/jobs", headers, body.as_bytes())
    }

    /// Asks for a job's end.
    pub(crate) fn cancel(&self, id: &str) -> Result<Response> {
        self.request("POST", &format!("/api/v1/jobs/{id}/cancel"), &[], b"{}")
    }

    /// A job with its history.
    pub(crate) fn job(&self, id: &str) -> Result<Value> {
        let answer = self.get(&format!("/api/v1/jobs/{id}"))?;
        ensure!(answer.status == 200, "GET job {id}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Waits until `found` is true of a job.
    pub(crate) fn wait_job(&self, id: &str, what: &str, found: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait::until(&format!("job {id}: {what}"), LIMIT, LOOK, || {
            last = self.job(id)?;
            Ok(found(&last).then(|| last.clone()))
        });
        waited.with_context(|| format!("the job: {last:#}"))
    }

    /// Waits until a job is in a phase; fails when it is complete before.
    pub(crate) fn wait_phase(&self, id: &str, phase: &str) -> Result<Value> {
        let job = self.wait_job(id, phase, |job| job["phase"] == phase || job["status"] == "complete")?;
        ensure!(job["phase"] == phase, "the job went past {phase}: {job:#}");
        Ok(job)
    }

    /// Waits until a job is complete.
    pub(crate) fn wait_complete(&self, id: &str) -> Result<Value> {
        self.wait_job(id, "complete", |job| job["status"] == "complete")
    }

    /// One scrape of /metrics.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let answer = http::get(&format!("{}/metrics", self.controller.url()))?;
        ensure!(answer.status == 200, "GET /metrics: {}", answer.status);
        Ok(Metrics(answer.text()))
    }

    /// Value of a metric; the sum where `labels` leave several.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        self.metrics()?.sum(name, labels).with_context(|| format!("no {name} {labels:?} in /metrics"))
    }

    pub(crate) fn get(&self, path: &str) -> Result<Response> {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Response> {
        self.request("PUT", path, &[], body.to_string().as_bytes())
    }

    /// Any request to the controller, as the user who is logged in.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let proof = self.user.as_ref().map(|(user, password)| basic(user, password));
        let mut all = vec![("Content-Type", "application/json")];
        all.extend(proof.as_deref().map(|proof| ("Authorization", proof)));
        all.extend(headers);
        http::request(method, &format!("{}{path}", self.controller.url()), &all, body)
    }
}

/// Makes the ISO that every floor of a scenario copies.
pub(crate) fn maintenance_iso(work: &Path) -> Result<PathBuf> {
    media::maintenance_iso(work)
}

/// Value of `Authorization`.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Writes a file that only its owner can read.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}

/// A text of a JSON object.
pub(crate) fn text(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {value}"))
}

/// The steps of a job's history, oldest first; those without one are left out.
pub(crate) fn steps(job: &Value) -> Vec<String> {
    let events = job["events"].as_array().into_iter().flatten();
    events.filter_map(|event| event["step"].as_str().map(str::to_owned)).collect()
}

/// How often a step is in a job's history.
pub(crate) fn count(job: &Value, step: &str) -> usize {
    steps(job).iter().filter(|other| *other == step).count()
}

/// Fails unless an answer is this error.
pub(crate) fn expect(answer: &Response, status: u16, code: &str) -> Result<Value> {
    let body = answer.json().unwrap_or_default();
    if answer.status != status || body["code"] != code || body["error"] != code {
        bail!("{status} {code} was expected, not {} {}", answer.status, answer.text());
    }
    Ok(body)
}

/// A tar archive `<name>.tar` with one file of these bytes.
pub(crate) fn tar_of(directory: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf> {
    std::fs::write(directory.join(name), bytes)?;
    let archive = directory.join(format!("{name}.tar"));
    let mut tar = Command::new("tar");
    run(tar.args(["--format=ustar", "-C"]).arg(directory).arg("-cf").arg(&archive).arg(name))?;
    Ok(archive)
}
