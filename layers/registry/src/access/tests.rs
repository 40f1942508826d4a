//! The gate as a whole: what a request brings, and what it gets.

use std::num::NonZeroU32;
use std::time::Duration;

use cairn_core::{Clock, FixedClock};
use jiff::SignedDuration;
use store::InstanceKey;
use web::{BasicAuth, Credentials, Proof, RateLimiter};

use super::logins::Users;
use super::*;
use crate::ports::{PortError, Reached};
use crate::settings::PushAllow;

/// Jobs whose token is `ticket`; `job-1` may pull `os-images/debian`, `job-2` is over, `job-3` cannot be told.
struct Jobs;

impl Guests for Jobs {
    fn is_guest(&self, user: &str) -> bool {
        user.starts_with("job-")
    }

    fn may_pull<'a>(
        &'a self,
        user: &'a str,
        token: &'a SecretString,
    ) -> BoxFuture<'a, Result<Option<RepositoryName>, PortError>> {
        let good = token.expose_secret() == "ticket";
        let answer = match user {
            "job-1" if good => Ok(Some("os-images/debian".parse().unwrap())),
            "job-3" => Err("the database is gone".into()),
            _ => Ok(None),
        };
        Box::pin(async { answer })
    }
}

fn gate(scheme: Scheme, anonymous_pull: bool, push: &str) -> (Gate, Arc<FixedClock>) {
    let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let users = ["alice", "bob"].map(|user| Credentials { user: user.to_owned(), proof: Proof::Plain("pw".into()) });
    let per_minute = NonZeroU32::new(100).unwrap();
    let auth = BasicAuth::new("r", users.into()).unwrap();
    let auth = auth.limit_failures(Arc::new(RateLimiter::new(per_minute, per_minute)));
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let push = if push.is_empty() { PushAllow::default() } else { push.parse().unwrap() };
    let reached = Reached {
        loopback: true,
        tls: false,
        listener: "http://node7:8080".parse().unwrap(),
        configured: vec!["https://registry.example".parse().unwrap()],
    };
    let gate = Gate {
        scheme,
        policy: Policy { open: scheme == Scheme::Open, anonymous_pull, push },
        logins: (scheme != Scheme::Open).then(|| Logins::new(Users::Api(Arc::new(auth)))),
        tokens: Tokens::new(&InstanceKey::from_bytes([7; 32]), Duration::from_secs(300), shared),
        guests: vec![Arc::new(Jobs)],
        address: OwnAddress::new(&reached, None),
        audit: Arc::new(AuditLog::deaf()),
        read_only: AtomicBool::new(false),
    };
    (gate, clock)
}

fn headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("127.0.0.1:8080"))]);
    if let Some(pair) = authorization.strip_prefix("basic ") {
        let (user, password) = pair.split_once(':').unwrap();
        headers.insert(header::AUTHORIZATION, basic_header(user, &SecretString::from(password)).unwrap());
    } else if !authorization.is_empty() {
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
    }
    headers
}

async fn ask(gate: &Gate, authorization: &str, action: Action, repository: &str) -> Decision {
    let repository = (!repository.is_empty()).then(|| repository.parse::<RepositoryName>().unwrap());
    let (headers, extensions) = (headers(authorization), Extensions::new());
    gate.check(Asker { headers: &headers, extensions: &extensions, from: None }, repository.as_ref(), action).await
}

async fn token(gate: &Gate, authorization: &str, scopes: &str) -> String {
    let identity = gate.identify(&headers(authorization), IpAddr::V4(Ipv4Addr::LOCALHOST)).await.unwrap();
    let grants = gate.grants(&identity, &tokens::scopes([scopes].into_iter()));
    let (subject, holder) = identity.holder();
    format!("Bearer {}", gate.tokens.issue(subject, holder, grants).token)
}

fn allow(user: &str) -> Decision {
    Decision::Allow { user: user.to_owned() }
}

fn basic() -> Decision {
    Decision::Challenge("Basic realm=\"Shoal Registry\"".to_owned())
}

fn bearer(rest: &str) -> Decision {
    let realm = "http://127.0.0.1:8080/api/v1/registry/token";
    Decision::Challenge(format!("Bearer realm=\"{realm}\",service=\"cairn-registry\"{rest}"))
}

