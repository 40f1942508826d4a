//! TLS of metald: a certificate from files, which is changed while it runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testkit::metald::{LOOK, Metald};
use testkit::process::run;
use testkit::wait;

/// Programs that this scenario needs.
pub(crate) const NEEDS: &[&str] = &["openssl", "curl", "ip", "nft"];

const PATIENCE: Duration = Duration::from_secs(60);

struct Files {
    work: PathBuf,
}

impl Files {
    fn at(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// A certificate that vouches for itself, and its key.
    fn make(&self, name: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]);
        command.arg(self.at(&format!("{name}.key"))).arg("-out").arg(self.at(&format!("{name}.pem")));
        run(&mut command).map(drop)
    }

    /// Puts one of them where metald looks; its key is its owner's alone.
    fn put(&self, name: &str) -> Result<()> {
        for (kind, file) in [("pem", "now.pem"), ("key", "now.key")] {
            std::fs::copy(self.at(&format!("{name}.{kind}")), self.at(file)).context("put a certificate in place")?;
        }
        run(Command::new("chmod").arg("0600").arg(self.at("now.key"))).map(drop)
    }

    /// Asks as somebody who trusts that certificate alone.
    fn curl(&self, trusted: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--cacert"]);
        command.arg(self.at(&format!("{trusted}.pem")));
        command
    }
}

/// See the module.
pub(crate) fn is_changed_while_it_runs(work: &Path) -> Result<()> {
    let files = Files { work: work.to_owned() };
    files.make("one")?;
    files.make("two")?;
    files.put("one")?;
    let (certificate, key) = (files.at("now.pem").display().to_string(), files.at("now.key").display().to_string());
    let metald = Metald::start(
        work,
        &[
            ("UNKEY_METALD_TLS_MODE", "file"),
            ("UNKEY_METALD_TLS_CERT_FILE", &certificate),
            ("UNKEY_METALD_TLS_KEY_FILE", &key),
        ],
    )?;
    let health = metald.url("/health");
    ensure!(health.starts_with("https://"), "{health}");
    ensure!(run(files.curl("one").arg(&health))?.contains("backend"), "no health over TLS");
    ensure!(run(files.curl("two").arg(&health)).is_err(), "a certificate was not looked at");
    ensure!(!log(&metald)?.contains("private key"), "the key is its owner's alone");

    let token = std::fs::read_to_string(metald.data().join("operator.token")).context("read the token")?;
    std::fs::write(files.at("header"), format!("Authorization: Bearer {}", token.trim()))?;
    let mut upload = files.curl("one");
    upload.arg("--verbose").arg("--header").arg(format!("@{}", files.at("header").display()));
    upload.args(["--upload-file", "-"]).arg(metald.url("/v1/assets/slow?kind=disk"));
    let told = std::fs::File::create(files.at("upload.log"))?;
    let mut upload = upload.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(told).spawn().context("start curl")?;
    let mut body = upload.stdin.take().context("no pipe to curl")?;
    body.write_all(b"the first half, ")?;
    wait::until("an upload to begin", PATIENCE, LOOK, || {
        Ok(std::fs::read_to_string(files.at("upload.log"))?.contains("> PUT").then_some(()))
    })?;

    files.put("two")?;
    hang_up(&metald)?;
    wait::until("the new certificate", PATIENCE, LOOK, || Ok(run(files.curl("two").arg(&health)).ok()))?;
    ensure!(run(files.curl("one").arg(&health)).is_err(), "the former certificate is still shown");
    body.write_all(b"and the second")?;
    drop(body);
    let ended = upload.wait().context("wait for curl")?;
    let told = std::fs::read_to_string(files.at("upload.log"))?;
    ensure!(ended.success(), "a connection was dropped: {ended}\n{told}");

    std::fs::write(files.at("now.pem"), "no certificate")?;
    hang_up(&metald)?;
    wait_log(&metald, "the certificate stays as it is")?;
    ensure!(run(files.curl("two").arg(&health))?.contains("backend"), "a broken file took the certificate away");

    files.put("one")?;
    run(Command::new("chmod").arg("0644").arg(files.at("now.key")))?;
    hang_up(&metald)?;
    wait_log(&metald, "everybody on this host can get at the private key")?;
    ensure!(run(files.curl("one").arg(&health))?.contains("backend"), "it is taken all the same");
    Ok(())
}

fn hang_up(metald: &Metald) -> Result<()> {
    let process = metald.process().context("metald does not run")?.to_string();
    run(Command::new("kill").args(["-HUP", &process])).map(drop)
}

fn log(metald: &Metald) -> Result<String> {
    std::fs::read_to_string(metald.log()).context("read the log")
}

fn wait_log(metald: &Metald, text: &str) -> Result<()> {
    wait::until(&format!("the log to say {text:?}"), PATIENCE, LOOK, || Ok(log(metald)?.contains(text).then_some(())))
}
