//! The maintenance OS as the scenario plays it: it reads what the machine would boot, and reports with what it finds there.

use anyhow::{Context, Result, ensure};
use recipe::callback::Callback;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::http::{self, Response};

use super::bmc::{Bmc, System};
use super::floor::{Floor, basic};
use super::media;

/// A machine that has booted the media in its drives.
pub(crate) struct Guest {
    pub callback: Callback,
    /// The task ISO.
    pub task: Vec<u8>,
    /// Where the BMC has its media from: the one that holds the task comes last.
    pub images: Vec<String>,
    system: System,
}

impl Guest {
    /// Boots: waits until the controller awaits its report, reads the drives, and takes the task from the media.
    pub(crate) fn boot(floor: &Floor, job: &str, bmc: &Bmc, system: System) -> Result<Self> {
        floor.wait_phase(job, "await-report")?;
        ensure!(bmc.power(system)? == "On", "the machine is not on");
        let target = bmc.system(system)?["Boot"]["BootSourceOverrideTarget"].clone();
        ensure!(target == "Cd", "the machine boots from {target}");
        let images: Vec<String> = bmc.media(system)?.into_iter().map(|(_, image)| image).collect();
        let last = images.last().context("the drives are empty")?;
        let medium = fetch(last)?;
        let task = match images.len() {
            1 => media::file(&medium, "/TASK.IMG")?,
            _ => medium,
        };
        let text = media::file(&task, "/callback.json")?;
        let callback: Callback = serde_json::from_slice(&text).context("read callback.json")?;
        Ok(Self { callback, task, images, system })
    }

    /// A file of the task ISO.
    pub(crate) fn file(&self, path: &str) -> Result<Vec<u8>> {
        media::file(&self.task, path)
    }

    /// Pulls the artifact with the job's own credentials and checks every digest; gives back the layer.
    pub(crate) fn pull(&self) -> Result<Vec<u8>> {
        let artifact = self.callback.artifact.as_ref().context("there is no artifact")?;
        let base = format!("{}v2/{}", artifact.registry, artifact.repository);
        let credentials = artifact.credentials.as_ref().context("there are no credentials")?;
        let proof = basic(&credentials.username, &credentials.password);
        let get = |path: String, digest: &str| {
            let accept = "application/vnd.oci.image.manifest.v1+json";
            let headers = [("Authorization", proof.as_str()), ("Accept", accept)];
            let answer = http::request("GET", &format!("{base}/{path}"), &headers, b"")?;
            ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
            ensure!(format!("sha256:{}", hex(&Sha256::digest(&answer.body))) == digest, "{path} is not {digest}");
            Ok::<_, anyhow::Error>(answer)
        };
        let manifest = get(format!("manifests/{}", artifact.digest), &artifact.digest)?.json()?;
        let layer = manifest["layers"][0]["digest"].as_str().context("layers[0].digest")?.to_owned();
        Ok(get(format!("blobs/{layer}"), &layer)?.body)
    }

    /// Posts how a step is doing.
    pub(crate) fn progress(&self, unit: &str, event: &str, message: &str) -> Result<Response> {
        let body = json!({"unit": unit, "event": event, "message": message});
        post(self.callback.progress_url.as_str(), &self.callback.webhook_token, &body)
    }

    /// Posts a terminal report.
    pub(crate) fn report(&self, body: &Value) -> Result<Response> {
        post(self.callback.webhook_url.as_str(), &self.callback.webhook_token, body)
    }

    /// The report of success, with this delivery id.
    pub(crate) fn success(&self, delivery: &str) -> Value {
        json!({"status": "success", "delivery_id": delivery, "job_id": self.callback.job_id,
               "task_target": "install-linux.target", "dispatcher_version": "0.0.0", "first_boot_reporter": true})
    }

    /// Works: two steps, then success; the report must be the first of its kind.
    pub(crate) fn install(&self, delivery: &str) -> Result<()> {
        for (unit, event) in [("partition.service", "started"), ("partition.service", "finished")] {
            let answer = self.progress(unit, event, "")?;
            ensure!(answer.status == 204, "progress: {} {}", answer.status, answer.text());
        }
        let answer = self.report(&self.success(delivery))?;
        ensure!(answer.status == 200 && answer.json()? == json!({"ok": true}), "report: {}", answer.text());
        Ok(())
    }

    /// Switches its machine off, as the maintenance OS does after its report.
    pub(crate) fn power_off(&self, bmc: &Bmc) -> Result<()> {
        bmc.reset(self.system, "GracefulShutdown")
    }

    /// The installed system has booted from its own disk.
    pub(crate) fn first_boot(&self) -> Result<Response> {
        post(self.callback.first_boot_url.as_str(), &self.callback.first_boot_token, &json!({}))
    }
}

/// Posts a report with a secret.
pub(crate) fn post(url: &str, secret: &str, body: &Value) -> Result<Response> {
    let headers = [("Content-Type", "application/json"), ("X-Webhook-Secret", secret)];
    http::request("POST", url, &headers, body.to_string().as_bytes())
}

fn fetch(url: &str) -> Result<Vec<u8>> {
    let answer = http::get(url)?;
    ensure!(answer.status == 200, "the medium: {} {}", answer.status, answer.text());
    Ok(answer.body)
}

/// Hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
