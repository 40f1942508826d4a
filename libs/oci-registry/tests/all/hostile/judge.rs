//! What must hold whatever comes in: no answer with a server's error, every refusal in the form of the specification,
//! nothing written outside of the registry's directory, blobs only with the bytes of their digest.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Request, Response, Uri};
use bytes::Bytes;
use oci_registry::server::{Anonymous, Options, Registry, router};
use oci_registry::{Algorithm, Digest, Index, Manifest, Reference, RepositoryName, Selector, Tag};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use super::asks::Ask;

/// Codes of distribution-spec 1.1, and ours beside them.
const CODES: &[&str] = &[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];
const BLOB: &[u8] = b"blob";

/// A registry with one blob, one manifest, one tag and one upload that was begun, in a directory within a directory.
pub(crate) struct Stand {
    outer: TempDir,
    registry: Arc<Registry>,
    words: BTreeMap<&'static str, String>,
    session: String,
}

impl Stand {
    pub(crate) async fn new() -> Self {
        // In memory where there is such a place: hundreds are made and thrown away, and nobody needs them to last.
        let outer = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::fs::write(outer.path().join("outside"), "outside").unwrap();
        let registry = open(&outer.path().join("root")).await;
        let blob = Digest::sha256_of(BLOB);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"a/b","digest":"{blob}","size":4}},"layers":[]}}"#
        );
        let words = BTreeMap::from([
            ("{blob}", blob.to_string()),
            ("{manifest}", Digest::sha256_of(manifest.as_bytes()).to_string()),
            ("{zeros}", "0".repeat(64)),
        ]);
        let mut stand = Self { outer, registry, words, session: String::new() };
        let content = [("content-type", "application/vnd.oci.image.manifest.v1+json".to_owned())];
        for (method, target, body, status) in [
            ("POST", "/v2/known/repo/blobs/uploads/?digest={body}", BLOB.to_vec(), 201),
            ("PUT", "/v2/known/repo/manifests/tag", manifest.into_bytes(), 201),
            ("POST", "/v2/known/repo/blobs/uploads/", Vec::new(), 202),
        ] {
            let ask = Ask { method, target: target.to_owned(), headers: content.to_vec(), body };
            assert_eq!(stand.meet(&ask).await, Some(status), "{ask:?}");
        }
        stand
    }

    /// Sends a request and judges the answer; gives back its status, unless no request can be made of it.
    pub(crate) async fn meet(&mut self, ask: &Ask) -> Option<u16> {
        let fill = |text: &str| {
            let mut text = text.replace("{session}", &self.session);
            for (word, value) in &self.words {
                text = text.replace(word, value);
            }
            text
        };
        let body =
            String::from_utf8(ask.body.clone()).map_or_else(|_| ask.body.clone(), |text| fill(&text).into_bytes());
        let of_body = Digest::sha256_of(&body).to_string();
        let range = format!("0-{}", body.len().saturating_sub(1));
        let fill = |text: &str| fill(text).replace("{body}", &of_body).replace("{range}", &range);
        let target: Uri = fill(&ask.target).parse().ok()?;
        // Nothing else is routed here.
        if !(target.path() == "/v2" || target.path().starts_with("/v2/")) {
            return None;
        }
        let mut request = Request::builder().method(ask.method).uri(target.clone());
        for (name, value) in &ask.headers {
            let value = HeaderValue::from_str(&fill(value)).ok()?;
            request = request.header(HeaderName::from_static(name), value);
        }
        let request = request.body(Body::from(body)).ok()?;
        let is_whole = !request.headers().contains_key("range");
        let answer = router(Arc::clone(&self.registry)).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        if let Some(place) = answer.headers().get("location").and_then(|place| place.to_str().ok())
            && place.contains("/uploads/")
        {
            let place: Uri = place.parse().unwrap();
            place.path().clone_into(&mut self.session);
        }
        judge(ask, &target, answer, is_whole).await;
        self.look_outside();
        Some(status)
    }

    /// What lies beside the registry's directory, and the names within.
    fn look_outside(&self) {
        let mut beside: Vec<PathBuf> =
            std::fs::read_dir(self.outer.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        beside.sort();
        assert_eq!(beside, ["outside", "root"].map(|name| self.outer.path().join(name)));
        assert_eq!(std::fs::read(self.outer.path().join("outside")).unwrap(), b"outside");
        for entry in std::fs::read_dir(self.outer.path().join("root/repositories")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.starts_with('_') || name.parse::<RepositoryName>().is_ok(), "a repository called {name}");
        }
    }
}

