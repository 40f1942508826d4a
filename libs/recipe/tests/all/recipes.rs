use recipe::{Format, SCHEMA, SCHEMA_ID, SchemaError, Size, TargetDisk, TaskTarget, parse, partition_type};
use serde_json::{Value, json};

use super::{linux, linux_with, parsed};

/// The violations of a recipe as `(path, field, code)`.
fn refused(recipe: &Value) -> Vec<(String, String, &'static str)> {
    let violations = parse(recipe).expect_err("the recipe was accepted");
    violations.into_iter().map(|violation| (violation.path, violation.field, violation.code)).collect()
}

/// Asserts that exactly one thing is wrong, and returns its message.
fn one(recipe: &Value, path: &str, code: &str) -> String {
    let violations = parse(recipe).expect_err("the recipe was accepted");
    assert_eq!(violations.len(), 1, "{violations:#?}");
    assert_eq!((violations[0].path.as_str(), violations[0].code), (path, code), "{violations:#?}");
    violations[0].message.clone()
}

#[test]
fn a_usual_recipe_is_normalised_and_reads_back() {
    let recipe = parsed(&linux());
    assert_eq!(recipe.task_target, TaskTarget::InstallLinux);
    assert_eq!(recipe.partition_layout[0].size, Size::Bytes(512 << 20));
    assert_eq!(recipe.partition_layout[0].type_guid, partition_type::EFI_SYSTEM);
    assert_eq!(recipe.wim_index, 1);
    assert_eq!(recipe.oci_url.as_ref().unwrap().tag.as_deref(), Some("13"));
    assert_eq!(recipe.environment(), [("HOSTNAME".to_owned(), "node-7".to_owned())].into());
    assert_eq!(parsed(&serde_json::to_value(&recipe).unwrap()), recipe);
}

#[test]
fn both_spellings_of_payloads_mean_the_same() {
    let esxi = |key: &str, value: Value| parsed(&json!({"task_target": "install-esxi.target", key: value}));
    let texts = [
        esxi("ks_cfg", json!("reboot")),
        esxi("ks.cfg", json!("reboot")),
        esxi("ks.cfg", json!({"content": "reboot"})),
    ];
    for recipe in &texts {
        assert_eq!(recipe, &texts[0]);
        assert_eq!(recipe.ks_cfg.as_ref().unwrap().as_str(), "reboot");
    }
    one(&json!({"task_target": "install-esxi.target", "ks_cfg": "a", "ks.cfg": "a"}), "/ks.cfg", "conflict");
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let message = one(&linux_with("/target_dsik", json!("/dev/sda")), "/target_dsik", "unknown_key");
    assert_eq!(message, "unknown key \"target_dsik\"; did you mean \"target_disk\"?");
    let nested = linux_with("/partition_layout/1/lable", json!("root"));
    let message = one(&nested, "/partition_layout/1/lable", "unknown_key");
    assert_eq!(message, "unknown key \"lable\"; did you mean \"label\"?");
    assert_eq!(refused(&nested)[0].1, "partition_layout[1].lable");
    let message = one(&linux_with("/drivers", json!([])), "/drivers", "unknown_key");
    assert_eq!(message, "unknown key \"drivers\"");
}

#[test]
fn each_target_requires_what_it_needs() {
    let bare = |target: &str| refused(&json!({"task_target": target}));
    let required = |paths: &[&str]| {
        paths.iter().map(|path| ((*path).to_owned(), path[1..].to_owned(), "required")).collect::<Vec<_>>()
    };
    assert_eq!(bare("install-linux.target"), required(&["/oci_url", "/partition_layout", "/target_disk"]));
    assert_eq!(bare("install-windows.target"), required(&["/oci_url", "/target_disk"]));
    assert_eq!(bare("install-esxi.target"), required(&["/ks_cfg"]));
    assert_eq!(bare("supermicro-update.target"), required(&["/firmware_url"]));
    assert_eq!(refused(&json!({})), required(&["/task_target"]));
    assert!(parse(&json!({"task_target": "erase-disk.target"})).is_ok());
    one(&json!({"task_target": "install-linux"}), "/task_target", "pattern");
}

