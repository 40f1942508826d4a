//! The CustomResourceDefinitions, as an API server of Kubernetes 1.25 or newer takes them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Machine, NixosConfiguration};

/// The most bytes that a definition may have. Plain `kubectl apply` keeps a copy in an annotation, and all annotations
/// together have 256 KiB.
pub const SIZE_LIMIT: usize = 200 * 1024;

/// Both definitions, each with the name of its file.
///
/// # Errors
/// If a definition cannot be made into JSON, which would be an error in this program.
pub fn definitions() -> Result<[(&'static str, Value); 2], serde_json::Error> {
    Ok([
        ("machines.yaml", definition(&Machine::crd())?),
        ("nixosconfigurations.yaml", definition(&NixosConfiguration::crd())?),
    ])
}

/// A definition or any other object as YAML.
///
/// # Errors
/// If it has no form in YAML, which would be an error in this program.
pub fn to_yaml(value: &impl Serialize) -> Result<String, serde_saphyr::ser::Error> {
    serde_saphyr::to_string(value)
}

fn definition(definition: &CustomResourceDefinition) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(definition)?;
    tidy(&mut value, "");
    Ok(value)
}

/// Takes out what the API server would warn about or what upstream's objects do not have: formats that only Rust knows,
/// and `nullable`, with which a null would be kept where upstream's definition drops it and a default fills in.
fn tidy(value: &mut Value, inside: &str) {
    match value {
        Value::Object(object) => {
            // Below `properties` the keys are names of fields, and anything may be one.
            if inside != "properties" {
                object.remove("nullable");
                if object.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
                    object.remove("additionalProperties");
                }
                whole_number(object);
            }
            for (key, value) in object {
                tidy(value, if inside == "properties" { "" } else { key });
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| tidy(value, "")),
        _ => {}
    }
}

fn whole_number(schema: &mut Map<String, Value>) {
    if schema.get("type").and_then(Value::as_str) != Some("integer") {
        return;
    }
    let known = match schema.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16") => Some("int32"),
        Some("uint32" | "uint64" | "uint") => Some("int64"),
        _ => None,
    };
    if let Some(known) = known {
        schema.insert("format".to_owned(), known.into());
    }
    for bound in ["minimum", "maximum"] {
        // The types of the API have them as floating-point numbers; whole ones read better.
        if let Some(number) = schema.get(bound).and_then(Value::as_f64).filter(|number| number.fract() == 0.0) {
            #[expect(clippy::cast_possible_truncation, reason = "bounds of ports, counts and sizes are small")]
            let number = number as i64;
            schema.insert(bound.to_owned(), number.into());
        }
    }
}
