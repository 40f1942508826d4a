use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::model::{ArtifactRef, Failure, FirstBoot, JobId, JobOutcome, Phase, Serial, Status};
use crate::pull_registry::{Account, PullRegistry};

struct Bench {
    metal: MetalStore,
    now: Timestamp,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("test.db"), MIGRATIONS).await.unwrap();
        Self { metal: MetalStore::new(store), now: Timestamp::from_second(1_000_000).unwrap(), _directory: directory }
    }

    async fn queue(&self, serial: &str, key: Option<&str>) -> Inserted {
        let new = NewJob {
            id: JobId::new(),
            serial: serial.parse::<Serial>().unwrap(),
            recipe_json: "{}".to_owned(),
            task_target: "install-linux.target".to_owned(),
            artifact: None,
            idempotency_key: key.map(str::to_owned),
            now: self.now,
        };
        self.metal.insert_job(&new).await.unwrap()
    }

    async fn queued(&self, serial: &str) -> JobId {
        match self.queue(serial, None).await {
            Inserted::Created(job) => job.id,
            other => panic!("{other:?}"),
        }
    }

    fn after(&self, minutes: i64) -> Timestamp {
        self.now + SignedDuration::from_mins(minutes)
    }

    /// A job that waits for its report.
    async fn provisioning(&self, serial: &str) -> JobId {
        let id = self.queued(serial).await;
        let job = self.metal.pick_job("worker", self.after(10), self.now).await.unwrap().unwrap();
        assert_eq!((job.id, job.phase), (id, Phase::BuildMedia));
        assert!(self.metal.enter_phase(&job, Phase::AwaitReport, self.now).await.unwrap());
        id
    }
}

fn success() -> Ending {
    Ending {
        outcome: JobOutcome::Succeeded,
        failure: None,
        reported: true,
        first_boot_reporter: true,
        event_step: "webhook-success".to_owned(),
    }
}

fn timed_out() -> Ending {
    Ending {
        outcome: JobOutcome::Failed,
        failure: Some(Failure { step: "webhook.wait".into(), code: "webhook_timeout".into(), detail: "x".into() }),
        reported: false,
        first_boot_reporter: false,
        event_step: "webhook.wait".to_owned(),
    }
}

#[tokio::test]
async fn a_server_has_one_active_job_and_a_key_one_job() {
    let bench = Bench::new().await;
    let Inserted::Created(first) = bench.queue("A", Some("key")).await else { panic!("not queued") };
    assert!(matches!(bench.queue("A", Some("key")).await, Inserted::Existing(job) if job.id == first.id));
    assert!(matches!(bench.queue("A", None).await, Inserted::Active(id) if id == first.id));
    assert!(matches!(bench.queue("B", Some("key")).await, Inserted::Created(_)));
}

#[tokio::test]
async fn a_job_goes_to_one_worker_and_to_another_only_when_its_lease_has_run_out() {
    let bench = Bench::new().await;
    let id = bench.queued("A").await;
    let taken = bench.metal.pick_job("one", bench.after(10), bench.now).await.unwrap().unwrap();
    assert_eq!(taken.id, id);
    assert!(bench.metal.pick_job("two", bench.after(10), bench.now).await.unwrap().is_none());
    let adopt = async |worker: &str, minute| {
        bench.metal.adopt_job(id, worker, bench.after(minute + 10), bench.after(minute)).await.unwrap()
    };
    assert!(!adopt("two", 9).await, "the lease still holds");
    assert!(!adopt("one", 30).await, "nobody takes over from himself: it has a task already");
    assert!(adopt("two", 30).await, "the lease has run out");
    bench.metal.end_leases().await.unwrap();
    assert!(adopt("three", 31).await, "all leases were ended");
}

#[tokio::test]
async fn the_first_to_end_a_job_wins_and_what_it_said_stays() {
    let bench = Bench::new().await;
    let id = bench.provisioning("A").await;
    assert_eq!(bench.metal.deliver(id, Some("d1"), &success(), bench.now).await.unwrap(), Delivery::Accepted);
    assert!(!bench.metal.end_job(id, &timed_out(), bench.now).await.unwrap(), "a time-out after the report");
    assert_eq!(bench.metal.deliver(id, Some("d1"), &success(), bench.now).await.unwrap(), Delivery::Duplicate);
    assert_eq!(bench.metal.deliver(id, Some("d2"), &success(), bench.now).await.unwrap(), Delivery::Duplicate);
    let job = bench.metal.job(id).await.unwrap().unwrap();
    assert_eq!((job.status, job.outcome), (Status::Succeeded, Some(JobOutcome::Succeeded)));
    assert!(bench.metal.complete_job(&job, FirstBoot::Awaited, None, bench.now).await.unwrap());
    assert!(!bench.metal.complete_job(&job, FirstBoot::Awaited, None, bench.now).await.unwrap());
    let job = bench.metal.job(id).await.unwrap().unwrap();
    assert_eq!((job.status, job.outcome), (Status::Complete, Some(JobOutcome::Succeeded)));
    assert!(bench.metal.set_first_boot(id, FirstBoot::Reported, bench.now).await.unwrap());
    assert!(!bench.metal.set_first_boot(id, FirstBoot::Overdue, bench.now).await.unwrap());
}

