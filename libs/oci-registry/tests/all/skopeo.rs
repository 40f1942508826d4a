//! skopeo and umoci, unmodified.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use oci_registry::{Descriptor, Digest, Index, media_type};

use crate::fixture::{Server, name, push_image, tag};

/// Whether the programs are there; says so by name where not.
pub(crate) fn can_run(test: &str, programs: &[&str]) -> bool {
    programs.iter().all(|program| {
        let found = Command::new(program).arg("--version").output().is_ok();
        if !found {
            eprintln!("NOT RUN: {test}: {program} is missing");
        }
        found
    })
}

/// Runs a program off the runtime, which goes on serving meanwhile.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn index_of(layout: &Path) -> Index {
    serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap()
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_unchanged() {
    if !can_run("an_image_goes_in_and_comes_out_unchanged", &["skopeo", "umoci"]) {
        return;
    }
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (layout, back) = (directory.path().join("in"), directory.path().join("out"));
    let payload = directory.path().join("payload");
    std::fs::write(&payload, crate::fixture::noise(15, 2_000_000)).unwrap();
    let (layout_text, image) = (layout.to_str().unwrap(), format!("{}:v1", layout.display()));
    run("umoci", &["init", "--layout", layout_text]).await;
    run("umoci", &["new", "--image", &image]).await;
    run("umoci", &["insert", "--rootless", "--image", &image, payload.to_str().unwrap(), "/payload"]).await;

    let remote = format!("docker://{}/os-images/nested/debian:13", server.address);
    let (from, to) = (format!("oci:{image}"), format!("oci:{}:v1", back.display()));
    let copy = ["copy", "--insecure-policy", "--preserve-digests"];
    run("skopeo", &[&copy[..], &["--dest-tls-verify=false", &from, &remote]].concat()).await;
    run("skopeo", &[&copy[..], &["--src-tls-verify=false", &remote, &to]].concat()).await;

    let (sent, received) = (&index_of(&layout).manifests[0], &index_of(&back).manifests[0]);
    assert_eq!(sent.digest, received.digest);
    let repository = name("os-images/nested/debian");
    let (descriptor, manifest) = server.client().manifest(&repository, &tag("13")).await.unwrap();
    assert_eq!(descriptor.digest, sent.digest);
    let manifest: oci_registry::Manifest = serde_json::from_slice(&manifest).unwrap();
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        let path = back.join("blobs/sha256").join(blob.digest.hex());
        assert_eq!(Digest::sha256_of(&std::fs::read(path).unwrap()), blob.digest);
    }
    // A second push finds everything there, and a copy to another repository mounts.
    run("skopeo", &[&copy[..], &["--dest-tls-verify=false", &from, &remote]].concat()).await;
    let other = format!("docker://{}/copy:13", server.address);
    let usage = server.registry.storage_usage();
    run("skopeo", &[&copy[..], &["--src-tls-verify=false", "--dest-tls-verify=false", &remote, &other]].concat()).await;
    assert_eq!(server.registry.storage_usage(), usage);
    let tags = run("skopeo", &["list-tags", "--tls-verify=false", &format!("docker://{}/copy", server.address)]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&tags).unwrap()["Tags"], serde_json::json!(["13"]));
    run("skopeo", &["delete", "--tls-verify=false", &other]).await;
    assert_eq!(server.registry.resolve(&name("copy"), &tag("13")).await.unwrap(), None);
}

#[tokio::test]
async fn what_our_client_pushes_skopeo_pulls() {
    if !can_run("what_our_client_pushes_skopeo_pulls", &["skopeo"]) {
        return;
    }
    let server = Server::start().await;
    let (client, repository) = (server.client(), name("tools/disk"));
    let mut children = Vec::new();
    for (tag_text, layer) in [("amd64", &b"first layer"[..]), ("arm64", b"second layer")] {
        let (manifest, _) = push_image(&client, &repository, tag_text, layer).await;
        children.push(manifest);
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": children.iter().zip(["amd64", "arm64"]).map(|(child, architecture)| serde_json::json!({
            "mediaType": child.media_type, "digest": child.digest, "size": child.size,
            "platform": {"os": "linux", "architecture": architecture},
        })).collect::<Vec<_>>(),
    });
    let bytes = Bytes::from(index.to_string());
    let index: Descriptor = client.push_manifest(&repository, &tag("all"), media_type::OCI_INDEX, bytes).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let back = directory.path().join("out");
    let to = format!("oci:{}:all", back.display());
    for reference in ["tools/disk:all".to_owned(), format!("tools/disk@{}", index.digest)] {
        let remote = format!("docker://{}/{reference}", server.address);
        run(
            "skopeo",
            &["copy", "--insecure-policy", "--preserve-digests", "--all", "--src-tls-verify=false", &remote, &to],
        )
        .await;
    }
    assert_eq!(index_of(&back).manifests[0].digest, index.digest);
    for child in children {
        assert!(back.join("blobs/sha256").join(child.digest.hex()).exists());
    }
}
