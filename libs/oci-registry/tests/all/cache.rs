//! A registry that is a cache of another one: both are real.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use oci_registry::cache::Upstream;
use oci_registry::server::{Access, Action, Anonymous, Asker, Decision, EventAction, Options, Route};
use oci_registry::{Descriptor, Digest, RepositoryName, media_type};
use reqwest::Method;

use crate::fixture::{Server, client_of, code_of, http, name, noise, push_image, tag};

/// Where the upstream's repositories appear.
pub(crate) const PREFIX: &str = "mirror/up";

/// An upstream that is asked anew each time, however it behaved before.
pub(crate) fn upstream(address: std::net::SocketAddr) -> Upstream {
    Upstream { pause: Duration::ZERO, ..Upstream::new(name(PREFIX), client_of(address)) }
}

/// A cache of the registry at this address.
pub(crate) async fn cache_of(address: std::net::SocketAddr) -> Server {
    cache(Options::new(Arc::new(Anonymous)), vec![upstream(address)]).await
}

pub(crate) async fn cache(options: Options, upstreams: Vec<Upstream>) -> Server {
    Server::start_options(Options { cache: upstreams, ..options }).await
}

/// Ends a registry; nothing listens at its address when this returns.
pub(crate) async fn stop(server: Server) {
    let address = server.address;
    drop(server);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn get(server: &Server, path: &str) -> reqwest::Response {
    http().get(server.url(path)).send().await.unwrap()
}

/// Status, `Warning`, and the whole body.
async fn whole(server: &Server, path: &str) -> (u16, Option<String>, Bytes) {
    let response = get(server, path).await;
    let warning = response.headers().get("warning").map(|value| value.to_str().unwrap().to_owned());
    (response.status().as_u16(), warning, response.bytes().await.unwrap())
}

fn requests(server: &Server, route: Route) -> usize {
    server.heard.requests.lock().unwrap().iter().filter(|(one, _)| *one == route).count()
}

#[tokio::test]
async fn the_first_pull_fills_and_the_second_needs_no_upstream() {
    let up = Server::start().await;
    let bytes = noise(40, 3_000_000);
    let (manifest, layer) = push_image(&up.client(), &name("x/y"), "1", &bytes).await;
    let (_, sent) = up.client().manifest(&name("x/y"), &tag("1")).await.unwrap();
    let mut cache = cache_of(up.address).await;
    let config = Digest::sha256_of(b"{}");
    let by_tag = format!("/v2/{PREFIX}/x/y/manifests/1");
    let by_digest = format!("/v2/{PREFIX}/x/y/manifests/{}", manifest.digest);
    let blob = format!("/v2/{PREFIX}/x/y/blobs/{}", layer.digest);
    let small = format!("/v2/{PREFIX}/x/y/blobs/{config}");

    assert_eq!(whole(&cache, &by_tag).await, (200, None, sent.clone()));
    assert_eq!(whole(&cache, &small).await, (200, None, Bytes::from_static(b"{}")));
    assert!(whole(&cache, &blob).await == (200, None, Bytes::from(bytes.clone())));
    assert_eq!(whole(&cache, &by_tag).await, (200, None, sent.clone()));
    assert!(cache.leftovers().is_empty(), "{:?}", cache.leftovers());
    // A pull is a pull, wherever the bytes come from.
    let events: Vec<_> = cache.heard.events.lock().unwrap().iter().map(|event| (event.action, event.size)).collect();
    let manifest_pulled = (EventAction::PullManifest, Some(manifest.size));
    let blobs_pulled = [2, 3_000_000].map(|size| (EventAction::PullBlob, Some(size)));
    assert_eq!(events, [manifest_pulled, blobs_pulled[0], blobs_pulled[1], manifest_pulled]);

    stop(up).await;
    for _ in 0..2 {
        let (status, warning, received) = whole(&cache, &by_tag).await;
        assert_eq!((status, &received), (200, &sent));
        assert!(warning.as_deref().is_some_and(|text| text.starts_with("299 - \"")), "{warning:?}");
        assert_eq!(whole(&cache, &by_digest).await, (200, None, sent.clone()));
        assert_eq!(whole(&cache, &small).await, (200, None, Bytes::from_static(b"{}")));
        assert!(whole(&cache, &blob).await == (200, None, Bytes::from(bytes.clone())));
        cache.restart().await;
    }
    assert!(cache.root().join(format!("repositories/{PREFIX}/x/y/_cached")).is_file());
}

#[tokio::test]
async fn a_tag_that_moves_is_followed_and_one_that_goes_stays() {
    let up = Server::start().await;
    let cache = cache_of(up.address).await;
    let (client, local) = (cache.client(), name("mirror/up/x"));
    let (first, _) = push_image(&up.client(), &name("x"), "1", b"first").await;
    assert_eq!(client.resolve(&local, &tag("1")).await.unwrap(), first);
    let (second, _) = push_image(&up.client(), &name("x"), "1", b"second").await;
    assert_eq!(client.resolve(&local, &tag("1")).await.unwrap(), second);
    // Back again: what is here is not fetched once more.
    push_image(&up.client(), &name("x"), "1", b"first").await;
    assert_eq!(client.resolve(&local, &tag("1")).await.unwrap(), first);
    assert_eq!(cache.registry.resolve(&local, &tag("1")).await.unwrap(), Some(first.clone()));

    let removed = http().delete(up.url("/v2/x/manifests/1")).send().await.unwrap();
    assert_eq!(removed.status(), 202);
    let (status, warning, _) = whole(&cache, "/v2/mirror/up/x/manifests/1").await;
    assert_eq!(status, 200);
    assert!(warning.is_some_and(|text| text.contains("no longer has this tag")));
    assert_eq!(client.resolve(&local, &first.digest.into()).await.unwrap().size, first.size);
}

#[tokio::test]
async fn callers_in_the_same_process_are_served_by_the_cache_too() {
    let up = Server::start().await;
    let (manifest, _) = push_image(&up.client(), &name("x"), "1", b"layer").await;
    let cache = cache_of(up.address).await;
    let local = name("mirror/up/x");
    assert_eq!(cache.registry.resolve(&local, &tag("1")).await.unwrap(), Some(manifest.clone()));
    assert_eq!(cache.registry.resolve(&local, &tag("2")).await.unwrap(), None);
    let (found, _) = cache.registry.manifest(&local, &manifest.digest.clone().into()).await.unwrap().unwrap();
    assert_eq!(found.digest, manifest.digest);
}

#[tokio::test]
async fn what_is_made_is_nobody_elses_business() {
    rustix::process::umask(rustix::fs::Mode::empty());
    let up = Server::start().await;
    let (_, layer) = push_image(&up.client(), &name("x"), "1", &noise(40, 3_000)).await;
    let cache = cache_of(up.address).await;
    whole(&cache, "/v2/mirror/up/x/manifests/1").await;
    whole(&cache, &format!("/v2/mirror/up/x/blobs/{}", layer.digest)).await;
    assert_eq!(http().post(up.url("/v2/x/blobs/uploads/")).send().await.unwrap().status(), 202);
    for server in [&up, &cache] {
        let mut waiting: Vec<_> =
            std::fs::read_dir(server.root()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(waiting.len() > 5);
        while let Some(path) = waiting.pop() {
            let metadata = path.metadata().unwrap();
            let expected = if metadata.is_dir() { 0o750 } else { 0o640 };
            assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{}", path.display());
            if metadata.is_dir() {
                waiting.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }
}

#[tokio::test]
async fn many_first_pulls_are_one_request() {
    let up = Server::start().await;
    let bytes = noise(41, 2_000_000);
    let (_, layer) = push_image(&up.client(), &name("x"), "1", &bytes).await;
    let cache = cache_of(up.address).await;
    let (manifests, blobs) = (requests(&up, Route::Manifest), requests(&up, Route::Blob));
    let pull = || async {
        let manifest = whole(&cache, "/v2/mirror/up/x/manifests/1").await.2;
        let blob = whole(&cache, &format!("/v2/mirror/up/x/blobs/{}", layer.digest)).await;
        assert!(blob == (200, None, Bytes::from(bytes.clone())));
        manifest
    };
    let pulled = join_all((0..16).map(|_| pull())).await;
    assert!(pulled.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(requests(&up, Route::Blob) - blobs, 1);
    assert_eq!(cache.heard.downloaded.load(Ordering::SeqCst), 16 * 2_000_000);
    // A tag is looked up again by whoever comes after an answer; nobody asks beside another.
    assert!((1..=16).contains(&(requests(&up, Route::Manifest) - manifests)));
}

#[tokio::test]
async fn ranges_and_heads_of_what_is_not_here_yet() {
    let up = Server::start().await;
    let bytes = noise(42, 3_000_000);
    let (_, layer) = push_image(&up.client(), &name("x"), "1", &bytes).await;
    let (_, other) = push_image(&up.client(), &name("x"), "2", b"small").await;
    let cache = cache_of(up.address).await;
    let url = cache.url(&format!("/v2/mirror/up/x/blobs/{}", layer.digest));

    let head = http().head(&url).send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["content-length"].to_str().unwrap()), (200, "3000000"));
    assert_eq!(head.headers()["docker-content-digest"].to_str().unwrap(), layer.digest.to_string());
    assert_eq!(cache.registry.storage_usage().blobs, 0);

    let part = http().get(&url).header("range", "bytes=2000000-2000099").send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.headers()["content-range"].to_str().unwrap(), "bytes 2000000-2000099/3000000");
    assert!(part.bytes().await.unwrap() == bytes[2_000_000..2_000_100]);
    let last = http().get(&url).header("range", "bytes=-1").send().await.unwrap();
    assert!(last.bytes().await.unwrap() == bytes[2_999_999..]);
    let beyond = http().get(&url).header("range", "bytes=3000000-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    let small = cache.url(&format!("/v2/mirror/up/x/blobs/{}", other.digest));
    let part = http().get(&small).header("range", "bytes=1-2").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap()), (206, Bytes::from_static(b"ma")));
}

#[tokio::test]
async fn an_index_is_kept_without_its_children() {
    let up = Server::start().await;
    let (first, layer) = push_image(&up.client(), &name("x"), "amd64", b"first").await;
    let (second, _) = push_image(&up.client(), &name("x"), "arm64", b"second").await;
    let index =
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [first, second]});
    let index = Bytes::from(index.to_string());
    up.client().push_manifest(&name("x"), &tag("all"), media_type::OCI_INDEX, index.clone()).await.unwrap();

    let cache = cache_of(up.address).await;
    let path = |digest: &Digest| format!("/v2/mirror/up/x/manifests/{digest}");
    assert_eq!(whole(&cache, "/v2/mirror/up/x/manifests/all").await.2, index);
    assert_eq!(whole(&cache, &path(&first.digest)).await.0, 200);
    assert_eq!(whole(&cache, &format!("/v2/mirror/up/x/blobs/{}", layer.digest)).await.0, 200);
    stop(up).await;
    assert_eq!(whole(&cache, "/v2/mirror/up/x/manifests/all").await.2, index);
    assert_eq!(whole(&cache, &path(&first.digest)).await.0, 200);
    assert_eq!(code_of(get(&cache, &path(&second.digest)).await).await, (502, "UPSTREAM_FAILED".to_owned()));
}

