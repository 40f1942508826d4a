//! What the daemon answers, as far as it is printed for people.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// A VM.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct VmView {
    pub(super) vm_id: String,
    pub(super) state: String,
    pub(super) customer_id: String,
    pub(super) vcpu_count: Value,
    pub(super) memory_size_bytes: Value,
    pub(super) created_timestamp: Value,
    pub(super) reason: String,
    pub(super) backend: Option<String>,
    pub(super) failure: Option<FailureView>,
    pub(super) network_info: Option<Value>,
}

/// Why a VM failed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FailureView {
    pub(super) code: String,
    pub(super) reason: String,
    pub(super) exit_code: Option<i64>,
    pub(super) console_tail: String,
}

/// Something that happened.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EventView {
    pub(super) id: i64,
    pub(super) vm_id: String,
    pub(super) time: String,
    pub(super) kind: String,
    pub(super) state: String,
    pub(super) message: String,
}

impl VmView {
    pub(super) fn of(value: &Value) -> Self {
        Self::deserialize(value).unwrap_or_default()
    }

    /// The state without the prefix that the contract gives it.
    pub(super) fn short_state(&self) -> &str {
        short_state(&self.state)
    }

    /// An address, for a list.
    pub(super) fn address(&self) -> String {
        let info = self.network_info.as_ref();
        let found = info.and_then(|info| info["ip_address"].as_str().or(info["ipv6_address"].as_str()));
        found.unwrap_or_default().to_owned()
    }

    pub(super) fn memory(&self) -> String {
        number(&self.memory_size_bytes).map(cli::size).unwrap_or_default()
    }

    pub(super) fn created(&self) -> String {
        time(&self.created_timestamp)
    }
}

pub(super) fn short_state(state: &str) -> &str {
    state.strip_prefix("VM_STATE_").unwrap_or(state)
}

/// 64-bit numbers are texts in protobuf's JSON.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Seconds since 1970, or a time already written out.
pub(super) fn time(value: &Value) -> String {
    let seconds = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    match seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
        Some(time) => time.to_string(),
        None => text(value),
    }
}

/// A text, or a number as one; empty for nothing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => String::new(),
    }
}

/// The list under a name, or the answer itself where it is one.
pub(super) fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    let list = answer.get(name).unwrap_or(answer);
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_and_times_are_read_in_both_forms() {
        for created in [json!(1_700_000_000), json!("1700000000"), json!("2023-11-14T22:13:20Z")] {
            assert_eq!(time(&created), "2023-11-14T22:13:20Z");
        }
        assert_eq!((time(&Value::Null), number(&json!("12")), number(&json!({}))), (String::new(), Some(12), None));
        let view = VmView::of(&json!({ "vm_id": "a", "state": "VM_STATE_RUNNING", "memory_size_bytes": "134217728" }));
        assert_eq!((view.short_state(), view.memory().as_str(), view.address().as_str()), ("RUNNING", "128.0 MiB", ""));
    }
}
