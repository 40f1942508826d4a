use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_core::FixedClock;
use observe::logging::{LogFormat, subscriber};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Captured {
    type Writer = Self;
    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

/// Whether an event is of interest is cached for the whole process, so subscribers take turns.
static TURN: Mutex<()> = Mutex::new(());

fn lines_of(format: LogFormat, level: &str, work: impl FnOnce()) -> String {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let captured = Captured::default();
    let clock = FixedClock::at("2025-11-05T12:00:00.25Z".parse().unwrap());
    let subscriber = subscriber(format, level, captured.clone(), Arc::new(clock), None).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[derive(Debug, thiserror::Error)]
#[error("the BMC at http://root:calvin@10.0.0.7 did not answer")]
struct Outer(#[source] std::io::Error);

fn a_job() {
    let job = tracing::info_span!("job", job_id = "0197", server_serial = "SN-1", worker_id = "w1", step = "job");
    let _job = job.enter();
    tracing::info!(step = "iso.build", duration_ms = 12, size_bytes = 73_728_u64, "task ISO built");
    let operation = tracing::info_span!(
        "redfish",
        op = "mount.task",
        step = "redfish.mount.task",
        attempt = 1,
        code = tracing::field::Empty
    );
    let _operation = operation.enter();
    operation.record("code", 503);
    operation.record("attempt", 2);
    tracing::warn!(retried = true, "request failed");
    let error = Outer(std::io::Error::other("Bearer abc.def expired"));
    tracing::error!(error = &error as &dyn std::error::Error, "step failed");
    tracing::debug!("not shown");
}

fn secrets() {
    let span = tracing::info_span!("request", password = "hunter2", x_auth_token = ?Some("hunter2"));
    let _span = span.enter();
    tracing::info!(
        webhook_secret = "hunter2",
        recipe = %"{\"user_data\":\"hunter2\"}",
        unattend_xml = "hunter2",
        ks_cfg = "hunter2",
        url = %"http://c/media/tasks/1/task.iso?expires=9&sig=hunter2",
        request = ?("Authorization: Basic hunter2", 1),
        "fetched http://admin:hunter2@bmc/ with {}",
        "token=hunter2"
    );
}

#[test]
fn json_lines_are_flat_and_the_nearest_value_wins() {
    insta::assert_snapshot!(lines_of(LogFormat::Json, "info", a_job), @r###"
    {"time":"2025-11-05T12:00:00.250000Z","level":"info","message":"task ISO built","step":"iso.build","duration_ms":12,"size_bytes":73728,"job_id":"0197","server_serial":"SN-1","worker_id":"w1"}
    {"time":"2025-11-05T12:00:00.250000Z","level":"warn","message":"request failed","retried":true,"op":"mount.task","step":"redfish.mount.task","attempt":2,"code":503,"job_id":"0197","server_serial":"SN-1","worker_id":"w1"}
    {"time":"2025-11-05T12:00:00.250000Z","level":"error","message":"step failed","error":"the BMC at http://[redacted]@10.0.0.7 did not answer: Bearer [redacted] expired","op":"mount.task","step":"redfish.mount.task","attempt":2,"code":503,"job_id":"0197","server_serial":"SN-1","worker_id":"w1"}
    "###);
}

#[test]
fn text_lines_say_the_same() {
    insta::assert_snapshot!(lines_of(LogFormat::Text, "info", a_job), @r###"
    2025-11-05T12:00:00.250000Z INFO  task ISO built step=iso.build duration_ms=12 size_bytes=73728 job_id=0197 server_serial=SN-1 worker_id=w1
    2025-11-05T12:00:00.250000Z WARN  request failed retried=true op=mount.task step=redfish.mount.task attempt=2 code=503 job_id=0197 server_serial=SN-1 worker_id=w1
    2025-11-05T12:00:00.250000Z ERROR step failed error="the BMC at http://[redacted]@10.0.0.7 did not answer: Bearer [redacted] expired" op=mount.task step=redfish.mount.task attempt=2 code=503 job_id=0197 server_serial=SN-1 worker_id=w1
    "###);
}

#[test]
fn a_planted_secret_is_nowhere() {
    for format in [LogFormat::Json, LogFormat::Text] {
        let lines = lines_of(format, "trace", secrets);
        assert!(!lines.contains("hunter2"), "{lines}");
        assert!(lines.contains("[redacted]"));
    }
    insta::assert_snapshot!(lines_of(LogFormat::Json, "info", secrets), @r###"{"time":"2025-11-05T12:00:00.250000Z","level":"info","message":"fetched http://[redacted]@bmc/ with token=[redacted]","webhook_secret":"[redacted]","recipe":"[redacted]","unattend_xml":"[redacted]","ks_cfg":"[redacted]","url":"http://c/media/tasks/1/task.iso?expires=9&sig=[redacted]","request":"(\"Authorization: [redacted]\", 1)","password":"[redacted]","x_auth_token":"[redacted]"}"###);
}

#[test]
fn directives_open_one_module_only() {
    let lines = lines_of(LogFormat::Text, "warn,all::logging=debug", || {
        tracing::debug!("from here");
        tracing::debug!(target: "elsewhere", "from there");
        tracing::warn!(target: "elsewhere", reason = "two\nlines", "from there");
    });
    insta::assert_snapshot!(lines, @r###"
    2025-11-05T12:00:00.250000Z DEBUG from here
    2025-11-05T12:00:00.250000Z WARN  from there reason="two\nlines"
    "###);
}
