//! Which disk a recipe means.

use serde::{Deserialize, Serialize};

/// A disk as the machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Device, for example `/dev/nvme0n1`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Logical sector in bytes.
    pub sector: u32,
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World-wide name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Model, as the disk says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether it has turning platters.
    pub rotational: bool,
}

/// `target_disk` of a recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetDisk {
    /// A device, or a link below `/dev/disk/by-id` or `/dev/disk/by-path`.
    Device(String),
    /// What the disk is like.
    Hints(DiskHints),
}

/// What a disk has to be like; each one that is given has to fit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskHints {
    /// The whole serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World-wide name, with or without `0x` or `wwn-` in front, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// The model, or a part of it, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Smallest size in bytes that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_size: Option<u64>,
    /// Largest size in bytes that fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// Whether it has turning platters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotational: Option<bool>,
}

/// Not exactly one disk is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// No disk fits.
    #[error("no disk fits target_disk; seen: {}", list(.seen))]
    None {
        /// Every disk that was looked at.
        seen: Vec<Disk>,
    },
    /// More than one disk fits.
    #[error("{} disks fit target_disk where one is needed: {}; seen: {}", .fitting.len(), .fitting.join(", "), list(.seen))]
    Many {
        /// Devices of those that fit.
        fitting: Vec<String>,
        /// Every disk that was looked at.
        seen: Vec<Disk>,
    },
}

impl SelectError {
    /// Stable code: `disk_hint_no_match` or `disk_hint_ambiguous`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None { .. } => "disk_hint_no_match",
            Self::Many { .. } => "disk_hint_ambiguous",
        }
    }
}

impl DiskHints {
    /// The one disk that fits every hint.
    pub fn select<'a>(&self, disks: &'a [Disk]) -> Result<&'a Disk, SelectError> {
        one(disks, |disk| self.fits(disk))
    }

    /// Whether a disk fits every hint. A disk that does not tell what a hint asks for does not fit.
    pub fn fits(&self, disk: &Disk) -> bool {
        let told = |hint: &Option<String>, said: &Option<String>, same: fn(&str, &str) -> bool| match (hint, said) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(hint), Some(said)) => same(hint.trim(), said.trim()),
        };
        told(&self.serial, &disk.serial, |hint, said| hint == said)
            && told(&self.wwn, &disk.wwn, |hint, said| bare_wwn(hint) == bare_wwn(said))
            && told(&self.model, &disk.model, |hint, said| said.to_lowercase().contains(&hint.to_lowercase()))
            && self.min_size.is_none_or(|size| disk.size >= size)
            && self.max_size.is_none_or(|size| disk.size <= size)
            && self.rotational.is_none_or(|rotational| disk.rotational == rotational)
    }
}

impl TargetDisk {
    /// The one disk that is meant. `resolve` follows a link such as `/dev/disk/by-id/…` to its device.
    pub fn select<'a>(
        &self,
        disks: &'a [Disk],
        resolve: impl Fn(&str) -> Option<String>,
    ) -> Result<&'a Disk, SelectError> {
        match self {
            Self::Hints(hints) => hints.select(disks),
            Self::Device(path) => {
                let device = resolve(path).unwrap_or_else(|| path.clone());
                one(disks, |disk| disk.path == device)
            }
        }
    }
}

fn one(disks: &[Disk], fits: impl Fn(&Disk) -> bool) -> Result<&Disk, SelectError> {
    let fitting: Vec<&Disk> = disks.iter().filter(|disk| fits(disk)).collect();
    match fitting[..] {
        [disk] => Ok(disk),
        [] => Err(SelectError::None { seen: disks.to_vec() }),
        _ => Err(SelectError::Many {
            fitting: fitting.iter().map(|disk| disk.path.clone()).collect(),
            seen: disks.to_vec(),
        }),
    }
}

fn bare_wwn(wwn: &str) -> String {
    let wwn = wwn.to_lowercase();
    let wwn = wwn.strip_prefix("wwn-").unwrap_or(&wwn);
    wwn.strip_prefix("0x").unwrap_or(wwn).to_owned()
}

/// The disks on one line, for an error that a person has to act on.
fn list(disks: &[Disk]) -> String {
    if disks.is_empty() {
        return "none".to_owned();
    }
    let unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let line = |disk: &Disk| {
        let kind = if disk.rotational { "rotational" } else { "solid-state" };
        format!(
            "{} ({} bytes, {kind}, model {}, serial {}, wwn {})",
            disk.path,
            disk.size,
            unknown(&disk.model),
            unknown(&disk.serial),
            unknown(&disk.wwn)
        )
    };
    disks.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks() -> Vec<Disk> {
        let disk = |path: &str, size, serial: &str, rotational| Disk {
            path: path.into(),
            size,
            sector: 512,
            serial: Some(serial.into()),
            wwn: Some(format!("0x5000c500{serial}")),
            model: Some(if rotational { "ST4000NM0035".into() } else { "INTEL SSDSC2KB48".into() }),
            rotational,
        };
        vec![
            disk("/dev/sda", 4 << 40, "aa11", true),
            disk("/dev/sdb", 4 << 40, "bb22", true),
            disk("/dev/sdc", 480 << 30, "cc33", false),
        ]
    }

    fn selected(hints: &DiskHints) -> Result<String, &'static str> {
        hints.select(&disks()).map(|disk| disk.path.clone()).map_err(|error| error.code())
    }

    #[test]
    fn every_hint_has_to_fit() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(selected(&DiskHints { serial: text("bb22"), ..Default::default() }), Ok("/dev/sdb".into()));
        assert_eq!(
            selected(&DiskHints { wwn: text("WWN-0x5000C500AA11"), ..Default::default() }),
            Ok("/dev/sda".into())
        );
        assert_eq!(selected(&DiskHints { model: text("intel"), ..Default::default() }), Ok("/dev/sdc".into()));
        assert_eq!(selected(&DiskHints { max_size: Some(1 << 40), ..Default::default() }), Ok("/dev/sdc".into()));
        let both = DiskHints { serial: text("bb22"), rotational: Some(false), ..Default::default() };
        assert_eq!(selected(&both), Err("disk_hint_no_match"));
        assert_eq!(selected(&DiskHints { rotational: Some(true), ..Default::default() }), Err("disk_hint_ambiguous"));
    }

    #[test]
    fn an_error_names_every_disk_seen() {
        let error = DiskHints { rotational: Some(true), ..Default::default() }.select(&disks()).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("2 disks fit target_disk where one is needed: /dev/sda, /dev/sdb;"), "{text}");
        assert!(
            text.contains("/dev/sdc (515396075520 bytes, solid-state, model INTEL SSDSC2KB48, serial cc33"),
            "{text}"
        );
    }

    #[test]
    fn a_link_is_followed() {
        let disks = disks();
        let target = TargetDisk::Device("/dev/disk/by-id/ata-x".into());
        let followed = target.select(&disks, |_| Some("/dev/sdc".into())).unwrap();
        assert_eq!(followed.path, "/dev/sdc");
        assert!(matches!(target.select(&disks, |_| None), Err(SelectError::None { seen }) if seen.len() == 3));
    }
}
