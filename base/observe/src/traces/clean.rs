//! Nothing that is secret leaves in a span: by the name of an attribute, and inside of texts.

use opentelemetry::trace::Status;
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use crate::redaction::{REDACTED, is_secret_field, redact_text};

/// The span as it may be shown.
pub(super) fn clean(mut span: SpanData) -> SpanData {
    span.name = redact_text(&span.name).into_owned().into();
    span.attributes = attributes(span.attributes);
    for event in &mut span.events.events {
        event.name = redact_text(&event.name).into_owned().into();
        event.attributes = attributes(std::mem::take(&mut event.attributes));
    }
    for link in &mut span.links.links {
        link.attributes = attributes(std::mem::take(&mut link.attributes));
    }
    if let Status::Error { description } = &span.status {
        span.status = Status::error(redact_text(description).into_owned());
    }
    span
}

fn attributes(all: Vec<KeyValue>) -> Vec<KeyValue> {
    all.into_iter().map(attribute).collect()
}

fn attribute(attribute: KeyValue) -> KeyValue {
    let value = match attribute.value {
        _ if is_secret_field(attribute.key.as_str()) => REDACTED.into(),
        Value::String(text) => redact_text(text.as_str()).into_owned().into(),
        Value::Array(Array::String(texts)) => {
            let texts = texts.iter().map(|text| StringValue::from(redact_text(text.as_str()).into_owned()));
            Value::Array(Array::String(texts.collect()))
        }
        other => other,
    };
    KeyValue::new(attribute.key, value)
}
