//! Why something did not work, with a code that stays the same.

use std::error::Error;

use cairn_core::chain;
use serde::{Deserialize, Serialize};

/// A failure as it is reported: a code for programs and one line for people. The line holds no secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// One of [`code`].
    pub code: String,
    /// One line.
    pub message: String,
}

/// A failure together with the unit that it happened in, as kept in `failure.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// For example `partition.service`.
    pub unit: String,
    /// What happened.
    #[serde(flatten)]
    pub failure: Failure,
}

/// The codes that a report can hold.
pub mod code {
    /// No task medium showed up in time.
    pub const MEDIUM_MISSING: &str = "medium_missing";
    /// More than one task medium is there.
    pub const MEDIUM_AMBIGUOUS: &str = "medium_ambiguous";
    /// The medium cannot be mounted.
    pub const MEDIUM_MOUNT: &str = "medium_mount_failed";
    /// A file of the medium is missing or cannot be read.
    pub const MEDIUM_UNREADABLE: &str = "medium_unreadable";
    /// The schema on the medium cannot be used.
    pub const SCHEMA_UNUSABLE: &str = "schema_unusable";
    /// The recipe is not JSON.
    pub const RECIPE_UNREADABLE: &str = "recipe_unreadable";
    /// The recipe does not follow the schema.
    pub const RECIPE_INVALID: &str = "recipe_invalid";
    /// The recipe's target cannot be carried out here.
    pub const TARGET_UNSUPPORTED: &str = "target_not_supported";
    /// A file of our own cannot be written or read.
    pub const STATE_UNWRITABLE: &str = "state_unwritable";
    /// systemd did not start the target.
    pub const START_FAILED: &str = "target_start_failed";
    /// Not root.
    pub const NOT_PRIVILEGED: &str = "not_privileged";
    /// The serial number cannot be had from where it was asked for.
    pub const SERIAL_UNKNOWN: &str = "serial_unknown";
    /// `network.json` cannot be used.
    pub const NETWORK_INVALID: &str = "network_invalid";
    /// No interface has the MAC address.
    pub const NETWORK_NO_INTERFACE: &str = "network_no_interface";
    /// The interface has no link.
    pub const NETWORK_NO_LINK: &str = "network_no_link";
    /// The interface got no address.
    pub const NETWORK_NO_ADDRESS: &str = "network_no_address";
    /// The list of disks cannot be had.
    pub const DISKS_UNREADABLE: &str = "disks_unreadable";
    /// The layout cannot make this machine boot.
    pub const LAYOUT_INVALID: &str = "partition_layout_invalid";
    /// A partitioning program failed.
    pub const PARTITION_FAILED: &str = "partition_failed";
    /// A file system cannot be made.
    pub const FORMAT_FAILED: &str = "format_failed";
    /// The disk is not the one that the partition step prepared.
    pub const DISK_NOT_PREPARED: &str = "disk_not_prepared";
    /// A file system of the new system cannot be mounted or unmounted.
    pub const MOUNT_FAILED: &str = "mount_failed";
    /// The artifact, or a part of it, is not in the registry.
    pub const ARTIFACT_MISSING: &str = "artifact_missing";
    /// The registry refused the credentials.
    pub const ARTIFACT_REFUSED: &str = "artifact_refused";
    /// The registry cannot be reached or broke off too often.
    pub const ARTIFACT_UNREACHABLE: &str = "artifact_unreachable";
    /// What came is not what the digest promises.
    pub const ARTIFACT_DIGEST_MISMATCH: &str = "artifact_digest_mismatch";
    /// The artifact is no root file system.
    pub const ARTIFACT_UNSUPPORTED: &str = "artifact_unsupported";
    /// tar refused the layer or the disk is full.
    pub const UNPACK_FAILED: &str = "unpack_failed";
    /// The new system has no GRUB for this firmware.
    pub const BOOTLOADER_MISSING: &str = "bootloader_missing";
    /// GRUB could not be installed.
    pub const BOOTLOADER_FAILED: &str = "bootloader_failed";
    /// The config drive cannot be written.
    pub const CONFIG_DRIVE_FAILED: &str = "config_drive_failed";
    /// A defect of this program.
    pub const PANIC: &str = "internal_error";
}

impl Failure {
    /// A failure with a line of its own.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: one_line(&message.into()) }
    }

    /// For `map_err`: the error with everything that caused it.
    pub fn of<E: Error>(code: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::new(code, chain(&error))
    }
}

/// How long a line can get, in characters.
const LINE_LIMIT: usize = 1000;

fn one_line(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LINE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_every_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot write /x")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no\nroom"));
        let failure = Failure::of(code::STATE_UNWRITABLE)(error);
        assert_eq!(failure.to_string(), "cannot write /x: no room");
    }

    #[test]
    fn every_code_is_in_the_shared_list() {
        // The constants above, read from this file: what is added there has to be explained to operators too.
        let codes = include_str!("failure.rs").lines().filter_map(|line| {
            line.trim().strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";")
        });
        for code in codes {
            assert!(recipe::callback::FAILURE_CODES.contains(&code), "{code} is missing in recipe::callback");
        }
    }
}
