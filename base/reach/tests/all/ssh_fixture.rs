//! The sshd of Debian, one process per connection, and keys for it. It listens on a port that the kernel chooses, has
//! its own configuration, host keys, accounts and `authorized_keys`; root and `tester` may log in.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reach::ssh::{Command, Connection, HostKey, HostKeys, KeepAlive, Login, Target};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const SSHD: &str = "/usr/sbin/sshd";
/// Longest wait for something that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits what must come.
pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it did not come")
}

/// Stops at once with a line when sshd cannot be used here.
pub(crate) fn sshd_is_here(test: &str) -> bool {
    let missing = if !Path::new(SSHD).exists() {
        format!("{SSHD} (package openssh-server)")
    } else if !rustix::process::geteuid().is_root() {
        "root".to_owned()
    } else {
        return true;
    };
    // Not println: the test harness would keep it to itself.
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {missing} is missing");
    false
}

/// A pair made by ssh-keygen.
pub(crate) struct KeyPair {
    pub(crate) file: PathBuf,
    pub(crate) pem: String,
    pub(crate) public: String,
}

impl KeyPair {
    pub(crate) fn generate(directory: &Path, name: &str, kind: &[&str], passphrase: &str) -> Self {
        let file = directory.join(name);
        let output = Process::new("ssh-keygen")
            .args(["-q", "-a", "2", "-C", "cairn-test", "-N", passphrase, "-f"])
            .arg(&file)
            .arg("-t")
            .args(kind)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let pem = std::fs::read_to_string(&file).unwrap();
        let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
        Self { file, pem, public }
    }

    pub(crate) fn ed25519(directory: &Path, name: &str) -> Self {
        Self::generate(directory, name, &["ed25519"], "")
    }

    pub(crate) fn host_key(&self) -> HostKey {
        self.public.parse().unwrap()
    }

    pub(crate) fn login(&self) -> Login {
        Login::Key { pem: self.pem.clone().into(), passphrase: None }
    }
}

/// A host with an sshd. What it runs dies with it: each connection has its own PID namespace.
pub(crate) struct Host {
    pub(crate) directory: TempDir,
    pub(crate) port: u16,
    pub(crate) ed25519: KeyPair,
    pub(crate) ecdsa: KeyPair,
    pub(crate) user_key: KeyPair,
    connections: Arc<Mutex<Vec<u32>>>,
    accepting: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Host {
    /// With more lines for sshd_config.
    pub(crate) async fn start(more: &str) -> Self {
        // Debian's sshd wants its empty directory; systemd makes it where there is one.
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd").unwrap();
        let directory = tempfile::tempdir().unwrap();
        // The server reads its users' files as those users.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let accounts = "root:*:0:0:root:/root:/bin/bash\nsshd:*:65530:65534::/run/sshd:/usr/sbin/nologin\n\
                        tester:*:65531:65534::/:/bin/sh\n";
        std::fs::write(directory.path().join("passwd"), accounts).unwrap();
        let ed25519 = KeyPair::ed25519(directory.path(), "host_ed25519");
        let ecdsa = KeyPair::generate(directory.path(), "host_ecdsa", &["ecdsa"], "");
        let user_key = KeyPair::ed25519(directory.path(), "user");
        let keys = directory.path().join("authorized_keys");
        std::fs::write(&keys, &user_key.public).unwrap();
        let config = directory.path().join("sshd_config");
        let text = format!(
            "HostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             PermitRootLogin yes\nPidFile none\nPrintMotd no\nUseDNS no\nPermitUserRC no\n{more}\n",
            ed25519.file.display(),
            ecdsa.file.display(),
            keys.display()
        );
        std::fs::write(&config, text).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let log = directory.path().join("log");
        let accepting = tokio::spawn(accept(listener, config, log, Arc::clone(&connections)));
        Self { directory, port, ed25519, ecdsa, user_key, connections, accepting }
    }

    pub(crate) fn authorize(&self, key: &KeyPair) {
        let keys = self.directory.path().join("authorized_keys");
        std::fs::OpenOptions::new().append(true).open(keys).unwrap().write_all(key.public.as_bytes()).unwrap();
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            name: "test-host".into(),
            host: "127.0.0.1".into(),
            port: self.port,
            user: "root".into(),
            login: self.user_key.login(),
            host_keys: HostKeys::Pinned(vec![self.ed25519.host_key()]),
            jump: None,
            timeout: PATIENCE,
        }
    }

    pub(crate) async fn connect(&self) -> Connection {
        self.try_connect(&self.target()).await.unwrap()
    }

    /// A patient connection: what a loaded machine delays is no dead peer.
    pub(crate) async fn try_connect(&self, target: &Target) -> Result<Connection, reach::ssh::Error> {
        Connection::open_with(target, patient()).await
    }

    /// How many connections there have been.
    pub(crate) fn count(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// Stops the sshd of the last connection where it stands: the kernel goes on acknowledging packets.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends the last connection's sshd as a crash would.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let parent = *self.connections.lock().unwrap().last().unwrap();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let child = Pid::from_raw(children.trim().parse().unwrap()).unwrap();
        kill_process(child, signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

pub(crate) fn patient() -> KeepAlive {
    KeepAlive { interval: Duration::from_secs(20), unanswered: 3 }
}

/// `sh -c SCRIPT`, in the place of the login shell: what becomes of the script is what sshd sees.
pub(crate) fn shell(script: &str) -> Command {
    Command::new("exec").arg("sh").arg("-c").arg(script)
}

async fn accept(listener: TcpListener, config: PathBuf, log: PathBuf, connections: Arc<Mutex<Vec<u32>>>) {
    let mut serving = Vec::new();
    while let Ok((stream, _)) = listener.accept().await {
        let child = serve(stream, &config, &log);
        connections.lock().unwrap().extend(child.id());
        serving.push(child);
    }
}

fn serve(stream: TcpStream, config: &Path, log: &Path) -> tokio::process::Child {
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    let output: OwnedFd = stream.try_clone().unwrap().into();
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    // Accounts of its own, whatever those of the machine are.
    let script = "mount --bind \"$1\" /etc/passwd && exec \"$2\" -i -e -f \"$3\"";
    tokio::process::Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"])
        .args([&config.with_file_name("passwd"), Path::new(SSHD), config])
        .stdin(Stdio::from(OwnedFd::from(stream)))
        .stdout(Stdio::from(output))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
