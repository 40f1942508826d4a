//! A BMC as a script would use it, through `curl`: independent of the Redfish client that is tested.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

/// Access to the BMC of all machines of a rack.
#[derive(Debug, Clone)]
pub struct Redfish {
    /// Scheme, address and port.
    pub url: String,
    /// The authority that signed its certificate (PEM).
    pub certificate: PathBuf,
    /// User name.
    pub user: String,
    /// Password.
    pub password: String,
}

impl Redfish {
    /// GET; anything but 2xx is an error.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.call("GET", path, None)
    }

    /// Power state and boot settings of a system.
    pub fn system(&self, uuid: &str) -> Result<Value> {
        self.get(&format!("/redfish/v1/Systems/{uuid}"))
    }

    /// `On` or `Off`, as the BMC tells it.
    pub fn power(&self, uuid: &str) -> Result<String> {
        Ok(self.system(uuid)?["PowerState"].as_str().context("PowerState")?.to_owned())
    }

    /// Whether a CD is inserted.
    pub fn inserted(&self, uuid: &str) -> Result<bool> {
        let medium = self.get(&format!("/redfish/v1/Systems/{uuid}/VirtualMedia/Cd"))?;
        medium["Inserted"].as_bool().context("Inserted")
    }

    /// Inserts a CD; the BMC fetches it at once.
    pub fn insert(&self, uuid: &str, image: &str) -> Result<()> {
        let path = format!("/redfish/v1/Systems/{uuid}/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia");
        self.call("POST", &path, Some(&json!({"Image": image, "Inserted": true, "WriteProtected": true})))?;
        Ok(())
    }

    /// Ejects the CD.
    pub fn eject(&self, uuid: &str) -> Result<()> {
        let path = format!("/redfish/v1/Systems/{uuid}/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia");
        self.call("POST", &path, Some(&json!({})))?;
        Ok(())
    }

    /// Boots from CD next time.
    pub fn boot_from_cd(&self, uuid: &str) -> Result<()> {
        let body = json!({"Boot": {"BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "Cd"}});
        self.call("PATCH", &format!("/redfish/v1/Systems/{uuid}"), Some(&body))?;
        Ok(())
    }

    /// `On`, `ForceOff`, … (ResetType of the Redfish schema).
    pub fn reset(&self, uuid: &str, kind: &str) -> Result<()> {
        let path = format!("/redfish/v1/Systems/{uuid}/Actions/ComputerSystem.Reset");
        self.call("POST", &path, Some(&json!({"ResetType": kind})))?;
        Ok(())
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        // The password goes through stdin: argv is readable by everybody.
        let mut settings = format!("user = {}\n", json!(format!("{}:{}", self.user, self.password)));
        settings.push_str(&format!("request = \"{method}\"\nurl = {}\n", json!(format!("{}{path}", self.url))));
        if let Some(body) = body {
            settings.push_str(&format!(
                "header = \"Content-Type: application/json\"\ndata = {}\n",
                json!(body.to_string())
            ));
        }
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "120", "--write-out", "\n%{http_code}", "--cacert"]);
        command.arg(&self.certificate).args(["--config", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start curl")?;
        child.stdin.take().context("stdin of curl")?.write_all(settings.as_bytes())?;
        let output = child.wait_with_output().context("wait for curl")?;
        ensure!(output.status.success(), "{method} {path}: {}", String::from_utf8_lossy(&output.stderr).trim());
        let text = String::from_utf8_lossy(&output.stdout);
        let (answer, status) = text.rsplit_once('\n').context("curl wrote no status")?;
        if !status.starts_with('2') {
            bail!("{method} {path}: {status} {answer}");
        }
        Ok(serde_json::from_str(answer).unwrap_or(Value::Null))
    }
}