#[tokio::test]
async fn a_layer_that_another_cached_repository_has_is_not_sent_again() {
    let up = Server::start().await;
    let bytes = noise(43, 1_000_000);
    let (_, layer) = push_image(&up.client(), &name("a"), "1", &bytes).await;
    push_image(&up.client(), &name("b"), "1", &bytes).await;
    let cache = cache_of(up.address).await;
    whole(&cache, &format!("/v2/mirror/up/a/blobs/{}", layer.digest)).await;
    let sent = up.heard.downloaded.load(Ordering::SeqCst);
    let of_b = whole(&cache, &format!("/v2/mirror/up/b/blobs/{}", layer.digest)).await;
    assert!(of_b == (200, None, Bytes::from(bytes)));
    assert_eq!(up.heard.downloaded.load(Ordering::SeqCst), sent);
    // Only the upstream's word makes it another repository's too.
    let of_c = get(&cache, &format!("/v2/mirror/up/c/blobs/{}", layer.digest)).await;
    assert_eq!(code_of(of_c).await, (404, "BLOB_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn tags_are_the_upstreams_and_from_here_without_it() {
    let up = Server::start().await;
    for text in ["1", "2", "3"] {
        push_image(&up.client(), &name("x"), text, text.as_bytes()).await;
    }
    let cache = cache_of(up.address).await;
    let tags = |body: Bytes| serde_json::from_slice::<serde_json::Value>(&body).unwrap();
    let (_, warning, body) = whole(&cache, "/v2/mirror/up/x/tags/list").await;
    assert_eq!((warning, tags(body)), (None, serde_json::json!({"name": "mirror/up/x", "tags": ["1", "2", "3"]})));
    let page = get(&cache, "/v2/mirror/up/x/tags/list?n=1&last=1").await;
    assert_eq!(page.headers()["link"].to_str().unwrap(), "</v2/mirror/up/x/tags/list?n=1&last=2>; rel=\"next\"");
    assert_eq!(tags(page.bytes().await.unwrap())["tags"], serde_json::json!(["2"]));
    let unknown = get(&cache, "/v2/mirror/up/nothing/tags/list").await;
    assert_eq!(code_of(unknown).await, (404, "NAME_UNKNOWN".to_owned()));

    whole(&cache, "/v2/mirror/up/x/manifests/2").await;
    stop(up).await;
    let (_, warning, body) = whole(&cache, "/v2/mirror/up/x/tags/list").await;
    assert!(warning.is_some());
    assert_eq!(tags(body)["tags"], serde_json::json!(["2"]));
}

#[tokio::test]
async fn referrers_are_the_upstreams_and_from_here_without_it() {
    let up = Server::start().await;
    let (subject, _) = push_image(&up.client(), &name("x"), "1", b"image").await;
    let mut pushed = Vec::new();
    for kind in ["application/x-signature", "application/x-list"] {
        let artifact = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
            "config": Descriptor::empty(), "layers": [Descriptor::empty()], "subject": subject,
        });
        let bytes = Bytes::from(artifact.to_string());
        let client = up.client();
        let tag = tag(&kind.replace('/', "-"));
        pushed.push(client.push_manifest(&name("x"), &tag, media_type::OCI_MANIFEST, bytes).await.unwrap().digest);
    }
    let cache = cache_of(up.address).await;
    let url = format!("/v2/mirror/up/x/referrers/{}", subject.digest);
    let listed = |body: Bytes| -> Vec<Digest> {
        let index: oci_registry::Index = serde_json::from_slice(&body).unwrap();
        index.manifests.into_iter().map(|one| one.digest).collect()
    };
    let (status, warning, body) = whole(&cache, &url).await;
    let mut sorted = pushed.clone();
    sorted.sort();
    assert_eq!((status, warning, listed(body)), (200, None, sorted));
    let filtered = whole(&cache, &format!("{url}?artifactType=application/x-list")).await;
    assert_eq!(listed(filtered.2), [pushed[1].clone()]);

    whole(&cache, &format!("/v2/mirror/up/x/manifests/{}", pushed[0])).await;
    stop(up).await;
    let (status, warning, body) = whole(&cache, &url).await;
    assert_eq!((status, warning.is_some(), listed(body)), (200, true, vec![pushed[0].clone()]));
}

