//! Snapshots: a file with the machine in JSON, and a memory file that is as long as the memory and empty.

use std::fs::File;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// Writes both files; Err is the fault.
pub(crate) fn create(request: &Map<String, Value>, machine: &Value) -> Result<(), String> {
    let path = |name: &str| request.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let fault = |error: std::io::Error| format!("Create snapshot error: Cannot perform {error} on the snapshot file");
    let memory = File::create(path("mem_file_path")).map_err(fault)?;
    memory.set_len(machine["machine-config"]["mem_size_mib"].as_u64().unwrap_or_default() * MIB).map_err(fault)?;
    std::fs::write(path("snapshot_path"), json!({ "fake-snapshot": machine }).to_string()).map_err(fault)
}

/// Reads the machine back; Err is the fault, after which Firecracker ends.
pub(crate) fn load(request: &Map<String, Value>) -> Result<Value, String> {
    let fault = |what: String| format!("Load snapshot error: Failed to restore from snapshot: {what}");
    let path = request["snapshot_path"].as_str().unwrap_or_default();
    let text = std::fs::read_to_string(path)
        .map_err(|error| fault(format!("Failed to get snapshot state from file: {error}")))?;
    let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
    let machine = value["fake-snapshot"].take();
    if machine.is_null() {
        return Err(fault("Failed to get snapshot state from file: Magic value does not match arch".to_owned()));
    }
    let memory = request["mem_backend"]["backend_path"].as_str().unwrap_or_default();
    if !Path::new(memory).exists() {
        return Err(fault("Failed to load guest memory: Failed to open memory file".to_owned()));
    }
    for wanted in request.get("network_overrides").and_then(Value::as_array).into_iter().flatten() {
        let known = machine["network-interfaces"].as_array().into_iter().flatten();
        if !known.into_iter().any(|interface| interface["iface_id"] == wanted["iface_id"]) {
            return Err(fault("Unknown Network Device.".to_owned()));
        }
    }
    Ok(machine)
}
