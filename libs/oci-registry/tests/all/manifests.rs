//! Manifests, tags, and the direct way for callers in the same process.

use bytes::Bytes;
use oci_registry::storage::StorageError;
use oci_registry::{Descriptor, Digest, Index, media_type};

use crate::fixture::{Server, code_of, http, name, push_image, tag};

#[tokio::test]
async fn by_tag_and_digest_with_the_media_type_it_came_with() {
    let server = Server::start().await;
    let client = server.client();
    let repository = name("os-images/debian");
    let (manifest, _) = push_image(&client, &repository, "13", b"layer").await;
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        artifact_type: None,
        manifests: vec![manifest.clone()],
        subject: None,
        annotations: Default::default(),
    };
    let bytes = Bytes::from(serde_json::to_vec(&index).unwrap());
    let index = client.push_manifest(&repository, &tag("all"), media_type::OCI_INDEX, bytes.clone()).await.unwrap();

    for (selector, expected) in [
        (tag("13"), &manifest),
        (manifest.digest.clone().into(), &manifest),
        (tag("all"), &index),
        (index.digest.clone().into(), &index),
    ] {
        assert_eq!(client.resolve(&repository, &selector).await.unwrap(), *expected);
        assert_eq!(client.manifest(&repository, &selector).await.unwrap().0, *expected);
        assert_eq!(server.registry.resolve(&repository, &selector).await.unwrap().unwrap(), *expected);
    }
    assert_eq!(client.manifest(&repository, &tag("all")).await.unwrap().1, bytes);
    assert_eq!(server.registry.manifest(&repository, &tag("all")).await.unwrap().unwrap().1, bytes);
    assert_eq!(server.registry.resolve(&repository, &tag("none")).await.unwrap(), None);
    assert_eq!(server.registry.resolve(&name("os-images"), &manifest.digest.into()).await.unwrap(), None);
    assert_eq!(server.registry.tags(&repository).await.unwrap().len(), 2);
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut server = Server::start().await;
    let (manifest, layer) = push_image(&server.client(), &name("a/b/c/d"), "1", b"layer").await;
    let usage = server.registry.storage_usage();
    server.restart().await;
    assert_eq!(server.registry.storage_usage(), usage);
    assert_eq!(usage.blobs, 3);
    assert_eq!(server.client().resolve(&name("a/b/c/d"), &tag("1")).await.unwrap(), manifest);
    assert!(server.client().has_blob(&name("a/b/c/d"), &layer.digest).await.unwrap());
    let second = oci_registry::storage::Storage::open(server.root(), Default::default()).await;
    assert!(matches!(second, Err(StorageError::Locked { .. })));
    let layout = std::fs::read_to_string(server.root().join("oci-layout")).unwrap();
    assert_eq!(layout, r#"{"imageLayoutVersion":"1.0.0"}"#);
}

#[tokio::test]
async fn another_layout_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    let opened = oci_registry::storage::Storage::open(directory.path(), Default::default()).await;
    assert!(matches!(opened, Err(StorageError::Layout { .. })));
}

async fn put(server: &Server, selector: &str, media_type: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let url = server.url(&format!("/v2/a/manifests/{selector}"));
    code_of(http().put(url).header("content-type", media_type).body(body).send().await.unwrap()).await
}

#[tokio::test]
async fn what_is_no_manifest_or_names_what_is_missing_is_refused() {
    let server = Server::start().await;
    let (manifest, layer) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let before = server.registry.storage_usage();
    let empty = serde_json::to_string(&Descriptor::empty()).unwrap();
    let with_layer = |descriptor: &Descriptor| {
        format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[{}]}}"#, serde_json::to_string(descriptor).unwrap())
    };
    let missing = with_layer(&Descriptor::new("x/y", Digest::sha256_of(b"nobody pushed this"), 18));
    let lying = with_layer(&Descriptor::new("x/y", layer.digest.clone(), layer.size + 1));
    let childless = format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        serde_json::to_string(&Descriptor::new(media_type::OCI_MANIFEST, layer.digest, layer.size)).unwrap()
    );
    let good = with_layer(&Descriptor::empty());
    let other = Digest::sha256_of(b"other").to_string();
    let large = " ".repeat((4 << 20) + 1);
    for (selector, kind, body, expected) in [
        ("2", media_type::OCI_MANIFEST, "not json", (400, "MANIFEST_INVALID")),
        ("2", media_type::OCI_MANIFEST, "{}", (400, "MANIFEST_INVALID")),
        ("2", "text/plain", &good, (400, "MANIFEST_INVALID")),
        ("2", media_type::OCI_MANIFEST, &missing, (404, "MANIFEST_BLOB_UNKNOWN")),
        ("2", media_type::OCI_MANIFEST, &lying, (400, "MANIFEST_INVALID")),
        ("2", media_type::OCI_INDEX, &childless, (404, "MANIFEST_BLOB_UNKNOWN")),
        ("2", media_type::OCI_MANIFEST, &large, (413, "SIZE_INVALID")),
        (&other, media_type::OCI_MANIFEST, &good, (400, "DIGEST_INVALID")),
        ("sha256:short", media_type::OCI_MANIFEST, &good, (400, "DIGEST_INVALID")),
        (".hidden", media_type::OCI_MANIFEST, &good, (400, "MANIFEST_INVALID")),
    ] {
        let (status, code) = put(&server, selector, kind, body.to_owned()).await;
        assert_eq!((status, code.as_str()), expected, "{selector} {kind} {body:.60}");
    }
    assert_eq!(server.registry.storage_usage(), before);
    assert_eq!(server.registry.tags(&name("a")).await.unwrap(), ["1".parse().unwrap()]);
    assert_eq!(server.client().resolve(&name("a"), &tag("1")).await.unwrap(), manifest);
}