#[tokio::test]
async fn nothing_is_pushed_to_a_cache_or_deleted_in_it() {
    let up = Server::start().await;
    let (manifest, layer) = push_image(&up.client(), &name("x"), "1", b"layer").await;
    let cache = cache_of(up.address).await;
    whole(&cache, "/v2/mirror/up/x/manifests/1").await;
    let session = uuid_like();
    for (method, path) in [
        (Method::POST, "blobs/uploads/".to_owned()),
        (Method::POST, format!("blobs/uploads/?mount={}&from=x", layer.digest)),
        (Method::PATCH, format!("blobs/uploads/{session}")),
        (Method::GET, format!("blobs/uploads/{session}")),
        (Method::PUT, "manifests/1".to_owned()),
        (Method::DELETE, "manifests/1".to_owned()),
        (Method::DELETE, format!("manifests/{}", manifest.digest)),
        (Method::DELETE, format!("blobs/{}", layer.digest)),
    ] {
        let request = http().request(method.clone(), cache.url(&format!("/v2/mirror/up/x/{path}")));
        let refused = request.body("{}").send().await.unwrap();
        assert_eq!(code_of(refused).await, (405, "UNSUPPORTED".to_owned()), "{method} {path}");
    }
    // Beside the prefix, and at it, everything is as ever.
    for ordinary in ["mirror/up", "mirror/upper/x", "x"] {
        push_image(&cache.client(), &name(ordinary), "1", b"own").await;
    }
}

