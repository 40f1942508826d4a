//! Log lines: one event, one line, flat keys.
//!
//! The keys are those of the Shoal manual, section 2.2: `time`, `level`, `message`, then whatever the event and the
//! spans around it carry (`job_id`, `server_serial`, `step`, `worker_id`, `op`, `code`, `duration_ms`, …).

mod fields;
mod lines;

use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::Arc;

use cairn_core::{Clock, SystemClock};
use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use crate::traces::Traces;
use lines::Lines;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// `time level message key=value …`, for a terminal.
    Text,
}

impl FromStr for LogFormat {
    type Err = LoggingError;
    fn from_str(text: &str) -> Result<Self, LoggingError> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(LoggingError::Format { format: other.to_owned() }),
        }
    }
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a format.
    #[error("{format:?} is not a log format: json or text was expected")]
    Format { format: String },
    /// Not a level and not a list of directives.
    #[error(
        "{level:?} is not a log level: error, warn, info, debug, trace or a list such as info,metal=debug was expected"
    )]
    Level { level: String, source: tracing_subscriber::filter::ParseError },
    /// [`init`] was called before.
    #[error("logging was set up twice")]
    AlreadySet { source: tracing::subscriber::SetGlobalDefaultError },
}

/// Sends the events of the whole process to `writer`, a panic as one error event with the spans it happened in, and
/// spans to `traces`, whatever the level of the log is.
///
/// `level` is `error`, `warn`, `info`, `debug`, `trace` or a list such as `info,metal=debug`.
pub fn init<W>(format: LogFormat, level: &str, writer: W, traces: Option<&Traces>) -> Result<(), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let subscriber = subscriber(format, level, writer, Arc::new(SystemClock), traces)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|source| LoggingError::AlreadySet { source })?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What [`init`] makes global: for a test that sets it for its own thread, with a clock that stands still.
pub fn subscriber<W>(
    format: LogFormat,
    level: &str,
    writer: W,
    clock: Arc<dyn Clock>,
    traces: Option<&Traces>,
) -> Result<impl Subscriber + Send + Sync + 'static, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter =
        EnvFilter::try_new(checked(level)).map_err(|source| LoggingError::Level { level: level.to_owned(), source })?;
    let lines = Lines::new(format, writer, clock).with_filter(filter);
    Ok(tracing_subscriber::registry().with(traces.map(Traces::layer)).with(lines))
}

/// A word alone that is no level would be taken for the name of a module, and everything else would fall silent: it is made
/// into something that is refused.
fn checked(level: &str) -> &str {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let known = |part: &str| part.contains('=') || LEVELS.contains(&part.trim().to_lowercase().as_str());
    if level.split(',').all(known) { level } else { "=not a level=" }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    let reason = panic.payload_as_str().unwrap_or("the panic carries no text");
    tracing::error!(code = "panic", location, thread, reason, "panicked");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_level_or_format_is_named() {
        assert!(subscriber(LogFormat::Json, "inof", std::io::sink, Arc::new(SystemClock), None).is_err());
        assert!(subscriber(LogFormat::Json, "info,metal=debug", std::io::sink, Arc::new(SystemClock), None).is_ok());
        let error = subscriber(LogFormat::Json, "info,=x=", std::io::sink, Arc::new(SystemClock), None).err().unwrap();
        assert!(error.to_string().starts_with("\"info,=x=\" is not a log level"), "{error}");
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "\"xml\" is not a log format: json or text was expected"
        );
    }
}
