//! A registry of somebody else: a second `cairn` behind TLS, with an authority of its own and accounts of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::commands;
use crate::process::{Daemon, free_port, run};
use crate::sushy::{certificates, password_line};
use crate::{environment, wait};

/// The account that may push.
const PUSHER: (&str, &str) = ("builder", "builder-Pa55-word-elsewhere");
/// The account that may pull.
pub const PULLER: (&str, &str) = ("installer", "installer-Pa55-word-elsewhere");

/// See the module. Ends with this value.
#[derive(Debug)]
pub struct Elsewhere {
    directory: PathBuf,
    host: String,
    _daemon: Daemon,
}

impl Elsewhere {
    /// Starts it on `address`, which is 127.0.0.1 or the bridge's, in a directory of its own.
    pub fn start(directory: &Path, address: &str) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        certificates(directory)?;
        let (port, path) = (free_port()?, |name: &str| directory.join(name).display().to_string());
        let users = [PUSHER, PULLER].map(|(user, password)| password_line(user, password));
        let users = users.into_iter().collect::<Result<Vec<_>>>()?.join("\n") + "\n";
        secret(Path::new(&path("users")), &users)?;
        let (host, data) = (format!("{address}:{port}"), directory.join("data"));
        let mut command = Command::new(environment::cairn()?);
        command.args(commands::registry_serve(&data, &host));
        command.env("TLS_CERT_FILE", path("server.pem")).env("TLS_KEY_FILE", path("server.key"));
        command.env("REGISTRY_AUTH_MODE", "htpasswd").env("REGISTRY_HTPASSWD_FILE", path("users"));
        command.env("REGISTRY_PUSH_ALLOW", format!("{}=os-images/", PUSHER.0)).env("REGISTRY_MIN_FREE", "64MiB");
        let mut daemon = Daemon::start("cairn registry serve", &mut command, &directory.join("cairn.log"))?;
        wait::until("the registry elsewhere", Duration::from_secs(60), Duration::from_millis(100), || {
            daemon.check()?;
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", "--cacert", &path("ca.pem"), &format!("https://{host}/readyz")]);
            Ok(run(&mut curl).ok())
        })?;
        Ok(Self { directory: directory.to_owned(), host, _daemon: daemon })
    }

    /// `address:port`, as it stands in an `oci_url`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The authority that has signed its certificate.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.directory.join("cairn.log")
    }

    /// A file with the password of [`PULLER`].
    pub fn password_file(&self) -> Result<PathBuf> {
        let file = self.directory.join("puller-password");
        secret(&file, PULLER.1)?;
        Ok(file)
    }

    /// Pushes a root file system; gives back the digest.
    pub fn push(&self, name: &str, archive: &Path) -> Result<String> {
        let output = self.command(&commands::artifact_push(name, archive), PUSHER)?;
        output.split_whitespace().find(|word| word.starts_with("sha256:")).map(str::to_owned).context("the digest")
    }

    /// Runs a command of `cairn` against it.
    fn command(&self, words: &[String], (user, password): (&str, &str)) -> Result<String> {
        let file = self.directory.join("password");
        secret(&file, password)?;
        let mut command = Command::new(environment::cairn()?);
        command.args(words).env("CAIRN_URL", format!("https://{}", self.host)).env("CAIRN_USER", user);
        command.env("CAIRN_PASSWORD_FILE", &file).env("CAIRN_CA_FILE", self.authority());
        let output = command.output().with_context(|| format!("start cairn {}", words.join(" ")))?;
        if !output.status.success() {
            bail!("cairn {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    Ok(())
}
