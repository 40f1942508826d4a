//! GPT partition types by the aliases that sgdisk uses.

use uuid::{Uuid, uuid};

/// EFI system partition (UEFI specification 2.10, table 5.7).
pub const EFI_SYSTEM: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// Where GRUB keeps its core image on a BIOS machine with a GPT.
pub const BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
/// Linux file system data.
pub const LINUX: Uuid = uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4");
/// Linux swap.
pub const SWAP: Uuid = uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f");
/// Microsoft basic data.
pub const BASIC_DATA: Uuid = uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7");
/// Microsoft reserved; never holds a file system.
pub const MICROSOFT_RESERVED: Uuid = uuid!("e3c9e316-0b5c-4db8-817d-f92df00215ae");
/// Linux RAID.
pub const LINUX_RAID: Uuid = uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e");
/// Core dumps of VMware ESX.
pub const VMWARE_CORE: Uuid = uuid!("9d275380-40ad-11db-bf97-000c2911d1b8");

/// Aliases that a recipe may use.
pub const ALIASES: [(&str, Uuid); 8] = [
    ("ef00", EFI_SYSTEM),
    ("ef02", BIOS_BOOT),
    ("8300", LINUX),
    ("8200", SWAP),
    ("0700", BASIC_DATA),
    ("0c01", MICROSOFT_RESERVED),
    ("fd00", LINUX_RAID),
    ("fc00", VMWARE_CORE),
];

/// The type that an alias, in any case, or a GUID names; `None` for an unknown alias.
pub fn resolve(text: &str) -> Option<Uuid> {
    if text.len() != 4 {
        return Uuid::try_parse(text).ok();
    }
    ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(text)).map(|(_, guid)| *guid)
}
