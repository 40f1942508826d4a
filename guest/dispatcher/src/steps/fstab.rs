//! `/etc/fstab` of the new system.

use recipe::{Format, Placement, Roles};

/// One line for each file system, by UUID. `id` gives a partition's UUID.
pub(super) fn fstab<E>(roles: &Roles<'_>, mut id: impl FnMut(&Placement) -> Result<String, E>) -> Result<String, E> {
    let mut text = String::from("# Written when this system was installed. Columns: fstab(5).\n");
    let mut add = |id: String, at: &str, kind: &str, options: &str, pass: u8| {
        text.push_str(&format!("UUID={id} {at} {kind} {options} 0 {pass}\n"));
    };
    if let Some(root) = roles.root {
        add(id(root)?, "/", root.format.as_str(), "defaults", pass(root.format, 1));
    }
    for (mountpoint, placement) in &roles.mounts {
        let is_esp = roles.esp.is_some_and(|esp| esp.index == placement.index);
        let options = if is_esp { "umask=0077" } else { "defaults" };
        add(id(placement)?, mountpoint, placement.format.as_str(), options, pass(placement.format, 2));
    }
    for placement in &roles.swap {
        add(id(placement)?, "none", "swap", "sw", 0);
    }
    Ok(text)
}

/// When fsck looks at it: XFS and Btrfs look after themselves.
fn pass(format: Format, number: u8) -> u8 {
    match format {
        Format::Ext4 | Format::Vfat => number,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_then_mounts_then_swap() {
        let recipe = recipe::parse(&serde_json::json!({
            "task_target": "install-linux.target", "target_disk": "/dev/sda", "oci_url": "debian:13",
            "partition_layout": [
                {"size": "1G", "format": "swap"},
                {"size": "512M", "type_guid": "ef00", "format": "vfat"},
                {"size": "100%", "format": "ext4", "label": "root"},
                {"size": "1G", "format": "xfs", "mountpoint": "/var"}
            ]
        }))
        .unwrap();
        let placements = recipe::plan(&recipe, 10 << 30, 512).unwrap();
        let text = fstab(&recipe::roles(&placements), |one| Ok::<_, ()>(format!("id-{}", one.index))).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let expected = [
            "UUID=id-3 / ext4 defaults 0 1",
            "UUID=id-4 /var xfs defaults 0 0",
            "UUID=id-2 /boot/efi vfat umask=0077 0 2",
            "UUID=id-1 none swap sw 0 0",
        ];
        assert_eq!(lines, expected);
    }
}
