//! The half of an activation that runs on the host (`host.sh`), what is said to it, and what it answers.
//!
//! | verb | does | again, after a kill |
//! |---|---|---|
//! | `begin` | starts `cairn-activation.service`, which arms `cairn-rollback.timer` and then tries the new system | does nothing |
//! | `status` | says how far the deployment is, who has the host, what it runs | the same |
//! | `confirm` | takes the verdict, has the profile set and the boot loader told | goes on |
//! | `roll-back` | takes the verdict, has the old system activated | goes on |
//! | the timer | takes the verdict `roll-back` unless there is one, and does what the verdict says | goes on |
//! | `forget` | removes what is kept of a deployment that has ended | does nothing |

mod answer;
mod preview;
mod remote;

pub use answer::{Answer, Unreadable};
pub use preview::preview;
pub use remote::{Answered, Remote, Shell};

/// The script; standard input of `sh -s`, and the file that the units on the host run.
pub const SCRIPT: &str = include_str!("host.sh");

/// Puts the script where the units run it: `sh -c INSTALL cairn DEPLOYMENT SIZE`, the script on standard input. What did
/// not arrive as a whole is not taken.
pub const INSTALL: &str = "set -eu; umask 077; d=/run/cairn/$1; mkdir -p \"$d\"; chmod 711 /run/cairn; \
    cat >\"$d/host.sh.part\"; [ \"$(wc -c <\"$d/host.sh.part\")\" -eq \"$2\" ]; mv -f \"$d/host.sh.part\" \"$d/host.sh\"";

/// Where the script is after that.
pub fn script_path(deployment: crate::model::DeploymentId) -> String {
    format!("/run/cairn/{deployment}/host.sh")
}
