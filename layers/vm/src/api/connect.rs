//! The nine calls of the original as Connect unary JSON (connectrpc.com/docs/protocol), for clients that were made for it.
//! Answers are in protobuf's JSON: lower camel case, 64-bit numbers as texts.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use web::{Json, Problem};

use super::body::{CreateBody, OperationBody};
use super::gate::{Gate, Touched};
use super::view::VmView;
use super::vms::{self, Page};
use super::{Api, Shared, invalid, vm_id};
use crate::errors;
use crate::model::{Options, State as VmState, Vm};
use crate::plan::Kind;
use crate::service::Caller;

/// The package as it was called in the guide's time, and later.
const PACKAGES: [&str; 2] = ["vmprovisioner.v1", "metal.vmprovisioner.v1"];

#[derive(Debug, Clone, Copy)]
enum Call {
    Create,
    Delete,
    Operate(Kind),
    Get,
    List,
}

const CALLS: [(&str, Call); 9] = [
    ("CreateVm", Call::Create),
    ("DeleteVm", Call::Delete),
    ("BootVm", Call::Operate(Kind::Boot)),
    ("ShutdownVm", Call::Operate(Kind::Stop)),
    ("PauseVm", Call::Operate(Kind::Pause)),
    ("ResumeVm", Call::Operate(Kind::Resume)),
    ("RebootVm", Call::Operate(Kind::Reboot)),
    ("GetVmInfo", Call::Get),
    ("ListVms", Call::List),
];

/// Adds the calls.
pub(super) fn add(mut gate: Gate) -> Gate {
    for package in PACKAGES {
        for (name, call) in CALLS {
            let handler = move |State(api): Shared, caller: Caller, request: Request| async move {
                answer(&api, &caller, call, request).await
            };
            gate = gate.add("POST", &format!("/{package}.VmService/{name}"), handler);
        }
    }
    gate
}

async fn answer(api: &Api, caller: &Caller, call: Call, request: Request) -> Result<Response, Problem> {
    let Json(body) = Json::<Map<String, Value>>::from_request(request, &()).await.map_err(|problem| {
        let hint = "only Connect's unary JSON is spoken here, neither protobuf nor gRPC";
        if problem.status == 415 { problem.hint(hint) } else { problem }
    })?;
    let (reply, touched) = match call {
        Call::Create => {
            let vm = vms::make(api, caller, CreateBody::read(body)?, None).await?;
            (json!({ "vm_id": vm.id, "state": vm.state.wire() }), Some(vm.id.clone()))
        }
        Call::List => return list(api, caller, body).await,
        Call::Get | Call::Delete | Call::Operate(_) => {
            let asked: Asked = web::shape(Value::Object(body), "")?;
            let id = asked.vm_id.filter(|id| !id.is_empty());
            let id = vm_id(&id.ok_or_else(|| invalid("vm_id: which VM?"))?)?;
            let options = Options::from(OperationBody { force: asked.force, timeout_seconds: asked.timeout_seconds });
            let reply = match call {
                Call::Delete => {
                    api.service.delete(caller, &id, options).await?;
                    json!({ "success": true })
                }
                Call::Operate(kind) => {
                    let vm = api.service.operate(caller, &id, kind, options).await?;
                    json!({ "success": true, "state": vm.state.wire() })
                }
                _ => {
                    api.metrics.info_requests.inc();
                    info(api, &*api.service.get(caller, &id).await?)
                }
            };
            (reply, Some(id))
        }
    };
    let mut response = Json(camel(reply)).into_response();
    if let Some(id) = touched {
        response.extensions_mut().insert(Touched(id));
    }
    Ok(response)
}

/// Requests that name a VM.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default, alias = "vmId")]
    vm_id: Option<String>,
    #[serde(default)]
    force: bool,
    #[serde(default, alias = "timeoutSeconds")]
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedList {
    #[serde(default, alias = "stateFilter")]
    state_filter: Vec<StateName>,
    #[serde(default, alias = "pageSize")]
    page_size: u32,
    #[serde(default, alias = "pageToken")]
    page_token: String,
}

