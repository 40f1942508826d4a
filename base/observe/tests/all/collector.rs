//! A collector of traces: takes OTLP over HTTP as one does, or behaves badly.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::sync::watch;

/// Long enough for everything here, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A span as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    /// 2 is a server's.
    pub(crate) kind: i32,
    pub(crate) attributes: BTreeMap<String, String>,
    /// 2 is an error.
    pub(crate) status: i32,
    /// Who sent it.
    pub(crate) resource: BTreeMap<String, String>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Collector {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    spans: watch::Sender<Vec<Seen>>,
    /// All bodies, as they came.
    bytes: Mutex<Vec<u8>>,
    answers: watch::Receiver<StatusCode>,
}

impl Collector {
    /// Answers with the status that is there then.
    pub(crate) async fn start(answers: watch::Receiver<StatusCode>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = watch::channel(Vec::new()).0;
        let shared = Arc::new(Shared { spans, bytes: Mutex::default(), answers });
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Everything that came, once that is enough.
    pub(crate) async fn wait(&self, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        let mut spans = self.shared.spans.subscribe();
        let seen = tokio::time::timeout(PATIENCE, spans.wait_for(|seen| enough(seen))).await;
        let names = || self.shared.spans.borrow().iter().map(|span| span.name.clone()).collect::<Vec<_>>();
        seen.unwrap_or_else(|_| panic!("only these came: {:?}", names())).unwrap().clone()
    }

    /// Whether a text is in anything that came.
    pub(crate) fn has_seen(&self, text: &str) -> bool {
        let bytes = self.shared.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    shared.bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&body);
    let status = *shared.answers.borrow();
    if status.is_success() {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        shared.spans.send_modify(|all| all.extend(spans(request)));
    }
    status
}

fn spans(request: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut all = Vec::new();
    for sent in request.resource_spans {
        let resource = pairs(&sent.resource.unwrap_or_default().attributes);
        let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.extend(spans.map(|span| seen(span, resource.clone())));
    }
    all
}

fn seen(span: Span, resource: BTreeMap<String, String>) -> Seen {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Seen {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        kind: span.kind,
        attributes: pairs(&span.attributes),
        status: span.status.as_ref().map_or(0, |status| status.code),
        name: span.name,
        resource,
    }
}

fn pairs(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(yes)) => yes.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}
