//! What the script answers: a JSON object a line.

use std::time::Duration;

use serde::Deserialize;

use crate::model::{Activation, DeploymentId, Running, StorePath, Underway};

/// The answer cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The script says that something did not go.
    #[error("{0}")]
    Refused(String),
    /// A line is none that the script writes.
    #[error("the host answers {0:?}")]
    Line(String),
    /// A line is missing, as when the connection broke.
    #[error("the host's answer ends early")]
    Short,
}

/// All lines of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub(super) status: Option<Status>,
    pub(super) running: Option<Running>,
    /// Lines of the activation's log.
    pub log: Vec<String>,
    /// Lines of a dry activation.
    pub dry: Vec<String>,
    /// Store paths that would come.
    pub added: Vec<String>,
    /// Store paths that would go.
    pub removed: Vec<String>,
    /// Whether the system that was asked about needs a restart.
    pub reboot_required: Option<bool>,
    /// A file arrived.
    pub delivered: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    phase: String,
    reason: String,
    holder: String,
    age: u64,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", rename_all_fields = "camelCase")]
enum Line {
    Activation {
        phase: String,
        #[serde(rename = "code")]
        _code: String,
        reason: String,
        holder: String,
        age: i64,
    },
    Running {
        boot_id: String,
        current: String,
        booted: String,
        profile: String,
        reboot_required: bool,
    },
    Failed {
        text: String,
    },
    Log {
        text: String,
    },
    Dry {
        text: String,
    },
    Added {
        text: String,
    },
    Removed {
        text: String,
    },
    Reboot {
        required: bool,
    },
    Delivered {},
    Error {
        text: String,
    },
}

/// How many lines are taken; the script writes far fewer.
const MOST: usize = 10_000;

impl Answer {
    /// Reads what the script wrote.
    ///
    /// # Errors
    /// The script refused, or a line is none of its own.
    pub fn read(output: &[u8]) -> Result<Self, Unreadable> {
        let text = String::from_utf8_lossy(output);
        let mut answer = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()).take(MOST) {
            let shown = || Unreadable::Line(line.chars().take(200).collect());
            answer.take(serde_json::from_str(line).map_err(|_| shown())?)?;
        }
        Ok(answer)
    }

    fn take(&mut self, line: Line) -> Result<(), Unreadable> {
        match line {
            Line::Activation { phase, reason, holder, age, .. } => {
                let age = u64::try_from(age).unwrap_or_default();
                self.status = Some(Status { phase, reason, holder, age });
            }
            Line::Running { boot_id, current, booted, profile, reboot_required } => {
                self.running = Some(Running {
                    boot_id,
                    current: path(&current),
                    booted: path(&booted),
                    profile: path(&profile),
                    reboot_required,
                    failed_units: Vec::new(),
                });
            }
            Line::Failed { text } => {
                if let Some(running) = &mut self.running {
                    running.failed_units.push(text);
                }
            }
            Line::Log { text } => self.log.push(text),
            Line::Dry { text } => self.dry.push(text),
            Line::Added { text } => self.added.push(text),
            Line::Removed { text } => self.removed.push(text),
            Line::Reboot { required } => self.reboot_required = Some(required),
            Line::Delivered {} => self.delivered = true,
            Line::Error { text } => return Err(Unreadable::Refused(text)),
        }
        Ok(())
    }

    /// What the host runs.
    ///
    /// # Errors
    /// It did not say.
    pub fn running(&self) -> Result<Running, Unreadable> {
        self.running.clone().ok_or(Unreadable::Short)
    }

    /// How far a deployment is.
    ///
    /// # Errors
    /// It did not say, or names a phase that there is not.
    pub fn activation(&self, deployment: DeploymentId) -> Result<Activation, Unreadable> {
        let status = self.status.as_ref().ok_or(Unreadable::Short)?;
        let (reason, log) = (status.reason.clone(), self.log.join("\n"));
        Ok(match status.phase.as_str() {
            "absent" if !status.holder.is_empty() && status.holder != deployment.to_string() => {
                Activation::Held { holder: status.holder.clone(), age: Duration::from_secs(status.age) }
            }
            // Its unit is there, and has not said anything yet.
            "absent" if !status.holder.is_empty() => Activation::Underway(Underway::Arming),
            "absent" => Activation::Absent,
            "arming" => Activation::Underway(Underway::Arming),
            "testing" => Activation::Underway(Underway::Testing),
            "on-trial" => Activation::OnTrial,
            "confirming" => Activation::Underway(Underway::Confirming),
            "confirmed" => Activation::Confirmed,
            "rolling-back" => Activation::Underway(Underway::RollingBack),
            "rolled-back" => Activation::RolledBack { reason, log },
            "not-armed" => Activation::NotBegun { reason },
            "rollback-failed" => Activation::RollbackFailed { reason, log },
            other => return Err(Unreadable::Line(other.to_owned())),
        })
    }
}