async fn open(root: &Path) -> Arc<Registry> {
    let opened = Registry::open(root, Options { catalog: true, ..Options::new(Arc::new(Anonymous)) }).await;
    Arc::new(opened.unwrap())
}

async fn judge(ask: &Ask, target: &Uri, answer: Response<Body>, is_whole: bool) {
    let status = answer.status().as_u16();
    assert!(status < 500, "{status} to {ask:?}");
    let digest = target.path().rsplit_once("/blobs/").and_then(|(_, digest)| digest.parse::<Digest>().ok());
    let body = to_bytes(answer.into_body(), 64 << 20).await.unwrap();
    if ask.method == "HEAD" {
        assert!(body.is_empty(), "a body after HEAD: {ask:?}");
    } else if status >= 400 {
        check_form(ask, status, &body);
    } else if let (200, "GET", true, Some(digest)) = (status, ask.method, is_whole, digest) {
        assert_eq!(Digest::of(digest.algorithm(), &body), digest, "other bytes to {ask:?}");
    }
}

fn check_form(ask: &Ask, status: u16, body: &Bytes) {
    let told: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = told["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    assert!(!errors.is_empty(), "{status} without the form of the specification to {ask:?}: {body:?}");
    for error in errors {
        let code = error["code"].as_str().unwrap_or_default();
        assert!(CODES.contains(&code) && error["message"].is_string(), "{status} to {ask:?}: {told}");
    }
}

/// Parses a text as everything that clients and settings name.
pub(crate) fn texts(text: &str) {
    /// What is taken is written as it was read.
    fn again<T: FromStr + ToString + PartialEq>(text: &str) -> Option<T> {
        let value = text.parse::<T>().ok()?;
        assert!(value.to_string().parse::<T>().ok().as_ref() == Some(&value), "{text:?} becomes {}", value.to_string());
        Some(value)
    }
    let is_plain = |text: &str| Path::new(text).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(name) = again::<RepositoryName>(text) {
        assert!(is_plain(name.as_str()) && name.as_str() == text, "{text:?}");
    }
    if let Some(tag) = again::<Tag>(text) {
        assert!(is_plain(tag.as_str()) && !tag.as_str().contains('/'), "{text:?}");
    }
    if let Some(digest) = again::<Digest>(text) {
        let length = if digest.algorithm() == Algorithm::Sha256 { 64 } else { 128 };
        assert!(digest.hex().len() == length && digest.hex().bytes().all(|byte| byte.is_ascii_hexdigit()), "{text:?}");
    }
    again::<Selector>(text);
    again::<Reference>(text);
    if let Ok(manifest) = serde_json::from_str::<Manifest>(text) {
        let written = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Manifest>(&written).unwrap()).unwrap(), written);
    }
    if let Ok(index) = serde_json::from_str::<Index>(text) {
        let written = serde_json::to_string(&index).unwrap();
        assert_eq!(serde_json::to_string(&serde_json::from_str::<Index>(&written).unwrap()).unwrap(), written);
    }
}

/// What bytes come to: texts, a challenge to a client, or requests.
pub(crate) fn input(runtime: &Runtime, bytes: &[u8]) {
    let mut choices = super::asks::Choices::new(bytes);
    match choices.below(8) {
        0 => texts(&choices.text()),
        1 => runtime.block_on(super::challenge::meet(&choices.bytes())),
        _ => runtime.block_on(async {
            let asks = super::asks::asks(&mut choices);
            let mut stand = Stand::new().await;
            for ask in &asks {
                stand.meet(ask).await;
            }
        }),
    }
}
