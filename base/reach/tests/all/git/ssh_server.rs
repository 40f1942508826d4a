//! A real sshd, one process for every connection, on a socket that the test has.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

pub(crate) struct SshServer {
    directory: TempDir,
    port: u16,
    ending: Arc<AtomicBool>,
    holds: Arc<AtomicBool>,
    /// Sends one message for every connection that is held; the value in it lets it go on when it goes.
    pub(crate) held: Receiver<Sender<()>>,
}

impl SshServer {
    /// A server on which the holder of `key` (a public key's file) is the user of this process.
    pub(crate) fn new(key: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        generate(&path("host_key"), "");
        std::fs::copy(key, path("authorized_keys")).unwrap();
        let lines = [
            format!("HostKey {}", path("host_key").display()),
            format!("AuthorizedKeysFile {}", path("authorized_keys").display()),
            // Nothing of what the user's shell does at home is a part of this.
            format!("SetEnv HOME={}", directory.path().display()),
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password".to_owned(),
            "PidFile none\nLogLevel QUIET\nAcceptEnv GIT_PROTOCOL\n".to_owned(),
        ];
        std::fs::write(path("sshd_config"), lines.join("\n")).unwrap();
        // sshd wants it, whatever its own settings say.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ending, holds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (sender, held) = channel();
        let site = Site { config: path("sshd_config"), holds: Arc::clone(&holds), held: Mutex::new(sender) };
        let (end, site) = (Arc::clone(&ending), Arc::new(site));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (site, stream) = (Arc::clone(&site), stream.unwrap());
                std::thread::spawn(move || site.serve(stream));
            }
        });
        Self { directory, port, ending, holds, held }
    }

    pub(crate) fn url(&self, repository: &Path) -> String {
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        format!("ssh://{}@127.0.0.1:{}{}", user.trim(), self.port, repository.display())
    }

    /// The server's public key.
    pub(crate) fn host_key(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("host_key.pub")).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// From now on it is another host.
    pub(crate) fn change_host_key(&self) {
        std::fs::remove_file(self.directory.path().join("host_key")).unwrap();
        generate(&self.directory.path().join("host_key"), "");
    }

    /// Whether connections wait before the server says anything.
    pub(crate) fn hold(&self, holds: bool) {
        self.holds.store(holds, Ordering::SeqCst);
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

struct Site {
    config: PathBuf,
    holds: Arc<AtomicBool>,
    held: Mutex<Sender<Sender<()>>>,
}

impl Site {
    fn serve(&self, stream: TcpStream) {
        if self.holds.load(Ordering::SeqCst) {
            let (go_on, wait) = channel();
            let _ = self.held.lock().unwrap().send(go_on);
            let _ = wait.recv();
        }
        let output = OwnedFd::from(stream.try_clone().unwrap());
        let mut server = Command::new("/usr/sbin/sshd");
        server.args(["-i", "-f"]).arg(&self.config).stdin(Stdio::from(OwnedFd::from(stream)));
        let _ = server.stdout(Stdio::from(output)).stderr(Stdio::null()).status();
    }
}

/// Makes a pair of keys.
pub(crate) fn generate(path: &Path, passphrase: &str) {
    let mut command = Command::new("ssh-keygen");
    let output = command.args(["-q", "-t", "ed25519", "-C", "", "-N", passphrase, "-f"]).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
