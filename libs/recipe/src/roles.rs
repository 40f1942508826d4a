//! What each partition is for.

use crate::model::Format;
use crate::partition_type;
use crate::plan::Placement;

/// Partitions by what they are for. A partition can have more than one entry here, for example as ESP and as a mount.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles<'a> {
    /// The root file system: mount point `/`, else the label `root` or `rootfs`, else the largest Linux partition
    /// with ext4, XFS or Btrfs that has no other mount point.
    pub root: Option<&'a Placement>,
    /// The EFI system partition: the first of type ef00.
    pub esp: Option<&'a Placement>,
    /// Where GRUB keeps its core image on BIOS machines: the first of type ef02.
    pub bios_boot: Option<&'a Placement>,
    /// The NoCloud config drive: the label `cidata` in any case.
    pub cidata: Option<&'a Placement>,
    /// Everything formatted as swap.
    pub swap: Vec<&'a Placement>,
    /// Every other partition with a mount point, parents before children. The root is not among them; the ESP is,
    /// with its own mount point or `/boot/efi`.
    pub mounts: Vec<(&'a str, &'a Placement)>,
}

/// Sorts partitions by what they are for.
pub fn roles(placements: &[Placement]) -> Roles<'_> {
    let by_type = |guid| placements.iter().find(|placement| placement.type_guid == guid);
    let labelled = |names: &[&str]| {
        let is = |label: &String| names.iter().any(|name| label.eq_ignore_ascii_case(name));
        placements.iter().find(|placement| placement.label.as_ref().is_some_and(is))
    };
    let esp = by_type(partition_type::EFI_SYSTEM);
    let root = placements
        .iter()
        .find(|placement| placement.mountpoint.as_deref() == Some("/"))
        .or_else(|| labelled(&["root", "rootfs"]).filter(|placement| placement.format.can_be_root()))
        .or_else(|| largest_linux(placements));
    let mut mounts: Vec<(&str, &Placement)> = placements
        .iter()
        .filter(|placement| root.is_none_or(|root| root.index != placement.index) && placement.format.is_mountable())
        .filter_map(|placement| {
            let is_esp = esp.is_some_and(|esp| esp.index == placement.index);
            let own = placement.mountpoint.as_deref();
            own.or(is_esp.then_some("/boot/efi")).map(|mountpoint| (mountpoint, placement))
        })
        .collect();
    mounts.sort_by_key(|(mountpoint, _)| mountpoint.split('/').count());
    Roles {
        root,
        esp,
        bios_boot: by_type(partition_type::BIOS_BOOT),
        cidata: labelled(&["cidata"]).filter(|placement| placement.format.is_mountable()),
        swap: placements.iter().filter(|placement| placement.format == Format::Swap).collect(),
        mounts,
    }
}

/// The largest partition of type 8300 that could be a root; of equals, the first.
fn largest_linux(placements: &[Placement]) -> Option<&Placement> {
    let linux = |placement: &&Placement| {
        placement.type_guid == partition_type::LINUX
            && placement.mountpoint.is_none()
            && placement.format.can_be_root()
            && !placement.label.as_ref().is_some_and(|label| label.eq_ignore_ascii_case("cidata"))
    };
    placements.iter().filter(linux).rev().max_by_key(|placement| placement.bytes)
}