#[test]
fn bad_partitions_are_found() {
    let at = |key: &str| format!("/partition_layout/1/{key}");
    for (key, value, code) in [
        ("size", json!("5X"), "pattern"),
        ("size", json!("0%"), "pattern"),
        ("size", json!(512), "type"),
        ("size", json!("99999P"), "too_large"),
        ("format", json!("zfs"), "unknown_value"),
        ("type_guid", json!("8301"), "unknown_type"),
        ("type_guid", json!("linux"), "pattern"),
        ("label", json!("a".repeat(33)), "too_large"),
        ("label", json!("a:b"), "pattern"),
        ("mountpoint", json!("/a/../b"), "pattern"),
        ("bootable", json!("yes"), "type"),
    ] {
        one(&linux_with(&at(key), value), &at(key), code);
    }
    one(&linux_with("/partition_layout", json!([])), "/partition_layout", "too_small");
    let many: Vec<Value> = (0..65).map(|_| json!({"size": "1M"})).collect();
    one(&linux_with("/partition_layout", json!(many)), "/partition_layout", "too_large");
    let twice = json!([{"size": "100%", "format": "ext4"}, {"size": "100%"}]);
    one(&linux_with("/partition_layout", twice), "/partition_layout/1/size", "duplicate_remainder");
    let more = json!([{"size": "60%", "format": "ext4"}, {"size": "50%"}]);
    one(&linux_with("/partition_layout", more), "/partition_layout/1/size", "percent_sum");
    let same = json!([{"size": "1G", "format": "ext4", "mountpoint": "/"}, {"size": "1G", "format": "xfs", "mountpoint": "/"}]);
    one(&linux_with("/partition_layout", same), "/partition_layout/1/mountpoint", "duplicate_mountpoint");
    let swap = json!([{"size": "1G", "format": "swap", "mountpoint": "/swap"}]);
    one(&linux_with("/partition_layout", swap), "/partition_layout/0/mountpoint", "format_mismatch");
    let fat_root = json!([{"size": "1G", "format": "vfat", "mountpoint": "/"}]);
    one(&linux_with("/partition_layout", fat_root), "/partition_layout/0/format", "format_mismatch");
    let reserved = json!([{"size": "16M", "format": "ntfs", "type_guid": "0c01"}]);
    one(&linux_with("/partition_layout", reserved), "/partition_layout/0/format", "format_mismatch");
}

#[test]
fn disks_are_taken_by_name_link_or_hints() {
    for device in ["/dev/sda", "/dev/nvme0n1", "/dev/disk/by-path/pci-0000:00:1f.2-ata-1", "/dev/mapper/mpatha"] {
        let recipe = parsed(&linux_with("/target_disk", json!(device)));
        assert_eq!(recipe.target_disk, Some(TargetDisk::Device(device.to_owned())));
    }
    for device in ["sda", "/dev/../etc/passwd", "/dev/disk/by-label/x", "/dev/", "/dev/sda;reboot"] {
        one(&linux_with("/target_disk", json!(device)), "/target_disk", "pattern");
    }
    let hints = parsed(&linux_with(
        "/target_disk",
        json!({"min_size": "100G", "max_size": 4000787030016u64, "rotational": false}),
    ));
    let Some(TargetDisk::Hints(hints)) = hints.target_disk else { panic!("no hints") };
    assert_eq!((hints.min_size, hints.max_size, hints.rotational), (Some(100 << 30), Some(4000787030016), Some(false)));
    one(&linux_with("/target_disk", json!({})), "/target_disk", "too_small");
    one(&linux_with("/target_disk", json!(7)), "/target_disk", "type");
    one(&linux_with("/target_disk", json!({"min_size": "2T", "max_size": "1T"})), "/target_disk/max_size", "conflict");
    let message = one(&linux_with("/target_disk", json!({"seriel": "x"})), "/target_disk/seriel", "unknown_key");
    assert_eq!(message, "unknown key \"seriel\"; did you mean \"serial\"?");
}

