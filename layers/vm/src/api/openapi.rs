//! The OpenAPI document of the layer (api/openapi-vm.json). Its paths follow from the [`table`]; the schemas stand in
//! `openapi/schemas.json` and are held against the types by tests.

use serde_json::{Map, Value, json};

use super::table::{self, Door, Route};

const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// OpenAPI 3.1.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in table::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Cairn: microVMs",
            "version": "1",
            "description": "MicroVMs of one host. Errors are RFC 9457; those of the calls under VmService are Connect's.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "cairn vm token create makes one." },
            },
            "schemas": schemas(),
            "responses": {
                "Problem": {
                    "description": "What went wrong.",
                    "content": { "application/problem+json": { "schema": reference("Problem") } },
                },
                "ConnectError": {
                    "description": "What went wrong.",
                    "content": { "application/json": { "schema": reference("ConnectError") } },
                },
            },
        },
    })
}

fn schemas() -> Value {
    serde_json::from_str(SCHEMAS).unwrap_or_default()
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn is_call(route: &Route) -> bool {
    route.path.contains(".VmService/")
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({ "summary": route.summary, "operationId": id(route), "tags": [tag(route)] });
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body(route) {
        operation["requestBody"] = body;
    }
    let error = if is_call(route) { "ConnectError" } else { "Problem" };
    let (status, answer) = answer(route);
    operation["responses"] =
        json!({ status: answer, "default": { "$ref": format!("#/components/responses/{error}") } });
    operation["security"] = match route.door {
        Door::Open | Door::Loopback => json!([]),
        Door::Customer | Door::Operator => json!([{ "token": [] }]),
    };
    match route.door {
        Door::Operator => operation["description"] = "For operators.".into(),
        Door::Loopback => operation["description"] = "Only from this machine, without a proxy.".into(),
        Door::Open | Door::Customer => {}
    }
    operation
}

/// `GET /v1/vms/{id}/logs` becomes `get_v1_vms_id_logs`.
fn id(route: &Route) -> String {
    let words = route.path.split(['/', '.']).filter(|word| !word.is_empty()).map(|word| word.trim_matches(['{', '}']));
    let words: Vec<&str> = words.collect();
    format!("{}_{}", route.method.to_ascii_lowercase(), words.join("_"))
}

fn tag(route: &Route) -> &'static str {
    if is_call(route) {
        return "connect";
    }
    match route.path.split('/').nth(1).zip(route.path.split('/').nth(2)) {
        Some(("v1", "vms" | "events")) => "vms",
        Some(("v1", "tokens")) => "tokens",
        Some(("v1", "assets")) => "assets",
        _ => "host",
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let text = json!({ "type": "string" });
    let switch = json!({ "type": "boolean" });
    let state = json!({ "type": "array", "items": reference("State") });
    let query = |name: &str, required: bool, schema: &Value, description: &str| json!({ "name": name, "in": "query", "required": required, "schema": schema, "description": description });
    let number = json!({ "type": "integer", "minimum": 0 });
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": text }))
        .collect();
    match (route.method, route.path) {
        ("GET", "/v1/vms") => parameters.extend([
            query("state_filter", false, &state, "Only VMs in these states."),
            query("page_size", false, &number, "VMs on a page; everything without it."),
            query("page_token", false, &text, "next_page_token of the page before."),
        ]),
        ("POST", "/v1/vms") => parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "schema": { "type": "string", "maxLength": 255 },
            "description": "A second request with the same key and body gives the VM of the first one.",
        })),
        ("DELETE", "/v1/vms/{id}") => parameters.extend([
            query("force", false, &switch, "Without asking the guest."),
            query("timeout_seconds", false, &number, "Seconds that the guest has to end by itself."),
        ]),
        ("GET", "/v1/vms/{id}/wait") => parameters.extend([
            query("state", true, &state, "One of these is enough."),
            query("timeout", false, &number, "Seconds, 60 without it, 600 at most."),
        ]),
        ("GET", "/v1/vms/{id}/events" | "/v1/events") => parameters.extend([
            query("after", false, &number, "Only events with a greater id; Last-Event-ID says the same."),
            query("limit", false, &number, "Events of a list, 1000 at most."),
        ]),
        ("GET", "/v1/vms/{id}/logs") => parameters.extend([
            query("tail", false, &text, "Lines, 1000 without it, or `all`."),
            query("follow", false, &switch, "Goes on with what comes."),
        ]),
        ("PUT", "/v1/assets/{name}") => {
            parameters.push(query("kind", true, &json!({ "enum": ["kernel", "initrd", "disk"] }), "What it is for."));
        }
        ("POST", "/v1/assets/{name}") => {
            parameters.push(query("dry_run", false, &switch, "Only tells what would be removed."));
        }
        _ => {}
    }
    parameters
}

fn body(route: &Route) -> Option<Value> {
    let content = |media_type: &str, schema: Value, required: bool| json!({ "required": required, "content": { media_type: { "schema": schema } } });
    let of = |schema: &str, required: bool| Some(content("application/json", reference(schema), required));
    let binary = Some(content("application/octet-stream", json!({}), true));
    match (route.method, route.path) {
        ("POST", "/v1/vms") => of("CreateVm", true),
        ("POST", "/v1/tokens") => of("CreateToken", true),
        ("PUT", "/v1/assets/{name}") | ("POST", "/v1/vms/{id}/console") => binary,
        ("POST", path) if path.starts_with("/v1/vms/") => of("Options", false),
        ("DELETE", "/v1/vms/{id}") => of("Options", false),
        (_, path) if is_call(route) => of(
            match path.rsplit('/').next() {
                Some("CreateVm") => "CreateVm",
                Some("ListVms") => "ConnectListRequest",
                _ => "ConnectVmRequest",
            },
            true,
        ),
        _ => None,
    }
}

