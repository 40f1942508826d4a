//! Who gets in through HTTP, by mode.

use crate::fixture::{Setup, push_image};

/// Login, method, path, and the status that it gets. `x` holds nothing, so 404 is what one gets who may pull.
type Row = (&'static str, &'static str, &'static str, u16);

async fn check(setup: Setup, rows: &[Row]) {
    let server = setup.start().await;
    for (login, method, path, wanted) in rows {
        let (status, response) = server.ask(login, method, path).await;
        assert_eq!(status, *wanted, "{login:?} {method} {path}: {}", response.text().await.unwrap());
    }
}

const PING: &str = "/v2/";
const PULL: &str = "/v2/tools/x/manifests/1";
const PUSH: &str = "/v2/tools/x/blobs/uploads/";
const OTHER: &str = "/v2/other/blobs/uploads/";
const STATUS: &str = "/api/v1/registry";

#[tokio::test]
async fn nobody_logs_in_where_there_are_no_users() {
    check(
        Setup::default(),
        &[("", "GET", PING, 200), ("", "GET", PULL, 404), ("", "POST", PUSH, 202), ("", "GET", STATUS, 200)],
    )
    .await;
}

#[tokio::test]
async fn the_login_of_the_api_is_that_of_the_registry() {
    check(
        Setup::default().api_login(),
        &[
            ("", "GET", PING, 401),
            ("", "GET", STATUS, 401),
            ("admin:root", "GET", PING, 200),
            ("admin:root", "POST", PUSH, 202),
            ("admin:root", "GET", STATUS, 200),
            ("admin:toor", "GET", PULL, 401),
            ("job-1:ticket", "GET", "/v2/os-images/debian/manifests/1", 404),
            ("job-1:ticket", "GET", PULL, 401),
            ("job-1:ticket", "POST", "/v2/os-images/debian/blobs/uploads/", 401),
            ("job-1:ticket", "GET", STATUS, 401),
        ],
    )
    .await;
}

#[tokio::test]
async fn users_of_the_file_are_users_of_the_registry_only() {
    let setup = Setup::default().api_login().users(&["alice", "bob"]);
    check(
        setup.set("REGISTRY_AUTH_MODE", "htpasswd").set("REGISTRY_PUSH_ALLOW", "alice=tools"),
        &[
            ("alice:ecila", "GET", PING, 200),
            ("alice:ecila", "POST", PUSH, 202),
            ("alice:ecila", "POST", OTHER, 403),
            ("bob:bob", "POST", PUSH, 403),
            ("bob:bob", "GET", PULL, 404),
            ("alice:bob", "GET", PING, 401),
            ("admin:root", "GET", PING, 401),
            ("alice:ecila", "GET", STATUS, 401),
            ("admin:root", "GET", STATUS, 200),
        ],
    )
    .await;
}

#[tokio::test]
async fn everybody_may_pull_where_that_is_allowed() {
    let setup = Setup::default().users(&["alice"]).set("REGISTRY_ALLOW_ANON", "true");
    check(
        setup,
        &[
            ("", "GET", PING, 401),
            ("", "GET", PULL, 404),
            (":", "GET", PULL, 404),
            ("", "POST", PUSH, 401),
            ("alice:no", "GET", PULL, 401),
            ("alice:ecila", "POST", PUSH, 202),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_read_only_registry_refuses_with_405_and_stays_so_over_a_restart() {
    let server = Setup::default().api_login().start().await;
    push_image(&server.client(Some(("admin", "root"))), "tools/x", "1", b"layer").await;
    let on = serde_json::json!({ "read_only": true });
    assert_eq!(server.order("admin:root", "PUT", "/api/v1/registry/read-only", on.clone()).await, (200, on));
    assert_eq!(server.ask("admin:root", "POST", PUSH).await.0, 405);
    assert_eq!(server.ask("admin:root", "DELETE", PULL).await.0, 405);
    assert_eq!(server.ask("admin:root", "GET", PULL).await.0, 200);
    let (status, problem) =
        server.order("admin:root", "POST", "/api/v1/registry/gc", serde_json::json!({ "dry_run": false })).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("registry_read_only")));
    let (status, _) =
        server.order("admin:root", "POST", "/api/v1/registry/gc", serde_json::json!({ "dry_run": true })).await;
    assert_eq!(status, 200);

    let off = serde_json::json!({ "read_only": false });
    assert_eq!(server.order("admin:root", "PUT", "/api/v1/registry/read-only", off).await.0, 200);
    assert_eq!(server.ask("admin:root", "POST", PUSH).await.0, 202);

    let fixed = Setup::default().set("REGISTRY_READ_ONLY", "true").start().await;
    let (status, problem) =
        fixed.order("", "PUT", "/api/v1/registry/read-only", serde_json::json!({ "read_only": false })).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("registry_read_only")));
}