#[test]
fn payloads_are_limited_and_never_repeated() {
    one(&linux_with("/user_data", json!("x".repeat((1 << 20) + 1))), "/user_data", "too_large");
    one(&linux_with("/user_data", json!("ß".repeat((1 << 19) + 1))), "/user_data", "too_large");
    assert!(parse(&linux_with("/user_data", json!("x".repeat(1 << 20)))).is_ok());
    one(&linux_with("/user_data", json!({"url": "http://h/planted-secret"})), "/user_data", "unsupported_payload");
    one(&linux_with("/ks.cfg", json!({"path": "/tmp/x"})), "/ks.cfg", "unsupported_payload");
    one(&linux_with("/user_data", json!(["planted-secret"])), "/user_data", "type");
    let message = one(&linux_with("/env/a", json!("planted\u{1}secret")), "/env/a", "pattern");
    assert!(!message.contains("planted"), "{message}");
    one(&linux_with("/env/a-b", json!("x")), "/env/a-b", "pattern");
    assert!(!format!("{:?}", parsed(&linux())).contains("planted-secret"));
}

#[test]
fn a_schema_from_elsewhere_is_used_as_it_is() {
    assert_eq!(recipe::schema_id(SCHEMA).as_deref(), Some(SCHEMA_ID));
    assert_eq!(recipe::validate_against(SCHEMA, &linux()).unwrap(), []);
    let narrow = r#"{"type": "object", "properties": {"task_target": {"const": "x"}}}"#;
    assert_eq!(recipe::validate_against(narrow, &linux()).unwrap().len(), 1);
    assert!(matches!(recipe::validate_against("{", &linux()), Err(SchemaError::Json(_))));
    assert!(matches!(recipe::validate_against("7", &linux()), Err(SchemaError::Compile(_))));
    assert!(matches!(recipe::validate_against(r#"{"type": "nothing"}"#, &linux()), Err(SchemaError::Compile(_))));
    let remote = r#"{"$ref": "http://192.0.2.1/other.json"}"#;
    assert!(matches!(recipe::validate_against(remote, &linux()), Err(SchemaError::Compile(_))));
}

#[test]
fn what_is_allowed_and_odd_is_said() {
    let codes = |recipe: &Value| recipe::lints(&parsed(recipe)).into_iter().map(|lint| lint.code).collect::<Vec<_>>();
    assert_eq!(codes(&linux()), ["mutable_tag", "fixed_after_remainder"]);
    let odd = json!({
        "task_target": "install-linux.target",
        "target_disk": "/dev/sda",
        "oci_url": format!("debian@sha256:{}", "0".repeat(64)),
        "partition_layout": [{"size": "100%", "format": "vfat", "label": "a-long-label-for-fat"}],
        "user_data": "x",
        "env": {"ld_preload": "/x"}
    });
    let expected = ["disk_name_unstable", "reserved_env", "label_truncated", "no_esp", "no_root", "no_cidata"];
    assert_eq!(codes(&odd), expected);
    assert!(parsed(&odd).environment().is_empty());
}

#[test]
fn an_entry_without_type_gets_the_usual_one() {
    let entries = json!([
        {"size": "64M", "format": "vfat", "mountpoint": "/boot/efi"},
        {"size": "1M", "type_guid": "EF02"},
        {"size": "1G", "format": "swap"},
        {"size": "1G", "format": "none"},
        {"size": "10%", "format": "ntfs"}
    ]);
    let recipe = parsed(&linux_with("/partition_layout", entries));
    let types: Vec<_> = recipe.partition_layout.iter().map(|entry| entry.type_guid).collect();
    use partition_type::{BASIC_DATA, BIOS_BOOT, EFI_SYSTEM, LINUX, SWAP};
    assert_eq!(types, [EFI_SYSTEM, BIOS_BOOT, SWAP, LINUX, BASIC_DATA]);
    assert_eq!(recipe.partition_layout[3].format, Format::Raw);
}
