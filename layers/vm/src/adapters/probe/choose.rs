//! Which hypervisor is used, from what was set, what the probe says and what is installed. Pure.

use std::str::FromStr;

use super::Verdict;
use crate::adapters::Accelerator;
use crate::errors::HYPERVISOR_MISSING;
use crate::model::Backend;
use crate::ports::StepError;

/// The setting (`UNKEY_METALD_BACKEND`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum BackendSetting {
    /// The best that works here.
    #[default]
    Auto,
    /// Firecracker; the probe has no say.
    Firecracker,
    /// QEMU; the probe has no say but in whether KVM is used.
    Qemu,
}

impl BackendSetting {
    /// Whether a choice needs the probe's verdict; otherwise one that is kept will do, and none as well.
    pub fn needs_probe(self) -> bool {
        self == Self::Auto
    }
}

/// A text is no backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBackend {
    /// The one of metald that is not offered.
    #[error("the backend docker is not offered: its VMs are containers; choose auto, firecracker or qemu")]
    Docker,
    /// Any other.
    #[error("{0:?} is no backend: auto, firecracker or qemu")]
    Unknown(String),
}

impl FromStr for BackendSetting {
    type Err = InvalidBackend;

    fn from_str(text: &str) -> Result<Self, InvalidBackend> {
        match text {
            "auto" => Ok(Self::Auto),
            "firecracker" => Ok(Self::Firecracker),
            "qemu" => Ok(Self::Qemu),
            "docker" => Err(InvalidBackend::Docker),
            other => Err(InvalidBackend::Unknown(other.to_owned())),
        }
    }
}

/// Which programs are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Firecracker and its jailer, both.
    pub firecracker: bool,
    /// QEMU.
    pub qemu: bool,
}

/// What VMs are run with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Hypervisor.
    pub backend: Backend,
    /// What runs the guest's instructions.
    pub accelerator: Accelerator,
}

/// Chooses. Without a verdict KVM counts as not usable, except for who asked for Firecracker, which has nothing else.
///
/// # Errors
/// When nothing that is installed can be used, with the way out.
pub fn choose(setting: BackendSetting, verdict: Option<&Verdict>, present: Present) -> Result<Choice, StepError> {
    let kvm = verdict == Some(&Verdict::Usable);
    let qemu = Choice { backend: Backend::Qemu, accelerator: if kvm { Accelerator::Kvm } else { Accelerator::Tcg } };
    let firecracker = Choice { backend: Backend::Firecracker, accelerator: Accelerator::Kvm };
    let missing = |reason: String| Err(StepError::new(HYPERVISOR_MISSING, reason));
    match setting {
        BackendSetting::Firecracker if present.firecracker => Ok(firecracker),
        BackendSetting::Firecracker => {
            missing("Firecracker or its jailer is not installed; install both, or choose qemu".to_owned())
        }
        BackendSetting::Qemu if present.qemu => Ok(qemu),
        BackendSetting::Qemu => missing("QEMU is not installed; install the package qemu-system-x86".to_owned()),
        BackendSetting::Auto if kvm && present.firecracker => Ok(firecracker),
        BackendSetting::Auto if present.qemu => Ok(qemu),
        BackendSetting::Auto => {
            let why = match verdict {
                Some(Verdict::NotUsable(reason)) => format!("KVM cannot run kernels here: {reason}"),
                Some(Verdict::Usable) => "neither Firecracker with its jailer nor QEMU is installed".to_owned(),
                None => "whether KVM can run kernels here is not known".to_owned(),
            };
            missing(format!("{why}; install the package qemu-system-x86, which does without KVM"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Present = Present { firecracker: true, qemu: true };

    fn chosen(
        setting: BackendSetting,
        verdict: Option<&Verdict>,
        present: Present,
    ) -> Result<(Backend, Accelerator), String> {
        let choice = choose(setting, verdict, present);
        choice.map(|choice| (choice.backend, choice.accelerator)).map_err(|error| error.reason)
    }

    fn broken() -> Verdict {
        Verdict::NotUsable("no CMPXCHG16B".to_owned())
    }

    #[test]
    fn auto_takes_the_best_that_works() {
        let broken = broken();
        let auto = |verdict, present| chosen(BackendSetting::Auto, verdict, present);
        let (usable, qemu) = (Verdict::Usable, Present { firecracker: false, qemu: true });
        assert_eq!(auto(Some(&usable), BOTH), Ok((Backend::Firecracker, Accelerator::Kvm)));
        assert_eq!(auto(Some(&usable), qemu), Ok((Backend::Qemu, Accelerator::Kvm)));
        assert_eq!(auto(Some(&broken), BOTH), Ok((Backend::Qemu, Accelerator::Tcg)));
        assert_eq!(auto(None, BOTH), Ok((Backend::Qemu, Accelerator::Tcg)));
        let alone = Present { firecracker: true, qemu: false };
        let error = auto(Some(&broken), alone).unwrap_err();
        assert!(error.contains("no CMPXCHG16B") && error.contains("install the package qemu-system-x86"), "{error}");
        assert!(auto(Some(&usable), Present { firecracker: false, qemu: false }).unwrap_err().contains("neither"));
    }

    #[test]
    fn who_says_what_he_wants_gets_it() {
        assert!(BackendSetting::Auto.needs_probe() && !BackendSetting::Firecracker.needs_probe());
        let firecracker = |present| chosen(BackendSetting::Firecracker, Some(&broken()), present);
        assert_eq!(firecracker(BOTH), Ok((Backend::Firecracker, Accelerator::Kvm)));
        assert!(firecracker(Present { firecracker: false, qemu: true }).is_err());
        let qemu = |verdict, present| chosen(BackendSetting::Qemu, verdict, present);
        assert_eq!(qemu(None, BOTH), Ok((Backend::Qemu, Accelerator::Tcg)));
        assert_eq!(qemu(Some(&Verdict::Usable), BOTH), Ok((Backend::Qemu, Accelerator::Kvm)));
        assert!(qemu(None, Present { firecracker: true, qemu: false }).is_err());
    }

    #[test]
    fn docker_is_refused_with_what_there_is() {
        assert_eq!("qemu".parse(), Ok(BackendSetting::Qemu));
        let error = "docker".parse::<BackendSetting>().unwrap_err().to_string();
        assert!(error.contains("auto, firecracker or qemu"), "{error}");
        assert!("xen".parse::<BackendSetting>().is_err());
    }
}
