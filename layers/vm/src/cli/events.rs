//! `cairn vm events`

use std::time::Duration;

use cairn_core::ErrorKind;
use clap::Args;
use cli::{Daemon, Output, segment};
use futures::StreamExt as _;
use reqwest::Method;
use serde::Deserialize as _;
use serde_json::Value;
use web::Problem;

use crate::errors;

use super::view::{EventView, list, short_state};

/// Pause before a lost connection is made again.
const RECONNECT: Duration = Duration::from_secs(2);
/// Connections lost in a row before the daemon is taken for gone.
const PATIENCE: u32 = 30;

/// Flags of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only this VM
    #[arg(value_name = "VM")]
    id: Option<String>,
    /// Go on with what happens from now on
    #[arg(long, short)]
    follow: bool,
    /// Only after this event
    #[arg(long, value_name = "ID", default_value_t = 0)]
    after: i64,
    /// So many at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u32,
}

pub(super) async fn run(events: &Events, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let path = match &events.id {
        Some(id) => format!("/v1/vms/{}/events", segment(id)),
        None => "/v1/events".to_owned(),
    };
    if events.follow {
        return follow(&path, events.after, daemon, output).await;
    }
    let answer: Value = daemon.get(&format!("{path}?after={}&limit={}", events.after, events.limit)).await?;
    let events = list(&answer, "events");
    if output.json {
        output.json(&events);
        return Ok(());
    }
    let rows: Vec<_> = events
        .iter()
        .map(|event| {
            let event = EventView::deserialize(event).unwrap_or_default();
            let state = short_state(&event.state).to_owned();
            [event.id.to_string(), event.time, event.vm_id, event.kind, state, event.message]
        })
        .collect();
    output.table(["ID", "TIME", "VM", "KIND", "STATE", "MESSAGE"], &rows);
    Ok(())
}

/// Until the user has enough. What happens while the daemon is away is told when it is back.
async fn follow(path: &str, mut after: i64, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let mut lost = 0;
    loop {
        match stream(path, &mut after, daemon, output).await {
            Ok(()) => lost = 0,
            // The one VM that was followed is gone; what was to be told has been.
            Err(problem) if problem.code == errors::VM_NOT_FOUND && after > 0 => return Ok(()),
            Err(problem) if problem.kind() == ErrorKind::Unreachable && after > 0 && lost < PATIENCE => {
                if lost == 0 {
                    output.note("the daemon does not answer; waiting for it");
                }
                lost += 1;
            }
            Err(problem) => return Err(problem),
        }
        // Nothing tells when a server is back; the pause is only against a busy loop.
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn stream(path: &str, after: &mut i64, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    let request = daemon
        .request(Method::GET, path)
        .header("accept", "text/event-stream")
        .header("last-event-id", after.to_string());
    let mut body = daemon.send(request).await?.bytes_stream();
    let mut pending = Vec::new();
    while let Some(chunk) = body.next().await {
        pending.extend_from_slice(&chunk.map_err(|error| daemon.unreachable(&error))?);
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = pending.drain(..end + 2).collect();
            let Some(value) = event(&String::from_utf8_lossy(&block)) else { continue };
            let event = EventView::deserialize(&value).unwrap_or_default();
            *after = event.id.max(*after);
            if output.json {
                output.line(value);
            } else {
                let state = short_state(&event.state);
                output
                    .line(format_args!("{}  {}  {}  {state}  {}", event.time, event.vm_id, event.kind, event.message));
            }
        }
    }
    Ok(())
}

/// The data of a block of server-sent events; signs of life have none.
fn event(block: &str) -> Option<Value> {
    let data: Vec<_> = block.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start).collect();
    let value: Value = serde_json::from_str(&data.join("\n")).ok()?;
    value.get("vm_id").is_some().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_the_stream_are_read() {
        let block = "id: 7\nevent: event\ndata: {\"id\":7,\"vm_id\":\"a\",\"time\":\"2026-01-01T00:00:00Z\"}\n\n";
        assert_eq!(event(block).unwrap()["id"], 7);
        assert_eq!(event(": keep-alive\n\n"), None);
        assert_eq!(event("event: end\ndata: {}\n\n"), None);
    }
}
