//! Values: what is right, and how they merge.

use serde_json::{Map, Value, json};

/// Rules for processors and memory; Err is the fault.
pub(crate) fn check_machine(value: &Map<String, Value>) -> Result<(), String> {
    let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (vcpus, memory) = (number("vcpu_count"), number("mem_size_mib"));
    let smt = value.get("smt") == Some(&Value::Bool(true));
    if !(1..=32).contains(&vcpus) || (smt && vcpus > 1 && vcpus % 2 == 1) {
        return Err("Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or \
                    an even number if SMT is enabled."
            .to_owned());
    }
    let huge = value.get("huge_pages").is_some_and(|pages| pages != "None");
    if memory == 0 || (huge && memory % 2 == 1) {
        return Err("Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured \
                    page size."
            .to_owned());
    }
    Ok(())
}

/// The fault of a path that there is not.
pub(crate) fn unknown(method: &str, path: &[&str]) -> String {
    format!("Invalid request method and/or path: {method} {}.", path.first().unwrap_or(&""))
}

/// Reads a body without a form; Err is the fault.
pub(crate) fn read(body: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("An error occurred when deserializing the json body of a request: {error}."))
}

/// Merges metadata (RFC 7396).
pub(crate) fn merge(target: &mut Value, update: &Value) {
    let Value::Object(update) = update else {
        *target = update.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in update {
        if value.is_null() {
            target.as_object_mut().map(|object| object.remove(name));
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}
