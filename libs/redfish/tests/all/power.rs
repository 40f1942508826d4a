//! Switching power and waiting for it.

use std::time::Duration;

use redfish::{Error, Options, Phase, PowerState, ResetIntent, ResetOutcome};
use serde_json::{Value, json};

use crate::bmc::{Fake, Reply, SYSTEM};
use crate::support::{Seen, connect, phase, quick};

const RESET: &str = "ComputerSystem.Reset";

#[tokio::test]
async fn power_goes_on_and_off() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let bmc = connect(&fake.url, quick(), &seen).await.unwrap();
    assert_eq!(bmc.reset(phase("reset"), ResetIntent::ForceOff).await.unwrap(), ResetOutcome::AlreadyThere);
    for (intent, state) in [
        (ResetIntent::On, PowerState::On),
        (ResetIntent::GracefulShutdown, PowerState::Off),
        (ResetIntent::On, PowerState::On),
        (ResetIntent::ForceOff, PowerState::Off),
    ] {
        assert_eq!(bmc.reset(phase("reset"), intent).await.unwrap(), ResetOutcome::Accepted);
        bmc.wait_for_power(phase("power"), state).await.unwrap();
    }
    let sent: Vec<Value> =
        fake.requests("POST", RESET).iter().map(|request| request.body["ResetType"].clone()).collect();
    assert_eq!(sent, ["On", "GracefulShutdown", "On", "ForceOff"]);
    assert_eq!(seen.codes("reset").len(), 9);
}

#[tokio::test]
async fn a_reset_that_is_not_offered_is_not_sent() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.machine().resources.get_mut(SYSTEM).unwrap()["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] =
        json!(["ForceOff", "Nmi"]);
    let error = bmc.reset(phase("reset"), ResetIntent::On).await.unwrap_err();
    assert_eq!(error.to_string(), "the BMC cannot do this: On: it knows only ForceOff, Nmi");
    fake.machine().set(SYSTEM, "Actions", json!({}));
    assert!(matches!(bmc.reset(phase("reset"), ResetIntent::On).await, Err(Error::Unsupported { .. })));
    assert!(fake.requests("POST", "").is_empty());
}

/// The order arrives, its answer does not: it is not sent again.
#[tokio::test]
async fn a_lost_answer_is_not_followed_by_a_second_order() {
    let fake = Fake::start().await;
    let options = Options { request_timeout: Duration::from_millis(1500), ..quick() };
    let bmc = connect(&fake.url, options, &Seen::new()).await.unwrap();
    fake.hook(|request, machine| {
        if !request.is("POST", RESET) {
            return None;
        }
        machine.set(SYSTEM, "PowerState", json!("PoweringOn"));
        Some(Reply::Hang)
    });
    assert_eq!(bmc.reset(phase("reset"), ResetIntent::On).await.unwrap(), ResetOutcome::Accepted);
    assert_eq!(fake.requests("POST", RESET).len(), 1);
}

/// The order is lost on its way: the power state is seen not to move before it is sent once more.
#[tokio::test]
async fn an_order_that_was_lost_is_repeated_after_looking() {
    let fake = Fake::start().await;
    let options =
        Options { request_timeout: Duration::from_millis(1500), settle: Duration::from_millis(100), ..quick() };
    let bmc = connect(&fake.url, options, &Seen::new()).await.unwrap();
    let mut lost = false;
    fake.hook(move |request, _| {
        let first = request.is("POST", RESET) && !lost;
        lost |= first;
        first.then_some(Reply::Hang)
    });
    let before = fake.requests("GET", SYSTEM).len();
    assert_eq!(bmc.reset(phase("reset"), ResetIntent::On).await.unwrap(), ResetOutcome::Accepted);
    assert_eq!(fake.requests("POST", RESET).len(), 2);
    assert!(fake.requests("GET", SYSTEM).len() - before >= 2);

    // A shutdown may be on its way although the machine reads On.
    let mut lost = false;
    fake.hook(move |request, _| {
        let first = request.is("POST", RESET) && !lost;
        lost |= first;
        first.then_some(Reply::Hang)
    });
    bmc.reset(phase("reset"), ResetIntent::GracefulShutdown).await.unwrap();
    assert_eq!(fake.requests("POST", RESET).len(), 3);
}

#[tokio::test]
async fn a_machine_that_got_there_by_itself_is_no_error() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.hook(|request, machine| {
        if !request.is("POST", RESET) {
            return None;
        }
        machine.set(SYSTEM, "PowerState", json!("On"));
        Reply::message(400, "Base.1.8.NoOperation", "the machine is on")
    });
    assert_eq!(bmc.reset(phase("reset"), ResetIntent::On).await.unwrap(), ResetOutcome::AlreadyThere);
    fake.fail("POST", RESET, 400, usize::MAX);
    assert!(matches!(bmc.reset(phase("reset"), ResetIntent::ForceOff).await, Err(Error::Http { status: 400, .. })));
}

#[tokio::test]
async fn waiting_survives_a_bmc_that_is_away() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let mut number = 0;
    fake.hook(move |request, machine| {
        number += 1;
        if number > 12 {
            machine.set(SYSTEM, "PowerState", json!("On"));
            return None;
        }
        if request.is("GET", SYSTEM) { Reply::status(503) } else { None }
    });
    bmc.wait_for_power(phase("power"), PowerState::On).await.unwrap();
}

#[tokio::test]
async fn waiting_ends_with_the_phase() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let short = || Phase::new("power", Duration::from_millis(200));
    let error = bmc.wait_for_power(short(), PowerState::On).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: "power", .. }), "{error}");
    fake.fail("GET", SYSTEM, 503, usize::MAX);
    let error = bmc.wait_for_power(short(), PowerState::On).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: "power", source: Some(_) }), "{error}");
}

#[tokio::test]
async fn operations_can_run_on_any_thread() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let task = tokio::spawn(async move {
        bmc.reset(phase("reset"), ResetIntent::On).await?;
        bmc.wait_for_power(phase("power"), PowerState::On).await?;
        bmc.boot_once_from_cd(phase("boot.override"), None).await?;
        bmc.close(phase("discover")).await
    });
    task.await.unwrap().unwrap();
}
