//! Kernels, initial file systems and disks that VMs are made of.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::InvalidName;

/// Name of an asset. Never a path: who calls the API cannot name a file of the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AssetName(String);

impl AssetName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AssetName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with(['.', '-']) {
            return Ok(Self(text.to_owned()));
        }
        let rule = "1 to 64 letters, digits, dots, hyphens and underscores, no dot or hyphen in front; not a path";
        Err(InvalidName { kind: "name of an asset", text: text.to_owned(), rule })
    }
}

impl TryFrom<String> for AssetName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<AssetName> for String {
    fn from(name: AssetName) -> Self {
        name.0
    }
}

impl fmt::Display for AssetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What an asset is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AssetKind {
    /// A Linux kernel: an uncompressed ELF, or a bzImage.
    Kernel,
    /// An initial file system.
    Initrd,
    /// A disk, raw.
    Disk,
}

impl AssetKind {
    /// As it is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Disk => "disk",
        }
    }
}

impl FromStr for AssetKind {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        [Self::Kernel, Self::Initrd, Self::Disk]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| InvalidName { kind: "kind of asset", text: text.to_owned(), rule: "kernel, initrd or disk" })
    }
}

/// An asset of this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// Name.
    pub name: AssetName,
    /// What it is for.
    pub kind: AssetKind,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// When it was added.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_no_name() {
        for good in ["vmlinux", "debian-13.raw", "rootfs_v2"] {
            assert!(good.parse::<AssetName>().is_ok(), "{good}");
        }
        for bad in ["", "/etc/shadow", "../x", "a/b", ".hidden", "-x", "a b", "a\0b"] {
            assert!(bad.parse::<AssetName>().is_err(), "{bad:?}");
        }
    }
}
