//! From JSON to a [`Recipe`]: the schema first, then what a schema cannot say.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::disk::{DiskHints, TargetDisk};
use crate::model::{Format, Partition, Payload, Recipe};
use crate::partition_type;
use crate::reference::OciReference;
use crate::schema::{Violation, validate};
use crate::size::Size;
use crate::target::TaskTarget;

/// Largest `user_data` and `unattend_xml`, in bytes.
pub const USER_DATA_LIMIT: usize = 1 << 20;
/// Largest `ks_cfg`, in bytes.
pub const KS_CFG_LIMIT: usize = 256 << 10;

/// The payload fields with their limits.
const PAYLOADS: [(&str, usize); 4] = [
    ("user_data", USER_DATA_LIMIT),
    ("unattend_xml", USER_DATA_LIMIT),
    ("ks_cfg", KS_CFG_LIMIT),
    ("ks.cfg", KS_CFG_LIMIT),
];

/// Checks and normalises a recipe. Beside the codes of the schema there are `unsupported_payload` (a payload by url
/// or path), `conflict`, `duplicate_remainder`, `percent_sum`, `unknown_type`, `duplicate_mountpoint` and
/// `format_mismatch`. On failure every violation is in the list, sorted by path.
pub fn parse(document: &Value) -> Result<Recipe, Vec<Violation>> {
    let mut violations = unsupported_payloads(document);
    let refused: Vec<String> = violations.iter().map(|violation| violation.path.clone()).collect();
    let schema = validate(document).into_iter();
    violations.extend(schema.filter(|violation| !refused.iter().any(|path| violation.path.starts_with(path))));
    if !violations.is_empty() {
        return Err(sorted(violations));
    }
    let written = match Written::deserialize(document) {
        Ok(written) => written,
        Err(error) => return Err(vec![Violation::new("", "invalid", error.to_string())]),
    };
    written.normalise().map_err(sorted)
}

/// Payloads that name their contents instead of holding them.
fn unsupported_payloads(document: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    for (field, _) in PAYLOADS {
        let Some(object) = document.get(field).and_then(Value::as_object) else { continue };
        for key in ["url", "path"].into_iter().filter(|key| object.contains_key(*key)) {
            let message = format!("a payload by {key} is not supported; put the text itself into {field:?}");
            found.push(Violation::new(&format!("/{field}"), "unsupported_payload", message));
        }
    }
    found
}

fn sorted(mut violations: Vec<Violation>) -> Vec<Violation> {
    violations.sort_by(|one, other| (&one.path, one.code).cmp(&(&other.path, other.code)));
    violations
}

