//! `/run/provision`: what dispatch, steps and reports hand to each other. Nobody but root can look into it.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use recipe::callback::Callback;
use recipe::network::Network;
use recipe::{Placement, Recipe};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::failure::{FailedUnit, Failure, code};

/// Where everything is. The defaults are those of the maintenance system; a test puts its own directories in.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The directory that this module is about.
    pub run: PathBuf,
    /// Where the task medium is mounted.
    pub task: PathBuf,
    /// Where the boot medium is mounted when it holds the task.
    pub boot_medium: PathBuf,
    /// Where the new system's root file system is mounted.
    pub new_root: PathBuf,
    /// Where the config drive is mounted.
    pub cidata: PathBuf,
    /// What `/sys`, `/proc`, `/dev`, `/etc` and `/run` are looked for in.
    pub root: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            run: "/run/provision".into(),
            task: "/mnt/task".into(),
            boot_medium: "/run/cairn/boot-medium".into(),
            new_root: "/mnt/new-root".into(),
            cidata: "/mnt/cidata".into(),
            root: "/".into(),
        }
    }
}

/// What dispatch decided, for steps and reports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workflow {
    /// The target that was started.
    pub task_target: String,
    /// `$id` of the schema on the medium.
    pub schema_id: Option<String>,
    /// When dispatch began, RFC 3339.
    pub started_at: String,
    /// Serial number that the machine gives itself.
    pub serial: String,
}

/// The disk that the partition step prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedDisk {
    /// Device, for example `/dev/nvme0n1`.
    pub device: String,
    /// Its partitions.
    pub placements: Vec<Placement>,
}

/// The directory `/run/provision`.
#[derive(Debug, Clone)]
pub struct Workspace {
    directory: PathBuf,
}

impl Workspace {
    /// The directory; it need not be there yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Makes the directory, mode 0700.
    pub fn create(&self) -> Result<(), Failure> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.and_then(|()| std::fs::set_permissions(&self.directory, std::fs::Permissions::from_mode(0o700))).map_err(
            |error| Failure::new(code::STATE_UNWRITABLE, format!("cannot make {}: {error}", self.directory.display())),
        )
    }

    /// A file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a file, mode 0600, in full or not at all.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<(), Failure> {
        host::write_atomic(&self.path(name), contents, 0o600).map_err(Failure::of(code::STATE_UNWRITABLE))
    }

    /// Writes a value as JSON.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_vec_pretty(value).map_err(Failure::of(code::STATE_UNWRITABLE))?;
        text.push(b'\n');
        self.write(name, &text)
    }

    /// Reads a file; `None` when it is not there.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path(name);
        match std::fs::read(&path) {
            Ok(contents) => Ok(Some(contents)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::new(code::STATE_UNWRITABLE, format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// Reads a JSON file; `None` when it is not there.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failure> {
        let Some(contents) = self.read(name)? else { return Ok(None) };
        // The parser's message can repeat contents, and some of these files hold secrets: only the place is told.
        let value = serde_json::from_slice(&contents).map_err(|error| {
            let path = self.path(name);
            let place = format!("line {}, column {}", error.line(), error.column());
            Failure::new(code::STATE_UNWRITABLE, format!("{} is damaged at {place}", path.display()))
        })?;
        Ok(Some(value))
    }

    /// How to reach the controller.
    pub fn callback(&self) -> Result<Option<Callback>, Failure> {
        self.read_json("callback.json")
    }

    /// The network that the server record asks for.
    pub fn network(&self) -> Result<Option<Network>, Failure> {
        self.read_json("network.json")
    }

    /// What dispatch decided.
    pub fn workflow(&self) -> Result<Workflow, Failure> {
        Ok(self.read_json("workflow.json")?.unwrap_or_default())
    }

    /// The recipe that dispatch checked.
    pub fn recipe(&self) -> Result<Recipe, Failure> {
        let document: Option<serde_json::Value> = self.read_json("recipe.json")?;
        let document =
            document.ok_or_else(|| Failure::new(code::RECIPE_UNREADABLE, "the dispatcher has left no recipe.json"))?;
        recipe::parse(&document).map_err(|violations| recipe_invalid(&violations))
    }

    /// Keeps the first failure: what follows from it is not the cause.
    pub fn keep_failure(&self, unit: &str, failure: &Failure) -> Result<(), Failure> {
        if self.path("failure.json").exists() {
            return Ok(());
        }
        self.write_json("failure.json", &FailedUnit { unit: unit.to_owned(), failure: failure.clone() })
    }

    /// The failure that was kept.
    pub fn failure(&self) -> Result<Option<FailedUnit>, Failure> {
        self.read_json("failure.json")
    }
}

/// The failure for a recipe with violations: the first three are named.
pub(crate) fn recipe_invalid(violations: &[recipe::Violation]) -> Failure {
    let named: Vec<String> =
        violations.iter().take(3).map(|one| format!("{} ({}): {}", one.path, one.code, one.message)).collect();
    let more = violations.len().saturating_sub(named.len());
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Failure::new(code::RECIPE_INVALID, format!("{}{more}", named.join("; ")))
}
