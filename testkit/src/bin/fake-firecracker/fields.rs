//! Which fields the bodies have: an unknown one, a missing one or one of another kind is refused.

use serde_json::{Map, Value};

/// Kind of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    Flag,
    Object,
    List,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// Name, kind, whether it has to be there.
type Field = (&'static str, Kind, bool);

use Kind::{Flag, List, Number, Object, Text, Word};

pub(crate) const ACTIONS: &[Field] =
    &[("action_type", Word(&["FlushMetrics", "InstanceStart", "SendCtrlAltDel"]), true)];
pub(crate) const BALLOON: &[Field] = &[
    ("amount_mib", Number, true),
    ("deflate_on_oom", Flag, true),
    ("stats_polling_interval_s", Number, false),
    ("free_page_hinting", Flag, false),
    ("free_page_reporting", Flag, false),
];
pub(crate) const BALLOON_UPDATE: &[Field] = &[("amount_mib", Number, true)];
pub(crate) const BOOT_SOURCE: &[Field] =
    &[("kernel_image_path", Text, true), ("initrd_path", Text, false), ("boot_args", Text, false)];
pub(crate) const DRIVE: &[Field] = &[
    ("drive_id", Text, true),
    ("is_root_device", Flag, true),
    ("path_on_host", Text, false),
    ("is_read_only", Flag, false),
    ("partuuid", Text, false),
    ("cache_type", Word(&["Unsafe", "Writeback"]), false),
    ("io_engine", Word(&["Sync", "Async"]), false),
    ("rate_limiter", Object, false),
    ("socket", Text, false),
];
pub(crate) const DRIVE_UPDATE: &[Field] =
    &[("drive_id", Text, true), ("path_on_host", Text, false), ("rate_limiter", Object, false)];
pub(crate) const ENTROPY: &[Field] = &[("rate_limiter", Object, false)];
pub(crate) const LOGGER: &[Field] = &[
    ("log_path", Text, false),
    ("level", Text, false),
    ("show_level", Flag, false),
    ("show_log_origin", Flag, false),
    ("module", Text, false),
];
pub(crate) const MACHINE: &[Field] = &[
    ("vcpu_count", Number, true),
    ("mem_size_mib", Number, true),
    ("smt", Flag, false),
    ("cpu_template", Text, false),
    ("track_dirty_pages", Flag, false),
    ("huge_pages", Word(&["None", "Transparent", "2M"]), false),
];
pub(crate) const METRICS: &[Field] =
    &[("metrics_path", Text, true), ("emit_id", Flag, false), ("properties", Object, false)];
pub(crate) const MMDS_CONFIG: &[Field] = &[
    ("network_interfaces", List, true),
    ("version", Word(&["V1", "V2"]), false),
    ("ipv4_address", Text, false),
    ("imds_compat", Flag, false),
];
pub(crate) const NETWORK: &[Field] = &[
    ("iface_id", Text, true),
    ("host_dev_name", Text, true),
    ("guest_mac", Text, false),
    ("mtu", Number, false),
    ("rx_rate_limiter", Object, false),
    ("tx_rate_limiter", Object, false),
];
pub(crate) const NETWORK_UPDATE: &[Field] =
    &[("iface_id", Text, true), ("rx_rate_limiter", Object, false), ("tx_rate_limiter", Object, false)];
pub(crate) const SERIAL: &[Field] = &[("serial_out_path", Text, false), ("rate_limiter", Object, false)];
pub(crate) const SNAPSHOT_CREATE: &[Field] =
    &[("snapshot_path", Text, true), ("mem_file_path", Text, true), ("snapshot_type", Word(&["Diff", "Full"]), false)];
pub(crate) const SNAPSHOT_LOAD: &[Field] = &[
    ("snapshot_path", Text, true),
    ("mem_backend", Object, true),
    ("track_dirty_pages", Flag, false),
    ("resume_vm", Flag, false),
    ("network_overrides", List, false),
    ("vsock_override", Object, false),
    ("clock_realtime", Flag, false),
];
pub(crate) const VM: &[Field] = &[("state", Word(&["Paused", "Resumed"]), true)];
pub(crate) const VSOCK: &[Field] = &[("guest_cid", Number, true), ("uds_path", Text, true), ("vsock_id", Text, false)];

/// Reads a body; Err is the fault.
pub(crate) fn read(body: &[u8], fields: &[Field]) -> Result<Map<String, Value>, String> {
    let wrong = |what: String| format!("An error occurred when deserializing the json body of a request: {what}.");
    let value: Value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let Value::Object(mut object) = value else { return Err(wrong(format!("invalid type: {value}"))) };
    // An explicit null stands for a field that is not there.
    object.retain(|_, value| !value.is_null());
    for (name, value) in &object {
        let Some((_, kind, _)) = fields.iter().find(|(known, ..)| known == name) else {
            let known: Vec<String> = fields.iter().map(|(name, ..)| format!("`{name}`")).collect();
            return Err(wrong(format!("unknown field `{name}`, expected one of {}", known.join(", "))));
        };
        if !fits(value, *kind) {
            return Err(wrong(match kind {
                Word(words) => format!("unknown variant {value}, expected one of {}", words.join(", ")),
                kind => format!("invalid type: {value}, expected {kind:?} in `{name}`"),
            }));
        }
    }
    match fields.iter().find(|(name, _, needed)| *needed && !object.contains_key(*name)) {
        Some((name, ..)) => Err(wrong(format!("missing field `{name}`"))),
        None => Ok(object),
    }
}

fn fits(value: &Value, kind: Kind) -> bool {
    match kind {
        Text => value.is_string(),
        Number => value.is_u64(),
        Flag => value.is_boolean(),
        Object => value.is_object(),
        List => value.is_array(),
        Word(words) => value.as_str().is_some_and(|word| words.contains(&word)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_body_is_named() {
        assert_eq!(read(br#"{"state":"Paused"}"#, VM).unwrap()["state"], "Paused");
        for (body, said) in [
            ("{", "EOF"),
            (r#"{"state":"Off"}"#, "unknown variant \"Off\", expected one of Paused, Resumed"),
            (r#"{"status":"Paused"}"#, "unknown field `status`"),
            (r#"{"state":null}"#, "missing field `state`"),
        ] {
            assert!(read(body.as_bytes(), VM).unwrap_err().contains(said), "{body}");
        }
    }
}
