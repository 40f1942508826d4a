//! What is allowed and yet likely a mistake.

use serde::Serialize;

use crate::model::{Format, Recipe, is_reserved_env};
use crate::partition_type;
use crate::size::Size;
use crate::target::TaskTarget;

/// A warning about a recipe that is valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// Stable code.
    pub code: &'static str,
    /// JSON pointer to what it is about.
    pub path: String,
    /// One sentence.
    pub message: String,
}

impl Lint {
    fn new(code: &'static str, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, path: path.into(), message: message.into() }
    }
}

/// What should be looked at: `mutable_tag`, `disk_name_unstable`, `no_esp`, `esp_not_vfat`, `esp_small`, `no_root`,
/// `fixed_after_remainder`, `label_truncated`, `no_cidata`, `reserved_env`.
pub fn lints(recipe: &Recipe) -> Vec<Lint> {
    let mut found = Vec::new();
    if let Some(reference) = &recipe.oci_url
        && reference.digest.is_none()
    {
        let message = "a tag can move; the digest that it names when the job is made is installed";
        found.push(Lint::new("mutable_tag", "/oci_url", message));
    }
    if let Some(crate::TargetDisk::Device(path)) = &recipe.target_disk
        && !path.starts_with("/dev/disk/")
    {
        let message = format!("{path} can be another disk after the next boot; a by-id link or hints stay the same");
        found.push(Lint::new("disk_name_unstable", "/target_disk", message));
    }
    for name in recipe.env.keys().filter(|name| is_reserved_env(&name.to_ascii_uppercase())) {
        let message = format!("{name} is set by the maintenance system; this one is ignored");
        found.push(Lint::new("reserved_env", format!("/env/{name}"), message));
    }
    layout(recipe, &mut found);
    found
}

/// The smallest FAT32 that every firmware and mkfs.vfat take, in bytes.
const ESP_LEAST: u64 = 34 << 20;

fn layout(recipe: &Recipe, found: &mut Vec<Lint>) {
    let entries = &recipe.partition_layout;
    if entries.is_empty() {
        return;
    }
    let mut remainder = None;
    for (index, entry) in entries.iter().enumerate() {
        let at = |key: &str| format!("/partition_layout/{index}/{key}");
        match entry.size {
            Size::Percent(_) => remainder = Some(index),
            Size::Bytes(_) => {
                if let Some(before) = remainder {
                    let message = format!("stands after entry {before}, which takes a share; this one is served first");
                    found.push(Lint::new("fixed_after_remainder", at("size"), message));
                }
            }
        }
        let limit = entry.format.label_limit();
        if let Some(label) = entry.label.as_ref().filter(|label| limit > 0 && label.chars().count() > limit) {
            let message = format!("{} holds {limit} letters of {label:?}", entry.format.as_str());
            found.push(Lint::new("label_truncated", at("label"), message));
        }
        if entry.type_guid == partition_type::EFI_SYSTEM {
            if entry.format != Format::Vfat {
                found.push(Lint::new("esp_not_vfat", at("format"), "firmware reads an EFI system partition as FAT"));
            }
            if matches!(entry.size, Size::Bytes(bytes) if bytes < ESP_LEAST) {
                found.push(Lint::new("esp_small", at("size"), "FAT32 needs 34M or more"));
            }
        }
    }
    let has_type = |guid| entries.iter().any(|entry| entry.type_guid == guid);
    if !has_type(partition_type::EFI_SYSTEM) {
        let message = "no EFI system partition (ef00): the machine cannot boot in UEFI mode";
        found.push(Lint::new("no_esp", "/partition_layout", message));
    }
    if recipe.task_target == TaskTarget::InstallLinux {
        if !entries.iter().any(|entry| entry.format.can_be_root()) {
            found.push(Lint::new("no_root", "/partition_layout", "no entry can be the root file system"));
        }
        let is_cidata = |label: &String| label.eq_ignore_ascii_case("cidata");
        if recipe.user_data.is_some() && !entries.iter().any(|entry| entry.label.as_ref().is_some_and(is_cidata)) {
            let message = "no partition is labelled cidata; user_data goes into the root file system";
            found.push(Lint::new("no_cidata", "/user_data", message));
        }
    }
}
