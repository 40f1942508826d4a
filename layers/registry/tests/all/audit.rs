//! Who did what.

use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Server, Setup, push_image, try_push};

const PATH: &str = "/api/v1/registry/audit";

/// The record, newest first, once it has this many entries.
async fn entries(server: &Server, count: usize) -> Vec<Value> {
    for _ in 0..3000 {
        let page = server.read("admin:root", &format!("{PATH}?limit=1000")).await;
        let entries = page["entries"].as_array().unwrap().clone();
        if entries.len() >= count {
            return entries;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there are no {count} entries");
}

fn setup() -> Setup {
    Setup::default().api_login().users(&["alice", "bob"]).set("REGISTRY_PUSH_ALLOW", "alice=*")
}

#[tokio::test]
async fn changes_refusals_and_pulls_of_manifests_are_kept() {
    let server = setup().start().await;
    let alice = server.client(Some(("alice", "ecila")));
    let pushed = push_image(&alice, "tools/x", "1", b"layer").await;
    assert!(try_push(&server.client(Some(("bob", "bob"))), "tools/x", "2", b"x").await.is_err());
    assert_eq!(server.ask("bob:bob", "GET", "/v2/tools/x/manifests/1").await.0, 200);
    assert_eq!(server.ask("alice:ecila", "DELETE", "/v2/tools/x/manifests/1").await.0, 202);
    assert_eq!(server.ask("bob:planted-password", "GET", "/v2/").await.0, 401);

    let entries = entries(&server, 7).await;
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let told: Vec<_> =
        entries.iter().map(|one| [text(one, "user"), text(one, "action"), text(one, "reference")]).collect();
    let has = |user: &str, action: &str, reference: &str| {
        let wanted = [user, action, reference].map(str::to_owned);
        assert!(told.contains(&wanted), "{wanted:?} is missing in {told:?}");
    };
    has("alice", "push_manifest", "1");
    has("bob", "pull_manifest", "1");
    has("alice", "delete_tag", "1");
    has("bob", "denied", "push");
    has("", "denied", "pull");
    let push = entries.iter().find(|one| one["action"] == "push_manifest").unwrap();
    assert_eq!(push["digest"], pushed.digest.to_string());
    assert_eq!((&push["size"], &push["repository"]), (&json!(pushed.size), &json!("tools/x")));
    assert_eq!(push["client"], "127.0.0.1");
    assert!(entries.iter().any(|one| one["action"] == "push_blob" && one["size"] == 5));
    let all = serde_json::to_string(&entries).unwrap();
    assert!(!all.contains("planted-password") && !all.contains("ecila"), "{all}");
}

#[tokio::test]
async fn pages_lead_from_the_newest_to_the_oldest() {
    let server = setup().start().await;
    let alice = server.client(Some(("alice", "ecila")));
    for repository in ["a", "b", "c"] {
        push_image(&alice, repository, "1", b"layer").await;
    }
    let all = entries(&server, 9).await;
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.read("admin:root", &format!("{PATH}?limit=2{cursor}")).await;
        pages.extend(page["entries"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(pages, all);
    let of_b = server.read("admin:root", &format!("{PATH}?repository=b")).await;
    let of_b = of_b["entries"].as_array().unwrap().clone();
    assert!(!of_b.is_empty() && of_b.iter().all(|one| one["repository"] == "b"));
    assert_eq!(server.read("admin:root", &format!("{PATH}?user=bob")).await["entries"], json!([]));
    assert_eq!(server.ask("admin:root", "GET", &format!("{PATH}?cursor=x")).await.0, 400);
    assert_eq!(server.ask("alice:ecila", "GET", PATH).await.0, 401);
}

#[tokio::test]
async fn the_file_has_a_line_for_each_entry_and_nothing_is_lost_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let server = setup().set("REGISTRY_AUDIT_LOG_PATH", path.to_str().unwrap()).start().await;
    push_image(&server.client(Some(("alice", "ecila"))), "a", "1", b"layer").await;
    let _held = server.stop().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["action"] == "push_manifest" && line["user"] == "alice"), "{text}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn nothing_is_kept_where_that_is_switched_off() {
    for (switch, is_kept) in [("true", true), ("false", false)] {
        let server = setup().set("REGISTRY_ENABLE_AUDIT_LOG", switch).start().await;
        push_image(&server.client(Some(("alice", "ecila"))), "a", "1", b"layer").await;
        // What waits is written by the time that it has stopped.
        let server = setup().start_in(server.stop().await).await;
        assert_eq!(!entries(&server, 0).await.is_empty(), is_kept, "{switch}");
    }
}

#[tokio::test]
async fn orders_and_what_retention_removes_are_kept_with_who_ordered_them() {
    let server = setup().set("REGISTRY_RETENTION_TOOLS_KEEP", "1").start().await;
    let alice = server.client(Some(("alice", "ecila")));
    push_image(&alice, "tools/x", "1", b"one").await;
    push_image(&alice, "tools/x", "2", b"two").await;
    for (method, path, body) in [
        ("POST", "retention", json!({ "dry_run": true })),
        ("POST", "retention", json!({ "dry_run": false })),
        ("POST", "gc", json!({})),
        ("POST", "restore", json!({})),
        ("POST", "check", json!({ "repair": false })),
        ("POST", "check", json!({ "repair": true })),
        ("PUT", "read-only", json!({ "read_only": true })),
    ] {
        assert_eq!(
            server.order("admin:root", method, &format!("/api/v1/registry/{path}"), body).await.0,
            200,
            "{path}"
        );
    }
    let server = setup().start_in(server.stop().await).await;
    let page = server.read("admin:root", &format!("{PATH}?user=admin")).await;
    let told: Vec<_> = page["entries"].as_array().unwrap().iter().rev().map(|one| one["action"].clone()).collect();
    assert_eq!(told, ["retention", "delete_tag", "collect", "restore", "check", "read_only"]);
    let removed = page["entries"].as_array().unwrap().iter().find(|one| one["action"] == "delete_tag").unwrap();
    assert_eq!((&removed["repository"], &removed["reference"]), (&json!("tools/x"), &json!("1")));
    assert!(removed["digest"].is_string() && removed["client"] == "127.0.0.1", "{removed}");
}