/// A recipe as it is written, after the schema has passed it.
#[derive(Deserialize)]
struct Written {
    task_target: TaskTarget,
    target_disk: Option<WrittenDisk>,
    oci_url: Option<String>,
    #[serde(default)]
    partition_layout: Vec<WrittenPartition>,
    user_data: Option<WrittenPayload>,
    unattend_xml: Option<WrittenPayload>,
    ks_cfg: Option<WrittenPayload>,
    #[serde(rename = "ks.cfg")]
    ks_dot_cfg: Option<WrittenPayload>,
    firmware_url: Option<String>,
    wim_index: Option<u32>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    metadata: Map<String, Value>,
    notes: Option<String>,
    recipe_version: Option<String>,
    schema_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenDisk {
    Device(String),
    Hints(WrittenHints),
}

#[derive(Deserialize)]
struct WrittenHints {
    serial: Option<String>,
    wwn: Option<String>,
    model: Option<String>,
    min_size: Option<WrittenBytes>,
    max_size: Option<WrittenBytes>,
    rotational: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenBytes {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
struct WrittenPartition {
    size: String,
    type_guid: Option<String>,
    #[serde(default)]
    format: Format,
    label: Option<String>,
    mountpoint: Option<String>,
    #[serde(default)]
    bootable: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenPayload {
    Text(String),
    Content { content: String },
}

impl Written {
    fn normalise(self) -> Result<Recipe, Vec<Violation>> {
        let mut found = Vec::new();
        if self.ks_cfg.is_some() && self.ks_dot_cfg.is_some() {
            let message = "\"ks_cfg\" and \"ks.cfg\" are the same field; give one".to_owned();
            found.push(Violation::new("/ks.cfg", "conflict", message));
        }
        let oci_url = self.oci_url.and_then(|url| match url.parse::<OciReference>() {
            Ok(reference) => Some(reference),
            Err(error) => {
                found.push(Violation::new("/oci_url", "pattern", error.to_string()));
                None
            }
        });
        let recipe = Recipe {
            task_target: self.task_target,
            target_disk: self.target_disk.map(|disk| disk.normalise(&mut found)),
            oci_url,
            partition_layout: layout(self.partition_layout, &mut found),
            user_data: payload(self.user_data, "user_data", USER_DATA_LIMIT, &mut found),
            unattend_xml: payload(self.unattend_xml, "unattend_xml", USER_DATA_LIMIT, &mut found),
            ks_cfg: payload(self.ks_cfg.or(self.ks_dot_cfg), "ks_cfg", KS_CFG_LIMIT, &mut found),
            firmware_url: self.firmware_url,
            wim_index: self.wim_index.unwrap_or(1),
            env: self.env,
            metadata: self.metadata,
            notes: self.notes,
            recipe_version: self.recipe_version,
            schema_version: self.schema_version,
        };
        if found.is_empty() { Ok(recipe) } else { Err(found) }
    }
}

/// The schema counts characters; the limit is bytes.
fn payload(written: Option<WrittenPayload>, field: &str, limit: usize, found: &mut Vec<Violation>) -> Option<Payload> {
    let text = match written? {
        WrittenPayload::Text(text) | WrittenPayload::Content { content: text } => text,
    };
    if text.len() > limit {
        let message = format!("{} bytes are more than the {limit} that are allowed", text.len());
        found.push(Violation::new(&format!("/{field}"), "too_large", message));
    }
    Some(Payload::new(text))
}

impl WrittenDisk {
    fn normalise(self, found: &mut Vec<Violation>) -> TargetDisk {
        let hints = match self {
            Self::Device(path) => return TargetDisk::Device(path),
            Self::Hints(hints) => hints,
        };
        let mut bytes = |written: Option<WrittenBytes>, field: &str| match written? {
            WrittenBytes::Number(bytes) => Some(bytes),
            WrittenBytes::Text(text) => match text.parse::<Size>() {
                Ok(Size::Bytes(bytes)) => Some(bytes),
                Ok(Size::Percent(_)) => None,
                Err(error) => {
                    found.push(Violation::new(&format!("/target_disk/{field}"), "too_large", error.to_string()));
                    None
                }
            },
        };
        let (min_size, max_size) = (bytes(hints.min_size, "min_size"), bytes(hints.max_size, "max_size"));
        if let (Some(min), Some(max)) = (min_size, max_size)
            && min > max
        {
            let message = format!("max_size {max} is less than min_size {min}: no disk can fit");
            found.push(Violation::new("/target_disk/max_size", "conflict", message));
        }
        TargetDisk::Hints(DiskHints {
            serial: hints.serial,
            wwn: hints.wwn,
            model: hints.model,
            min_size,
            max_size,
            rotational: hints.rotational,
        })
    }
}

fn layout(written: Vec<WrittenPartition>, found: &mut Vec<Violation>) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = Vec::with_capacity(written.len());
    let mut shares = Shares::default();
    for (index, entry) in written.into_iter().enumerate() {
        let at = format!("/partition_layout/{index}");
        let (size, type_guid) = (size(&entry, &at, found), type_guid(&entry, &at, found));
        let (Some(size), Some(type_guid)) = (size, type_guid) else { continue };
        shares.add(size, &at, found);
        let partition = Partition {
            size,
            type_guid,
            format: entry.format,
            label: entry.label,
            mountpoint: entry.mountpoint,
            bootable: entry.bootable,
        };
        check_use(&partition, &partitions, &at, found);
        partitions.push(partition);
    }
    partitions
}

fn size(entry: &WrittenPartition, at: &str, found: &mut Vec<Violation>) -> Option<Size> {
    let parsed = entry.size.parse::<Size>();
    parsed.map_err(|error| found.push(Violation::new(&format!("{at}/size"), "too_large", error.to_string()))).ok()
}

fn type_guid(entry: &WrittenPartition, at: &str, found: &mut Vec<Violation>) -> Option<uuid::Uuid> {
    let Some(text) = entry.type_guid.as_deref() else {
        return Some(Partition::default_type(entry.format, entry.mountpoint.as_deref()));
    };
    let resolved = partition_type::resolve(text);
    if resolved.is_none() {
        let known = partition_type::ALIASES.map(|(alias, _)| alias).join(", ");
        let message = format!("{text:?} is no type that is known here; known are {known} and any GUID");
        found.push(Violation::new(&format!("{at}/type_guid"), "unknown_type", message));
    }
    resolved
}

/// The percentages seen so far.
#[derive(Default)]
struct Shares {
    sum: u32,
    whole: bool,
}

impl Shares {
    fn add(&mut self, size: Size, at: &str, found: &mut Vec<Violation>) {
        let Size::Percent(percent) = size else { return };
        self.sum += u32::from(percent);
        if percent == 100 && self.whole {
            let message = "only one partition can take 100% of what is left".to_owned();
            found.push(Violation::new(&format!("{at}/size"), "duplicate_remainder", message));
        } else if self.sum > 100 {
            let message = format!("the percentages up to here add up to {}%, more than is left", self.sum);
            found.push(Violation::new(&format!("{at}/size"), "percent_sum", message));
        }
        self.whole |= percent == 100;
    }
}

/// Whether format, type and mount point go together.
fn check_use(partition: &Partition, before: &[Partition], at: &str, found: &mut Vec<Violation>) {
    let mut add = |key: &str, code, message: String| found.push(Violation::new(&format!("{at}/{key}"), code, message));
    let format = partition.format;
    if let Some(mountpoint) = &partition.mountpoint {
        if !format.is_mountable() {
            add("mountpoint", "format_mismatch", format!("format {} cannot be mounted", format.as_str()));
        } else if mountpoint == "/" && !format.can_be_root() {
            add("format", "format_mismatch", format!("format {} cannot hold a root file system", format.as_str()));
        }
        if before.iter().any(|other| other.mountpoint.as_ref() == Some(mountpoint)) {
            add("mountpoint", "duplicate_mountpoint", "another partition is mounted there".to_owned());
        }
    }
    if partition.type_guid == partition_type::MICROSOFT_RESERVED && format != Format::Raw {
        add("format", "format_mismatch", "a Microsoft reserved partition holds no file system".to_owned());
    }
}
