//! Work on the whole registry through the API.

use serde_json::json;

use crate::fixture::{Server, Setup, name, push_image, tag};

const GC: &str = "/api/v1/registry/gc";

/// Makes everything look as if it had been there for two days.
fn age(server: &Server) {
    let two_days_ago = std::fs::FileTimes::new().set_modified(
        std::fs::metadata(server.directory.path()).unwrap().modified().unwrap() - std::time::Duration::from_hours(48),
    );
    let mut waiting = vec![server.storage.clone()];
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(path).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            } else {
                std::fs::File::open(entry.path()).unwrap().set_times(two_days_ago).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_lost_its_tag_is_collected_comes_back_and_is_spared_while_in_use() {
    let server = Setup::default().start().await;
    let client = server.client(None);
    let old = push_image(&client, "os-images/debian", "13", b"the old layer").await;
    push_image(&client, "os-images/debian", "13", b"the new layer").await;
    age(&server);
    *server.jobs.in_use.lock().unwrap() = vec![(name("os-images/debian"), old.digest.clone())];
    let (status, report) = server.order("", "POST", GC, json!({ "dry_run": true })).await;
    assert_eq!((status, &report["manifests"]), (200, &json!(0)), "{report}");
    server.jobs.in_use.lock().unwrap().clear();

    server.jobs.database_is_gone.store(true, std::sync::atomic::Ordering::SeqCst);
    let (status, problem) = server.order("", "POST", GC, json!({})).await;
    assert_eq!((status, problem["code"].as_str()), (503, Some("registry_leases")));
    server.jobs.database_is_gone.store(false, std::sync::atomic::Ordering::SeqCst);

    let (_, report) = server.order("", "POST", GC, json!({ "dry_run": true })).await;
    assert_eq!((&report["manifests"], &report["dry_run"]), (&json!(1), &json!(true)), "{report}");
    let by_digest = oci_registry::Selector::Digest(old.digest.clone());
    assert!(client.resolve(&name("os-images/debian"), &by_digest).await.is_ok());
    age(&server);

    let (_, report) = server.order("", "POST", GC, json!({ "dry_run": false })).await;
    assert_eq!((&report["manifests"], &report["blobs"]), (&json!(1), &json!(2)), "{report}");
    assert_eq!(client.resolve(&name("os-images/debian"), &by_digest).await.unwrap_err().status(), Some(404));
    assert!(client.resolve(&name("os-images/debian"), &tag("13")).await.is_ok());
    let status = server.read("", "/api/v1/registry").await;
    assert!(status["usage"]["quarantine_bytes"].as_u64().unwrap() > 0, "{status}");
    assert!(status["last_runs"].as_array().unwrap().iter().any(|run| run["kind"] == "collect"), "{status}");

    let (code, report) = server.order("", "POST", "/api/v1/registry/restore", json!({})).await;
    assert_eq!((code, &report["manifests"]), (200, &json!(1)), "{report}");
    assert!(client.resolve(&name("os-images/debian"), &by_digest).await.is_ok());
}

#[tokio::test]
async fn retention_keeps_the_newest_tags_of_tools() {
    let server = Setup::default().set("REGISTRY_RETENTION_TOOLS_KEEP", "2").start().await;
    let client = server.client(None);
    for version in ["1", "2", "3"] {
        push_image(&client, "tools/disk", version, version.as_bytes()).await;
        push_image(&client, "os-images/debian", version, version.as_bytes()).await;
    }
    let order = |dry_run: bool| server.order("", "POST", "/api/v1/registry/retention", json!({ "dry_run": dry_run }));
    let (_, report) = order(true).await;
    assert_eq!(report["removed"].as_array().unwrap().len(), 1, "{report}");
    let tags = |name: &str| format!("/api/v1/registry/repositories?prefix={name}");
    assert_eq!(server.read("", &tags("tools")).await["repositories"][0]["tags"].as_array().unwrap().len(), 3);
    order(false).await;
    let left = server.read("", &tags("tools")).await;
    let left: Vec<_> =
        left["repositories"][0]["tags"].as_array().unwrap().iter().map(|tag| tag["name"].clone()).collect();
    assert_eq!(left, ["2", "3"]);
    assert_eq!(server.read("", &tags("os-images")).await["repositories"][0]["tags"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_check_finds_and_mends_damage() {
    let server = Setup::default().start().await;
    let client = server.client(None);
    let pushed = push_image(&client, "a", "1", b"the layer").await;
    let check = |repair: bool| server.order("", "POST", "/api/v1/registry/check", json!({ "repair": repair }));
    let (status, report) = check(false).await;
    assert_eq!((status, &report["findings"]), (200, &json!([])), "{report}");
    let layer = oci_registry::Digest::sha256_of(b"the layer");
    std::fs::write(server.storage.join("blobs/sha256").join(layer.hex()), b"the lawyer").unwrap();
    let (_, report) = check(false).await;
    let findings = report["findings"].as_array().unwrap();
    assert!(findings.iter().any(|one| one["digest"] == layer.to_string()), "{report}");
    check(true).await;
    push_image(&client, "a", "1", b"the layer").await;
    let (_, report) = check(false).await;
    assert_eq!(report["findings"], json!([]), "{report}");
    assert_eq!(client.resolve(&name("a"), &tag("1")).await.unwrap().digest, pushed.digest);
}

#[tokio::test]
async fn room_is_told_by_repository_and_by_blob() {
    let server = Setup::default().start().await;
    let client = server.client(None);
    push_image(&client, "a", "1", &[7; 5000]).await;
    push_image(&client, "b", "1", b"small").await;
    let usage = server.read("", "/api/v1/registry/usage?largest=1").await;
    assert_eq!(usage["largest"][0]["size"], 5000);
    assert_eq!(usage["largest"][0]["repositories"], json!(["a"]));
    assert_eq!(usage["repositories"][0]["name"], "a");
    assert_eq!(server.ask("", "GET", "/api/v1/registry/usage?smallest=1").await.0, 400);
    let page = server.read("", "/api/v1/registry/repositories?limit=1").await;
    assert_eq!((&page["repositories"][0]["name"], &page["next_cursor"]), (&json!("a"), &json!("a")));
    let page = server.read("", "/api/v1/registry/repositories?limit=1&cursor=a").await;
    assert_eq!((&page["repositories"][0]["name"], page.get("next_cursor")), (&json!("b"), None));
}

#[tokio::test]
async fn two_at_once_are_one_and_a_conflict() {
    let server = Setup::default().start().await;
    let held = server.jobs.answers.lock().await;
    let collect = server.order("", "POST", GC, json!({ "dry_run": true }));
    let meanwhile = async {
        for _ in 0..1000 {
            if server.read("", "/api/v1/registry").await["running"] == "collect" {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let refused = server.order("", "POST", "/api/v1/registry/check", json!({})).await;
        drop(held);
        refused
    };
    let ((status, _), (refused, problem)) = tokio::join!(collect, meanwhile);
    assert_eq!((status, refused, problem["code"].as_str()), (200, 409, Some("registry_busy")), "{problem}");
    assert_eq!(server.order("", "POST", "/api/v1/registry/check", json!({})).await.0, 200);
}