/// A state by its name or its number; 0 is none.
struct StateName(Option<VmState>);

impl<'de> Deserialize<'de> for StateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i32),
            Name(String),
        }
        let known = match Either::deserialize(deserializer)? {
            Either::Number(0) => return Ok(Self(None)),
            Either::Name(name) if name == "VM_STATE_UNSPECIFIED" => return Ok(Self(None)),
            Either::Number(number) => VmState::ALL.into_iter().find(|state| state.number() == number),
            Either::Name(name) => name.parse().ok(),
        };
        known.map(|state| Self(Some(state))).ok_or_else(|| serde::de::Error::custom("a state of a VM was expected"))
    }
}

async fn list(api: &Api, caller: &Caller, body: Map<String, Value>) -> Result<Response, Problem> {
    let asked: AskedList = web::shape(Value::Object(body), "")?;
    let states = asked.state_filter.into_iter().filter_map(|state| state.0).collect();
    let page = Page { states, size: asked.page_size, token: asked.page_token }.read(api, caller).await?;
    let items: Vec<Value> = page.vms.iter().map(item).collect();
    let reply = json!({ "vms": items, "next_page_token": page.next_page_token, "total_count": page.total_count });
    Ok(Json(camel(reply)).into_response())
}

/// `VmInfo` of the original.
fn item(vm: &VmView) -> Value {
    json!({
        "vm_id": vm.vm_id,
        "state": vm.state,
        "vcpu_count": vm.vcpu_count,
        "memory_size_bytes": vm.memory_size_bytes,
        "created_timestamp": vm.created_timestamp,
        "modified_timestamp": vm.modified_timestamp,
        "metadata": vm.metadata,
        "customer_id": vm.customer_id,
    })
}

/// `GetVmInfoResponse` of the original. Its metrics are not kept here.
fn info(api: &Api, vm: &Vm) -> Value {
    // As its owner sees it: the original's configuration names no customer.
    let owner = Caller { who: String::new(), customer: Some(vm.customer.clone()) };
    let view = VmView::of(vm, &api.service.wire(vm), &owner);
    let mut backend_info = Map::new();
    if let Some(backend) = view.backend {
        backend_info.insert("backend".to_owned(), backend.as_str().into());
    }
    json!({
        "vm_id": view.vm_id,
        "config": view.config,
        "state": view.state,
        "backend_info": backend_info,
        "network_info": view.network_info,
    })
}

/// 64-bit fields, which are texts in protobuf's JSON.
const LONG: &[&str] = &[
    "size_bytes",
    "max_size_bytes",
    "memory_size_bytes",
    "created_timestamp",
    "modified_timestamp",
    "bandwidth",
    "refill_time",
    "burst",
];
/// Maps, whose keys are the user's.
const MAPS: &[&str] = &["metadata", "backend_info"];

/// Keys in lower camel case, long numbers as texts.
fn camel(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let field = |(key, value): (String, Value)| {
                let value = match value {
                    Value::Number(number) if LONG.contains(&key.as_str()) => number.to_string().into(),
                    value if MAPS.contains(&key.as_str()) => value,
                    value => camel(value),
                };
                (camel_key(&key), value)
            };
            Value::Object(fields.into_iter().map(field).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(camel).collect()),
        other => other,
    }
}

fn camel_key(key: &str) -> String {
    let mut words = key.split('_');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(letters.as_str());
    }
    camel
}

/// Calls of other names are answered in Connect's form as well.
pub(super) fn catch_all(mut routes: Router) -> Router {
    for package in PACKAGES {
        let unknown = || async { error(StatusCode::NOT_IMPLEMENTED, "unimplemented", "there is no such call") };
        routes = routes.route(&format!("/{package}.VmService/{{call}}"), any(unknown));
    }
    routes
}

