//! skopeo and podman, unmodified: they log in, pull, push, and are refused.

use std::path::Path;

use crate::fixture::{Server, Setup, can_run, push_image, run};

async fn skopeo(home: &Path, arguments: &[&str]) -> (bool, String) {
    let authfile = home.join("auth.json").display().to_string();
    let mut all = vec![arguments[0], "--authfile", &authfile];
    all.extend(&arguments[1..]);
    if arguments[0] == "copy" {
        all.insert(0, "--insecure-policy");
    }
    run("skopeo", home, &all).await
}

fn remote(server: &Server, name: &str) -> String {
    format!("docker://{}/{name}", server.address)
}

/// Logs in, pushes, pulls, is refused, logs out.
async fn round(setup: Setup) {
    let server = setup.start().await;
    push_image(&server.client(Some(("alice", "ecila"))), "tools/x", "1", b"layer").await;
    let home = tempfile::tempdir().unwrap();
    let (home, address) = (home.path(), server.address.to_string());
    let pull =
        ["copy", "--src-tls-verify=false", &remote(&server, "tools/x:1"), &format!("dir:{}/out", home.display())];
    let (done, said) = skopeo(home, &pull).await;
    assert!(!done && (said.contains("unauthorized") || said.contains("authentication required")), "{said}");

    let wrong = ["login", "--tls-verify=false", "-u", "alice", "-p", "wrong", &address];
    let (done, said) = skopeo(home, &wrong).await;
    assert!(!done && said.contains("invalid username/password"), "{said}");
    let (done, said) = skopeo(home, &["login", "--tls-verify=false", "-u", "bob", "-p", "bob", &address]).await;
    assert!(done, "{said}");
    let (done, said) = skopeo(home, &pull).await;
    assert!(done, "{said}");

    let copy = |to: &str| {
        let (from, to) = (remote(&server, "tools/x:1"), remote(&server, to));
        ["copy", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to].map(str::to_owned)
    };
    let push = copy("tools/x:2");
    let (done, said) = skopeo(home, &push.each_ref().map(String::as_str)).await;
    assert!(!done && said.contains("denied"), "{said}");
    let (done, said) = skopeo(home, &["login", "--tls-verify=false", "-u", "alice", "-p", "ecila", &address]).await;
    assert!(done, "{said}");
    let (done, said) = skopeo(home, &push.each_ref().map(String::as_str)).await;
    assert!(done, "{said}");
    let (done, said) = skopeo(home, &copy("elsewhere:2").each_ref().map(String::as_str)).await;
    assert!(!done && said.contains("denied"), "{said}");
    let (done, said) = skopeo(home, &["list-tags", "--tls-verify=false", &remote(&server, "tools/x")]).await;
    assert!(done && said.contains("\"2\""), "{said}");
    let (done, said) = skopeo(home, &["delete", "--tls-verify=false", &remote(&server, "tools/x:2")]).await;
    assert!(done, "{said}");
}

fn users() -> Setup {
    Setup::default().users(&["alice", "bob"]).set("REGISTRY_PUSH_ALLOW", "alice=tools")
}

#[tokio::test]
async fn skopeo_with_passwords() {
    if can_run("skopeo_with_passwords", &["skopeo"]) {
        round(users()).await;
    }
}

#[tokio::test]
async fn skopeo_with_tokens() {
    if can_run("skopeo_with_tokens", &["skopeo"]) {
        round(users().set("REGISTRY_AUTH_MODE", "token")).await;
    }
}

#[tokio::test]
async fn skopeo_pulls_without_a_login_where_everybody_may() {
    if !can_run("skopeo_pulls_without_a_login_where_everybody_may", &["skopeo"]) {
        return;
    }
    for mode in ["basic", "token"] {
        let server = users().set("REGISTRY_AUTH_MODE", mode).set("REGISTRY_ALLOW_ANON", "true").start().await;
        push_image(&server.client(Some(("alice", "ecila"))), "tools/x", "1", b"layer").await;
        let home = tempfile::tempdir().unwrap();
        let out = format!("dir:{}/out", home.path().display());
        let pull = ["copy", "--src-tls-verify=false", &remote(&server, "tools/x:1"), &out];
        let (done, said) = skopeo(home.path(), &pull).await;
        assert!(done, "{mode}: {said}");
        let push = ["copy", "--dest-tls-verify=false", &out, &remote(&server, "tools/x:2")];
        let (done, said) = skopeo(home.path(), &push).await;
        assert!(!done, "{mode}: {said}");
    }
}

#[tokio::test]
async fn podman_logs_in_with_passwords_and_tokens() {
    if !can_run("podman_logs_in_with_passwords_and_tokens", &["podman"]) {
        return;
    }
    for mode in ["basic", "token"] {
        let server = users().set("REGISTRY_AUTH_MODE", mode).start().await;
        let home = tempfile::tempdir().unwrap();
        let (address, authfile) = (server.address.to_string(), home.path().join("auth.json").display().to_string());
        let login = |password: &'static str| {
            ["login", "--tls-verify=false", "--authfile", &authfile, "-u", "alice", "-p", password, &address]
                .map(str::to_owned)
        };
        let (done, said) = run("podman", home.path(), &login("no").each_ref().map(String::as_str)).await;
        assert!(!done, "{mode}: {said}");
        let (done, said) = run("podman", home.path(), &login("ecila").each_ref().map(String::as_str)).await;
        assert!(done && said.contains("Login Succeeded"), "{mode}: {said}");
    }
}

#[tokio::test]
async fn the_users_file_is_what_htpasswd_writes() {
    if !can_run("the_users_file_is_what_htpasswd_writes", &["htpasswd"]) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (done, line) = run("htpasswd", home.path(), &["-nbB", "-C", "5", "alice", "pä:ss"]).await;
    assert!(done && line.starts_with("alice:$2y$"), "{line}");
    let server = Setup::default().users_file(line).start().await;
    assert_eq!(server.ask("alice:pä:ss", "GET", "/v2/").await.0, 200);
    assert_eq!(server.ask("alice:pä", "GET", "/v2/").await.0, 401);
    let (_, line) = run("htpasswd", home.path(), &["-nbm", "alice", "pass"]).await;
    let error = Setup::default().users_file(line).refused().await;
    assert_eq!(error.problem().code, "registry_users_file");
}
