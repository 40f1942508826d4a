//! Stable codes of the layer. Each has a page in docs/errors/; `cairn explain CODE` prints it.

/// A recipe or a server record breaks a rule; `details` says where.
pub const VALIDATION: &str = "validation_error";
/// The server has a job that is not complete.
pub const ACTIVE_JOB: &str = "active_job";
/// The same Idempotency-Key came with another recipe.
pub const IDEMPOTENCY_CONFLICT: &str = "idempotency_conflict";
/// Another server's record names the same BMC and system.
pub const BMC_IN_USE: &str = "bmc_in_use";
/// The recipe's target is not installed by this version.
pub const TARGET_NOT_SUPPORTED: &str = "target_not_supported";
/// The registry has no such artifact.
pub const ARTIFACT_MISSING: &str = "artifact_missing";
/// The registry that the recipe names does not answer.
pub const REGISTRY_UNREACHABLE: &str = "registry_unreachable";
/// The registry that the recipe names does not let this controller pull.
pub const REGISTRY_LOGIN: &str = "registry_login";
/// No maintenance image has been built.
pub const MAINTENANCE_IMAGE_MISSING: &str = "maintenance_image_missing";
/// The job is in a state that does not allow this.
pub const WRONG_STATE: &str = "wrong_state";
/// A report names a job of another server.
pub const WEBHOOK_OTHER_JOB: &str = "webhook_other_job";
/// The signature of a media URL is wrong or missing.
pub const MEDIA_URL_TAMPERED: &str = "media_url_tampered";
/// The media URL has expired.
pub const MEDIA_URL_EXPIRED: &str = "media_url_expired";
/// The task ISO could not be built.
pub const ISO_BUILD: &str = "iso_build";
/// The stored BMC password cannot be opened with this instance key.
pub const PASSWORD_SEALED: &str = "password_sealed";
/// The BMC does not answer.
pub const BMC_UNREACHABLE: &str = "bmc_unreachable";
/// The BMC's certificate is not trusted.
pub const BMC_TLS: &str = "bmc_tls";
/// The BMC offers no cipher that is safe.
pub const BMC_TLS_NO_CIPHER: &str = "bmc_tls_no_cipher";
/// The BMC refuses user name or password.
pub const BMC_AUTH: &str = "bmc_auth";
/// The BMC does not manage the machine that the record means.
pub const BMC_SYSTEM: &str = "bmc_system";
/// The BMC has no virtual CD.
pub const BMC_NO_VIRTUAL_MEDIA: &str = "bmc_no_virtual_media";
/// The BMC cannot fetch the medium.
pub const BMC_MEDIA_UNREACHABLE: &str = "bmc_media_unreachable";
/// The BMC answered with an error.
pub const BMC_ERROR: &str = "bmc_error";
/// The BMC did not get there in time.
pub const BMC_TIMEOUT: &str = "bmc_timeout";
/// An operator cancelled the job.
pub const CANCELLED: &str = "cancelled";
/// No terminal report came in time.
pub const WEBHOOK_TIMEOUT: &str = "webhook_timeout";
/// The machine is off and sent no terminal report.
pub const GUEST_POWERED_OFF: &str = "guest_powered_off";
/// The job took longer than JOB_STUCK_TIMEOUT.
pub const JOB_STUCK: &str = "job_stuck";
/// A step on the machine failed without saying more.
pub const STEP_FAILED: &str = "step_failed";
/// A package of the image lock is no longer in the archive.
pub const IMAGE_PACKAGE_GONE: &str = "image_package_gone";
/// The maintenance image could not be built.
pub const IMAGE_BUILD: &str = "image_build";
/// The registry refused a push.
pub const REGISTRY_REFUSED: &str = "registry_refused";
/// The job succeeded and the installed system has not reported.
pub const FIRST_BOOT_MISSING: &str = "first_boot_missing";

/// All of them.
pub const ALL: &[&str] = &[
    VALIDATION,
    ACTIVE_JOB,
    IDEMPOTENCY_CONFLICT,
    BMC_IN_USE,
    TARGET_NOT_SUPPORTED,
    ARTIFACT_MISSING,
    REGISTRY_UNREACHABLE,
    REGISTRY_LOGIN,
    MAINTENANCE_IMAGE_MISSING,
    WRONG_STATE,
    WEBHOOK_OTHER_JOB,
    MEDIA_URL_TAMPERED,
    MEDIA_URL_EXPIRED,
    ISO_BUILD,
    PASSWORD_SEALED,
    BMC_UNREACHABLE,
    BMC_TLS,
    BMC_TLS_NO_CIPHER,
    BMC_AUTH,
    BMC_SYSTEM,
    BMC_NO_VIRTUAL_MEDIA,
    BMC_MEDIA_UNREACHABLE,
    BMC_ERROR,
    BMC_TIMEOUT,
    CANCELLED,
    WEBHOOK_TIMEOUT,
    GUEST_POWERED_OFF,
    JOB_STUCK,
    STEP_FAILED,
    IMAGE_PACKAGE_GONE,
    IMAGE_BUILD,
    REGISTRY_REFUSED,
    FIRST_BOOT_MISSING,
];

/// Codes that the maintenance OS reports.
pub use recipe::callback::FAILURE_CODES as REPORTED;