#[tokio::test]
async fn a_report_from_before_the_machine_was_switched_on_is_not_this_jobs() {
    let bench = Bench::new().await;
    let id = bench.queued("A").await;
    assert_eq!(bench.metal.deliver(id, None, &success(), bench.now).await.unwrap(), Delivery::Duplicate);
    bench.metal.pick_job("worker", bench.after(10), bench.now).await.unwrap().unwrap();
    assert_eq!(bench.metal.deliver(id, None, &success(), bench.now).await.unwrap(), Delivery::Duplicate);
    assert_eq!(bench.metal.job(id).await.unwrap().unwrap().status, Status::Provisioning);
}

#[tokio::test]
async fn cancel_ends_a_queued_job_and_asks_a_running_one() {
    let bench = Bench::new().await;
    let queued = bench.queued("A").await;
    assert_eq!(bench.metal.cancel_job(queued, bench.now).await.unwrap(), Some(Status::Queued));
    assert_eq!(bench.metal.job(queued).await.unwrap().unwrap().outcome, Some(JobOutcome::Cancelled));
    let running = bench.provisioning("B").await;
    assert_eq!(bench.metal.cancel_job(running, bench.now).await.unwrap(), Some(Status::Provisioning));
    let job = bench.metal.job(running).await.unwrap().unwrap();
    assert!(job.cancel_requested && job.status == Status::Provisioning);
    bench.metal.end_job(running, &timed_out(), bench.now).await.unwrap();
    assert_eq!(bench.metal.cancel_job(running, bench.now).await.unwrap(), None);
}

#[tokio::test]
async fn a_heartbeat_does_not_hide_a_stuck_job() {
    let bench = Bench::new().await;
    let id = bench.provisioning("A").await;
    assert_eq!(bench.metal.extend_leases("worker", bench.after(300)).await.unwrap(), 1);
    bench.metal.set_reason(id, "the maintenance OS is at work").await.unwrap();
    assert_eq!(bench.metal.stuck_jobs("install-linux.target", bench.after(1)).await.unwrap(), 1);
    assert_eq!(bench.metal.stuck_jobs("install-linux.target", bench.now).await.unwrap(), 0);
}

fn registry(host: &str, user: Option<&str>, now: Timestamp) -> PullRegistry {
    let account = user.map(|user| Account { username: user.to_owned(), sealed_password: format!("sealed for {host}") });
    PullRegistry { host: host.to_owned(), account, ca_pem: None, created_at: now, updated_at: now }
}

#[tokio::test]
async fn a_registrys_record_is_replaced_and_keeps_its_age() {
    let bench = Bench::new().await;
    bench.metal.put_pull_registry(&registry("b.example:5000", Some("old"), bench.now)).await.unwrap();
    bench.metal.put_pull_registry(&registry("a.example", None, bench.now)).await.unwrap();
    bench.metal.put_pull_registry(&registry("b.example:5000", Some("new"), bench.after(1))).await.unwrap();
    let found = bench.metal.pull_registry("b.example:5000").await.unwrap().unwrap();
    assert_eq!(found.account.as_ref().map(|account| account.username.as_str()), Some("new"));
    assert_eq!((found.created_at, found.updated_at), (bench.now, bench.after(1)));
    let hosts: Vec<_> = bench.metal.pull_registries().await.unwrap().into_iter().map(|found| found.host).collect();
    assert_eq!(hosts, ["a.example", "b.example:5000"]);
    let (purpose, sealed) = bench.metal.any_sealed_password().await.unwrap().unwrap();
    assert_eq!(
        (purpose.as_str(), sealed.as_str()),
        ("metal registry password b.example:5000", "sealed for b.example:5000")
    );
    assert!(bench.metal.remove_pull_registry("b.example:5000").await.unwrap());
    assert!(!bench.metal.remove_pull_registry("b.example:5000").await.unwrap());
    assert!(bench.metal.any_sealed_password().await.unwrap().is_none());
}

#[tokio::test]
async fn artifacts_are_in_use_until_their_job_is_complete() {
    let bench = Bench::new().await;
    let own = ArtifactRef {
        registry: None,
        repository: "os-images/debian".to_owned(),
        digest: "sha256:00".to_owned(),
        requested: "os-images/debian:13".to_owned(),
    };
    let elsewhere = ArtifactRef { registry: Some("https://registry.example".parse().unwrap()), ..own.clone() };
    for (serial, artifact) in [("A", Some(own.clone())), ("B", Some(elsewhere)), ("C", None)] {
        let new = NewJob {
            id: JobId::new(),
            serial: serial.parse::<Serial>().unwrap(),
            recipe_json: "{}".to_owned(),
            task_target: "install-linux.target".to_owned(),
            artifact,
            idempotency_key: None,
            now: bench.now,
        };
        bench.metal.insert_job(&new).await.unwrap();
    }
    assert_eq!(bench.metal.artifacts_in_use().await.unwrap(), [own]);
    assert_eq!(bench.metal.set_queued_reason("the disk is nearly full").await.unwrap().len(), 3);
    assert!(bench.metal.set_queued_reason("the disk is nearly full").await.unwrap().is_empty());
    let filter = JobFilter { limit: 10, ..JobFilter::default() };
    let jobs = bench.metal.jobs(&filter).await.unwrap();
    assert!(jobs.iter().all(|job| job.reason == "the disk is nearly full"));
}