#[test]
fn modes_go_by_the_users_that_there_are() {
    let (file, api) = (Some(Source::File), Some(Source::Api));
    for (mode, has_file, has_api, wanted) in [
        (None, false, false, Some((Scheme::Open, None))),
        (None, false, true, Some((Scheme::Basic, api))),
        (None, true, true, Some((Scheme::Basic, file))),
        (Some(AuthMode::None), true, true, Some((Scheme::Open, None))),
        (Some(AuthMode::Basic), true, true, Some((Scheme::Basic, file))),
        (Some(AuthMode::Basic), false, true, Some((Scheme::Basic, api))),
        (Some(AuthMode::Basic), false, false, None),
        (Some(AuthMode::Htpasswd), true, false, Some((Scheme::Basic, file))),
        (Some(AuthMode::Htpasswd), false, true, None),
        (Some(AuthMode::Token), true, true, Some((Scheme::Bearer, file))),
        (Some(AuthMode::Token), false, true, Some((Scheme::Bearer, api))),
        (Some(AuthMode::Token), false, false, None),
    ] {
        assert_eq!(effective(mode, has_file, has_api), wanted, "{mode:?}, file {has_file}, API {has_api}");
    }
}

#[tokio::test]
async fn basic_logins() {
    let (gate, _) = gate(Scheme::Basic, false, "alice=tools");
    for (authorization, action, repository, wanted) in [
        ("", Action::Ping, "", basic()),
        ("", Action::Pull, "tools/x", basic()),
        ("basic :", Action::Pull, "tools/x", basic()),
        ("basic alice:pw", Action::Ping, "", allow("alice")),
        ("basic alice:pw", Action::Push, "tools/x", allow("alice")),
        ("basic bob:pw", Action::Pull, "tools/x", allow("bob")),
        ("basic bob:pw", Action::Push, "tools/x", Decision::Deny),
        ("basic bob:pw", Action::Delete, "tools/x", Decision::Deny),
        ("basic alice:no", Action::Pull, "tools/x", basic()),
        ("basic eve:pw", Action::Ping, "", basic()),
        ("Basic ???", Action::Ping, "", basic()),
        ("Negotiate x", Action::Ping, "", basic()),
        ("Bearer x", Action::Ping, "", basic()),
        ("basic job-1:ticket", Action::Ping, "", allow("job-1")),
        ("basic job-1:ticket", Action::Pull, "os-images/debian", allow("job-1")),
        ("basic job-1:ticket", Action::Pull, "os-images/fedora", basic()),
        ("basic job-1:ticket", Action::Push, "os-images/debian", basic()),
        ("basic job-1:ticket", Action::Delete, "os-images/debian", basic()),
        ("basic job-1:pw", Action::Pull, "os-images/debian", basic()),
        ("basic job-2:ticket", Action::Pull, "os-images/debian", basic()),
        ("basic job-3:ticket", Action::Pull, "os-images/debian", basic()),
    ] {
        assert_eq!(
            ask(&gate, authorization, action, repository).await,
            wanted,
            "{authorization} {action:?} {repository}"
        );
    }
}

#[tokio::test]
async fn anonymous_pull_is_for_those_who_send_nothing_and_not_for_wrong_passwords() {
    let (gate, _) = gate(Scheme::Basic, true, "");
    assert_eq!(ask(&gate, "", Action::Pull, "x").await, allow("anonymous"));
    assert_eq!(ask(&gate, "basic :", Action::Pull, "x").await, allow("anonymous"));
    assert_eq!(ask(&gate, "", Action::Ping, "").await, basic());
    assert_eq!(ask(&gate, "", Action::Push, "x").await, basic());
    assert_eq!(ask(&gate, "basic alice:no", Action::Pull, "x").await, basic());
    assert_eq!(ask(&gate, "basic job-2:ticket", Action::Pull, "x").await, basic());
}

#[tokio::test]
async fn where_nobody_logs_in_only_own_names_are_served() {
    let (gate, _) = gate(Scheme::Open, false, "alice=x");
    assert_eq!(ask(&gate, "basic eve:guess", Action::Delete, "x").await, allow("anonymous"));
    let foreign = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("evil.example"))]);
    let extensions = Extensions::new();
    let asker = Asker { headers: &foreign, extensions: &extensions, from: None };
    assert_eq!(gate.check(asker, None, Action::Ping).await, Decision::Deny);
}

