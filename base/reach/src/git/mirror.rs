//! A repository of somebody else, kept here: what its names mean, and its commits.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host::{FileError, LockError, LockFile, write_atomic};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::access::{self, Access};
use super::address::Address;
use super::program::Program;
use super::reference::{Offered, Wanted, offered};
use super::{Commit, Credentials, Error, KnownHosts, Protocol, repair};

/// How long the mirror's lock is waited for between two looks. The kernel can wait for a lock, but not until a time.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the repository. No promisor: see [`Program`].
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n";

/// Where a repository is and how it is reached.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its URL, without credentials: `https://HOST/PATH`, `ssh://USER@HOST/PATH`, `USER@HOST:PATH`.
    pub url: String,
    /// Who we are to the server.
    pub credentials: Credentials,
    /// Which SSH hosts are the right ones.
    pub known_hosts: KnownHosts,
    /// Certificates, as PEM, of the authorities that sign for HTTPS, in the place of the system's.
    pub authorities: Option<String>,
    /// How it may be reached.
    pub protocols: Vec<Protocol>,
    /// For whom: what was fetched for one is never used for another.
    pub tenant: String,
    /// How long one command may take, and how long somebody else's work on the mirror is waited for.
    pub timeout: Duration,
}

impl Repository {
    /// One that is reached over HTTPS or SSH, by nobody, within ten minutes.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials: Credentials::None,
            known_hosts: KnownHosts::default(),
            authorities: None,
            protocols: vec![Protocol::Https, Protocol::Ssh],
            tenant: String::new(),
            timeout: Duration::from_secs(600),
        }
    }
}

/// A mirror of a repository. Every operation holds its lock, across processes; several wait for each other.
#[derive(Debug)]
pub struct Mirror {
    root: PathBuf,
    address: Address,
    repository: Repository,
}

impl Mirror {
    /// Opens the mirror of a repository below `directory`, and makes it when it is not there. Nothing is fetched yet. What
    /// killed processes left is removed.
    ///
    /// # Errors
    /// The URL or the credentials cannot be used, or the directory cannot; somebody holds the lock for too long.
    pub async fn open(directory: &Path, repository: Repository) -> Result<Self, Error> {
        let address = Address::parse(&repository.url, &repository.protocols)?;
        access::fit(&address, &repository.credentials)?;
        let directory = std::path::absolute(directory).map_err(FileError::at("find", directory))?;
        let root = directory.join(name(&repository.tenant, &address.url));
        make_directory(&root.join("trees"))?;
        let mirror = Self { root, address, repository };
        let lock = mirror.lock().await?;
        if !mirror.root.join("url").exists() {
            // Begun anew when it was not finished: the file below is written last.
            let arguments = ["init", "--quiet", "--bare", "--template=", "git"];
            let program = Program { repository: None, ..mirror.program(&lock) };
            program.run("make a mirror of", program.local(&arguments)).await?;
        }
        repair::clean(&mirror.git())?;
        repair::prune(&mirror.root.join("trees"), &mirror.git());
        access::sweep(&mirror.root);
        let url = mirror.address.url.replace(['\\', '"'], "");
        let config = format!("{CONFIG}[remote \"origin\"]\n\turl = \"{url}\"\n");
        write_atomic(&mirror.git().join("config"), config.as_bytes(), 0o600)?;
        write_atomic(&mirror.root.join("url"), format!("{}\n", mirror.address.url).as_bytes(), 0o600)?;
        drop(lock);
        Ok(mirror)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Host keys that were taken on first use, as lines of known_hosts(5).
    pub fn known_hosts(&self) -> String {
        fs::read_to_string(self.root.join("known_hosts")).unwrap_or_default()
    }

    /// What a branch, a tag or a full id means now, with the commit and its history in the mirror. Only an exact name counts.
    ///
    /// # Errors
    /// [`Error::UnknownReference`], [`Error::UnknownCommit`], [`Error::AmbiguousReference`], [`Error::NotACommit`], and
    /// everything that keeps the server from answering.
    pub async fn resolve(&self, reference: &str) -> Result<Commit, Error> {
        let wanted = Wanted::parse(reference)?;
        let lock = self.lock().await?;
        let program = self.program(&lock);
        if let Wanted::Commit(commit) = &wanted {
            if !self.has(&program, commit).await? {
                self.fetch_commit(&program, commit).await?;
            }
            return Ok(commit.clone());
        }
        let access = self.access()?;
        let found = self.look_up(&program, &access, reference, &wanted).await?;
        let kept = kept_name(&found.name);
        let same = program.local(&["rev-parse", "--verify", "--quiet", "--end-of-options", &kept]);
        let here = program.run("read", same).await.map(|output| output.text()).unwrap_or_default();
        if here != found.id {
            self.fetch(&program, &access, &format!("+{}:{kept}", found.name)).await?;
        }
        self.peel(&program, &kept, reference).await
    }

    async fn look_up(
        &self,
        program: &Program<'_>,
        access: &Access,
        reference: &str,
        wanted: &Wanted,
    ) -> Result<Offered, Error> {
        let names = wanted.candidates();
        let mut arguments = vec!["ls-remote", "--quiet", "--", "origin"];
        arguments.extend(names.iter().map(String::as_str));
        let output = program.run("list the references of", program.remote(access, &arguments)).await?;
        let mut found = offered(&String::from_utf8_lossy(&output.stdout), &names);
        let (url, reference) = (self.address.url.clone(), reference.to_owned());
        match (found.pop(), found.pop()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(Error::UnknownReference { url, reference }),
            (Some(one), Some(other)) => {
                let (branch, tag) = if one.name.starts_with("refs/heads/") { (one, other) } else { (other, one) };
                Err(Error::AmbiguousReference { url, reference, branch: branch.id, tag: tag.id })
            }
        }
    }

    async fn fetch(&self, program: &Program<'_>, access: &Access, what: &str) -> Result<(), Error> {
        let options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--refmap="];
        let arguments: Vec<&str> = ["fetch"].into_iter().chain(options).chain(["--", "origin", what]).collect();
        program.run("fetch from", program.remote(access, &arguments)).await.map(drop)
    }

    /// Fetches one commit by its id, or all branches and tags where the server gives away nothing else.
    async fn fetch_commit(&self, program: &Program<'_>, commit: &Commit) -> Result<(), Error> {
        let access = self.access()?;
        match self.fetch(program, &access, &format!("+{commit}:{}", kept_name(commit.as_str()))).await {
            Ok(()) => {}
            Err(Error::Git { message, .. }) if is_not_given(&message) => {
                let options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none", "--refmap="];
                let all = ["--prune", "--", "origin", "+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"];
                let arguments: Vec<&str> = ["fetch"].into_iter().chain(options).chain(all).collect();
                program.run("fetch from", program.remote(&access, &arguments)).await?;
            }
            Err(error) => return Err(error),
        }
        self.expect(program, commit).await
    }

    async fn peel(&self, program: &Program<'_>, name: &str, reference: &str) -> Result<Commit, Error> {
        let commit = format!("{name}^{{commit}}");
        let command = program.local(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]);
        let text = program.run("read", command).await.map(|output| output.text()).unwrap_or_default();
        let no_commit = || Error::NotACommit { url: self.address.url.clone(), reference: reference.to_owned() };
        Commit::parse(&text).ok_or_else(no_commit)
    }