fn uuid_like() -> &'static str {
    "6f9619ff-8b86-4011-b42d-00c04fc964ff"
}

#[tokio::test]
async fn access_is_asked_for_the_name_here() {
    /// `mirror/up/open` may be pulled.
    struct Open;
    impl Access for Open {
        fn check<'a>(
            &'a self,
            _: Asker<'a>,
            repository: Option<&'a RepositoryName>,
            _: Action,
        ) -> BoxFuture<'a, Decision> {
            let decision = match repository.map(RepositoryName::as_str) {
                Some("mirror/up/open") => Decision::Allow { user: "somebody".to_owned() },
                _ => Decision::Deny,
            };
            Box::pin(async { decision })
        }
    }
    let up = Server::start().await;
    for repository in ["open", "closed"] {
        push_image(&up.client(), &name(repository), "1", b"layer").await;
    }
    let before = requests(&up, Route::Manifest);
    let cache = cache(Options::new(Arc::new(Open)), vec![upstream(up.address)]).await;
    let closed = get(&cache, "/v2/mirror/up/closed/manifests/1").await;
    assert_eq!(code_of(closed).await, (403, "DENIED".to_owned()));
    assert_eq!(requests(&up, Route::Manifest), before);
    assert_eq!(get(&cache, "/v2/mirror/up/open/manifests/1").await.status(), 200);
}

#[tokio::test]
async fn the_longest_prefix_counts() {
    let (outer, inner) = (Server::start().await, Server::start().await);
    let (_, layer): (Descriptor, _) = push_image(&outer.client(), &name("x"), "1", b"outer").await;
    let (here, _) = push_image(&inner.client(), &name("x"), "1", b"inner").await;
    let upstreams =
        vec![upstream(outer.address), Upstream { prefix: name("mirror/up/deep"), ..upstream(inner.address) }];
    let cache = cache(Options::new(Arc::new(Anonymous)), upstreams).await;
    assert_eq!(cache.client().resolve(&name("mirror/up/deep/x"), &tag("1")).await.unwrap(), here);
    assert!(cache.client().has_blob(&name("mirror/up/x"), &layer.digest).await.unwrap());
}