#[tokio::test]
async fn tokens_are_cut_down_to_what_their_holder_may_do() {
    let (gate, clock) = gate(Scheme::Bearer, false, "alice=tools");
    assert_eq!(ask(&gate, "", Action::Ping, "").await, bearer(""));
    assert_eq!(ask(&gate, "", Action::Push, "tools/x").await, bearer(",scope=\"repository:tools/x:pull,push\""));
    assert_eq!(ask(&gate, "", Action::Pull, "").await, bearer(",scope=\"registry:catalog:*\""));

    let login = token(&gate, "basic alice:pw", "").await;
    assert_eq!(ask(&gate, &login, Action::Ping, "").await, allow("alice"));
    let insufficient = |scope: &str| bearer(&format!(",scope=\"{scope}\",error=\"insufficient_scope\""));
    assert_eq!(ask(&gate, &login, Action::Pull, "a").await, insufficient("repository:a:pull"));

    let both = token(&gate, "basic alice:pw", "repository:tools/x:pull,push repository:other:*").await;
    for (action, repository, wanted) in [
        (Action::Pull, "tools/x", allow("alice")),
        (Action::Push, "tools/x", allow("alice")),
        (Action::Delete, "tools/x", insufficient("repository:tools/x:delete")),
        (Action::Pull, "other", allow("alice")),
        (Action::Push, "other", Decision::Deny),
        (Action::Pull, "tools/y", insufficient("repository:tools/y:pull")),
        (Action::Pull, "", insufficient("registry:catalog:*")),
    ] {
        assert_eq!(ask(&gate, &both, action, repository).await, wanted, "{action:?} {repository}");
    }
    let catalog = token(&gate, "basic bob:pw", "registry:catalog:*").await;
    assert_eq!(ask(&gate, &catalog, Action::Pull, "").await, allow("bob"));

    // A password does without a token.
    assert_eq!(ask(&gate, "basic alice:pw", Action::Push, "tools/x").await, allow("alice"));
    let invalid = bearer(",scope=\"repository:tools/x:pull\",error=\"invalid_token\"");
    assert_eq!(ask(&gate, "Bearer forged", Action::Pull, "tools/x").await, invalid);
    clock.advance(SignedDuration::from_secs(300));
    assert_eq!(ask(&gate, &both, Action::Pull, "tools/x").await, invalid);
}

#[tokio::test]
async fn guests_and_nobody_get_tokens_too() {
    let (gate, _) = gate(Scheme::Bearer, true, "");
    let scopes = "repository:os-images/debian:pull,push repository:tools/x:pull";
    let guest = token(&gate, "basic job-1:ticket", scopes).await;
    assert_eq!(ask(&gate, &guest, Action::Pull, "os-images/debian").await, allow("job-1"));
    assert!(matches!(ask(&gate, &guest, Action::Push, "os-images/debian").await, Decision::Challenge(_)));

    let nobody = token(&gate, "", scopes).await;
    assert_eq!(ask(&gate, &nobody, Action::Ping, "").await, allow("anonymous"));
    assert_eq!(ask(&gate, &nobody, Action::Pull, "tools/x").await, allow("anonymous"));
    assert!(matches!(ask(&gate, &nobody, Action::Push, "os-images/debian").await, Decision::Challenge(_)));
    assert!(matches!(ask(&gate, &nobody, Action::Pull, "").await, Decision::Challenge(_)));

    gate.read_only.store(true, Ordering::Relaxed);
    let user = token(&gate, "basic alice:pw", scopes).await;
    assert_eq!(ask(&gate, &user, Action::Push, "os-images/debian").await, allow("alice"));
}

#[tokio::test]
async fn the_challenge_of_a_mount_names_both_repositories() {
    let gate = gate(Scheme::Bearer, false, "").0;
    let (target, from) = ("tools/new".parse().unwrap(), "tools/old".parse().unwrap());
    let alone = token(&gate, "basic alice:pw", "repository:tools/new:pull,push").await;
    let both = token(&gate, "basic alice:pw", "repository:tools/new:pull,push repository:tools/old:pull").await;
    for (authorization, challenged) in [("", true), (alone.as_str(), true), (both.as_str(), false)] {
        let (headers, extensions) = (headers(authorization), Extensions::new());
        let asker = Asker { headers: &headers, extensions: &extensions, from: Some(&from) };
        match gate.check(asker, Some(&target), Action::Push).await {
            Decision::Challenge(text) => {
                assert!(challenged, "{text}");
                let scope = r#"scope="repository:tools/new:pull,push repository:tools/old:pull""#;
                assert!(text.contains(scope), "{text}");
            }
            decision => assert!(!challenged && decision == allow("alice"), "{decision:?}"),
        }
    }
}

#[tokio::test]
async fn who_guesses_too_often_is_told_to_wait() {
    let gate = gate(Scheme::Basic, false, "").0;
    let mut last = None;
    for _ in 0..=100 {
        last = Some(ask(&gate, "basic alice:no", Action::Pull, "a").await);
    }
    assert!(matches!(last, Some(Decision::Wait(wait)) if wait > Duration::ZERO), "{last:?}");
}
