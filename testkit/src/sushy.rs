//! A stock sushy-emulator: the BMC of every machine of a rack, over TLS with a password.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::libvirt::Libvirt;
use crate::process::{Daemon, free_port, run};
use crate::redfish::Redfish;
use crate::{environment, wait};

/// The release that everything here was tried with.
pub const VERSION: &str = "2.2.0";
/// Exact versions of it and of what it needs.
pub const REQUIREMENTS: &str = include_str!("../requirements.txt");

const USER: &str = "admin";
/// Unusual on purpose: it is also searched for in logs.
const PASSWORD: &str = "bmc-Pa55-word-of-the-rack";

/// Its Python environment.
pub fn environment_directory() -> Result<PathBuf> {
    Ok(environment::cache()?.join(format!("sushy-{VERSION}")))
}

/// Makes the Python environment, unless it is there with just these versions. Says what it does through `say`.
pub fn install(say: impl Fn(&str)) -> Result<()> {
    let directory = environment_directory()?;
    let stamp = directory.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == REQUIREMENTS) {
        return Ok(());
    }
    say(&format!("installing sushy-tools {VERSION} into {}", directory.display()));
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    // Debian's own Python, because its libvirt module is made for that one.
    run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear", "--system-site-packages"]).arg(&directory))?;
    let list = directory.join("wanted.txt");
    fs::write(&list, REQUIREMENTS)?;
    let mut pip = Command::new(directory.join("bin/pip"));
    run(pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-input", "--requirement"]).arg(&list))?;
    fs::rename(&list, &stamp).context("stamp the Python environment")
}

/// A running emulator.
#[derive(Debug)]
pub(crate) struct Sushy {
    _daemon: Daemon,
    pub(crate) redfish: Redfish,
}

impl Sushy {
    pub(crate) fn start(work: &Path) -> Result<Self> {
        let program = environment_directory()?.join("bin/sushy-emulator");
        ensure!(program.exists(), "{} is missing: run `cargo xtask setup`", program.display());
        let directory = work.join("bmc");
        let temporary = directory.join("tmp");
        fs::create_dir_all(&temporary).with_context(|| format!("make {}", temporary.display()))?;
        certificates(&directory)?;
        password_file(&directory.join("htpasswd"), USER, PASSWORD)?;
        let port = free_port()?;
        fs::write(directory.join("emulator.conf"), settings(&directory, port))?;
        let mut command = Command::new(program);
        // It keeps what it downloads in TMPDIR.
        command.arg("--config").arg(directory.join("emulator.conf")).env("TMPDIR", &temporary);
        let mut daemon = Daemon::start("sushy-emulator", &mut command, &directory.join("emulator.log"))?;
        let redfish = Redfish {
            url: format!("https://127.0.0.1:{port}"),
            certificate: directory.join("ca.pem"),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        };
        wait::until("sushy-emulator", Duration::from_secs(60), Duration::from_millis(200), || {
            daemon.check()?;
            Ok(redfish.get("/redfish/v1/").ok())
        })?;
        Ok(Self { _daemon: daemon, redfish })
    }
}

fn settings(directory: &Path, port: u16) -> String {
    let path = |name: &str| directory.join(name).display().to_string();
    let values = [
        ("LISTEN_IP", "'127.0.0.1'".to_owned()),
        ("LISTEN_PORT", port.to_string()),
        ("LIBVIRT_URI", format!("'{}'", Libvirt::uri())),
        ("SSL_CERT", format!("'{}'", path("server.pem"))),
        ("SSL_KEY", format!("'{}'", path("server.key"))),
        ("AUTH_FILE", format!("'{}'", path("htpasswd"))),
        ("STATE_DIR", format!("'{}'", path("state"))),
        ("STORAGE_POOL", format!("'{}'", Libvirt::pool_name())),
        ("FEATURE_SET", "'full'".to_owned()),
        (
            "BOOT_LOADER_MAP",
            "{'UEFI': {'x86_64': '/usr/share/OVMF/OVMF_CODE_4M.fd'}, 'Legacy': {'x86_64': None}}".to_owned(),
        ),
        ("SECURE_BOOT_DISABLED_NVRAM", "'/usr/share/OVMF/OVMF_VARS_4M.fd'".to_owned()),
    ];
    values.map(|(name, value)| format!("SUSHY_EMULATOR_{name} = {value}\n")).concat()
}

const CERTIFICATES: &str = "[req]
distinguished_name = name
prompt = no
[name]
CN = Rack CA
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1,IP:10.77.0.1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

/// An authority (`ca.pem`) and, because an authority's own certificate is refused as a server's, one for a server on
/// 127.0.0.1 and on [`crate::bridge::ADDRESS`] (`server.pem`, `server.key`).
pub fn certificates(directory: &Path) -> Result<()> {
    let file = |name: &str| directory.join(name).display().to_string();
    fs::write(file("certificates.cnf"), CERTIFICATES)?;
    let request = |section: &str| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-config", &file("certificates.cnf"), "-extensions", section, "-days", "30"]);
        command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        command
    };
    run(request("authority").args(["-keyout", &file("ca.key"), "-out", &file("ca.pem")]))?;
    let mut server = request("server");
    server.args(["-subj", "/CN=localhost", "-CA", &file("ca.pem"), "-CAkey", &file("ca.key")]);
    run(server.args(["-keyout", &file("server.key"), "-out", &file("server.pem")]))?;
    Ok(())
}

/// `user:hash` as password files have it; bcrypt, because sushy-emulator knows nothing else. The password goes through
/// stdin, not through argv.
pub fn password_line(user: &str, password: &str) -> Result<String> {
    let mut command = Command::new("htpasswd");
    command.args(["-i", "-n", "-B", "-C", "5", user]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("start htpasswd (package apache2-utils)")?;
    child.stdin.take().context("stdin of htpasswd")?.write_all(password.as_bytes())?;
    let output = child.wait_with_output().context("wait for htpasswd")?;
    ensure!(output.status.success(), "htpasswd ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// One line: an empty one makes the emulator refuse everybody.
pub(crate) fn password_file(path: &Path, user: &str, password: &str) -> Result<()> {
    let line = password_line(user, password)? + "\n";
    fs::write(path, line).with_context(|| format!("write {}", path.display()))
}
