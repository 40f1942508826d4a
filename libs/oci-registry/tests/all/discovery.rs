//! What a repository holds, and who is about whom: referrers, tags of one push, the catalog, conditions.

use std::sync::Arc;

use futures::future::BoxFuture;
use oci_registry::server::{Access, Action, Anonymous, Asker, Decision, Options};
use oci_registry::{Algorithm, Descriptor, Digest, RepositoryName, media_type};
use reqwest::Response;
use serde_json::{Value, json};

use crate::fixture::{Server, code_of, http, name, push_image, tag};

async fn put(server: &Server, path: &str, kind: &str, body: &Value) -> Response {
    http().put(server.url(path)).header("content-type", kind).body(body.to_string()).send().await.unwrap()
}

async fn get(server: &Server, path: &str) -> Response {
    http().get(server.url(path)).send().await.unwrap()
}

fn digest_of(body: &Value) -> Digest {
    Digest::sha256_of(body.to_string().as_bytes())
}

fn headers(response: &Response, name: &str) -> Vec<String> {
    response.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// A manifest of the empty descriptor, which [`push_image`] has pushed.
fn about(subject: &Digest, kind: Option<&str>) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": Descriptor::empty(), "layers": [],
        "subject": Descriptor::new(media_type::OCI_MANIFEST, subject.clone(), 7), "annotations": {"a": "b"},
    });
    if let Some(kind) = kind {
        manifest["artifactType"] = json!(kind);
    }
    manifest
}

#[tokio::test]
async fn referrers_with_and_without_a_filter() {
    let server = Server::start().await;
    let (subject, _) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let list = async |query: &str| get(&server, &format!("/v2/a/referrers/{}{query}", subject.digest)).await;
    let nothing: Value = list("").await.json().await.unwrap();
    assert_eq!(nothing, json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}));

    let (sbom, signature) = (about(&subject.digest, Some("x/sbom+json")), about(&subject.digest, None));
    for manifest in [&sbom, &signature] {
        let path = format!("/v2/a/manifests/{}", digest_of(manifest));
        let stored = put(&server, &path, media_type::OCI_MANIFEST, manifest).await;
        assert_eq!(stored.status(), 201);
        assert_eq!(headers(&stored, "oci-subject"), [subject.digest.to_string()]);
    }
    let response = list("").await;
    assert_eq!(headers(&response, "content-type"), [media_type::OCI_INDEX]);
    assert_eq!(headers(&response, "oci-filters-applied"), [""; 0]);
    let all: Value = response.json().await.unwrap();
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(all["manifests"][0]["annotations"], json!({"a": "b"}));
    for query in ["?artifactType=x/sbom%2Bjson", "?artifactType=x/sbom+json"] {
        let response = list(query).await;
        assert_eq!(headers(&response, "oci-filters-applied"), ["artifactType"]);
        let some: Value = response.json().await.unwrap();
        assert_eq!(some["manifests"].as_array().unwrap().len(), 1, "{query}");
        assert_eq!(some["manifests"][0]["digest"], digest_of(&sbom).to_string());
    }
    let config: Value = list(&format!("?artifactType={}", media_type::OCI_EMPTY)).await.json().await.unwrap();
    assert_eq!(config["manifests"][0]["digest"], digest_of(&signature).to_string());

    let path = format!("/v2/a/manifests/{}", digest_of(&sbom));
    assert_eq!(http().delete(server.url(&path)).send().await.unwrap().status(), 202);
    let rest: Value = list("").await.json().await.unwrap();
    assert_eq!(rest["manifests"].as_array().unwrap().len(), 1);

    for (path, expected) in [
        (format!("/v2/nobody/referrers/{}", subject.digest), 200),
        (format!("/v2/a/referrers/{}", Digest::of(Algorithm::Sha512, b"x")), 200),
        ("/v2/a/referrers/blake3:00".to_owned(), 200),
        ("/v2/a/referrers/sha256:00".to_owned(), 400),
        ("/v2/a/referrers/latest".to_owned(), 400),
    ] {
        assert_eq!(get(&server, &path).await.status(), expected, "{path}");
    }
}

