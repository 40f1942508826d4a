//! Where each partition comes to lie. Pure: the same recipe and disk give the same plan.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::{Format, Recipe};
use crate::size::Size;

/// Start and end of every partition are multiples of this many bytes.
pub const ALIGNMENT: u64 = 1 << 20;

/// One partition on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Partition number, from 1: the place in `partition_layout`.
    pub index: u32,
    /// First sector, in logical sectors of the disk.
    pub first_lba: u64,
    /// Last sector; belongs to the partition.
    pub last_lba: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// GPT type.
    pub type_guid: Uuid,
    /// Name in the GPT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What it is formatted with.
    pub format: Format,
    /// Where the installed system mounts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<String>,
    /// Whether the attribute "legacy BIOS bootable" is set.
    #[serde(default)]
    pub bootable: bool,
}

/// The layout does not fit the disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The recipe has no layout.
    #[error("the recipe has no partition_layout")]
    NoLayout,
    /// Not a sector size that disks have.
    #[error("a logical sector of {0} bytes is not supported: a power of two from 512 to {ALIGNMENT} was expected")]
    Sector(u32),
    /// The disk is too small.
    #[error("the layout needs {needed} bytes and the disk has room for {available}")]
    TooSmall {
        /// Bytes that the layout needs at least, each partition rounded up to a whole MiB.
        needed: u64,
        /// Bytes between the partition tables.
        available: u64,
    },
}

impl PlanError {
    /// Stable code: `disk_too_small` or `partition_layout_invalid`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooSmall { .. } => "disk_too_small",
            Self::NoLayout | Self::Sector(_) => "partition_layout_invalid",
        }
    }
}

/// Lays the recipe's partitions out on a disk of `disk_bytes` bytes with logical sectors of `sector` bytes.
///
/// The order of the entries is the order on the disk. Fixed sizes are rounded up to a whole MiB and served first;
/// percentages share what they leave, rounded down, wherever in the list they stand.
pub fn plan(recipe: &Recipe, disk_bytes: u64, sector: u32) -> Result<Vec<Placement>, PlanError> {
    if recipe.partition_layout.is_empty() {
        return Err(PlanError::NoLayout);
    }
    let sector_bytes = u64::from(sector);
    if !sector.is_power_of_two() || !(512..=ALIGNMENT).contains(&sector_bytes) {
        return Err(PlanError::Sector(sector));
    }
    let available = available_bytes(disk_bytes, sector_bytes);
    let fixed: u128 = recipe.partition_layout.iter().map(|entry| smallest(entry.size)).sum();
    let spare = match u128::from(available).checked_sub(fixed) {
        Some(spare) => spare as u64,
        None => return Err(too_small(recipe, available)),
    };
    let mut start = ALIGNMENT;
    let mut placements = Vec::with_capacity(recipe.partition_layout.len());
    for (index, entry) in (1u32..).zip(&recipe.partition_layout) {
        let bytes = match entry.size {
            Size::Bytes(_) => smallest(entry.size) as u64,
            Size::Percent(percent) => spare / 100 * u64::from(percent) + spare % 100 * u64::from(percent) / 100,
        };
        let bytes = bytes / ALIGNMENT * ALIGNMENT;
        if bytes == 0 {
            return Err(too_small(recipe, available));
        }
        placements.push(Placement {
            index,
            first_lba: start / sector_bytes,
            last_lba: (start + bytes) / sector_bytes - 1,
            bytes,
            type_guid: entry.type_guid,
            label: entry.label.clone(),
            format: entry.format,
            mountpoint: entry.mountpoint.clone(),
            bootable: entry.bootable,
        });
        start += bytes;
    }
    Ok(placements)
}

/// Bytes that partitions can have: from the first MiB to the last whole MiB before the second table (16 KiB of
/// entries and a header, UEFI specification 2.10, 5.3.1).
fn available_bytes(disk_bytes: u64, sector_bytes: u64) -> u64 {
    let table = 128 * 128 + sector_bytes;
    (disk_bytes.saturating_sub(table) / ALIGNMENT * ALIGNMENT).saturating_sub(ALIGNMENT)
}

/// What a fixed size takes; nothing for a percentage.
fn smallest(size: Size) -> u128 {
    match size {
        Size::Bytes(bytes) => u128::from(bytes).div_ceil(u128::from(ALIGNMENT)) * u128::from(ALIGNMENT),
        Size::Percent(_) => 0,
    }
}

fn too_small(recipe: &Recipe, available: u64) -> PlanError {
    let least = |size| if let Size::Percent(_) = size { u128::from(ALIGNMENT) } else { smallest(size) };
    let needed: u128 = recipe.partition_layout.iter().map(|entry| least(entry.size)).sum();
    PlanError::TooSmall { needed: u64::try_from(needed).unwrap_or(u64::MAX), available }
}
