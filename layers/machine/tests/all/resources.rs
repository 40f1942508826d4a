//! The two kinds as an API server and its users see them.

use std::collections::BTreeSet;

use machine::resources::{Machine, NixosConfiguration, SIZE_LIMIT, definitions, to_yaml};
use serde_json::{Value, json};

fn definition(file: &str) -> Value {
    definitions().unwrap().into_iter().find(|(name, _)| *name == file).unwrap().1
}

fn version(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]
}

fn properties<'a>(definition: &'a Value, part: &str) -> &'a Value {
    &version(definition)["schema"]["openAPIV3Schema"]["properties"][part]["properties"]
}

/// Columns as `name path type`.
fn columns(definition: &Value) -> Vec<String> {
    let columns = version(definition)["additionalPrinterColumns"].as_array().unwrap();
    columns
        .iter()
        .map(|column| ["name", "jsonPath", "type"].map(|key| column[key].as_str().unwrap()).join("|"))
        .collect()
}

/// Each schema below one, with its path.
fn schemas<'a>(schema: &'a Value, path: &str, into: &mut Vec<(String, &'a Value)>) {
    into.push((path.to_owned(), schema));
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        schemas(schema, &format!("{path}.{name}"), into);
    }
    if schema["items"].is_object() {
        schemas(&schema["items"], &format!("{path}[]"), into);
    }
}

#[test]
fn upstreams_identity_is_kept() {
    for (file, kind, plural, singular, short) in [
        ("machines.yaml", "Machine", "machines", "machine", "mach"),
        ("nixosconfigurations.yaml", "NixosConfiguration", "nixosconfigurations", "nixosconfiguration", "nixconf"),
    ] {
        let definition = definition(file);
        assert_eq!(definition["metadata"]["name"], format!("{plural}.nio.homystack.com"));
        assert_eq!(
            definition["spec"]["names"],
            json!({"kind": kind, "plural": plural, "singular": singular, "shortNames": [short]})
        );
        assert_eq!(
            (&definition["spec"]["group"], &definition["spec"]["scope"]),
            (&json!("nio.homystack.com"), &json!("Namespaced"))
        );
        assert_eq!(definition["spec"]["versions"].as_array().unwrap().len(), 1);
        let version = version(&definition);
        assert_eq!(
            (&version["name"], &version["served"], &version["storage"]),
            (&json!("v1alpha1"), &json!(true), &json!(true))
        );
        assert_eq!(version["subresources"], json!({"status": {}}));
    }
}

#[test]
fn upstreams_columns_are_kept() {
    assert_eq!(
        columns(&definition("machines.yaml")),
        [
            "Hostname|.spec.hostname|string",
            "IP Address|.spec.ipAddress|string",
            "Discoverable|.status.discoverable|boolean",
            "Has Config|.status.hasConfiguration|boolean",
            "Applied Config|.status.appliedConfiguration|string",
            "Age|.metadata.creationTimestamp|date",
        ]
    );
    assert_eq!(
        columns(&definition("nixosconfigurations.yaml")),
        [
            "Git Repo|.spec.gitRepo|string",
            "Flake|.spec.flake|string",
            "Target Machine|.status.targetMachine|string",
            "Full Install|.spec.fullInstall|boolean",
            "Applied Commit|.status.appliedCommit|string",
            "Age|.metadata.creationTimestamp|date",
        ]
    );
}

/// Path, type and default of a field.
type Field = (&'static str, &'static str, Value);

/// Fields of upstream, by definition and part.
const UPSTREAM: &[(&str, &str, &[Field])] = &[
    (
        "machines.yaml",
        "spec",
        &[
            ("hostname", "string", Value::Null),
            ("ipAddress", "string", Value::Null),
            ("sshUser", "string", Value::Null),
            ("sshKeySecretRef.name", "string", Value::Null),
            ("sshKeySecretRef.namespace", "string", Value::Null),
            ("sshPasswordSecretRef.name", "string", Value::Null),
            ("sshPasswordSecretRef.namespace", "string", Value::Null),
            ("sshPasswordSecretRef.key", "string", Value::Null),
        ],
    ),
    (
        "machines.yaml",
        "status",
        &[
            ("discoverable", "boolean", Value::Null),
            ("hasConfiguration", "boolean", Value::Null),
            ("appliedConfiguration", "string", Value::Null),
            ("appliedCommit", "string", Value::Null),
            ("lastAppliedTime", "string", Value::Null),
            ("hardwareFacts", "object", Value::Null),
            ("nixFacterResult", "object", Value::Null),
            ("lastHardwareScanTime", "string", Value::Null),
            ("conditions", "array", Value::Null),
        ],
    ),
    (
        "nixosconfigurations.yaml",
        "spec",
        &[
            ("gitRepo", "string", Value::Null),
            ("credentialsRef.name", "string", Value::Null),
            ("flake", "string", Value::Null),
            ("onRemoveFlake", "string", Value::Null),
            ("configurationSubdir", "string", Value::Null),
            ("fullInstall", "boolean", Value::Bool(false)),
            ("machineRef.name", "string", Value::Null),
            ("additionalFiles[].path", "string", Value::Null),
            ("additionalFiles[].valueType", "string", Value::Null),
            ("additionalFiles[].inline", "string", Value::Null),
            ("additionalFiles[].secretRef.name", "string", Value::Null),
            ("additionalFiles[].nixosFacter", "boolean", Value::Null),
        ],
    ),
    (
        "nixosconfigurations.yaml",
        "status",
        &[
            ("fullDiskInstallCompleted", "boolean", Value::Null),
            ("hasFullInstall", "boolean", Value::Null),
            ("appliedCommit", "string", Value::Null),
            ("lastAppliedTime", "string", Value::Null),
            ("targetMachine", "string", Value::Null),
            ("configurationHash", "string", Value::Null),
            ("additionalFilesHash", "string", Value::Null),
            ("conditions", "array", Value::Null),
        ],
    ),
];

