//! The installed system's word that it has booted. Afterwards nothing of the reporter is left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::remove_if_present;
use serde::{Deserialize, Serialize};
use url::Url;

use super::post::{Patience, Taken, deliver};
use crate::failure::{Failure, code};
use crate::http::{self, Trust};

/// The program in the installed system.
pub const PROGRAM: &str = "/usr/lib/cairn/first-boot";
/// Its address and token.
pub const CONFIG: &str = "/etc/cairn/first-boot.json";
/// Certificate authorities that the maintenance system knew.
pub const AUTHORITIES: &str = "/etc/cairn/first-boot-authorities.pem";
/// Its systemd unit.
pub const UNIT: &str = "/etc/systemd/system/cairn-first-boot.service";
/// What enables the unit.
pub const UNIT_LINK: &str = "/etc/systemd/system/multi-user.target.wants/cairn-first-boot.service";

/// Time for one attempt.
const TIME: Duration = Duration::from_secs(15);

/// What the installed system knows about the controller. Holds a secret: mode 0600.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the report goes.
    pub url: Url,
    /// Goes into the header `X-Webhook-Secret`.
    pub token: String,
    /// Certificate authorities beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<PathBuf>,
}

/// Reports the boot and removes the reporter, which lies below `root` (`/` but in tests). A report that is refused
/// is not repeated either: its token is worth nothing any more.
///
/// # Errors
/// The controller could not be reached; the reporter stays for another try.
pub fn run(config_path: &Path, root: &Path, patience: Patience) -> Result<(), Failure> {
    let text = match std::fs::read(config_path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(Failure::of(code::STATE_UNWRITABLE))?,
    };
    let config: Config = serde_json::from_slice(&text).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Failure::new(code::STATE_UNWRITABLE, format!("{} is damaged at {place}", config_path.display()))
    })?;
    let trust = config.authorities.as_deref().map_or(Trust::System, Trust::And);
    let client = http::client(Some(TIME), TIME, trust)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::of(code::STATE_UNWRITABLE))?;
    match runtime.block_on(deliver(&client, &config.url, &config.token, b"{}", patience)) {
        Taken::Accepted => tracing::info!("the first boot is reported"),
        Taken::Refused(reason) => tracing::error!(reason, "the controller does not want the report of the first boot"),
        Taken::Lost(reason) => return Err(Failure::new("first_boot_unreachable", reason)),
    }
    remove(config_path, root)
}

/// The token goes first: what is left after a power cut then reports nothing.
fn remove(config_path: &Path, root: &Path) -> Result<(), Failure> {
    remove_if_present(config_path).map_err(Failure::of(code::STATE_UNWRITABLE))?;
    for path in [AUTHORITIES, UNIT_LINK, UNIT, PROGRAM] {
        remove_if_present(&root.join(path.trim_start_matches('/'))).map_err(Failure::of(code::STATE_UNWRITABLE))?;
    }
    for path in [CONFIG, PROGRAM] {
        if let Some(directory) = root.join(path.trim_start_matches('/')).parent() {
            // It stays when somebody else has put something there.
            let _ = std::fs::remove_dir(directory);
        }
    }
    Ok(())
}
