//! Following a job by its server-sent events.

use std::time::Duration;

use cairn_core::ErrorKind;
use cli::{Daemon, Output, segment};
use futures::StreamExt;
use reqwest::Method;
use web::Problem;

use crate::api::view::JobView;
use crate::errors;
use crate::model::{Event, FirstBoot, Status};

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The machine was switched on from its own disk.
    Complete,
    /// The installed system has reported.
    FirstBoot,
}

/// Pause before a lost connection is made again.
const RECONNECT: Duration = Duration::from_secs(2);
/// Connections lost in a row before the controller is taken for gone.
const PATIENCE: u32 = 30;

pub(super) async fn watch(job: &str, until: Until, client: &Daemon, output: &Output) -> Result<(), Problem> {
    let mut follower = Follower { last_id: 0, last: None, reason: String::new(), output };
    let mut lost = 0;
    loop {
        match follow(job, until, client, &mut follower).await {
            Ok(true) => break,
            Ok(false) => lost = 0,
            Err(problem) if follower.last.is_some() && problem.kind() == ErrorKind::Unreachable && lost < PATIENCE => {
                if lost == 0 {
                    output.note("the controller does not answer; waiting for it");
                }
                lost += 1;
            }
            Err(problem) => return Err(problem),
        }
        // Nothing tells when a server is back; the pause is only against a busy loop.
        tokio::time::sleep(RECONNECT).await;
    }
    let Some(view) = follower.last else { return Ok(()) };
    if output.json {
        output.json(&view);
    }
    verdict(&view, until)
}

/// How it went, as an exit code.
fn verdict(view: &JobView, until: Until) -> Result<(), Problem> {
    if view.outcome.as_deref() != Some("succeeded") {
        let code = view.failed_code.as_deref().unwrap_or(errors::STEP_FAILED);
        let step = view.failed_step.as_deref().unwrap_or("unknown");
        let detail = format!("job {} failed in {step}: {}", view.job_id, view.failed_detail.as_deref().unwrap_or(code));
        return Err(Problem::new(ErrorKind::Failed, code, detail).hint(format!("cairn explain {code}")));
    }
    let first_boot = view.condition("FirstBoot").map(|condition| condition.reason.as_str());
    if until == Until::FirstBoot && first_boot != Some(FirstBoot::Reported.as_str()) {
        let detail =
            format!("job {} succeeded, but its first boot is {}", view.job_id, first_boot.unwrap_or("unknown"));
        return Err(Problem::new(ErrorKind::Partial, errors::FIRST_BOOT_MISSING, detail)
            .hint("look at the machine's console; cairn explain first_boot_missing"));
    }
    Ok(())
}

/// One connection. `true`: what was waited for is there.
async fn follow(job: &str, until: Until, client: &Daemon, follower: &mut Follower<'_>) -> Result<bool, Problem> {
    let request = client
        .request(Method::GET, &format!("/api/v1/jobs/{}/events", segment(job)))
        .header("accept", "text/event-stream")
        .header("last-event-id", follower.last_id);
    let mut body = client.send(request).await?.bytes_stream();
    let mut pending = Vec::new();
    while let Some(chunk) = body.next().await {
        pending.extend_from_slice(&chunk.map_err(|error| client.unreachable(&error))?);
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = pending.drain(..end + 2).collect();
            let over = follower.take(&String::from_utf8_lossy(&block));
            let complete = follower.last.as_ref().is_some_and(|view| view.status == Status::Complete);
            if over || (until == Until::Complete && complete) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

struct Follower<'a> {
    last_id: i64,
    last: Option<JobView>,
    reason: String,
    output: &'a Output,
}

impl Follower<'_> {
    /// Takes one block of the stream in. `true`: it was the last.
    fn take(&mut self, block: &str) -> bool {
        let (mut name, mut data) = ("", String::new());
        for line in block.lines() {
            match line.split_once(':') {
                Some(("event", value)) => name = value.trim_start(),
                Some(("data", value)) => data.push_str(value.strip_prefix(' ').unwrap_or(value)),
                _ => {}
            }
        }
        match name {
            "event" => {
                if let Ok(event) = serde_json::from_str::<Event>(&data) {
                    self.last_id = event.id;
                    self.print(event_line(&event));
                }
            }
            "job" => {
                if let Ok(view) = serde_json::from_str::<JobView>(&data) {
                    if !view.reason.is_empty() && view.reason != self.reason {
                        self.reason.clone_from(&view.reason);
                        self.output.note(format_args!("          {}", view.reason));
                    }
                    self.last = Some(view);
                }
            }
            "end" => return true,
            _ => {}
        }
        false
    }

    fn print(&self, line: String) {
        if self.output.json { self.output.note(line) } else { self.output.line(line) }
    }
}

/// An event as a line.
pub(super) fn event_line(event: &Event) -> String {
    let time = event.time.strftime("%H:%M:%S");
    let level = match event.level {
        crate::model::Level::Info => "",
        crate::model::Level::Warn => "warning: ",
        crate::model::Level::Error => "error: ",
    };
    let step = event.step.as_deref().map(|step| format!(" [{step}]")).unwrap_or_default();
    format!("{time}  {level}{}{step}", event.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_the_stream_are_read() {
        let output = Output::new(true);
        let mut follower = Follower { last_id: 0, last: None, reason: String::new(), output: &output };
        let event = r#"id: 7
event: event
data: {"id":7,"time":"2026-01-01T00:00:00Z","level":"info","message":"queued"}

"#;
        assert!(!follower.take(event));
        assert_eq!(follower.last_id, 7);
        assert!(!follower.take(": keep-alive\n\n"));
        assert!(follower.take("event: end\ndata: {}\n\n"));
    }
}