#[test]
fn upstreams_fields_are_kept() {
    for (file, part, fields) in UPSTREAM {
        let definition = definition(file);
        for (path, kind, default) in *fields {
            let mut schema = &json!({"properties": properties(&definition, part)});
            for name in path.split('.') {
                schema = &schema["properties"][name.trim_end_matches("[]")];
                if name.ends_with("[]") {
                    schema = &schema["items"];
                }
            }
            assert_eq!((schema["type"].as_str(), &schema["default"]), (Some(*kind), default), "{file} {part}.{path}");
        }
    }
    let configuration = definition("nixosconfigurations.yaml");
    let spec = properties(&configuration, "spec");
    assert_eq!(spec["ref"]["default"], "main");
    let file = &spec["additionalFiles"]["items"];
    assert_eq!(file["properties"]["valueType"]["enum"], json!(["Inline", "SecretRef", "NixosFacter"]));
    assert_eq!(file["required"], json!(["path", "valueType"]));
    assert_eq!(spec["machineRef"]["required"], json!(["name"]));
    for file in ["machines.yaml", "nixosconfigurations.yaml"] {
        let definition = definition(file);
        let root = &version(&definition)["schema"]["openAPIV3Schema"]["properties"];
        // Upstream asks for no field; whoever has an object without one must be able to delete it.
        assert!(root["spec"]["required"].is_null() && root["status"]["required"].is_null(), "{file}");
        let conditions = &root["status"]["properties"]["conditions"];
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
    }
    let facts = definition("machines.yaml");
    for free in ["hardwareFacts", "nixFacterResult"] {
        assert_eq!(properties(&facts, "status")[free]["x-kubernetes-preserve-unknown-fields"], true);
    }
}

#[test]
fn everything_has_a_bound_and_is_structural() {
    for (file, definition) in definitions().unwrap() {
        let mut all = Vec::new();
        schemas(&version(&definition)["schema"]["openAPIV3Schema"], "", &mut all);
        assert!(all.len() > 40);
        for (path, schema) in all {
            let kind = schema["type"].as_str().unwrap_or_else(|| panic!("{file} {path} has no type"));
            let bounded = match kind {
                "string" => {
                    schema["maxLength"].is_u64() || schema["enum"].is_array() || schema["format"] == "date-time"
                }
                "array" => schema["maxItems"].is_u64(),
                "integer" => {
                    matches!(schema["format"].as_str(), Some("int32" | "int64"))
                        && (schema["minimum"].is_null() || schema["minimum"].is_i64())
                }
                _ => true,
            };
            assert!(bounded, "{file} {path}: {schema}");
            for word in ["nullable", "anyOf", "oneOf", "allOf", "not", "$ref", "additionalProperties"] {
                assert!(schema[word].is_null(), "{file} {path} has {word}");
            }
            assert!(path.is_empty() || schema["description"].is_string() || path.ends_with("[]"), "{file} {path}");
        }
    }
}

#[test]
fn definitions_fit_into_an_annotation() {
    for (file, definition) in definitions().unwrap() {
        let (yaml, json) = (to_yaml(&definition).unwrap(), definition.to_string());
        println!("{file}: {} bytes of YAML, {} of JSON", yaml.len(), json.len());
        assert!(yaml.len() < SIZE_LIMIT && json.len() < SIZE_LIMIT);
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), definition, "{file}");
    }
}

