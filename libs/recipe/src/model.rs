//! A recipe after it was checked: one spelling for everything.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::disk::TargetDisk;
use crate::partition_type;
use crate::reference::OciReference;
use crate::size::Size;
use crate::target::TaskTarget;

/// What is done with one machine. Made by [`crate::parse`]; written back as JSON it is a valid recipe again.
#[derive(Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// The target that the maintenance system starts.
    pub task_target: TaskTarget,
    /// The disk that is written to; present for Linux and Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_disk: Option<TargetDisk>,
    /// The artifact; present for Linux and Windows.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub oci_url: Option<OciReference>,
    /// Partitions in the order of the disk; not empty for Linux.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub partition_layout: Vec<Partition>,
    /// cloud-init user data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_data: Option<Payload>,
    /// Windows answer file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unattend_xml: Option<Payload>,
    /// Kickstart file (`ks_cfg` or `ks.cfg`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ks_cfg: Option<Payload>,
    /// Firmware to fetch; present for firmware updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware_url: Option<String>,
    /// Image inside a WIM file, from 1.
    pub wim_index: u32,
    /// Variables for the steps, as given; see [`Recipe::environment`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Kept, not interpreted.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Version that the author gave the recipe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipe_version: Option<String>,
    /// Version of the schema that the author wrote for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema_version: Option<String>,
}

/// Contents of a file that may hold secrets: its `Debug` shows the size only.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Payload(String);

/// One entry of `partition_layout`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partition {
    /// How large it gets.
    pub size: Size,
    /// GPT type. Without one in the recipe: EFI system for the mount point `/boot/efi`, swap for the format swap,
    /// Microsoft basic data for ntfs, else Linux.
    pub type_guid: Uuid,
    /// What it is formatted with.
    pub format: Format,
    /// Name in the GPT; also the label of the file system, cut to what the file system can hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where the installed system mounts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<String>,
    /// Sets the attribute "legacy BIOS bootable".
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub bootable: bool,
}

/// File system of a partition. `raw` and `none` of a recipe mean the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// FAT32.
    Vfat,
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// NTFS.
    Ntfs,
    /// Swap space.
    Swap,
    /// Left as it is.
    #[default]
    #[serde(alias = "none")]
    Raw,
}

/// Names that the dispatcher sets itself; a recipe's `env` cannot change them.
pub const RESERVED_ENV: [&str; 16] = [
    "BASH_ENV",
    "DISPATCHER_VERSION",
    "ENV",
    "FIRMWARE_URL",
    "IFS",
    "OCI_URL",
    "PATH",
    "SCHEMA_ID",
    "SCHEMA_VERSION",
    "SERIAL_NUMBER",
    "TARGET_DISK",
    "TASK_TARGET",
    "WEBHOOK_SECRET",
    "WEBHOOK_URL",
    "WIM_INDEX",
    "WORKFLOW_STARTED_AT",
];

/// Whether a variable, in upper case, is the dispatcher's own or would change how programs are loaded.
pub fn is_reserved_env(name: &str) -> bool {
    RESERVED_ENV.contains(&name) || name.starts_with("LD_")
}

impl Recipe {
    /// The variables that reach the steps: names in upper case, reserved ones left out.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let upper = self.env.iter().map(|(name, value)| (name.to_ascii_uppercase(), value.clone()));
        upper.filter(|(name, _)| !is_reserved_env(name)).collect()
    }

    /// One variable of `env`, whatever its case.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe")
            .field("task_target", &self.task_target)
            .field("target_disk", &self.target_disk)
            .field("oci_url", &self.oci_url)
            .field("partition_layout", &self.partition_layout)
            .field("user_data", &self.user_data)
            .field("unattend_xml", &self.unattend_xml)
            .field("ks_cfg", &self.ks_cfg)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Payload {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The contents.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The size in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl Partition {
    /// The type that an entry without `type_guid` gets.
    pub(crate) fn default_type(format: Format, mountpoint: Option<&str>) -> Uuid {
        match format {
            _ if mountpoint == Some("/boot/efi") => partition_type::EFI_SYSTEM,
            Format::Swap => partition_type::SWAP,
            Format::Ntfs => partition_type::BASIC_DATA,
            _ => partition_type::LINUX,
        }
    }
}

impl Format {
    /// The word that a recipe uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vfat => "vfat",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Ntfs => "ntfs",
            Self::Swap => "swap",
            Self::Raw => "raw",
        }
    }

    /// How many letters a label of this file system can have: FAT 11, swap 15, ext4 16, XFS 12, NTFS 32, Btrfs 255.
    pub fn label_limit(self) -> usize {
        match self {
            Self::Vfat => 11,
            Self::Xfs => 12,
            Self::Swap => 15,
            Self::Ext4 => 16,
            Self::Ntfs => 32,
            Self::Btrfs => 255,
            Self::Raw => 0,
        }
    }

    /// Whether a Linux system can have it as its root: it keeps owners, modes and links.
    pub fn can_be_root(self) -> bool {
        matches!(self, Self::Ext4 | Self::Xfs | Self::Btrfs)
    }

    /// Whether a system can mount it as a directory.
    pub fn is_mountable(self) -> bool {
        !matches!(self, Self::Swap | Self::Raw)
    }
}

fn as_text<S: serde::Serializer>(reference: &Option<OciReference>, serializer: S) -> Result<S::Ok, S::Error> {
    match reference {
        Some(reference) => serializer.collect_str(reference),
        None => serializer.serialize_none(),
    }
}