/// A link that points elsewhere than into the store is none that NixOS made.
fn path(text: &str) -> Option<StorePath> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "/nix/store/1c0vkjm9zq1b8ygqr1zb7m5c9rnk1v3p-nixos-system-old";

    fn status(phase: &str, holder: &str) -> Answer {
        let text = format!(
            "{{\"kind\":\"activation\",\"phase\":\"{phase}\",\"code\":\"4\",\"reason\":\"r\",\"holder\":\"{holder}\",\"age\":7}}\n\
             {{\"kind\":\"log\",\"text\":\"a\"}}\n{{\"kind\":\"log\",\"text\":\"b\"}}\n\
             {{\"kind\":\"running\",\"bootId\":\"x\",\"current\":\"{OLD}\",\"booted\":\"\",\"profile\":\"/tmp\",\"rebootRequired\":true}}\n\
             {{\"kind\":\"failed\",\"text\":\"a.service\"}}\n"
        );
        Answer::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn phases_are_told_apart() {
        let id = DeploymentId::new();
        let own = id.to_string();
        let of = |phase: &str, holder: &str| status(phase, holder).activation(id);
        assert_eq!(of("absent", ""), Ok(Activation::Absent));
        let held = Activation::Held { holder: "other".to_owned(), age: Duration::from_secs(7) };
        assert_eq!(of("absent", "other"), Ok(held));
        assert_eq!(of("absent", &own), Ok(Activation::Underway(Underway::Arming)));
        assert_eq!(of("on-trial", &own), Ok(Activation::OnTrial));
        // What has ended has ended, whoever has the host by now.
        assert_eq!(of("confirmed", "other"), Ok(Activation::Confirmed));
        let back = Activation::RolledBack { reason: "r".to_owned(), log: "a\nb".to_owned() };
        assert_eq!(of("rolled-back", ""), Ok(back));
        assert_eq!(of("not-armed", ""), Ok(Activation::NotBegun { reason: "r".to_owned() }));
        assert_eq!(of("dancing", ""), Err(Unreadable::Line("dancing".to_owned())));
    }

    #[test]
    fn what_runs_is_read() {
        let running = status("absent", "").running().unwrap();
        assert_eq!(running.current.as_ref().map(StorePath::as_str), Some(OLD));
        assert_eq!((running.booted, running.profile, running.reboot_required), (None, None, true));
        assert_eq!(running.failed_units, ["a.service"]);
    }

    #[test]
    fn a_broken_answer_is_no_answer() {
        assert_eq!(Answer::read(b"").unwrap().running(), Err(Unreadable::Short));
        assert!(matches!(Answer::read(b"sudo: a password is required"), Err(Unreadable::Line(_))));
        assert!(matches!(Answer::read(b"{\"kind\":\"running\",\"boo"), Err(Unreadable::Line(_))));
        let refused = Answer::read(b"{\"kind\":\"error\",\"text\":\"no\"}");
        assert_eq!(refused, Err(Unreadable::Refused("no".to_owned())));
    }

    proptest! {
        #[test]
        fn nothing_that_a_host_writes_is_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Answer::read(&bytes).map(|answer| answer.activation(DeploymentId::new()));
        }
    }
}