#[tokio::test]
async fn many_referrers_come_in_pages() {
    let limits = oci_registry::storage::Limits { max_manifest_size: 2000, ..Default::default() };
    let server = Server::start_with(Arc::new(Anonymous), limits).await;
    let (subject, _) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    for number in 0..20 {
        let manifest = about(&subject.digest, Some(&format!("x/{number}")));
        let path = format!("/v2/a/manifests/{}", digest_of(&manifest));
        assert_eq!(put(&server, &path, media_type::OCI_MANIFEST, &manifest).await.status(), 201);
    }
    let (mut path, mut found, mut pages) = (format!("/v2/a/referrers/{}", subject.digest), Vec::new(), 0);
    loop {
        let response = get(&server, &path).await;
        let next = headers(&response, "link").pop();
        let body: Value = response.json().await.unwrap();
        found
            .extend(body["manifests"].as_array().unwrap().iter().map(|one| one["digest"].as_str().unwrap().to_owned()));
        pages += 1;
        match next {
            Some(next) => path = next.trim_start_matches('<').split('>').next().unwrap().to_owned(),
            None => break,
        }
    }
    found.sort();
    found.dedup();
    assert!(found.len() == 20 && pages > 1, "{} on {pages} pages", found.len());
}

#[tokio::test]
async fn the_tag_schema_for_referrers_is_tags_like_others() {
    let server = Server::start().await;
    let (subject, _) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let path = format!("/v2/a/manifests/{}", subject.digest.to_string().replace(':', "-"));
    assert_eq!(get(&server, &path).await.status(), 404);
    let list = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [subject]});
    assert_eq!(put(&server, &path, media_type::OCI_INDEX, &list).await.status(), 201);
    let stored = get(&server, &path).await;
    assert_eq!(headers(&stored, "content-type"), [media_type::OCI_INDEX]);
    assert_eq!(stored.json::<Value>().await.unwrap(), list);

    // Two clients that have read the same list: the second learns that it must read again.
    let etag = headers(&get(&server, &path).await, "etag").remove(0);
    let change = async |condition: &str, value: &str, list: &Value| {
        let request = http().put(server.url(&path)).header("content-type", media_type::OCI_INDEX);
        request.header(condition, value).body(list.to_string()).send().await.unwrap()
    };
    let longer = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [subject], "a": 1});
    assert_eq!(change("if-match", &etag, &longer).await.status(), 201);
    let refused = change("if-match", &etag, &list).await;
    assert_eq!(code_of(refused).await.0, 412);
    assert_eq!(change("if-none-match", "*", &list).await.status(), 412);
    assert_eq!(get(&server, &path).await.json::<Value>().await.unwrap(), longer);
}

#[tokio::test]
async fn several_tags_with_one_push() {
    let server = Server::start().await;
    let (before, _) = push_image(&server.client(), &name("a"), "1", b"layer").await;
    let manifest = about(&before.digest, None);
    let digest = digest_of(&manifest);
    let path = format!("/v2/a/manifests/{digest}?tag=1.2.3&tag=1&tag=latest");
    let stored = put(&server, &path, media_type::OCI_MANIFEST, &manifest).await;
    assert_eq!(stored.status(), 201);
    assert_eq!(headers(&stored, "oci-tag"), ["1.2.3", "1", "latest"]);
    for text in ["1.2.3", "1", "latest"] {
        let found = server.registry.resolve(&name("a"), &tag(text)).await.unwrap().unwrap();
        assert_eq!(found.digest, digest, "{text}");
    }
    for (query, status) in [("tag=.hidden".to_owned(), 400), ("tag=x&".repeat(101), 414)] {
        let path = format!("/v2/a/manifests/{digest}?{query}");
        let refused = put(&server, &path, media_type::OCI_MANIFEST, &manifest).await;
        assert_eq!(code_of(refused).await.0, status);
    }
    assert_eq!(server.registry.tags(&name("a")).await.unwrap().len(), 3);
}

