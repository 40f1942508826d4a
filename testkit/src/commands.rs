//! Every command line of `cairn` that the demo and the scenarios use, and what they read from its answers.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::environment;
use crate::machine::Firmware;
use crate::redfish::Redfish;

/// Words of one command line, after the program's name.
pub type Words = Vec<String>;

fn words(list: &[&str]) -> Words {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Serves the metal layer.
pub fn serve(data: &Path, listen: &str) -> Words {
    words(&["serve", "--role", "metal", "--data-dir", &data.display().to_string(), "--listen", listen])
}

/// Serves a registry and nothing else.
pub fn registry_serve(data: &Path, listen: &str) -> Words {
    words(&["registry", "serve", "--data-dir", &data.display().to_string(), "--listen", listen])
}

/// Tells a controller who may pull from a registry elsewhere, and who signs its certificate.
pub fn registry_add(host: &str, account: Option<(&str, &Path)>, authority: &Path) -> Words {
    let mut list = words(&["metal", "registry", "add", host, "--ca", &authority.display().to_string()]);
    if let Some((user, password)) = account {
        list.extend(words(&["--pull-user", user, "--pull-password-file", &password.display().to_string()]));
    }
    list
}

/// Builds the maintenance image and puts it where a controller with this data directory serves it from.
pub fn image_build(data: &Path) -> Words {
    let out = data.join("static/isos/bootc-maintenance.iso");
    words(&["metal", "image", "build", "--output", &out.display().to_string()])
}

/// Builds the Debian root file system that the scenarios install.
pub fn image_root(out: &Path) -> Words {
    words(&["metal", "image", "root", "--output", &out.display().to_string()])
}

/// The same build from a lock that is renewed first: for archives that no longer have what the built-in lock names.
pub fn renewed(mut build: Words, lock: &Path) -> Words {
    build.extend(words(&["--refresh", "--lock", &lock.display().to_string()]));
    build
}

/// Pushes a root file system as an artifact.
pub fn artifact_push(name: &str, file: &Path) -> Words {
    words(&["metal", "artifact", "push", name, &file.display().to_string()])
}

/// Adds a server; the BMC's password is the file's content.
pub fn server_add(serial: &str, bmc: &Redfish, system: &str, password_file: &Path) -> Words {
    let (password, authority) = (password_file.display().to_string(), bmc.certificate.display().to_string());
    let mut list = words(&["metal", "server", "add", serial, "--bmc", &bmc.url, "--bmc-user", &bmc.user]);
    list.extend(words(&["--bmc-password-file", &password, "--bmc-ca", &authority, "--bmc-system", system]));
    list
}

/// Creates a job and prints it as JSON.
pub fn job_create(serial: &str, recipe: &Path) -> Words {
    words(&["metal", "job", "create", serial, "--recipe", &recipe.display().to_string(), "--json"])
}

/// Prints a job as JSON.
pub fn job_show(id: &str) -> Words {
    words(&["metal", "job", "show", id, "--json"])
}

/// Follows a job to its end.
pub fn job_watch(id: &str) -> Words {
    words(&["metal", "job", "watch", id])
}

/// Explains an error code.
pub fn explain(code: &str) -> Words {
    words(&["explain", code])
}

/// Settings of the controller by environment: what BMCs and guests of a user-mode network reach, and the secrets.
pub fn controller_environment(port: u16, webhook_secret: &str) -> Vec<(String, String)> {
    let pairs = [
        ("MEDIA_URL", format!("http://127.0.0.1:{port}")),
        ("CALLBACK_URL", format!("http://10.0.2.2:{port}")),
        ("WEBHOOK_SECRET", webhook_secret.to_owned()),
        // The share of a disk that others use, too, says nothing here.
        ("REGISTRY_MIN_FREE", "64MiB".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// How the command line finds the controller, and where it keeps what it builds images from.
pub fn client_environment(url: &str) -> Result<Vec<(String, String)>> {
    let cache = environment::cache()?.display().to_string();
    Ok(vec![("CAIRN_URL".to_owned(), url.to_owned()), ("CAIRN_CACHE".to_owned(), cache)])
}

/// A recipe that installs `artifact` on the disk with this serial number, for this firmware.
pub fn recipe(firmware: Firmware, disk_serial: &str, artifact: &str) -> Value {
    let boot = match firmware {
        Firmware::Uefi => json!({"size": "256M", "type_guid": "ef00", "format": "vfat", "label": "ESP"}),
        // GRUB's own partition on a GPT disk.
        Firmware::Bios => json!({"size": "2M", "type_guid": "21686148-6449-6E6F-744E-656564454649", "label": "grub"}),
    };
    json!({
        "task_target": "install-linux.target",
        "target_disk": {"serial": disk_serial},
        "oci_url": artifact,
        "partition_layout": [
            boot,
            {"size": "64M", "type_guid": "0700", "format": "vfat", "label": "cidata"},
            {"size": "100%", "type_guid": "8300", "format": "ext4", "label": "rootfs"}
        ],
        "user_data": "#cloud-config\nhostname: first-machine\n"
    })
}

/// What the demo and the scenarios want to know of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// One of the five states.
    pub status: String,
    /// Where in that state it is.
    pub phase: String,
    /// What it was doing when it failed.
    pub failed_step: Option<String>,
    /// Stable code of the failure.
    pub failed_code: Option<String>,
    /// Whether the installed system has reported its first boot.
    pub first_boot: bool,
}

impl Job {
    /// Reads the answer of [`job_create`] or [`job_show`].
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let conditions = value["conditions"].as_array().cloned().unwrap_or_default();
        let first_boot = conditions.iter().any(|one| one["type"] == "FirstBoot" && one["status"] == "True");
        Ok(Self {
            id: text("job_id").context("the answer has no job_id")?,
            status: text("status").context("the answer has no status")?,
            phase: text("phase").unwrap_or_default(),
            failed_step: text("failed_step"),
            failed_code: text("failed_code"),
            first_boot,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_tells_its_state_and_first_boot() {
        let text = r#"{"job_id":"1","status":"complete","conditions":[{"type":"FirstBoot","status":"True"}]}"#;
        let job = Job::parse(text).unwrap();
        assert!(job.first_boot && job.status == "complete" && job.failed_step.is_none());
        assert!(!Job::parse(r#"{"job_id":"1","status":"queued"}"#).unwrap().first_boot);
        assert!(Job::parse("{}").is_err());
    }
}
