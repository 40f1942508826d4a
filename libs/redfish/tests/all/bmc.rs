//! A strict BMC with two CD drives that a test can change and make fail. Shapes are written by hand from public
//! descriptions of the standard and of vendors' manners; none is a dump of a real machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::Url;

use crate::support::{PASSWORD, USER};

pub(crate) const ROOT: &str = "/redfish/v1/";
pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/1";
pub(crate) const MANAGER: &str = "/redfish/v1/Managers/1";
pub(crate) const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
pub(crate) const MEDIA: &str = "/redfish/v1/Managers/1/VirtualMedia";

/// One request, as it came.
#[derive(Clone)]
pub(crate) struct Incoming {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// When it came, on tokio's clock.
    pub(crate) at: tokio::time::Instant,
}

impl Incoming {
    pub(crate) fn is(&self, method: &str, path_end: &str) -> bool {
        self.method.as_str() == method && self.path.ends_with(path_end)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What a hook answers instead of the BMC.
pub(crate) enum Reply {
    /// Status, headers, body.
    With(u16, Vec<(&'static str, String)>, String),
    /// Nothing, ever.
    Hang,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Option<Self> {
        Some(Self::With(status, Vec::new(), String::new()))
    }

    pub(crate) fn message(status: u16, id: &str, message: &str) -> Option<Self> {
        let body = json!({"error": {"code": "Base.1.8.GeneralError",
            "@Message.ExtendedInfo": [{"MessageId": id, "Message": message}]}});
        Some(Self::With(status, Vec::new(), body.to_string()))
    }
}

/// The BMC and what stands in front of it, as the server's handler sees them.
type Shared = (Arc<Mutex<Machine>>, Arc<Mutex<Option<Hook>>>);

type Hook = Box<dyn FnMut(&Incoming, &mut Machine) -> Option<Reply> + Send>;

/// State of the BMC.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) resources: BTreeMap<String, Value>,
    pub(crate) seen: Vec<Incoming>,
    pub(crate) refuse_basic: bool,
    pub(crate) tokens: Vec<String>,
    pub(crate) logins: usize,
}

impl Machine {
    pub(crate) fn set(&mut self, path: &str, key: &str, value: Value) {
        self.resources.get_mut(path).unwrap()[key] = value;
    }

    pub(crate) fn get(&self, path: &str, key: &str) -> Value {
        self.resources[path][key].clone()
    }

    fn knows(&self, request: &Incoming) -> bool {
        let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        (!self.refuse_basic && request.header("authorization") == Some(&basic))
            || request.header("x-auth-token").is_some_and(|token| self.tokens.iter().any(|known| known == token))
    }

    fn answer(&mut self, request: &Incoming) -> Reply {
        let path = request.path.as_str();
        let plain = |status: u16| Reply::With(status, Vec::new(), String::new());
        if request.is("POST", SESSIONS) {
            return self.log_in(request);
        }
        if path != ROOT && !self.knows(request) {
            return Reply::message(401, "Base.1.8.NoValidSession", "no session").unwrap();
        }
        match request.method.as_str() {
            "GET" => match self.resources.get(path) {
                Some(resource) => Reply::With(200, Vec::new(), resource.to_string()),
                None => plain(404),
            },
            "PATCH" => plain(self.patch(request)),
            "POST" => plain(self.act(request)),
            "DELETE" => {
                let gone = path.strip_prefix(SESSIONS).is_some();
                self.tokens.clear();
                plain(if gone { 204 } else { 405 })
            }
            _ => plain(405),
        }
    }

    fn log_in(&mut self, request: &Incoming) -> Reply {
        self.logins += 1;
        if request.body != json!({"UserName": USER, "Password": PASSWORD}) {
            return Reply::message(401, "Base.1.8.AccessDenied", &format!("wrong: {}", request.body)).unwrap();
        }
        let token = format!("planted-token-{}", self.logins);
        self.tokens = vec![token.clone()];
        let location = format!("{SESSIONS}/{}", self.logins);
        Reply::With(201, vec![("x-auth-token", token), ("location", location)], "{}".to_owned())
    }

    /// Merges the body, strict about entity tags where the resource has one.
    fn patch(&mut self, request: &Incoming) -> u16 {
        let Some(resource) = self.resources.get_mut(&request.path) else { return 404 };
        if let Some(tag) = resource.get("@odata.etag").and_then(Value::as_str).map(str::to_owned) {
            match request.header("if-match") {
                None => return 428,
                Some(given) if given != tag && given != "*" => return 412,
                Some(_) => resource["@odata.etag"] = json!(format!("{tag}+")),
            }
        }
        merge(resource, &request.body);
        204
    }

    fn act(&mut self, request: &Incoming) -> u16 {
        let Some((resource, action)) = request.path.split_once("/Actions/") else { return 404 };
        if !request.body.is_object() || !self.resources.contains_key(resource) {
            return 400;
        }
        match action {
            "VirtualMedia.InsertMedia" => {
                self.set(resource, "Image", request.body["Image"].clone());
                self.set(resource, "Inserted", json!(true));
            }
            "VirtualMedia.EjectMedia" => {
                self.set(resource, "Image", Value::Null);
                self.set(resource, "Inserted", json!(false));
            }
            "ComputerSystem.Reset" => {
                let state = if request.body["ResetType"] == "On" { "On" } else { "Off" };
                self.set(resource, "PowerState", json!(state));
            }
            _ => return 404,
        }
        204
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into.as_object_mut(), from.as_object()) {
        (Some(into), Some(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        _ => *into = from.clone(),
    }
}

/// A BMC that serves on the loopback interface until it is dropped.
pub(crate) struct Fake {
    pub(crate) url: Url,
    machine: Arc<Mutex<Machine>>,
    hook: Arc<Mutex<Option<Hook>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let machine = Arc::new(Mutex::new(Machine { resources: resources(), ..Machine::default() }));
        let hook: Arc<Mutex<Option<Hook>>> = Arc::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let app = Router::new().fallback(serve).with_state((Arc::clone(&machine), Arc::clone(&hook)));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, machine, hook, task }
    }

    /// Looks at, or changes, the BMC.
    pub(crate) fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    /// Every request goes through `hook` first.
    pub(crate) fn hook(&self, hook: impl FnMut(&Incoming, &mut Machine) -> Option<Reply> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// The first `times` matching requests are answered with `status`.
    pub(crate) fn fail(&self, method: &'static str, path_end: &'static str, status: u16, mut times: usize) {
        self.hook(move |request, _| {
            let hit = times > 0 && request.is(method, path_end);
            times -= usize::from(hit);
            hit.then(|| Reply::status(status).unwrap())
        });
    }

    pub(crate) fn requests(&self, method: &str, path_end: &str) -> Vec<Incoming> {
        self.machine().seen.iter().filter(|request| request.is(method, path_end)).cloned().collect()
    }
}

async fn serve(
    State((machine, hook)): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let at = tokio::time::Instant::now();
    let request = Incoming { method, path: uri.path().to_owned(), headers, body, at };
    let reply = {
        let mut machine = machine.lock().unwrap();
        machine.seen.push(request.clone());
        let hooked = hook.lock().unwrap().as_mut().and_then(|hook| hook(&request, &mut machine));
        hooked.unwrap_or_else(|| machine.answer(&request))
    };
    match reply {
        Reply::With(status, headers, body) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Reply::Hang => std::future::pending().await,
    }
}

/// A drive with its two actions.
pub(crate) fn drive(path: &str, id: &str, types: &[&str]) -> Value {
    json!({
        "Id": id, "MediaTypes": types, "Image": null, "Inserted": false,
        "Actions": {
            "#VirtualMedia.InsertMedia": {"target": format!("{path}/Actions/VirtualMedia.InsertMedia")},
            "#VirtualMedia.EjectMedia": {"target": format!("{path}/Actions/VirtualMedia.EjectMedia")},
        },
    })
}

/// A collection of these members.
pub(crate) fn collection(members: &[&str]) -> Value {
    json!({"Members": members.iter().map(|path| json!({"@odata.id": path})).collect::<Vec<_>>()})
}

fn resources() -> BTreeMap<String, Value> {
    let root = json!({
        "RedfishVersion": "1.15.0",
        "Systems": {"@odata.id": "/redfish/v1/Systems"},
        "Managers": {"@odata.id": "/redfish/v1/Managers"},
        "SessionService": {"@odata.id": "/redfish/v1/SessionService"},
        "Links": {"Sessions": {"@odata.id": SESSIONS}},
    });
    let system = json!({
        "@odata.id": SYSTEM, "Id": "1", "SerialNumber": "SN-1", "UUID": "27946b59-9e44-4fa7-8e91-f3527a1ef094",
        "Manufacturer": "Example Works", "Model": "M1", "PowerState": "Off", "BiosVersion": "2.1",
        "MemorySummary": {"TotalSystemMemoryGiB": 64}, "ProcessorSummary": {"Count": 2},
        "Boot": {
            "BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None",
            "BootSourceOverrideMode": "UEFI",
            "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd"],
        },
        "Links": {"ManagedBy": [{"@odata.id": MANAGER}]},
        "Actions": {"#ComputerSystem.Reset": {
            "target": format!("{SYSTEM}/Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "GracefulShutdown"],
        }},
    });
    let manager = json!({"Id": "1", "Model": "BMC", "FirmwareVersion": "7.0", "VirtualMedia": {"@odata.id": MEDIA}});
    let (one, two, stick) = (format!("{MEDIA}/CD1"), format!("{MEDIA}/CD2"), format!("{MEDIA}/Stick"));
    [
        (ROOT, root),
        ("/redfish/v1/Systems", collection(&[SYSTEM])),
        (SYSTEM, system),
        ("/redfish/v1/Managers", collection(&[MANAGER])),
        (MANAGER, manager),
        (MEDIA, collection(&[&stick, &two, &one])),
        (&one, drive(&one, "CD1", &["CD", "DVD"])),
        (&two, drive(&two, "CD2", &["CD", "DVD"])),
        (&stick, drive(&stick, "Stick", &["Floppy", "USBStick"])),
    ]
    .into_iter()
    .map(|(path, resource)| (path.to_owned(), resource))
    .collect()
}
