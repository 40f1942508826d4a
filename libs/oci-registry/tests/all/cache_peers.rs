//! A cache of Debian's docker-registry, used with skopeo; both unmodified.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use oci_registry::media_type;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::cache::cache_of;
use crate::fixture::{Server, client_of, name, noise, push_image, tag};
use crate::skopeo::{can_run, index_of, run};

/// Starts docker-registry over a directory and waits until it says where it listens.
async fn docker_registry(directory: &Path) -> (Child, SocketAddr) {
    let config = directory.join("config.yml");
    let root = directory.join("data");
    let text = format!(
        "version: 0.1\nlog:\n  formatter: json\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n",
        root.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().unwrap();
        let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if let Some(address) = entry["msg"].as_str().and_then(|text| text.strip_prefix("listening on ")) {
            break address.parse().unwrap();
        }
    };
    // It goes on talking; nobody listening would stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, address)
}

#[tokio::test]
async fn an_image_of_another_registry_is_pulled_through_and_again_without_it() {
    let test = "an_image_of_another_registry_is_pulled_through_and_again_without_it";
    if !can_run(test, &["docker-registry", "skopeo", "umoci"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (mut child, address) = docker_registry(directory.path()).await;
    let layout = directory.path().join("in");
    let payload = directory.path().join("payload");
    std::fs::write(&payload, noise(60, 2_000_000)).unwrap();
    let image = format!("{}:v1", layout.display());
    run("umoci", &["init", "--layout", layout.to_str().unwrap()]).await;
    run("umoci", &["new", "--image", &image]).await;
    run("umoci", &["insert", "--rootless", "--image", &image, payload.to_str().unwrap(), "/payload"]).await;
    let copy = ["copy", "--insecure-policy", "--preserve-digests"];
    let (from, to) = (format!("oci:{image}"), format!("docker://{address}/library/debian:13"));
    run("skopeo", &[&copy[..], &["--dest-tls-verify=false", &from, &to]].concat()).await;

    let cache = cache_of(address).await;
    let pull = async |cache: &Server, name: &str| {
        let back = directory.path().join(name);
        let remote = format!("docker://{}/mirror/up/library/debian:13", cache.address);
        let to = format!("oci:{}:v1", back.display());
        run("skopeo", &[&copy[..], &["--src-tls-verify=false", &remote, &to]].concat()).await;
        assert_eq!(index_of(&back).manifests[0].digest, index_of(&layout).manifests[0].digest);
    };
    pull(&cache, "first").await;
    let remote = format!("docker://{}/mirror/up/library/debian", cache.address);
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", &remote]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&tags).unwrap()["Tags"], serde_json::json!(["13"]));
    child.kill().await.unwrap();
    pull(&cache, "second").await;
    let kept = cache.registry.resolve(&name("mirror/up/library/debian"), &tag("13")).await.unwrap().unwrap();
    assert_eq!(kept.digest, index_of(&layout).manifests[0].digest);
}

#[tokio::test]
async fn referrers_of_a_registry_without_that_endpoint_come_from_its_tag() {
    if !can_run("referrers_of_a_registry_without_that_endpoint_come_from_its_tag", &["docker-registry"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_child, address) = docker_registry(directory.path()).await;
    let (client, repository) = (client_of(address), name("x"));
    let (subject, _) = push_image(&client, &repository, "1", b"image").await;
    let (signature, _) = push_image(&client, &repository, "signature", b"signature").await;
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [signature],
    });
    let stand_in = tag(&subject.digest.to_string().replace(':', "-"));
    client.push_manifest(&repository, &stand_in, media_type::OCI_INDEX, index.to_string().into()).await.unwrap();

    let cache = cache_of(address).await;
    let listed = cache.client().referrers(&name("mirror/up/x"), &subject.digest, None).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&signature));
    let none = cache.client().referrers(&name("mirror/up/x"), &signature.digest, None).await.unwrap();
    assert_eq!(none, []);
}
