//! The fields of an event or a span, redacted as they are taken in: nothing behind this point holds a secret.

use std::error::Error;
use std::fmt::{Debug, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};

use crate::redaction::{REDACTED, is_secret_field, redact_text};

/// Fields that name a span for a collector of traces; in a line they would say again what stands there.
const FOR_TRACES: &str = "otel.";

/// Fields in the order they were given; a later value of a name replaces the earlier one.
#[derive(Debug, Default)]
pub(super) struct Fields(pub(super) Vec<(&'static str, Value)>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        if name.starts_with(FOR_TRACES) {
            return;
        }
        let value = if is_secret_field(name) { Value::from(REDACTED) } else { value };
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        self.put(field, Value::from(redact_text(text).into_owned()));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, Value::from(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, Value::from(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, Value::from(value));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, Value::from(value));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }
    /// An error with everything behind it: Display of one never repeats its source, so the chain is joined here.
    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(source) = next {
            let _ = write!(text, ": {source}");
            next = source.source();
        }
        self.put_text(field, &text);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put_text(field, &format!("{value:?}"));
    }
}