#[tokio::test]
async fn tags_are_listed_in_pages() {
    let server = Server::start().await;
    let client = server.client();
    for version in ["b", "a", "10", "9", "A"] {
        push_image(&client, &name("x/y"), version, b"layer").await;
    }
    let list = async |query: &str| {
        let response = http().get(server.url(&format!("/v2/x/y/tags/list{query}"))).send().await.unwrap();
        let link = response.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let json: serde_json::Value = response.json().await.unwrap();
        assert_eq!(json["name"], "x/y");
        (json["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect::<Vec<_>>(), link)
    };
    assert_eq!(list("").await, (["10", "9", "A", "a", "b"].map(str::to_owned).to_vec(), None));
    let (page, link) = list("?n=2").await;
    assert_eq!(page, ["10", "9"]);
    assert_eq!(link.unwrap(), "</v2/x/y/tags/list?n=2&last=9>; rel=\"next\"");
    assert_eq!(list("?n=3&last=9").await, (["A", "a", "b"].map(str::to_owned).to_vec(), None));
    assert_eq!(list("?n=0").await, (vec![], None));
    assert_eq!(code_of(http().get(server.url("/v2/x/y/tags/list?n=x")).send().await.unwrap()).await.0, 400);
    let unknown = http().get(server.url("/v2/x/tags/list")).send().await.unwrap();
    assert_eq!(code_of(unknown).await, (404, "NAME_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn a_deleted_tag_leaves_the_manifest_and_a_deleted_manifest_takes_its_tags() {
    let server = Server::start().await;
    let client = server.client();
    let (manifest, _) = push_image(&client, &name("a"), "1", b"layer").await;
    push_image(&client, &name("a"), "2", b"layer").await;
    push_image(&client, &name("a"), "other", b"other layer").await;
    let delete = async |reference: String| {
        http().delete(server.url(&format!("/v2/a/manifests/{reference}"))).send().await.unwrap()
    };
    assert_eq!(delete("1".to_owned()).await.status(), 202);
    assert_eq!(code_of(delete("1".to_owned()).await).await, (404, "MANIFEST_UNKNOWN".to_owned()));
    assert!(client.resolve(&name("a"), &manifest.digest.clone().into()).await.is_ok());
    assert_eq!(delete(manifest.digest.to_string()).await.status(), 202);
    assert_eq!(client.resolve(&name("a"), &tag("2")).await.unwrap_err().status(), Some(404));
    assert_eq!(client.resolve(&name("a"), &manifest.digest.into()).await.unwrap_err().status(), Some(404));
    assert_eq!(server.registry.tags(&name("a")).await.unwrap(), ["other".parse().unwrap()]);
}

#[tokio::test]
async fn a_damaged_manifest_is_not_served() {
    let server = Server::start().await;
    let (manifest, _) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    std::fs::write(server.blob_path(&manifest.digest), vec![b' '; usize::try_from(manifest.size).unwrap()]).unwrap();
    let response = http().get(server.url("/v2/a/manifests/1")).send().await.unwrap();
    assert_eq!(code_of(response).await, (500, "INTERNAL_ERROR".to_owned()));
    // Pushing it again heals it.
    push_image(&server.client(), &name("a"), "1", b"layer").await;
    assert_eq!(server.client().resolve(&name("a"), &tag("1")).await.unwrap(), manifest);
}