#[tokio::test]
async fn sha512_from_the_first_byte_to_the_last() {
    let server = Server::start().await;
    let (config, layer) = (Digest::of(Algorithm::Sha512, b"{}"), Digest::of(Algorithm::Sha512, b"layer"));
    let whole = http().post(server.url(&format!("/v2/a/blobs/uploads/?digest={config}"))).body("{}");
    assert_eq!(whole.send().await.unwrap().status(), 201);
    let begun = http().post(server.url("/v2/a/blobs/uploads/?digest-algorithm=sha512")).send().await.unwrap();
    let session = format!("{}?digest={layer}", headers(&begun, "location")[0]);
    assert_eq!(http().put(server.url(&session)).body("layer").send().await.unwrap().status(), 201);
    let unknown = http().post(server.url("/v2/a/blobs/uploads/?digest-algorithm=md5")).send().await.unwrap();
    assert_eq!(code_of(unknown).await, (400, "DIGEST_INVALID".to_owned()));

    let manifest = json!({
        "schemaVersion": 2, "config": Descriptor::new(media_type::OCI_EMPTY, config, 2),
        "layers": [Descriptor::new("x/y", layer, 5)],
    });
    let digest = Digest::of(Algorithm::Sha512, manifest.to_string().as_bytes());
    let path = format!("/v2/a/manifests/{digest}?tag=1");
    let stored = put(&server, &path, media_type::OCI_MANIFEST, &manifest).await;
    assert_eq!(headers(&stored, "docker-content-digest"), [digest.to_string()]);
    let by_tag = get(&server, "/v2/a/manifests/1").await;
    assert_eq!(headers(&by_tag, "docker-content-digest"), [digest.to_string()]);
    assert!(server.root().join("blobs/sha512").join(digest.hex()).exists());
}

/// Only what begins with `open/` may be pulled.
struct Open;

impl Access for Open {
    fn check<'a>(
        &'a self,
        _: Asker<'a>,
        repository: Option<&'a RepositoryName>,
        action: Action,
    ) -> BoxFuture<'a, Decision> {
        let hidden = action == Action::Pull && repository.is_some_and(|name| !name.as_str().starts_with("open/"));
        Box::pin(async move { if hidden { Decision::Deny } else { Decision::Allow { user: "u".to_owned() } } })
    }
}

#[tokio::test]
async fn the_catalog_has_what_the_asker_may_pull() {
    let off = Server::start().await;
    assert_eq!(code_of(get(&off, "/v2/_catalog").await).await, (404, "UNSUPPORTED".to_owned()));

    let server = Server::start_options(Options { catalog: true, ..Options::new(Arc::new(Open)) }).await;
    for repository in ["closed", "open/b", "open/a/deep", "open/c", "zzz"] {
        let digest = Digest::sha256_of(b"x");
        let push = http().post(server.url(&format!("/v2/{repository}/blobs/uploads/?digest={digest}"))).body("x");
        assert_eq!(push.send().await.unwrap().status(), 201);
    }
    for (query, names, link) in [
        ("", vec!["open/a/deep", "open/b", "open/c"], None),
        ("?n=2", vec!["open/a/deep", "open/b"], Some("</v2/_catalog?n=2&last=open/b>; rel=\"next\"")),
        ("?n=2&last=open/b", vec!["open/c"], None),
        ("?n=3", vec!["open/a/deep", "open/b", "open/c"], None),
        ("?n=0", vec![], None),
    ] {
        let response = get(&server, &format!("/v2/_catalog{query}")).await;
        assert_eq!(headers(&response, "link").first().map(String::as_str), link, "{query}");
        assert_eq!(response.json::<Value>().await.unwrap(), json!({"repositories": names}), "{query}");
    }
}
