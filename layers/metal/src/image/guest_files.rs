//! The static files of the maintenance system, from `guest/maintenance/`.

macro_rules! guest_file {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest/maintenance/", $name))
    };
}

pub(super) const ROOT_LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest/debian/root.lock"));
pub(super) const ROOT_PACKAGES: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest/debian/packages.list"));
pub(super) const LOCK: &str = guest_file!("image.lock");
pub(super) const PACKAGES: &str = guest_file!("packages.list");
pub(super) const MODULES: &str = guest_file!("modules.list");
pub(super) const INITRAMFS_MODULES: &str = guest_file!("initramfs-modules.list");
pub(super) const PRUNE: &str = guest_file!("prune.list");
pub(super) const MASKED: &str = guest_file!("masked.list");
pub(super) const INIT: &str = guest_file!("init");
pub(super) const GRUB_EARLY: &str = guest_file!("grub-early.cfg");
pub(super) const GRUB: &str = guest_file!("grub.cfg");

/// Place in the root and content of every configuration file.
pub(super) const CONFIGURATION: [(&str, &str); 2] = [
    ("etc/systemd/journald.conf.d/cairn.conf", guest_file!("journald.conf")),
    ("etc/systemd/system.conf.d/cairn.conf", guest_file!("system.conf")),
];

/// Name and content of every unit that is always there.
pub(super) const UNITS: [(&str, &str); 9] = [
    ("bootloader-linux.service", guest_file!("units/bootloader-linux.service")),
    ("config-drive.service", guest_file!("units/config-drive.service")),
    ("image-linux.service", guest_file!("units/image-linux.service")),
    ("install-linux.target", guest_file!("units/install-linux.target")),
    ("partition.service", guest_file!("units/partition.service")),
    ("prepare-provision-mounts.service", guest_file!("units/prepare-provision-mounts.service")),
    ("provision-dispatcher.service", guest_file!("units/provision-dispatcher.service")),
    ("provision-failed@.service", guest_file!("units/provision-failed@.service")),
    ("provision-success.service", guest_file!("units/provision-success.service")),
];

/// The unit of images made for looking around.
pub(super) const DEBUG_SHELL: (&str, &str) = ("debug-shell.service", guest_file!("units/debug-shell.service"));

#[cfg(test)]
mod tests {
    use super::*;

    fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(name, _)| *name == key).flat_map(|(_, value)| value.split_whitespace()).collect()
    }

    fn unit(name: &str) -> &'static str {
        UNITS.iter().find(|(unit, _)| *unit == name).map_or("", |(_, text)| *text)
    }

    #[test]
    fn every_unit_that_a_unit_names_is_shipped_or_is_systemds() {
        let own: Vec<_> = UNITS.iter().map(|(name, _)| *name).collect();
        for (unit, text) in UNITS {
            for key in ["Requires", "After", "OnFailure"] {
                for name in values(text, key) {
                    let template = name.replace("@%n.service", "@.service");
                    assert!(name.starts_with("systemd-") || own.contains(&template.as_str()), "{unit}: {key}={name}");
                }
            }
        }
    }

    /// Spec 2.4: one chain, each step waiting for the one before and reporting its own failure within its time.
    #[test]
    fn the_steps_are_one_chain_with_their_times() {
        let chain = [
            ("partition.service", "prepare-provision-mounts.service", "45min"),
            ("image-linux.service", "partition.service", "90min"),
            ("bootloader-linux.service", "image-linux.service", "20min"),
            ("config-drive.service", "bootloader-linux.service", "10min"),
        ];
        for (name, before, time) in chain {
            let text = unit(name);
            assert_eq!(values(text, "Requires"), [before], "{name}");
            assert_eq!(values(text, "After"), [before], "{name}");
            assert_eq!(values(text, "OnFailure"), ["provision-failed@%n.service"], "{name}");
            assert_eq!(values(text, "TimeoutStartSec"), [time], "{name}");
            assert_eq!(values(text, "RemainAfterExit"), ["yes"], "{name}");
            assert_eq!(values(text, "EnvironmentFile"), ["/run/provision/recipe.env"], "{name}");
        }
        let target = unit("install-linux.target");
        assert_eq!(values(target, "Requires"), values(target, "After"));
        assert_eq!(values(target, "Requires").last(), Some(&"provision-success.service"));
        assert_eq!(values(unit("provision-success.service"), "After"), ["config-drive.service"]);
    }

    #[test]
    fn the_dispatcher_starts_by_itself_and_masks_hit_no_unit_of_ours() {
        assert_eq!(values(unit("provision-dispatcher.service"), "WantedBy"), ["multi-user.target"]);
        for masked in super::super::tree::entries(MASKED) {
            assert!(UNITS.iter().all(|(name, _)| *name != masked), "{masked}");
        }
    }
}
