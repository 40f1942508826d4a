//! Faults that pass, faults that do not, and deadlines.

use std::time::Duration;

use redfish::{Error, Options, Phase};

use crate::bmc::{Fake, Reply, SYSTEM};
use crate::support::{PASSWORD, SIGNATURE, Seen, assert_clean, connect, phase, quick};

#[tokio::test]
async fn passing_faults_pass() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let bmc = connect(&fake.url, quick(), &seen).await.unwrap();
    for status in [500, 502, 503, 504, 429, 409] {
        fake.fail("GET", SYSTEM, status, 3);
        bmc.power_state(phase("power")).await.unwrap();
    }
    let codes = seen.codes("power");
    assert_eq!(codes.iter().filter(|code| *code == "retry").count(), 6 * 3);
    assert_eq!(codes.iter().filter(|code| *code == "200").count(), 6);
}

#[tokio::test]
async fn attempts_are_counted_and_other_faults_are_final() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    for (status, expected) in [(503, 4), (404, 1), (501, 1), (400, 1), (403, 1)] {
        fake.fail("GET", SYSTEM, status, usize::MAX);
        let before = fake.requests("GET", SYSTEM).len();
        let error = bmc.power_state(phase("power")).await.unwrap_err();
        assert!(
            matches!(&error, Error::Http { status: seen, path, .. } if *seen == status && path == SYSTEM),
            "{error}"
        );
        assert_eq!(fake.requests("GET", SYSTEM).len() - before, expected, "{status}");
    }
}

#[tokio::test]
async fn a_busy_machine_is_asked_again_whatever_the_status() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    for id in ["iLO.2.14.InvalidOperationForSystemState", "IDRAC.2.8.SYS518"] {
        let mut times = 2;
        fake.hook(move |request, _| {
            let hit = times > 0 && request.is("GET", SYSTEM);
            times -= usize::from(hit);
            hit.then(|| Reply::message(400, id, "busy").unwrap())
        });
        bmc.power_state(phase("power")).await.unwrap();
    }
}

#[tokio::test]
async fn retry_after_is_respected_in_both_forms() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
    for after in ["1", "Sun, 06 Nov 1994 08:49:38 GMT"] {
        let (mut hit, date) = (false, date.clone());
        fake.hook(move |request, _| {
            let first = !hit && request.is("GET", SYSTEM);
            hit |= first;
            first.then(|| Reply::With(429, vec![("retry-after", after.to_owned()), date.clone()], String::new()))
        });
        let before = fake.requests("GET", SYSTEM).len();
        bmc.power_state(phase("power")).await.unwrap();
        let requests = fake.requests("GET", SYSTEM);
        let pause = requests[before + 1].at - requests[before].at;
        assert!(pause >= Duration::from_millis(990), "{after}: {pause:?}");
    }
}

#[tokio::test]
async fn a_pause_that_does_not_fit_ends_the_phase_at_once() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.hook(|request, _| {
        let headers = vec![("retry-after", "86400".to_owned())];
        request.is("GET", SYSTEM).then(|| Reply::With(503, headers, "try tomorrow".to_owned()))
    });
    let error = bmc.power_state(phase("power")).await.unwrap_err();
    let Error::Timeout { phase: "power", source: Some(source) } = &error else { panic!("{error}") };
    assert_eq!(source.to_string(), "/redfish/v1/Systems/1 answered 503: try tomorrow");
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let bmc = connect(&fake.url, Options { request_timeout: Duration::from_millis(1500), ..quick() }, &seen).await;
    let bmc = bmc.unwrap();
    let mut times = 1;
    fake.hook(move |request, _| {
        let hit = times > 0 && request.is("GET", SYSTEM);
        times -= usize::from(hit);
        hit.then_some(Reply::Hang)
    });
    bmc.power_state(phase("power")).await.unwrap();
    assert_eq!(seen.codes("power"), ["error", "retry", "200"]);

    fake.hook(|request, _| request.is("GET", SYSTEM).then_some(Reply::Hang));
    let error = bmc.power_state(phase("power")).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
    let error = bmc.power_state(Phase::new("power", Duration::from_millis(100))).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: "power", .. }), "{error}");
    let error = bmc.power_state(Phase::new("power", Duration::ZERO)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { phase: "power", source: None }), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    };
    let seen = Seen::new();
    let error = connect(&url, quick(), &seen).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(seen.codes("discover").iter().filter(|code| *code == "error").count(), 4);
    assert_clean(&error);
}

#[tokio::test]
async fn secrets_that_a_service_repeats_are_not_shown() {
    let fake = Fake::start().await;
    fake.machine().refuse_basic = true;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.hook(|request, _| {
        let token = request.header("x-auth-token").unwrap_or_default();
        let text = format!("{PASSWORD} {token} http://x/media/s/1/{SIGNATURE}/1/task.iso?sig={SIGNATURE}");
        if request.is("GET", SYSTEM) { Reply::message(400, "Base.1.8.Bad", &text) } else { None }
    });
    let error = bmc.power_state(phase("power")).await.unwrap_err();
    assert_clean(&error);
    assert!(error.to_string().contains("http://x/media/s/1/[redacted]/1/task.iso"), "{error}");
}

#[tokio::test]
async fn an_operation_can_be_dropped_and_called_again() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.hook(|request, _| request.is("GET", SYSTEM).then_some(Reply::Hang));
    let dropped = tokio::time::timeout(Duration::from_millis(50), bmc.power_state(phase("power"))).await;
    assert!(dropped.is_err());
    fake.hook(|_, _| None);
    bmc.power_state(phase("power")).await.unwrap();
}
