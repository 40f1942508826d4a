//! Bodies whose shape is looser than a type: what may be left out, and what comes in two forms.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use cairn_core::ErrorKind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use web::{Json, Problem};

use super::invalid;
use crate::model::{CustomerId, Options, VmId, VmSpec};

/// A JSON body, or none at all.
pub(super) struct Maybe<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Maybe<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let read = Bytes::from_request(Request::from_parts(parts.clone(), body), state).await;
        let body = read.map_err(|rejection| unread(&rejection))?;
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        let Json(value) = Json::from_request(Request::from_parts(parts, body.into()), state).await?;
        Ok(Self(value))
    }
}

/// A body that did not come.
pub(super) fn unread(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let detail = "the body is larger than this route takes";
        return Problem::new(ErrorKind::Invalid, web::codes::BODY_TOO_LARGE, detail).status(413);
    }
    invalid("the body ended early")
}

/// What is asked with an operation.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationBody {
    #[serde(default)]
    pub(super) force: bool,
    #[serde(default, alias = "timeoutSeconds")]
    pub(super) timeout_seconds: Option<u32>,
}

impl From<OperationBody> for Options {
    fn from(OperationBody { force, timeout_seconds }: OperationBody) -> Self {
        // 0 is what protobuf writes for nothing.
        Self { force, timeout_seconds: timeout_seconds.filter(|seconds| *seconds > 0) }
    }
}

/// A VM that is to be created.
#[derive(Debug)]
pub(super) struct CreateBody {
    pub(super) vm_id: Option<VmId>,
    pub(super) customer_id: Option<CustomerId>,
    pub(super) spec: VmSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    config: Map<String, Value>,
    #[serde(default, alias = "vmId")]
    vm_id: String,
    #[serde(default, alias = "customerId")]
    customer_id: String,
}

impl CreateBody {
    /// From `{"config": …}` (guide, "Manual Health Verification"), or from the configuration alone (guide, "VM Recovery").
    /// Whose VM it was stands in the configurations that an operator lists, so that it can be read here again.
    pub(super) fn read(body: Map<String, Value>) -> Result<Self, Problem> {
        let is_bare = !body.contains_key("config") && (body.contains_key("cpu") || body.contains_key("memory"));
        let (mut config, mut vm_id, mut customer_id, at) = if is_bare {
            (body, String::new(), String::new(), "")
        } else {
            let wrapped: Wrapped = web::shape(Value::Object(body), "")?;
            (wrapped.config, wrapped.vm_id, wrapped.customer_id, "/config")
        };
        for (names, into) in [(["vm_id", "vmId"], &mut vm_id), (["customer_id", "customerId"], &mut customer_id)] {
            // A VM's id may stand beside a bare configuration, its owner in any.
            if names[0] == "vm_id" && !is_bare {
                continue;
            }
            for name in names {
                let Some(value) = config.remove(name) else { continue };
                let inner: String = web::shape(value, &format!("{at}/{name}"))?;
                if into.is_empty() {
                    *into = inner;
                }
            }
        }
        Ok(Self {
            vm_id: text(&vm_id)?,
            customer_id: text(&customer_id)?,
            spec: web::shape(Value::Object(config), at)?,
        })
    }
}

/// An empty text is none, as in protobuf.
fn text<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Option<T>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: T::Err| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<CreateBody, Problem> {
        let Value::Object(body) = value else { panic!("an object is needed") };
        CreateBody::read(body)
    }

    #[test]
    fn both_forms_say_the_same() {
        let config = json!({"cpu": {"vcpu_count": 1}, "memory": {"size_bytes": 134217728}});
        let bare = read(config.clone()).unwrap();
        let wrapped = read(json!({"config": config, "vm_id": "ud-1", "customer_id": "acme"})).unwrap();
        assert_eq!(bare.spec, wrapped.spec);
        assert_eq!((bare.vm_id, bare.customer_id), (None, None));
        assert_eq!((wrapped.vm_id, wrapped.customer_id), ("ud-1".parse().ok(), "acme".parse().ok()));
        let mut listed = config;
        listed["customer_id"] = json!("acme");
        assert_eq!(read(listed.clone()).unwrap().customer_id, "acme".parse().ok());
        assert_eq!(read(json!({ "config": listed.clone() })).unwrap().customer_id, "acme".parse().ok());
        let outer_wins = read(json!({ "config": listed, "customer_id": "other" })).unwrap();
        assert_eq!(outer_wins.customer_id, "other".parse().ok());
    }

    #[test]
    fn a_slip_is_named_with_its_place() {
        for (body, path, hint) in [
            (json!({"confg": {}}), "/confg", Some("did you mean `config`?")),
            (json!({"cpu": {"vcpu_cout": 1}}), "/cpu/vcpu_cout", Some("did you mean `vcpu_count`?")),
            (json!({"config": {"memry": {}}}), "/config/memry", Some("did you mean `memory`?")),
            (json!({"config": {"cpu": {"vcpu_count": "x"}}}), "/config/cpu/vcpu_count", None),
            (json!({"config": []}), "/config", None),
            (json!({}), "", None),
            (json!({"config": {"vm_id": "x"}}), "/config/vm_id", None),
        ] {
            let problem = read(body.clone()).unwrap_err();
            assert_eq!(problem.details[0].path, path, "{body}");
            assert_eq!(problem.hint.as_deref(), hint, "{body}: {problem}");
        }
        assert!(read(json!({"config": {}, "vm_id": "../x"})).is_err());
    }

    proptest::proptest! {
        /// Whatever is posted is read or refused, and what is read says the same in both forms.
        #[test]
        fn nothing_that_is_posted_is_a_surprise(
            keys in proptest::collection::vec("(cpu|memory|boot|metadata|customer_id|vm_id|config|[a-z_]{1,8})", 0..4),
            numbers in proptest::collection::vec(proptest::num::i64::ANY, 4),
        ) {
            let mut body = json!({});
            for (key, number) in keys.iter().zip(&numbers) {
                body[key] = match key.as_str() {
                    "cpu" => json!({ "vcpu_count": number }),
                    "memory" => json!({ "size_bytes": number.to_string() }),
                    "metadata" => json!({ "a": "b" }),
                    "boot" => json!({}),
                    _ => json!("x"),
                };
            }
            let bare = read(body.clone());
            if let Ok(bare) = bare && bare.vm_id.is_none() && body.get("config").is_none() {
                proptest::prop_assert_eq!(read(json!({ "config": body })).unwrap().spec, bare.spec);
            }
        }
    }
}
