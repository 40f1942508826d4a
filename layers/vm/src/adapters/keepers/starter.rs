//! Two ways to start a keeper: in the background, or as a unit of systemd.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::{Command, Hierarchies, Linux, Processes};
use keeper::Directory;

use super::systemd::Systemd;
use super::{KEEPER, KILLED, blocking, failed};
use crate::model::VmId;
use crate::ports::{StepError, Stray};

/// A keeper finds that another is at work (guest/keeper).
const HELD: i32 = 75;
/// There when systemd is the first process (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";
/// Where systemd looks for units, the first one that has it counts (systemd.unit(5)).
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What is said of keepers.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Has a directory for each VM.
    pub directory: PathBuf,
    /// The program `cairn-keeper`.
    pub program: PathBuf,
    /// Control groups and units begin with this: `metald`.
    pub prefix: String,
}

/// How keepers are started.
pub(super) enum Starter {
    /// In the background, in control groups of their own. For hosts without systemd, and for daemons that are started by
    /// hand.
    Background { program: PathBuf, prefix: String },
    /// As `PREFIX-vm@ID.service`.
    Units(Systemd),
}

impl Starter {
    /// Units where systemd has one for exactly these directories; otherwise in the background.
    pub(super) fn choose(settings: &Settings) -> Self {
        let name = format!("{}-vm@.service", settings.prefix);
        let unit = UNITS.iter().find_map(|place| std::fs::read_to_string(Path::new(place).join(&name)).ok());
        if Path::new(BOOTED).is_dir() && unit.is_some_and(|unit| runs_keepers_of(&unit, &settings.directory)) {
            return Self::Units(Systemd::new(&settings.prefix));
        }
        Self::Background { program: settings.program.clone(), prefix: settings.prefix.clone() }
    }

    pub(super) fn has_units(&self) -> bool {
        matches!(self, Self::Units(_))
    }

    /// How long a keeper that was started may take to begin until it is started again. One in the background has begun, or
    /// another one is just beginning.
    pub(super) fn patience(&self) -> Duration {
        if self.has_units() { Duration::from_secs(3) } else { Duration::from_millis(100) }
    }

    /// Starts a keeper unless one is at work.
    pub(super) async fn start(&self, id: &VmId, directory: &Directory) -> Result<(), StepError> {
        match self {
            Self::Background { program, prefix } => {
                let command = Command::new(program.display().to_string())
                    .args(["--groups", prefix, "--detach"])
                    .arg(directory.path().display().to_string())
                    .timeout(KEEPER);
                blocking(move || match Linux.run(&command) {
                    Err(error) if error.exit_code() == Some(HELD) => Ok(()),
                    result => result.map(drop).map_err(failed),
                })
                .await
            }
            Self::Units(systemd) => {
                let directory = directory.clone();
                let order = blocking(move || directory.order().map_err(failed)).await?;
                systemd.start(id, order.map(|order| order.limits).unwrap_or_default()).await
            }
        }
    }

    /// The control group that a keeper makes for a VM's process. A unit's goes with the unit.
    pub(super) fn group(&self, id: &VmId) -> Option<String> {
        match self {
            Self::Background { prefix, .. } => Some(group_of(prefix, id.as_str())),
            Self::Units(_) => None,
        }
    }

    /// What is left of a keeper that has ended, besides its directory.
    pub(super) async fn forget(&self, id: &VmId) -> Result<(), StepError> {
        match self {
            Self::Background { prefix, .. } => remove_group(group_of(prefix, id.as_str())).await,
            Self::Units(systemd) => systemd.forget(id).await,
        }
    }

    /// Control groups without a VM. Those of units go with the units.
    pub(super) async fn strays(&self, known: &[VmId]) -> Result<Vec<Stray>, StepError> {
        let Self::Background { prefix, .. } = self else { return Ok(Vec::new()) };
        let (prefix, known) = (prefix.clone(), known.to_vec());
        blocking(move || {
            let names = Hierarchies::of_host().and_then(|trees| trees.children(&groups_of(&prefix))).map_err(failed)?;
            let strays = names.into_iter().filter(|name| !known.iter().any(|id| id.as_str() == name));
            Ok(strays.map(|name| Stray { kind: "cgroup".to_owned(), name: group_of(&prefix, &name) }).collect())
        })
        .await
    }

    pub(super) async fn remove_stray(&self, stray: &Stray) -> Result<(), StepError> {
        match self {
            Self::Background { prefix, .. }
                if stray.kind == "cgroup" && stray.name.starts_with(&format!("{}/", groups_of(prefix))) =>
            {
                remove_group(stray.name.clone()).await
            }
            _ => Ok(()),
        }
    }
}

/// As `cairn-keeper --groups` names it.
fn groups_of(prefix: &str) -> String {
    format!("{prefix}-vms")
}

fn group_of(prefix: &str, name: &str) -> String {
    format!("{}/{name}", groups_of(prefix))
}

async fn remove_group(name: String) -> Result<(), StepError> {
    blocking(move || {
        let group = Hierarchies::of_host().and_then(|trees| trees.group(&name)).map_err(failed)?;
        group.kill(KILLED).and_then(|()| group.remove()).map_err(failed)
    })
    .await
}

/// Whether a unit starts keepers for these directories.
fn runs_keepers_of(unit: &str, directory: &Path) -> bool {
    let argument = directory.join("%i");
    unit.lines()
        .filter_map(|line| line.trim().strip_prefix("ExecStart="))
        .any(|line| line.split_whitespace().next_back().is_some_and(|last| Path::new(last) == argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_for_other_directories_is_not_ours() {
        let unit = "[Service]\nExecStart=/usr/local/libexec/cairn/cairn-keeper /var/lib/metald/keepers/%i\n";
        assert!(runs_keepers_of(unit, Path::new("/var/lib/metald/keepers")));
        assert!(!runs_keepers_of(unit, Path::new("/tmp/keepers")));
        assert!(!runs_keepers_of("", Path::new("/var/lib/metald/keepers")));
    }
}
