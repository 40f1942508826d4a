//! The programs of Nix: evaluate a system of a flake, build it here or elsewhere, bring it to a machine.
//!
//! Everything is a process of its own, with settings of its own in its environment; files of settings that belong to the
//! system count, those of a user do not. A store elsewhere is spoken to through a [`bridge`]: a socket here that ends in
//! `nix-daemon --stdio` over the one SSH connection that there is. Nix 2.8 is the oldest that is known to work.
//!
//! What must not be collected is named by a `root`, a word that the caller chooses: while a root is held, its derivation
//! and its result stay, here and where they were built or brought to.

mod bridge;
mod build;
mod copy;
mod error;
mod evaluate;
mod expression;
mod program;
mod relay;
mod roots;

use std::path::PathBuf;

use host::{FileError, PrivateDirectory};
use reach::ssh::Connection;
use tokio::sync::Semaphore;

pub use error::Error;
pub use expression::{is_host_name, nix_string};

/// How the programs of Nix are run.
#[derive(Debug, Clone)]
pub struct NixSettings {
    /// Where they are looked for, as in `PATH`.
    pub search_path: String,
    /// Directory for roots of the collector, caches and sockets; made with mode 0700.
    pub state: PathBuf,
    /// How many evaluations run at once.
    pub evaluations: usize,
    /// Most memory that one evaluation may have, in bytes of address space.
    pub evaluation_memory: u64,
    /// Caches to take results from instead of building them here; nothing: as the system has it.
    pub substituters: Option<Vec<String>>,
    /// Keys whose signatures on results of caches count; nothing: as the system has it.
    pub trusted_keys: Option<Vec<String>>,
    /// Whether builds here are shut in; nothing: as the system has it.
    pub sandbox: Option<bool>,
    /// Whether a machine may take from its own caches what would be copied to it.
    pub substitute_on_destination: bool,
    /// Directory on machines for roots of the collector.
    pub remote_roots: String,
    /// More of the environment: where the store is, when that is not the usual place.
    pub environment: Vec<(String, String)>,
}

impl NixSettings {
    /// Two evaluations at once with 4 GiB each; caches, keys and sandbox as the system has them.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            search_path: "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin".to_owned(),
            state: state.into(),
            evaluations: 2,
            evaluation_memory: 4 << 30,
            substituters: None,
            trusted_keys: None,
            sandbox: None,
            substitute_on_destination: false,
            remote_roots: "/nix/var/nix/gcroots".to_owned(),
            environment: Vec::new(),
        }
    }
}

/// What a flake wants of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// Path of the derivation in the store here.
    pub derivation: String,
    /// Path of its result, once it is built.
    pub output: String,
}

/// Where something is built, and lies then.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// On this machine.
    Here,
    /// On the machine at the other end.
    There(&'a Connection),
}

/// The programs of Nix.
#[derive(Debug)]
pub struct Nix {
    settings: NixSettings,
    evaluations: Semaphore,
}

impl Nix {
    /// Makes the directory of its state and removes what killed processes left in it. Roots stay.
    ///
    /// # Errors
    /// The directory cannot be made, or a setting cannot be written down.
    pub fn new(settings: NixSettings) -> Result<Self, Error> {
        let nix = Self { evaluations: Semaphore::new(settings.evaluations.max(1)), settings };
        nix.check_settings()?;
        for name in ["roots", "home"] {
            let path = nix.settings.state.join(name);
            let mut builder = std::fs::DirBuilder::new();
            let made = std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700).create(&path);
            made.map_err(FileError::at("create", &path))?;
        }
        PrivateDirectory::sweep(&nix.bridge_place(), bridge::PREFIX);
        Ok(nix)
    }

    /// Where sockets are made: paths of sockets may have a hundred bytes, so not below the state.
    fn bridge_place(&self) -> PathBuf {
        host::memory_directory().unwrap_or_else(|| self.settings.state.clone())
    }
}