/// Every function that a rule calls is in the library of Kubernetes 1.25, or the whole definition is refused there.
#[test]
fn rules_call_only_what_kubernetes_1_25_has() {
    let known: BTreeSet<&str> = ["has", "size", "all", "exists", "exists_one", "filter", "map", "matches"].into();
    let mut count = 0;
    for (file, definition) in definitions().unwrap() {
        let mut all = Vec::new();
        schemas(&version(&definition)["schema"]["openAPIV3Schema"], "", &mut all);
        for rule in all.iter().flat_map(|(_, schema)| schema["x-kubernetes-validations"].as_array()).flatten() {
            count += 1;
            assert!(rule["message"].as_str().is_some_and(|message| message.len() < 2048), "{rule}");
            let rule = rule["rule"].as_str().unwrap();
            for (before, _) in rule.match_indices('(').map(|(at, _)| rule.split_at(at)) {
                let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
                let called = &before[start..];
                assert!(called.is_empty() || known.contains(called), "{file}: {called} in {rule}");
            }
        }
    }
    assert_eq!(count, 7);
}

/// As `kubectl get machines,nixosconfigurations -A -o yaml` would have saved them with the upstream operator.
const UPSTREAM_MACHINE: &str = r#"
apiVersion: nio.homystack.com/v1alpha1
kind: Machine
metadata:
  name: worker-1
  namespace: default
  uid: 9c8b6f7e-3f0a-4f5b-9a51-6f4f1f6f7c11
  resourceVersion: "4711"
  creationTimestamp: "2025-11-08T09:00:00Z"
  finalizers: [kopf.zalando.org/KopfFinalizerMarker]
  annotations:
    kopf.zalando.org/last-handled-configuration: '{"spec":{}}'
spec:
  hostname: worker-1.example.org
  ipAddress: 192.0.2.11
  sshUser: root
  sshKeySecretRef: {name: machine-ssh-key, namespace: default}
  sshPasswordSecretRef: {name: machine-password, namespace: default, key: password}
status:
  discoverable: true
  hasConfiguration: true
  appliedConfiguration: worker
  appliedCommit: 7fd1a60b01f91b314f59955a4e4d4e80d8edf11d
  lastAppliedTime: "2025-11-08T10:11:12.123456Z"
  hardwareFacts:
    architecture: x86_64
    cpu: {model: Example CPU, cores: "4"}
    disk: {sda: 1TB}
    interface: {eth0.5: 192.0.2.11}
  kopf: {progress: {}}
"#;

const UPSTREAM_CONFIGURATION: &str = r#"
apiVersion: nio.homystack.com/v1alpha1
kind: NixosConfiguration
metadata: {name: worker, namespace: default}
spec:
  gitRepo: https://git.example.org/team/infrastructure.git
  credentialsRef: {name: git-credentials}
  flake: '#worker'
  onRemoveFlake: '#minimal'
  configurationSubdir: hosts/worker
  fullInstall: true
  machineRef: {name: worker-1}
  additionalFiles:
  - {path: secrets/token, valueType: SecretRef, secretRef: {name: worker-token}}
  - {path: local.nix, valueType: Inline, inline: "{ }"}
  - {path: facter.json, valueType: NixosFacter, nixosFacter: true}
status:
  targetMachine: worker-1
  appliedCommit: 7fd1a60b01f91b314f59955a4e4d4e80d8edf11d
  lastAppliedTime: "2025-11-08T10:11:12.123456Z"
  hasFullInstall: true
  configurationHash: abc
  additionalFilesHash: def
  conditions:
  - {type: Applied, status: "True", reason: Success, message: done, lastTransitionTime: "2025-11-08T10:11:12.123456Z"}
"#;

#[test]
fn upstreams_objects_are_read_and_found_good() {
    use machine::resources::check::{LocalRepositories, configuration, machine};
    let object: Machine = serde_saphyr::from_str(UPSTREAM_MACHINE).unwrap();
    assert_eq!(machine(&object), []);
    let status = object.status.unwrap();
    assert_eq!(status.hardware_facts.unwrap()["interface"]["eth0.5"], "192.0.2.11");
    assert_eq!(status.last_applied_time.unwrap().to_string(), "2025-11-08T10:11:12.123456Z");
    let object: NixosConfiguration = serde_saphyr::from_str(UPSTREAM_CONFIGURATION).unwrap();
    assert_eq!(configuration(&object, LocalRepositories::Refused), []);
    assert_eq!(object.spec.reference, "main");
    let status = object.status.unwrap();
    assert_eq!((status.has_full_install, status.full_disk_install_completed), (Some(true), None));
    assert_eq!(status.conditions[0].kind, "Applied");
}

#[test]
fn what_is_not_set_is_not_written() {
    let object: Machine =
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"hostname": "a"}})).unwrap();
    let written = serde_json::to_value(&object).unwrap();
    assert_eq!(written["spec"], json!({"hostname": "a", "sshPort": 22, "suspend": false}));
}
