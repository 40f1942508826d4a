use proptest::prelude::*;
use recipe::{ALIGNMENT, Placement, PlanError, plan, roles};
use serde_json::{Value, json};

use super::{linux, linux_with, parsed};

fn placed(layout: Value, bytes: u64) -> Vec<Placement> {
    plan(&parsed(&linux_with("/partition_layout", layout)), bytes, 512).unwrap()
}

#[test]
fn a_remainder_in_the_middle_leaves_room_for_what_follows() {
    let placements = plan(&parsed(&linux()), 10 << 30, 512).unwrap();
    let lbas: Vec<_> = placements.iter().map(|one| (one.index, one.first_lba, one.last_lba)).collect();
    // 10 GiB: 20,971,520 sectors; the last MiB goes to the second table.
    assert_eq!(lbas, [(1, 2048, 1050623), (2, 1050624, 20936703), (3, 20936704, 20969471)]);
    assert_eq!(placements[1].bytes, (10 << 30) - (512 << 20) - (16 << 20) - 2 * ALIGNMENT);
}

#[test]
fn sectors_of_4096_bytes_are_counted_as_such() {
    let placements = plan(&parsed(&linux()), 10 << 30, 4096).unwrap();
    assert_eq!((placements[0].first_lba, placements[0].last_lba), (256, 131_327));
    assert!(matches!(plan(&parsed(&linux()), 10 << 30, 520), Err(PlanError::Sector(520))));
}

#[test]
fn a_small_disk_is_refused_with_both_numbers() {
    let error = plan(&parsed(&linux()), 512 << 20, 512).unwrap_err();
    assert_eq!(error, PlanError::TooSmall { needed: 529 << 20, available: 510 << 20 });
    assert_eq!(error.code(), "disk_too_small");
    // Partitions, the first MiB, and the second table: 128 entries of 128 bytes and a header.
    let exact = (529 << 20) + ALIGNMENT + 16384 + 512;
    assert!(plan(&parsed(&linux()), exact, 512).is_ok());
    assert!(plan(&parsed(&linux()), exact - 1, 512).is_err());
}

#[test]
fn percentages_share_what_fixed_sizes_leave() {
    let layout = json!([{"size": "25%"}, {"size": "1022M"}, {"size": "50%"}]);
    let sizes: Vec<_> = placed(layout, 2 << 30).iter().map(|one| one.bytes >> 20).collect();
    assert_eq!(sizes, [256, 1022, 512]);
}

#[test]
fn parts_are_told_by_type_mount_point_and_label() {
    let placements = placed(
        json!([
            {"size": "1M", "type_guid": "ef02"},
            {"size": "64M", "type_guid": "ef00", "format": "vfat", "label": "boot"},
            {"size": "1G", "format": "swap"},
            {"size": "2G", "format": "ext4", "mountpoint": "/var/log"},
            {"size": "3G", "format": "ext4", "mountpoint": "/var"},
            {"size": "4G", "format": "xfs"},
            {"size": "1G", "format": "ext4"},
            {"size": "16M", "format": "vfat", "type_guid": "0700", "label": "CIDATA"}
        ]),
        20 << 30,
    );
    let roles = roles(&placements);
    let index = |placement: Option<&Placement>| placement.map(|placement| placement.index);
    assert_eq!(index(roles.bios_boot), Some(1));
    assert_eq!(index(roles.esp), Some(2));
    assert_eq!(index(roles.root), Some(6), "the largest Linux partition without a mount point");
    assert_eq!(index(roles.cidata), Some(8));
    assert_eq!(roles.swap.iter().map(|one| one.index).collect::<Vec<_>>(), [3]);
    let mounts: Vec<_> = roles.mounts.iter().map(|(path, one)| (*path, one.index)).collect();
    assert_eq!(mounts, [("/var", 5), ("/boot/efi", 2), ("/var/log", 4)]);
}

#[test]
fn a_mount_point_goes_before_a_label_and_a_label_before_size() {
    let root = |layout: Value| roles(&placed(layout, 20 << 30)).root.map(|placement| placement.index);
    let big = json!({"size": "8G", "format": "ext4"});
    let labelled = json!({"size": "1G", "format": "ext4", "label": "RootFS"});
    let mounted = json!({"size": "1G", "format": "btrfs", "mountpoint": "/"});
    assert_eq!(root(json!([big, labelled, mounted])), Some(3));
    assert_eq!(root(json!([big, labelled])), Some(2));
    assert_eq!(root(json!([big])), Some(1));
    assert_eq!(root(json!([{"size": "1G"}])), None);
}

prop_compose! {
    /// Layouts that the checks let through: at most one 100 %, or shares that add up to less.
    fn layouts()(
        fixed in prop::collection::vec((1u64..(3 << 30), any::<bool>()), 0..12),
        shares in prop::collection::vec(1u8..=25, 0..4),
        whole in any::<bool>(),
        place in any::<prop::sample::Index>(),
    ) -> Vec<Value> {
        let mut entries: Vec<Value> = fixed.iter().map(|(bytes, vfat)| {
            json!({"size": bytes.to_string(), "format": if *vfat { "vfat" } else { "ext4" }})
        }).collect();
        if whole {
            entries.insert(place.index(entries.len() + 1), json!({"size": "100%"}));
        } else {
            entries.extend(shares.iter().map(|share| json!({"size": format!("{share}%")})));
        }
        if entries.is_empty() {
            entries.push(json!({"size": "1M"}));
        }
        entries
    }
}

proptest! {
    #[test]
    fn partitions_are_aligned_inside_the_disk_and_apart(
        layout in layouts(), bytes in (1u64 << 20)..(64 << 30), sector in prop::sample::select(vec![512u32, 4096])
    ) {
        let bytes = bytes / u64::from(sector) * u64::from(sector);
        let recipe = parsed(&linux_with("/partition_layout", json!(layout)));
        let Ok(placements) = plan(&recipe, bytes, sector) else { return Ok(()) };
        prop_assert_eq!(placements.len(), layout.len());
        let sector_bytes = u64::from(sector);
        let last_usable = bytes / sector_bytes - 2 - (128 * 128u64).div_ceil(sector_bytes);
        let mut end = 0;
        for (index, placement) in (1u32..).zip(&placements) {
            prop_assert_eq!(placement.index, index);
            prop_assert!(placement.first_lba > end);
            prop_assert_eq!(placement.first_lba * sector_bytes % ALIGNMENT, 0);
            prop_assert_eq!((placement.last_lba + 1) * sector_bytes % ALIGNMENT, 0);
            prop_assert!(placement.last_lba <= last_usable);
            prop_assert_eq!((placement.last_lba + 1 - placement.first_lba) * sector_bytes, placement.bytes);
            if let recipe::Size::Bytes(wanted) = recipe.partition_layout[index as usize - 1].size {
                prop_assert!(placement.bytes >= wanted && placement.bytes < wanted + ALIGNMENT);
            }
            end = placement.last_lba;
        }
        prop_assert_eq!(plan(&recipe, bytes, sector).unwrap(), placements);
    }

    #[test]
    fn no_document_makes_it_panic(text in "\\PC{0,200}", number in any::<f64>()) {
        let _ = recipe::parse(&json!({"task_target": text, "partition_layout": [text, number]}));
        let _ = recipe::parse(&json!({text.as_str(): text}));
    }
}
