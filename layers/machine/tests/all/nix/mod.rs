//! Nix in stores of its own: a flake without inputs, and machines behind sshd.

mod building;
mod evaluating;
mod flake;
mod remote;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use machine::adapters::nix::{Nix, NixSettings};
use tempfile::TempDir;

pub(crate) use flake::Flake;

/// Longest time that something may take which does come.
const LIMIT: Duration = Duration::from_secs(60);

/// Whether the programs are there; says so when one is not.
fn has(test: &str, programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| !["/usr/bin", "/usr/sbin"].iter().any(|p| Path::new(p).join(program).exists());
    match programs.iter().find(is_missing) {
        Some(program) => {
            let _ = writeln!(io::stderr(), "NOT RUN: {test}: {program} is missing");
            false
        }
        None => true,
    }
}

/// A store of its own, and what works on it.
struct Store {
    directory: TempDir,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("nix/etc")).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the store is, for every program of Nix.
    fn environment(&self) -> Vec<(String, String)> {
        let nix = self.path("nix");
        let below = |name: &str| nix.join(name).display().to_string();
        [
            ("NIX_STORE_DIR", below("store")),
            ("NIX_STATE_DIR", below("var/nix")),
            ("NIX_LOG_DIR", below("var/log/nix")),
            ("NIX_LOCALSTATE_DIR", below("var")),
            ("NIX_CONF_DIR", below("etc")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn settings(&self) -> NixSettings {
        std::fs::write(self.path("nix/etc/nix.conf"), "build-users-group =\n").unwrap();
        NixSettings {
            substituters: Some(Vec::new()),
            sandbox: Some(false),
            evaluation_memory: 2 << 30,
            environment: self.environment(),
            // Another Nix than the system's, where one is to be tried.
            search_path: std::env::var("CAIRN_TEST_NIX_PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned()),
            ..NixSettings::new(self.path("state"))
        }
    }

    fn nix(&self) -> Nix {
        Nix::new(self.settings()).unwrap()
    }

    /// Runs a program of Nix on the store; gives back what it prints.
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = std::process::Command::new(arguments[0]);
        command.args(&arguments[1..]).envs(self.environment());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
