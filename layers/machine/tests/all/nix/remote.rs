//! A machine with a store of its own behind a real sshd: one process of it for every connection.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reach::ssh::{Connection, HostKeys, Login, Target};
use tempfile::TempDir;

use super::{LIMIT, Store};

pub(crate) struct Machine {
    directory: TempDir,
    port: u16,
    ending: Arc<AtomicBool>,
    name: &'static str,
}

impl Machine {
    /// Its store has the same name as `store`, and other files.
    pub(crate) fn new(name: &'static str, store: &Store) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for key in ["host_key", "key"] {
            let mut command = Command::new("ssh-keygen");
            assert!(command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)).status().unwrap().success());
        }
        let mut environment = vec![
            format!("NIX_REMOTE=local?root={}", path("root").display()),
            // Nothing of what the user's shell does at home is a part of this.
            format!("HOME={}", path("home").display()),
        ];
        let kept = ["NIX_STORE_DIR", "NIX_CONF_DIR"];
        let names = store.environment().into_iter().filter(|(name, _)| kept.contains(&name.as_str()));
        environment.extend(names.map(|(name, value)| format!("{name}={value}")));
        let environment: Vec<String> = environment.iter().map(|pair| format!("\"{pair}\"")).collect();
        let lines = [
            format!("HostKey {}", path("host_key").display()),
            format!("AuthorizedKeysFile {}", path("key.pub").display()),
            format!("SetEnv {}", environment.join(" ")),
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password".to_owned(),
            "PidFile none\nLogLevel QUIET\n".to_owned(),
        ];
        std::fs::write(path("sshd_config"), lines.join("\n")).unwrap();
        std::fs::create_dir_all(path("root/nix/var/nix/gcroots")).unwrap();
        std::fs::create_dir(path("home")).unwrap();
        // sshd wants it, whatever its own settings say.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (ending, config) = (Arc::new(AtomicBool::new(false)), path("sshd_config"));
        let end = Arc::clone(&ending);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, config) = (stream.unwrap(), config.clone());
                std::thread::spawn(move || serve(stream, &config));
            }
        });
        Self { directory, port, ending, name }
    }

    pub(crate) async fn connect(&self) -> Connection {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name)).unwrap();
        let target = Target {
            name: self.name.to_owned(),
            host: "127.0.0.1".to_owned(),
            port: self.port,
            user: "root".to_owned(),
            login: Login::Key { pem: read("key").into(), passphrase: None },
            host_keys: HostKeys::Pinned(vec![read("host_key.pub").parse().unwrap()]),
            jump: None,
            timeout: LIMIT,
        };
        Connection::open(&target).await.unwrap()
    }

    /// Where roots of the collector are, as the machine sees it.
    pub(crate) fn roots(&self) -> String {
        self.directory.path().join("root/nix/var/nix/gcroots").display().to_string()
    }

    /// A file in its store by the path that it has there.
    pub(crate) fn read(&self, path: &str) -> std::io::Result<String> {
        let name = Path::new(path).iter().rev().take(2).collect::<Vec<_>>();
        let file = self.directory.path().join("root/nix/store").join(name[1]).join(name[0]);
        std::fs::read_to_string(file)
    }

    /// Has its collector run.
    pub(crate) async fn collect(&self) {
        let command = reach::ssh::Command::new("nix-store").arg("--gc");
        let output = self.connect().await.run(&command, &[], LIMIT).await.unwrap();
        assert!(output.exit.is_success(), "{}", output.stderr_text());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: TcpStream, config: &Path) {
    let output = OwnedFd::from(stream.try_clone().unwrap());
    let mut server = Command::new("/usr/sbin/sshd");
    server.args(["-i", "-f"]).arg(config).stdin(Stdio::from(OwnedFd::from(stream)));
    let _ = server.stdout(Stdio::from(output)).stderr(Stdio::null()).status();
}
