//! Who changed what: a line in the log and a line in `<log directory>/audit.log`, written before the answer goes out.
//! Refused changes are kept too. Never a secret, never a body.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_core::Clock;
use jiff::Timestamp;
use observe::metrics::Counter;
use serde::{Deserialize, Serialize};

use crate::model::{CustomerId, VmId};
use crate::service::Caller;

/// Name of the file.
pub const FILE: &str = "audit.log";

/// Outcome of what was done.
pub const DONE: &str = "done";
/// Outcome of a request whose caller left before it was answered: what was begun goes on.
pub const CALLER_LEFT: &str = "caller_left";

/// A change, or the wish for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was over.
    pub time: Timestamp,
    /// Name and id of the token; `loopback` where none is asked for.
    pub who: String,
    /// Whose token it was; an operator's without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<CustomerId>,
    /// Address of the client.
    pub client: Option<IpAddr>,
    /// What: `vm.create`, `vm.boot`, `token.revoke`, …
    pub action: String,
    /// Which VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_id: Option<VmId>,
    /// Which token, asset, … where it is no VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// [`DONE`], [`CALLER_LEFT`], or the code of the refusal or failure.
    pub outcome: String,
}

/// Takes changes down.
#[derive(Clone)]
pub struct AuditLog(Arc<Inner>);

struct Inner {
    file: Option<PathBuf>,
    clock: Arc<dyn Clock>,
    lost: Counter,
}

impl AuditLog {
    /// Writes into this directory; without one, to the log alone. `lost` counts lines that could not be written.
    pub fn new(directory: Option<&Path>, clock: Arc<dyn Clock>, lost: Counter) -> Self {
        Self(Arc::new(Inner { file: directory.map(|directory| directory.join(FILE)), clock, lost }))
    }

    /// Begins to follow a change. When it is dropped without [`Change::over`], the caller has left.
    pub fn begin(&self, caller: &Caller, client: IpAddr, action: &str) -> Change {
        Change {
            log: self.clone(),
            entry: Some(Entry {
                time: self.0.clock.now(),
                who: caller.who.clone(),
                customer: caller.customer.clone(),
                client: Some(client),
                action: action.to_owned(),
                vm_id: None,
                subject: None,
                outcome: CALLER_LEFT.to_owned(),
            }),
        }
    }

    /// Takes down what the daemon does of its own accord.
    pub async fn own(&self, action: &str, vm_id: Option<&VmId>, subject: Option<&str>) {
        let time = self.0.clock.now();
        self.keep(Entry {
            time,
            who: "daemon".to_owned(),
            customer: None,
            client: None,
            action: action.to_owned(),
            vm_id: vm_id.cloned(),
            subject: subject.map(str::to_owned),
            outcome: DONE.to_owned(),
        })
        .await;
    }

    async fn keep(&self, entry: Entry) {
        let log = self.clone();
        // A panic in there would be a lost line, and is counted as one.
        if tokio::task::spawn_blocking(move || log.write(&entry)).await.is_err() {
            self.0.lost.inc();
        }
    }

    fn write(&self, entry: &Entry) {
        let Entry { who, customer, client, action, vm_id, subject, outcome, .. } = entry;
        let (customer, vm_id) = (customer.as_ref().map(ToString::to_string), vm_id.as_ref().map(ToString::to_string));
        let client = client.map(|client| client.to_string());
        tracing::info!(who, customer, client, action, vm_id, subject, outcome, "vm change");
        let Some(path) = &self.0.file else { return };
        if let Err(error) = append(path, entry) {
            self.0.lost.inc();
            let path = path.display();
            tracing::error!(%path, error = &error as &dyn std::error::Error, "the audit file was not written");
        }
    }
}

/// A change that is under way.
pub struct Change {
    log: AuditLog,
    entry: Option<Entry>,
}

impl Change {
    /// Which VM it is about.
    pub fn vm(&mut self, id: Option<VmId>) {
        if let (Some(entry), Some(id)) = (&mut self.entry, id) {
            entry.vm_id = Some(id);
        }
    }

    /// What it is about, where it is no VM.
    pub fn subject(&mut self, subject: Option<String>) {
        if let (Some(entry), Some(subject)) = (&mut self.entry, subject) {
            entry.subject = Some(subject);
        }
    }

    /// It is over: [`DONE`], or a code.
    pub async fn over(mut self, outcome: &str) {
        if let Some(mut entry) = self.entry.take() {
            entry.time = self.log.0.clock.now();
            entry.outcome = outcome.to_owned();
            self.log.keep(entry).await;
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        let log = self.log.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || log.write(&entry))),
            Err(_) => log.write(&entry),
        }
    }
}

/// Opened for each line, so that a file that was rotated away is left alone.
fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    let mut line = serde_json::to_string(entry)?;
    line.push('\n');
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o640).open(path)?.write_all(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use cairn_core::FixedClock;

    use super::*;

    #[tokio::test]
    async fn lines_go_to_the_file_that_has_the_name_now() {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
        let lost = Counter::default();
        let log = AuditLog::new(Some(directory.path()), clock, lost.clone());
        let path = directory.path().join(FILE);
        let caller = Caller { who: "ci (0123456789ab)".to_owned(), customer: Some("acme".parse().unwrap()) };
        let mut change = log.begin(&caller, [192, 0, 2, 1].into(), "vm.boot");
        change.vm(Some("ud-1".parse().unwrap()));
        change.over(DONE).await;
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"time\":\"2026-01-01T00:00:00Z\",\"who\":\"ci (0123456789ab)\",\"customer\":\"acme\",\
             \"client\":\"192.0.2.1\",\"action\":\"vm.boot\",\"vm_id\":\"ud-1\",\"outcome\":\"done\"}\n"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);

        std::fs::rename(&path, directory.path().join("audit.log.1")).unwrap();
        log.own("vm.restart", None, Some("x")).await;
        let entry: Entry = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((entry.who.as_str(), entry.subject.as_deref()), ("daemon", Some("x")));
        assert_eq!(lost.get(), 0);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.own("vm.restart", None, None).await;
        assert_eq!(lost.get(), 1);
    }

    #[test]
    fn a_caller_who_leaves_is_taken_down_too() {
        let directory = tempfile::tempdir().unwrap();
        let log = AuditLog::new(Some(directory.path()), Arc::new(cairn_core::SystemClock), Counter::default());
        let caller = Caller { who: "x".to_owned(), customer: None };
        drop(log.begin(&caller, [192, 0, 2, 1].into(), "vm.create"));
        let line = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert!(line.contains("\"outcome\":\"caller_left\""), "{line}");
    }
}
