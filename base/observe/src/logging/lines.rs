//! Turns events into lines.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

use cairn_core::Clock;
use serde_json::{Map, Value};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::fields::Fields;

/// Keys that a line always begins with, in this order; a field of the same name is left out.
const TIME: &str = "time";
const LEVEL: &str = "level";
const MESSAGE: &str = "message";

pub(super) struct Lines<W> {
    format: LogFormat,
    writer: W,
    clock: Arc<dyn Clock>,
}

impl<W> Lines<W> {
    pub(super) fn new(format: LogFormat, writer: W, clock: Arc<dyn Clock>) -> Self {
        Self { format, writer, clock }
    }

    /// The whole event as flat keys: its own fields before those of the inner span before those of the outer one.
    fn flatten<S>(&self, event: &Event<'_>, context: &Context<'_, S>) -> Map<String, Value>
    where
        S: Subscriber + for<'l> LookupSpan<'l>,
    {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert(TIME.to_owned(), Value::from(format!("{:.6}", self.clock.now())));
        line.insert(LEVEL.to_owned(), Value::from(level_name(*event.metadata().level())));
        let message = fields.0.iter().position(|(name, _)| *name == MESSAGE).map(|at| fields.0.remove(at).1);
        line.insert(MESSAGE.to_owned(), message.unwrap_or_else(|| Value::from("")));
        let mut add = |fields: &Fields| {
            for (name, value) in &fields.0 {
                line.entry(*name).or_insert_with(|| value.clone());
            }
        };
        add(&fields);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<Fields>() {
                add(fields);
            }
        }
        line
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let line = self.flatten(event, &context);
        let mut text = match self.format {
            LogFormat::Json => Value::Object(line).to_string(),
            LogFormat::Text => as_text(&line),
        };
        text.push('\n');
        // A log that cannot be written must not stop the program, and there is no other place to say so.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(text.as_bytes());
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// `time LEVEL message key=value …`; values with spaces are quoted, so that a line stays one line.
fn as_text(line: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in line {
        let plain = match value {
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        let _ = match name.as_str() {
            TIME => write!(text, "{plain}"),
            LEVEL => write!(text, " {:<5}", plain.to_uppercase()),
            MESSAGE => write!(text, " {}", plain.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")),
            _ if plain.is_empty() || plain.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') => {
                write!(text, " {name}={plain:?}")
            }
            _ => write!(text, " {name}={plain}"),
        };
    }
    text
}