fn answer(route: &Route) -> (&'static str, Value) {
    let content = |description: &str, media_type: &str, schema: Value| json!({ "description": description, "content": { media_type: { "schema": schema } } });
    let of = |schema: &str| content("It is done.", "application/json", reference(schema));
    let list = |key: &str, schema: &str| {
        let items = json!({ "type": "array", "items": reference(schema) });
        let object = json!({ "type": "object", "required": [key], "properties": { key: items } });
        content("It is done.", "application/json", object)
    };
    let nothing = ("204", json!({ "description": "It is done." }));
    let text = ("200", content("Text.", "text/plain", json!({ "type": "string" })));
    match (route.method, route.path) {
        ("GET", "/v1/vms") => ("200", of("VmList")),
        ("POST", "/v1/vms") => ("201", of("Vm")),
        ("DELETE", "/v1/vms/{id}" | "/v1/tokens/{id}" | "/v1/assets/{name}") => nothing,
        ("POST", "/v1/vms/{id}/console") => nothing,
        ("GET", "/v1/vms/{id}/logs" | "/debug/pprof/goroutine" | "/debug/pprof/heap") => text,
        ("GET", "/v1/vms/{id}/events" | "/v1/events") => {
            let mut answer = of("EventList");
            let stream = "An `event` for each, its id as id.";
            answer["content"]["text/event-stream"] = json!({ "schema": { "type": "string", "description": stream } });
            ("200", answer)
        }
        ("GET", "/v1/tokens") => ("200", list("tokens", "Token")),
        ("POST", "/v1/tokens") => ("201", of("Token")),
        ("GET", "/v1/assets") => ("200", list("assets", "Asset")),
        ("PUT", "/v1/assets/{name}") => ("201", of("Asset")),
        ("POST", "/v1/assets/{name}") => ("200", list("removed", "File")),
        ("GET", "/v1/strays") => ("200", list("strays", "Stray")),
        ("DELETE", "/v1/strays") => ("200", list("removed", "Stray")),
        ("GET", "/v1/doctor") => ("200", list("findings", "Finding")),
        ("GET", "/health") => ("200", of("Health")),
        ("GET", "/v1/network" | "/v1/vms/{id}/network") => {
            ("200", content("For people.", "application/json", json!({ "type": "object" })))
        }
        (_, path) if path.starts_with("/admin/") => ("200", of("Maintenance")),
        (_, path) if is_call(route) => {
            let schema = match path.rsplit('/').next() {
                Some("CreateVm") => "ConnectCreated",
                Some("GetVmInfo") => "ConnectVmInfo",
                Some("ListVms") => "ConnectVmList",
                _ => "ConnectDone",
            };
            ("200", of(schema))
        }
        _ => ("200", of("Vm")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(value: &Value) -> BTreeSet<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document();
        let text = document.to_string();
        let schemas = names(&document["components"]["schemas"]);
        let used: BTreeSet<&str> = text
            .split("#/components/schemas/")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap_or_default())
            .collect();
        assert_eq!(used, schemas);
    }

    #[test]
    fn the_configuration_has_the_keys_of_its_type() {
        let spec: crate::model::VmSpec = serde_json::from_value(json!({
            "cpu": {"vcpu_count": 1, "max_vcpu_count": 1},
            "memory": {"size_bytes": 1, "hotplug_enabled": true, "max_size_bytes": 1},
            "boot": {"kernel_path": "a", "initrd_path": "b", "kernel_args": "c"},
            "storage": [{"id": "a", "path": "b", "read_only": true, "is_root_device": true, "interface_type": "x"}],
            "network": [{
                "id": "a", "mac_address": "b", "tap_device": "c", "interface_type": "d", "mode": "e",
                "ipv4_config": {"address": "x", "dns_servers": ["8.8.8.8"]},
                "ipv6_config": {"address": "x", "dns_servers": ["::1"]},
                "rx_rate_limit": {"bandwidth": 1, "refill_time": 1, "burst": 1},
                "tx_rate_limit": {"bandwidth": 1, "refill_time": 1, "burst": 1},
                "egress": [{"to": "10.0.0.0/8", "protocol": "tcp", "port": 1}],
                "egress_internet": false,
                "ports": [{"host_port": 1, "guest_port": 1, "protocol": "udp"}],
            }],
            "console": {"enabled": true, "output": "a", "input": "b", "console_type": "c"},
            "metadata": {"a": "b"},
            "restart_policy": "always",
        }))
        .unwrap();
        let value = serde_json::to_value(&spec).unwrap();
        let schemas = schemas();
        fn same(value: &Value, schema: &Value, schemas: &Value, at: &str) {
            if let Some(name) = schema["$ref"].as_str() {
                return same(value, &schemas[name.rsplit('/').next().unwrap()], schemas, at);
            }
            if let Some(items) = value.as_array() {
                return items.iter().for_each(|item| same(item, &schema["items"], schemas, at));
            }
            if schema["properties"].is_null() {
                return;
            }
            let mut known = names(&schema["properties"]);
            if at.is_empty() {
                // Whose it is, as operators see it.
                known.remove("customer_id");
            }
            assert_eq!(names(value), known, "{at}");
            for (key, value) in value.as_object().unwrap() {
                same(value, &schema["properties"][key], schemas, &format!("{at}/{key}"));
            }
        }
        same(&value, &schemas["VmConfig"], &schemas, "");
    }
}
