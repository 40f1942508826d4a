//! Basic, sessions, and passwords that are wrong.

use redfish::{AuthMode, Error, Options};
use serde_json::Value;

use crate::bmc::{Fake, ROOT, Reply, SESSIONS, SYSTEM};
use crate::support::{Seen, assert_clean, connect, connect_as, phase, quick};

#[tokio::test]
async fn a_service_that_wants_sessions_gets_one() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    fake.machine().refuse_basic = true;
    let bmc = connect(&fake.url, quick(), &seen).await.unwrap();
    assert_eq!(seen.codes("session.login"), ["201"]);
    assert_eq!(seen.codes("discover").iter().filter(|code| *code == "401").count(), 1, "Basic is tried once");
    bmc.close(phase("discover")).await.unwrap();
    assert_eq!(seen.codes("session.logout"), ["204"]);
    assert_eq!(fake.requests("DELETE", "/Sessions/1").len(), 1);
    assert!(fake.machine().tokens.is_empty());
    bmc.close(phase("discover")).await.unwrap();
    assert_eq!(fake.requests("DELETE", "").len(), 1, "a second close has nothing to do");
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    let fake = Fake::start().await;
    fake.machine().refuse_basic = true;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.machine().tokens.clear();
    bmc.power_state(phase("power")).await.unwrap();
    assert_eq!(fake.machine().logins, 2);
    // A BMC whose fresh tokens do not work either is not asked again and again.
    fake.hook(|request, _| if request.is("GET", SYSTEM) { Reply::status(401) } else { None });
    let error = bmc.power_state(phase("power")).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    assert_eq!(fake.machine().logins, 3);
}

#[tokio::test]
async fn the_mode_is_obeyed() {
    let fake = Fake::start().await;
    let sessions = Options { auth: AuthMode::Session, ..quick() };
    let bmc = connect(&fake.url, sessions.clone(), &Seen::new()).await.unwrap();
    assert_eq!(fake.machine().logins, 1);
    assert!(fake.machine().seen.iter().all(|request| request.header("authorization").is_none()));
    bmc.close(phase("discover")).await.unwrap();

    fake.machine().refuse_basic = true;
    let error = connect(&fake.url, Options { auth: AuthMode::Basic, ..quick() }, &Seen::new()).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    assert_eq!(fake.machine().logins, 1);

    fake.machine().set(ROOT, "Links", Value::Null);
    fake.machine().set(ROOT, "SessionService", Value::Null);
    let error = connect(&fake.url, sessions, &Seen::new()).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_tried_twice_at_most() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    let error = connect_as(&fake.url, "wrong", quick(), &seen).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    let tries = fake.machine().seen.iter().filter(|request| request.path != ROOT).count();
    assert_eq!(tries, 2, "once as Basic, once for a session");
    assert_clean(&error);
}

#[tokio::test]
async fn after_a_refusal_nothing_more_is_sent() {
    let fake = Fake::start().await;
    let bmc = connect(&fake.url, quick(), &Seen::new()).await.unwrap();
    fake.hook(|request, _| if request.path == ROOT { None } else { Reply::status(401) });
    for _ in 0..3 {
        assert!(matches!(bmc.power_state(phase("power")).await, Err(Error::Auth { .. })));
    }
    assert_eq!(fake.requests("GET", SYSTEM).len(), 2, "one that worked, one that was refused");
    assert_eq!(fake.requests("POST", SESSIONS).len(), 1);
}

#[tokio::test]
async fn a_busy_login_is_repeated() {
    let (fake, seen) = (Fake::start().await, Seen::new());
    fake.machine().refuse_basic = true;
    fake.fail("POST", SESSIONS, 503, 2);
    connect(&fake.url, quick(), &seen).await.unwrap();
    assert_eq!(seen.codes("session.login"), ["503", "retry", "503", "retry", "201"]);
}

#[tokio::test]
async fn a_root_that_is_not_open_is_read_with_credentials() {
    let fake = Fake::start().await;
    fake.hook(|request, _| {
        let anonymous = request.header("authorization").is_none() && request.header("x-auth-token").is_none();
        if request.path == ROOT && anonymous { Reply::status(401) } else { None }
    });
    connect(&fake.url, quick(), &Seen::new()).await.unwrap();
}
