use std::os::unix::fs::PermissionsExt as _;

use cairn_core::FixedClock;
use store::Store;
use tempfile::TempDir;

use super::*;
use crate::store::tokens;

struct Bench {
    directory: TempDir,
    clock: Arc<FixedClock>,
    tokens: Tokens,
}

async fn bench(developer: bool) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("db"), &[tokens::MIGRATION]).await.unwrap();
    let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let tokens = Tokens::new(TokenStore::new(store), Arc::clone(&clock) as _, developer);
    Bench { directory, clock, tokens }
}

fn headers(value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.parse().unwrap());
    headers
}

fn new(customer: Option<&str>) -> NewToken {
    let customer = customer.map(|customer| customer.parse().unwrap());
    NewToken { name: "ci".to_owned(), customer, expires_at: None }
}

impl Bench {
    async fn sent(&self, value: &str) -> Result<Caller, Refusal> {
        self.tokens.identify(&headers(value)).await.unwrap()
    }
}

#[tokio::test]
async fn a_token_lets_in_until_it_ends() {
    let bench = bench(false).await;
    let end = bench.clock.now() + SignedDuration::from_hours(1);
    let wish = NewToken { expires_at: Some(end), ..new(Some("acme")) };
    let (token, text) = bench.tokens.create("me", wish).await.unwrap();
    let header = format!("Bearer {}", text.expose_secret());
    let caller = bench.sent(&header).await.unwrap();
    assert_eq!((caller.who, caller.customer), (format!("ci ({})", token.id), Some("acme".parse().unwrap())));
    assert!(bench.sent(&header.replace("Bearer", "bearer")).await.is_ok());
    bench.clock.advance(SignedDuration::from_hours(1));
    assert_eq!(bench.sent(&header).await.unwrap_err(), Refusal::Wrong("the token has expired"));

    let (token, text) = bench.tokens.create("me", new(None)).await.unwrap();
    let header = format!("Bearer {}", text.expose_secret());
    assert_eq!(bench.sent(&header).await.unwrap().customer, None);
    assert!(bench.tokens.revoke(&token.id).await.unwrap());
    assert!(!bench.tokens.revoke(&token.id).await.unwrap());
    assert_eq!(bench.sent(&header).await.unwrap_err(), Refusal::Wrong("the token was revoked"));
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let bench = bench(false).await;
    let (token, text) = bench.tokens.create("me", new(None)).await.unwrap();
    let (_, other) = bench.tokens.create("me", new(None)).await.unwrap();
    let secret = other.expose_secret().rsplit_once('_').unwrap().1;
    let unknown = Err(Refusal::Wrong("the token is unknown"));
    for value in [
        format!("Bearer cvm_{}_{secret}", token.id),
        format!("Bearer cvm_000000000000_{secret}"),
        "Bearer x".to_owned(),
        "Bearer dev_customer_acme".to_owned(),
    ] {
        assert_eq!(bench.sent(&value).await, unknown, "{value}");
    }
    for value in [format!("Basic {}", text.expose_secret()), text.expose_secret().to_owned(), "Bearer ".to_owned()] {
        assert_eq!(bench.sent(&value).await, Err(Refusal::Missing), "{value}");
    }
    let mut twice = headers(&format!("Bearer {}", text.expose_secret()));
    twice.append(AUTHORIZATION, format!("Bearer {}", other.expose_secret()).parse().unwrap());
    assert_eq!(bench.tokens.identify(&twice).await.unwrap(), Err(Refusal::Missing));
}

#[tokio::test]
async fn a_developers_token_names_a_customer_and_nothing_more() {
    let bench = bench(true).await;
    let caller = bench.sent("Bearer dev_customer_test").await.unwrap();
    assert_eq!(caller.customer, Some("test".parse().unwrap()));
    for wrong in ["dev_customer_", "dev_customer_x,customer_id=y", "dev_customer_a/b", "dev_customer_a b"] {
        assert!(matches!(bench.sent(&format!("Bearer {wrong}")).await, Err(Refusal::Wrong(_))), "{wrong}");
    }
}

#[tokio::test]
async fn names_and_ends_that_make_no_sense_are_refused() {
    let bench = bench(false).await;
    for name in ["", "a\nb", "a\"b", &"x".repeat(65)] {
        let wish = NewToken { name: name.to_owned(), ..new(None) };
        assert!(matches!(bench.tokens.create("me", wish).await, Err(Error::Name(_))), "{name:?}");
    }
    let wish = NewToken { expires_at: Some(bench.clock.now()), ..new(None) };
    assert!(matches!(bench.tokens.create("me", wish).await, Err(Error::Expired(_))));
}

#[tokio::test]
async fn the_last_use_is_known_to_the_minute() {
    let bench = bench(false).await;
    let start = bench.clock.now();
    let (_, text) = bench.tokens.create("me", new(None)).await.unwrap();
    let header = format!("Bearer {}", text.expose_secret());
    for (after, expected) in [(0, 0), (30, 0), (30, 60)] {
        bench.clock.advance(SignedDuration::from_secs(after));
        bench.sent(&header).await.unwrap();
        let last = bench.tokens.list().await.unwrap()[0].last_used_at.unwrap();
        assert_eq!(last.duration_since(start), SignedDuration::from_secs(expected));
    }
}

#[tokio::test]
async fn the_operators_file_holds_a_token_that_is_good_here() {
    let bench = bench(false).await;
    let directory = bench.directory.path();
    bench.tokens.ensure_operator_file(directory).await.unwrap();
    let path = directory.join(OPERATOR_FILE);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(bench.sent(&format!("Bearer {}", text.trim())).await.unwrap().customer, None);
    bench.tokens.ensure_operator_file(directory).await.unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "a good one stays");

    // The database was replaced by an older one.
    let id = bench.tokens.list().await.unwrap()[0].id.clone();
    bench.tokens.revoke(&id).await.unwrap();
    bench.tokens.ensure_operator_file(directory).await.unwrap();
    let renewed = std::fs::read_to_string(&path).unwrap();
    assert_ne!(renewed, text);
    assert!(bench.sent(&format!("Bearer {}", renewed.trim())).await.is_ok());
}

#[tokio::test]
async fn tokens_that_ended_long_ago_are_forgotten() {
    let bench = bench(false).await;
    let (old, _) = bench.tokens.create("me", new(None)).await.unwrap();
    bench.tokens.revoke(&old.id).await.unwrap();
    bench.clock.advance(SignedDuration::from_hours(91 * 24));
    let (new, _) = bench.tokens.create("me", new(None)).await.unwrap();
    let ids: Vec<_> = bench.tokens.list().await.unwrap().into_iter().map(|token| token.id).collect();
    assert_eq!(ids, [new.id]);
}
