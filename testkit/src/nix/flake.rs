//! A Git repository with a flake whose systems stand in for those of NixOS.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::System;
use crate::metald::busybox;
use crate::process::run;

const FILES: [(&str, &str); 4] = [
    ("flake.nix", include_str!("flake/flake.nix")),
    ("builder.sh", include_str!("flake/builder.sh")),
    ("activate.sh", include_str!("flake/activate.sh")),
    ("switch-to-configuration.sh", include_str!("flake/switch-to-configuration.sh")),
];

/// See the module.
#[derive(Debug)]
pub struct Flake {
    directory: PathBuf,
    systems: BTreeMap<String, System>,
}

impl Flake {
    /// A new repository with a first commit, on branch `main`.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory.join("busybox/bin")).context("make the flake's directory")?;
        let flake = Self { directory: directory.to_owned(), systems: BTreeMap::new() };
        fs::copy(busybox()?, directory.join("busybox/bin/busybox")).context("copy busybox")?;
        for (name, text) in FILES {
            flake.write(name, text)?;
        }
        flake.git(&["init", "--quiet", "--initial-branch=main"])?;
        flake.store()?;
        flake.commit("Begin")?;
        Ok(flake)
    }

    /// Its working tree, which is a repository to fetch from.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds a system or puts it in the place of the one with its name, and commits; gives back the commit's full hash.
    pub fn set(&mut self, system: System) -> Result<String> {
        let subject = format!("Set {}", system.name());
        self.systems.insert(system.name().to_owned(), system);
        self.store()?;
        self.commit(&subject)
    }

    /// Writes a file of the working tree; [`Self::commit`] makes it part of the flake.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.directory.join(name);
        fs::create_dir_all(path.parent().context("a file without a directory")?).context("make a directory")?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Commits everything; gives back the commit's full hash.
    pub fn commit(&self, subject: &str) -> Result<String> {
        self.git(&["add", "--all"])?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", subject])?;
        Ok(self.git(&["rev-parse", "HEAD"])?.trim().to_owned())
    }

    /// Runs Git in it, with an author and nobody's configuration.
    pub fn git(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.directory).args(["-c", "user.name=Test", "-c", "user.email=test@example.com"]);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        run(command.args(words))
    }

    /// What Nix calls a system of it at a commit.
    pub fn reference(&self, commit: &str, system: &str) -> String {
        let attribute = format!("nixosConfigurations.{system}.config.system.build.toplevel");
        format!("git+file://{}?rev={commit}#{attribute}", self.directory.display())
    }

    fn store(&self) -> Result<()> {
        let systems: BTreeMap<&String, Value> =
            self.systems.iter().map(|(name, system)| (name, system.to_json())).collect();
        self.write("systems.json", &serde_json::to_string_pretty(&systems).context("systems.json")?)
    }
}