/// Errors of these calls in Connect's form, whoever answers with them.
pub(super) async fn in_its_form(request: Request, next: Next) -> Response {
    let is_ours = PACKAGES.iter().any(|package| {
        request
            .uri()
            .path()
            .strip_prefix('/')
            .and_then(|path| path.strip_prefix(package))
            .is_some_and(|rest| rest.starts_with('.'))
    });
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Arc<Problem>>().filter(|_| is_ours).cloned() else {
        return response;
    };
    let (status, code) = code(&problem);
    let message = match &problem.hint {
        Some(hint) => format!("{} ({hint})", problem.detail),
        None => problem.detail.clone(),
    };
    let mut answer = error(status, code, &message);
    for name in [header::RETRY_AFTER, header::WWW_AUTHENTICATE] {
        if let Some(value) = response.headers().get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    answer.extensions_mut().insert(problem);
    answer
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let mut response = (status, Json(json!({ "code": code, "message": message }))).into_response();
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert("accept-post", HeaderValue::from_static("application/json"));
    }
    response
}

/// Connect's code, and the status that its protocol gives it (section "Error codes").
fn code(problem: &Problem) -> (StatusCode, &'static str) {
    match (problem.status, problem.code.as_str()) {
        // Not Connect's status for this code: what a client cannot speak is told before any call.
        (415, _) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unimplemented"),
        (409, errors::VM_EXISTS | errors::IDEMPOTENCY_KEY) => (StatusCode::CONFLICT, "already_exists"),
        (409, errors::VM_BUSY) => (StatusCode::CONFLICT, "aborted"),
        (409 | 412, _) | (_, errors::ASSET_MISSING) => (StatusCode::BAD_REQUEST, "failed_precondition"),
        (401, _) => (StatusCode::UNAUTHORIZED, "unauthenticated"),
        (403, _) => (StatusCode::FORBIDDEN, "permission_denied"),
        (404, _) => (StatusCode::NOT_FOUND, "not_found"),
        (408 | 504, _) => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        (429 | 413, _) => (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted"),
        (400..500, _) => (StatusCode::BAD_REQUEST, "invalid_argument"),
        (502 | 503, _) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

#[cfg(test)]
mod tests {
    use cairn_core::ErrorKind;

    use super::*;

    #[test]
    fn replies_are_protobufs_json_and_a_users_keys_stay() {
        let reply = json!({
            "vm_id": "a",
            "total_count": 2,
            "config": { "memory": { "size_bytes": 134217728 }, "metadata": { "my_key": "x" } },
            "network_info": { "port_mappings": [{ "host_port": 1 }] },
        });
        assert_eq!(
            camel(reply),
            json!({
                "vmId": "a",
                "totalCount": 2,
                "config": { "memory": { "sizeBytes": "134217728" }, "metadata": { "my_key": "x" } },
                "networkInfo": { "portMappings": [{ "hostPort": 1 }] },
            })
        );
    }

    #[test]
    fn states_have_names_and_numbers() {
        let read = |value: Value| serde_json::from_value::<StateName>(value).map(|name| name.0);
        assert_eq!(read(json!(2)).unwrap(), Some(VmState::Running));
        assert_eq!(read(json!("VM_STATE_PAUSED")).unwrap(), Some(VmState::Paused));
        assert_eq!(read(json!("VM_STATE_UNSPECIFIED")).unwrap(), None);
        assert_eq!(read(json!(0)).unwrap(), None);
        assert!(read(json!(99)).is_err() && read(json!("x")).is_err());
    }

    #[test]
    fn statuses_become_codes() {
        let of = |kind, name: &str| code(&Problem::new(kind, name, "d")).1;
        assert_eq!(of(ErrorKind::Conflict, errors::VM_WRONG_STATE), "failed_precondition");
        assert_eq!(of(ErrorKind::Conflict, errors::VM_EXISTS), "already_exists");
        assert_eq!(of(ErrorKind::Conflict, errors::VM_BUSY), "aborted");
        assert_eq!(of(ErrorKind::Invalid, errors::VM_INVALID), "invalid_argument");
        assert_eq!(of(ErrorKind::RateLimited, errors::VM_LIMIT), "resource_exhausted");
        assert_eq!(of(ErrorKind::Unavailable, errors::MAINTENANCE), "unavailable");
        assert_eq!(of(ErrorKind::Failed, "server_error"), "internal");
    }
}