#[tokio::test]
async fn what_would_not_be_safe_does_not_start() {
    for (setup, code) in [
        (Setup::default().set("LOOPBACK", "no"), "no_authentication"),
        (Setup::default().api_login().set("LOOPBACK", "no").set("REGISTRY_AUTH_MODE", "none"), "no_authentication"),
        (Setup::default().set("REGISTRY_AUTH_MODE", "token"), "settings"),
        (Setup::default().set("REGISTRY_AUTH_MODE", "basic"), "settings"),
        (Setup::default().set("REGISTRY_HTPASSWD_FILE", "/no/such/file"), "registry_users_file"),
        (Setup::default().set("REGISTRY_AUDIT_LOG_PATH", "/no/such/file"), "settings"),
    ] {
        let error = setup.refused().await;
        assert_eq!(error.problem().code, code, "{error}");
    }
    let server = Setup::default().set("REGISTRY_AUTH_MODE", "basic").api_login().set("LOOPBACK", "no").start().await;
    assert_eq!(server.ask("admin:root", "GET", PING).await.0, 200);
}

#[tokio::test]
async fn without_a_login_a_foreign_name_reaches_nothing() {
    let server = Setup::default().start().await;
    for path in [PING, STATUS] {
        let request = crate::fixture::http().get(server.url(path)).header("host", "evil.example");
        assert_eq!(request.send().await.unwrap().status(), 403, "{path}");
    }
}

#[tokio::test]
async fn without_a_login_what_a_proxy_or_a_foreign_page_sends_reaches_nothing() {
    let server = Setup::default().set("REGISTRY_PUBLIC_URL", "https://registry.example").start().await;
    let send = async |path: &str, name: &str, value: &str| {
        let request = crate::fixture::http().get(server.url(path)).header(name, value);
        request.send().await.unwrap().status().as_u16()
    };
    for (name, value) in [
        ("x-forwarded-for", "192.0.2.7"),
        ("forwarded", "for=192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for path in [PING, STATUS] {
            assert_eq!(send(path, name, value).await, 403, "{path} {name}");
        }
    }
    assert_eq!(send(PING, "host", "registry.example").await, 200);
    assert_eq!(send(STATUS, "host", "registry.example").await, 403);
    assert_eq!(send(STATUS, "origin", &server.url("")).await, 200);
}

#[tokio::test]
async fn an_api_without_a_login_takes_users_who_may_push_everywhere() {
    let rows: [Row; 6] = [
        // Also from this machine: a proxy on it sends what it gets from elsewhere.
        ("", "GET", STATUS, 401),
        ("alice:no", "GET", STATUS, 401),
        ("job-1:ticket", "GET", STATUS, 401),
        ("alice:ecila", "GET", STATUS, 200),
        ("bob:bob", "GET", PING, 200),
        ("bob:bob", "GET", STATUS, 403),
    ];
    for mode in ["basic", "token"] {
        let setup = Setup::default().users(&["alice", "bob"]).set("REGISTRY_AUTH_MODE", mode);
        check(setup.set("REGISTRY_PUSH_ALLOW", "alice=*;bob=tools").set("LOOPBACK", "no"), &rows).await;
    }
    check(Setup::default().users(&["bob"]), &[("", "GET", STATUS, 401), ("bob:bob", "GET", STATUS, 200)]).await;
}
