//! Stable codes of the layer. Each has a page in docs/errors/; `cairn explain CODE` prints it.

/// The inventory cannot be read, or an object in it is wrong.
pub const MACHINE_INVENTORY: &str = "machine_inventory";
/// No such machine, or none that matches.
pub const MACHINE_NOT_FOUND: &str = "machine_not_found";
/// The machine cannot be reached over SSH.
pub const MACHINE_UNREACHABLE: &str = "machine_unreachable";
/// The machine's host key is another one than is known.
pub const MACHINE_HOST_KEY: &str = "machine_host_key";
/// The machine, or a host on the way, refuses the login.
pub const MACHINE_LOGIN: &str = "machine_login";
/// The repository cannot be had, or has no such reference.
pub const MACHINE_GIT: &str = "machine_git";
/// The flake cannot be evaluated.
pub const MACHINE_EVALUATION: &str = "machine_evaluation";
/// The evaluation needs more memory than it may have.
pub const MACHINE_EVALUATION_MEMORY: &str = "machine_evaluation_memory";
/// The system cannot be built.
pub const MACHINE_BUILD: &str = "machine_build";
/// The system cannot be copied to the machine.
pub const MACHINE_COPY: &str = "machine_copy";
/// A file cannot be put where it should be.
pub const MACHINE_FILES: &str = "machine_files";
/// The machine did something else than it was told.
pub const MACHINE_HOST: &str = "machine_host";
/// Another deployment has the machine.
pub const MACHINE_CONFLICT: &str = "machine_conflict";
/// The system was taken back on this machine before.
pub const MACHINE_QUARANTINED: &str = "machine_quarantined";
/// The machine took the old system back.
pub const MACHINE_ROLLED_BACK: &str = "machine_rolled_back";
/// The machine could not take the old system back.
pub const MACHINE_ROLLBACK_FAILED: &str = "machine_rollback_failed";
/// How an activation ended is not known.
pub const MACHINE_OUT_OF_SIGHT: &str = "machine_out_of_sight";
/// The machine runs something else than was applied.
pub const MACHINE_DRIFTED: &str = "machine_drifted";
/// Installing a machine is not possible yet.
pub const MACHINE_INSTALL_NOT_AVAILABLE: &str = "machine_install_not_available";
/// Of several machines, some failed.
pub const MACHINE_PARTLY: &str = "machine_partly";
/// The state directory cannot be used.
pub const MACHINE_STATE: &str = "machine_state";
/// Ended by the user.
pub const MACHINE_INTERRUPTED: &str = "machine_interrupted";

/// All of them.
pub const ALL: &[&str] = &[
    MACHINE_INVENTORY,
    MACHINE_NOT_FOUND,
    MACHINE_UNREACHABLE,
    MACHINE_HOST_KEY,
    MACHINE_LOGIN,
    MACHINE_GIT,
    MACHINE_EVALUATION,
    MACHINE_EVALUATION_MEMORY,
    MACHINE_BUILD,
    MACHINE_COPY,
    MACHINE_FILES,
    MACHINE_HOST,
    MACHINE_CONFLICT,
    MACHINE_QUARANTINED,
    MACHINE_ROLLED_BACK,
    MACHINE_ROLLBACK_FAILED,
    MACHINE_OUT_OF_SIGHT,
    MACHINE_DRIFTED,
    MACHINE_INSTALL_NOT_AVAILABLE,
    MACHINE_PARTLY,
    MACHINE_STATE,
    MACHINE_INTERRUPTED,
];
