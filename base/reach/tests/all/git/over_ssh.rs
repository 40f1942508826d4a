//! A key, and where it is while git runs; host keys.

use std::path::Path;

use reach::git::{Credentials, Error, KnownHosts, Mirror, Repository};
use secrecy::SecretString;
use tempfile::TempDir;

use super::ssh_server::{SshServer, generate};
use super::{Source, files_with, has, processes_with, repository};

struct Fixture {
    source: Source,
    server: SshServer,
    keys: TempDir,
    mirrors: TempDir,
}

impl Fixture {
    fn new(test: &str, passphrase: &str) -> Option<Self> {
        if !has(test, "sshd") || !has(test, "ssh") {
            return None;
        }
        let keys = tempfile::tempdir().unwrap();
        generate(&keys.path().join("key"), passphrase);
        let server = SshServer::new(&keys.path().join("key.pub"));
        Some(Self { source: Source::new(), server, keys, mirrors: tempfile::tempdir().unwrap() })
    }

    fn pem(&self) -> String {
        std::fs::read_to_string(self.keys.path().join("key")).unwrap()
    }

    fn repository(&self, known_hosts: KnownHosts, passphrase: Option<&str>) -> Repository {
        // Without its last line end, as people paste it.
        let pem = SecretString::from(self.pem().trim_end());
        let credentials = Credentials::Key { pem, passphrase: passphrase.map(SecretString::from) };
        Repository { credentials, known_hosts, ..repository(self.server.url(&self.source.served())) }
    }

    async fn resolve(&self, repository: Repository) -> Result<String, Error> {
        let mirror = Mirror::open(self.mirrors.path(), repository).await.unwrap();
        mirror.resolve("main").await.map(|commit| commit.to_string())
    }

    fn pinned(&self) -> KnownHosts {
        KnownHosts::Pinned(self.server.host_key())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_seen_by_nobody_while_git_runs_and_left_nowhere() {
    let test = "a_key_is_seen_by_nobody_while_git_runs_and_left_nowhere";
    let Some(fixture) = Fixture::new(test, "") else { return };
    let pem = fixture.pem();
    let middle = pem.lines().nth(2).unwrap().to_owned();
    fixture.server.hold(true);
    let mirror = Mirror::open(fixture.mirrors.path(), fixture.repository(fixture.pinned(), None)).await.unwrap();
    let root = mirror.path().to_owned();
    let resolving = tokio::spawn(async move { (mirror.resolve("main").await.unwrap(), mirror) });
    // Once for the references, once for the commits.
    for _ in 0..2 {
        let go_on = tokio::task::block_in_place(|| fixture.server.held.recv()).unwrap();
        assert!(!super::processes_in(&root).is_empty(), "git runs");
        assert_eq!(processes_with(&[&middle]), [""; 0]);
        assert!(files_with(&root, &[&middle]).is_empty());
        drop(go_on);
    }
    let (commit, mirror) = resolving.await.unwrap();
    fixture.server.hold(false);
    let tree = mirror.worktree(&commit).await.unwrap();
    assert_eq!(std::fs::read_to_string(tree.path().join("file")).unwrap(), "one");
    assert!(files_with(fixture.mirrors.path(), &[&middle]).is_empty());
    assert!(files_with(Path::new("/dev/shm"), &[&middle]).is_empty());
}

#[tokio::test]
async fn a_host_key_is_pinned_or_taken_once_and_never_exchanged() {
    let test = "a_host_key_is_pinned_or_taken_once_and_never_exchanged";
    let Some(fixture) = Fixture::new(test, "") else { return };
    let expected = fixture.source.in_tree(&["rev-parse", "HEAD"]);
    let with = |known_hosts| fixture.repository(known_hosts, None);
    assert_eq!(fixture.resolve(with(fixture.pinned())).await.unwrap(), expected);
    let error = fixture.resolve(with(KnownHosts::Pinned(String::new()))).await.unwrap_err();
    assert!(matches!(error, Error::HostKeyUnknown { .. }), "{error}");
    assert_eq!(fixture.resolve(with(KnownHosts::TrustFirst)).await.unwrap(), expected);
    let mirror = Mirror::open(fixture.mirrors.path(), with(KnownHosts::TrustFirst)).await.unwrap();
    assert!(mirror.known_hosts().contains(&fixture.server.host_key()), "{}", mirror.known_hosts());
    let old = fixture.pinned();
    fixture.server.change_host_key();
    for known_hosts in [KnownHosts::TrustFirst, old] {
        let error = fixture.resolve(with(known_hosts)).await.unwrap_err();
        assert!(matches!(error, Error::HostKeyChanged { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_key_with_a_passphrase_is_opened_and_a_wrong_one_refused() {
    let test = "a_key_with_a_passphrase_is_opened_and_a_wrong_one_refused";
    let Some(fixture) = Fixture::new(test, "open sesame") else { return };
    fixture.resolve(fixture.repository(fixture.pinned(), Some("open sesame"))).await.unwrap();
    for passphrase in [None, Some("wrong")] {
        let error = fixture.resolve(fixture.repository(fixture.pinned(), passphrase)).await.unwrap_err();
        assert!(matches!(error, Error::KeyUnusable { .. }), "{error}");
    }
    let other = fixture.keys.path().join("other");
    generate(&other, "");
    let pem = SecretString::from(std::fs::read_to_string(other).unwrap());
    let credentials = Credentials::Key { pem, passphrase: None };
    let stranger = Repository { credentials, ..fixture.repository(fixture.pinned(), None) };
    let error = fixture.resolve(stranger.clone()).await.unwrap_err();
    assert!(matches!(error, Error::CredentialsRefused { .. }), "{error}");
    let gone = Repository {
        url: fixture.server.url(Path::new("/nowhere/gone.git")),
        ..fixture.repository(fixture.pinned(), Some("open sesame"))
    };
    let error = fixture.resolve(gone).await.unwrap_err();
    assert!(matches!(error, Error::RepositoryGone { .. }), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fixture.resolve(Repository { url: format!("ssh://git@{nobody}/a"), ..stranger }).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