    /// Whether the commit is here. Nothing is fetched for the answer.
    pub(super) async fn has(&self, program: &Program<'_>, commit: &Commit) -> Result<bool, Error> {
        let command = program.local(&["cat-file", "-e", &format!("{commit}^{{commit}}")]);
        match program.run("read", command).await {
            Ok(_) => Ok(true),
            Err(Error::Process(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }

    pub(super) async fn expect(&self, program: &Program<'_>, commit: &Commit) -> Result<(), Error> {
        if self.has(program, commit).await? {
            return Ok(());
        }
        Err(Error::UnknownCommit { url: self.address.url.clone(), commit: commit.to_string() })
    }

    /// Takes the mirror's lock, and waits for whoever has it.
    pub(super) async fn lock(&self) -> Result<Arc<LockFile>, Error> {
        let path = self.root.join("lock");
        let end = Instant::now() + self.repository.timeout;
        loop {
            match LockFile::acquire(&path, &format!("process {}", std::process::id())) {
                Ok(lock) => return Ok(Arc::new(lock)),
                Err(LockError::Held { path, holder }) if Instant::now() >= end => {
                    return Err(Error::Busy { path, holder });
                }
                Err(LockError::Held { .. }) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn program<'a>(&'a self, lock: &Arc<LockFile>) -> Program<'a> {
        Program {
            directory: &self.root,
            repository: Some("git"),
            address: &self.address,
            lock: Arc::clone(lock),
            timeout: self.repository.timeout,
        }
    }

    pub(super) fn access(&self) -> Result<Access, Error> {
        let repository = &self.repository;
        let kept = self.root.join("known_hosts");
        let authorities = repository.authorities.as_deref();
        Access::prepare(&self.address, &repository.credentials, &repository.known_hosts, authorities, &kept, &self.root)
    }

    /// The bare repository.
    pub(super) fn git(&self) -> PathBuf {
        self.root.join("git")
    }
}

/// Name of a mirror's directory: the same for the same repository and tenant, and for no other.
fn name(tenant: &str, url: &str) -> String {
    let readable = url.trim_end_matches('/').trim_end_matches(".git").rsplit(['/', ':']).next().unwrap_or_default();
    let readable: String = readable.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let digest = hex(&Sha256::new().chain_update(tenant).chain_update([0]).chain_update(url).finalize());
    format!("{}-{}", if readable.is_empty() { "repository" } else { &readable }, &digest[..32])
}

/// Where a reference of the server, or a commit, is kept. Not under its own name: a branch `a` that is now `a/b` would be
/// in its own way.
fn kept_name(name: &str) -> String {
    format!("refs/kept/{}", hex(&Sha256::digest(name)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the server has no such commit, or gives only references away.
fn is_not_given(message: &str) -> bool {
    ["not our ref", "unadvertised object", "no such remote ref", "couldn't find remote ref"]
        .iter()
        .any(|sign| message.to_ascii_lowercase().contains(sign))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    Ok(made.map_err(FileError::at("create", path))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_told_apart_by_url_and_tenant() {
        let one = name("a", "https://host/team/fleet.git");
        assert!(one.starts_with("fleet-"), "{one}");
        assert_ne!(one, name("b", "https://host/team/fleet.git"));
        assert_ne!(one, name("a", "https://host/team/fleet"));
        assert_eq!(name("a", "https://host/../..").split('-').next(), Some("repository"));
    }
}
