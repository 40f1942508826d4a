//! SIGKILL before every system call that changes a file: while a registry is pushed to, mounts and deletes, and while
//! it collects. strace counts the calls of each thread; one thread does all the work on files.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oci_registry::storage::Storage;
use oci_registry::storage::maintenance::{CheckOptions, CollectOptions};
use oci_registry::{Descriptor, Digest, Selector, media_type};
use reqwest::{Client, Method, Response, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::{http, name};
use crate::stock::{image, reopen};

/// What makes, changes or removes a file, or brings it to the disk.
const CALLS: &str =
    "openat,write,ftruncate,fsync,fdatasync,utimensat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir";
/// More calls than there are, and the most that strace counts to.
const NEVER: usize = 65_535;
/// Kills of each kind in the quick tier; the long one has one for every call.
const SAMPLES: usize = 80;
/// At the same time.
const RUNNERS: usize = 4;
const FIRST: &[u8] = b"the first layer, which comes in two parts";
const SECOND: &[u8] = b"the second layer, which comes at once";

/// What the registry has acknowledged, and so must have whenever it is started again.
#[derive(Debug, Clone, Default)]
struct Acknowledged {
    /// By repository and digest.
    blobs: BTreeMap<(String, Digest), Vec<u8>>,
    /// By repository and digest or tag.
    manifests: BTreeMap<(String, String), String>,
}

fn program() -> Option<PathBuf> {
    let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/serve");
    let traces = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    match traces {
        Ok(status) if status.success() && program.exists() => return Some(program),
        Ok(status) if status.success() => eprintln!("NOT RUN: kill: {} is missing", program.display()),
        Ok(_) => eprintln!("NOT RUN: kill: strace may not trace here"),
        Err(_) => eprintln!("NOT RUN: kill: strace is missing"),
    }
    None
}

/// Before which call a program is killed: the how manieth of its name in any one thread.
#[derive(Debug, Clone)]
struct Point {
    call: String,
    number: usize,
}

impl Point {
    fn never() -> Self {
        Self { call: "openat".to_owned(), number: NEVER }
    }
}

/// A traced program that is killed.
fn traced(program: &Path, at: &Point, log: &Path, arguments: &[&str]) -> Child {
    let (trace, inject) = (format!("trace={CALLS}"), format!("inject={}:signal=SIGKILL:when={}", at.call, at.number));
    Command::new("strace")
        .args(["-f", "-qq", "-e", &trace, "-e", &inject, "-o"])
        .arg(log)
        .arg(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Every point that a run has come by.
fn points(log: &Path) -> Vec<Point> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let (thread, rest) = line.split_once(' ').unwrap();
        // A call that another thread came in between has a second line, which begins otherwise.
        let name = rest.trim_start().split_once('(').map(|(name, _)| name);
        if let Some(name) = name.filter(|name| CALLS.split(',').any(|call| call == *name)) {
            *counts.entry((name.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((call, _), count) in counts {
        let most = most.entry(call).or_default();
        *most = count.max(*most);
    }
    let all = most.into_iter().flat_map(|(call, count)| (1..=count).map(move |number| (call.clone(), number)));
    all.map(|(call, number)| Point { call, number }).collect()
}

fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Calls `kill` with the points, or with some of them.
async fn everywhere<F: Future<Output = ()> + Send + 'static>(points: Vec<Point>, kill: impl Fn(Point) -> F) {
    let step = if std::env::var_os("CAIRN_LONG").is_some() { 1 } else { points.len().div_ceil(SAMPLES) };
    let mut points = points.into_iter().step_by(step).map(kill);
    let mut running = tokio::task::JoinSet::new();
    loop {
        match points.next() {
            Some(next) => drop(running.spawn(next)),
            None if running.is_empty() => break,
            None => running.join_next().await.unwrap().unwrap(),
        }
        if running.len() == RUNNERS {
            running.join_next().await.unwrap().unwrap();
        }
    }
}

/// Kills what strace runs, which ends strace too.
fn end(mut strace: Child) {
    let children = format!("/proc/{0}/task/{0}/children", strace.id());
    for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
        let process = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
    strace.wait().unwrap();
}

struct Scenario {
    client: Client,
    address: String,
    acknowledged: Acknowledged,
}

/// The server is gone.
struct Killed;

impl Scenario {
    async fn send(&self, method: Method, path: &str, kind: &str, body: &[u8]) -> Result<Response, Killed> {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("http://{}{path}", self.address) };
        let request = self.client.request(method, url).header(header::CONTENT_TYPE, kind).body(body.to_vec());
        let response = request.send().await.map_err(|_| Killed)?;
        assert!(response.status().is_success(), "{path}: {}", response.status());
        Ok(response)
    }

    async fn begin(&self, repository: &str) -> Result<String, Killed> {
        let answer = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), "x/y", b"").await?;
        let location = answer.headers()[header::LOCATION].to_str().unwrap();
        Ok(if location.starts_with('/') { format!("http://{}{location}", self.address) } else { location.to_owned() })
    }

    fn has_blob(&mut self, repository: &str, content: &[u8]) {
        self.acknowledged.blobs.insert((repository.to_owned(), Digest::sha256_of(content)), content.to_vec());
    }

    async fn in_parts(&mut self, repository: &str, content: &[u8]) -> Result<(), Killed> {
        let location = self.begin(repository).await?;
        let (first, second) = content.split_at(10);
        self.send(Method::PATCH, &location, "application/octet-stream", first).await?;
        self.send(Method::PATCH, &location, "application/octet-stream", second).await?;
        let digest = Digest::sha256_of(content);
        self.send(Method::PUT, &format!("{location}?digest={digest}"), "x/y", b"").await?;
        self.has_blob(repository, content);
        Ok(())
    }

    async fn at_once(&mut self, repository: &str, content: &[u8]) -> Result<(), Killed> {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", Digest::sha256_of(content));
        self.send(Method::POST, &path, "application/octet-stream", content).await?;
        self.has_blob(repository, content);
        Ok(())
    }

    async fn mount(&mut self, repository: &str, from: &str, content: &[u8]) -> Result<(), Killed> {
        let digest = Digest::sha256_of(content);
        let path = format!("/v2/{repository}/blobs/uploads/?mount={digest}&from={from}");
        let answer = self.send(Method::POST, &path, "x/y", b"").await?;
        assert_eq!(answer.status(), StatusCode::CREATED);
        self.has_blob(repository, content);
        Ok(())
    }

    /// Under a tag, or under its digest alone where the tag is empty.
    async fn manifest(&mut self, repository: &str, tag: &str, manifest: &Value) -> Result<Descriptor, Killed> {
        let text = manifest.to_string();
        let kind = manifest["mediaType"].as_str().unwrap();
        let descriptor = Descriptor::new(kind, Digest::sha256_of(text.as_bytes()), text.len() as u64);
        let reference = if tag.is_empty() { descriptor.digest.to_string() } else { tag.to_owned() };
        // A tag that moves may stand on either side of that.
        self.acknowledged.manifests.remove(&(repository.to_owned(), reference.clone()));
        self.send(Method::PUT, &format!("/v2/{repository}/manifests/{reference}"), kind, text.as_bytes()).await?;
        self.acknowledged.manifests.insert((repository.to_owned(), reference), text.clone());
        self.acknowledged.manifests.insert((repository.to_owned(), descriptor.digest.to_string()), text);
        Ok(descriptor)
    }

    async fn delete_manifest(&mut self, repository: &str, reference: &str) -> Result<(), Killed> {
        let gone = self.acknowledged.manifests.remove(&(repository.to_owned(), reference.to_owned())).unwrap();
        if reference.contains(':') {
            // Its tags go with it.
            self.acknowledged.manifests.retain(|(held, _), text| held != repository || *text != gone);
        }
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send(Method::DELETE, &path, "x/y", b"").await.map(drop)
    }

    async fn delete_blob(&mut self, repository: &str, content: &[u8]) -> Result<(), Killed> {
        let digest = Digest::sha256_of(content);
        self.acknowledged.blobs.remove(&(repository.to_owned(), digest.clone()));
        self.send(Method::DELETE, &format!("/v2/{repository}/blobs/{digest}"), "x/y", b"").await.map(drop)
    }

    async fn run(&mut self) -> Result<(), Killed> {
        self.in_parts("a", FIRST).await?;
        self.at_once("a", SECOND).await?;
        self.at_once("a", b"{}").await?;
        let layer = |content: &[u8]| Descriptor::new("x/y", Digest::sha256_of(content), content.len() as u64);
        let first = self.manifest("a", "1", &image(&layer(FIRST), None)).await?;
        self.manifest("a", "", &image(&layer(SECOND), Some(&first))).await?;
        let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [first]});
        self.manifest("a", "all", &index).await?;
        let second = self.manifest("a", "1", &image(&layer(SECOND), None)).await?;
        self.manifest("a", "", &image(&layer(b"{}"), Some(&second))).await?;
        for content in [FIRST, SECOND, b"{}"] {
            self.mount("b/c", "a", content).await?;
        }
        let copy = self.manifest("b/c", "1", &image(&layer(FIRST), None)).await?;
        self.manifest("b/c", "kept", &image(&layer(SECOND), None)).await?;
        self.delete_manifest("a", "all").await?;
        self.delete_manifest("b/c", &copy.digest.to_string()).await?;
        self.delete_blob("b/c", FIRST).await
    }
}

/// Serves until the scenario is over or the server was killed; `true` when it was over.
async fn serve(program: &Path, root: &Path, at: &Point, log: &Path) -> (bool, Acknowledged) {
    let mut strace = traced(program, at, log, &["--single-thread", root.to_str().unwrap()]);
    let mut address = String::new();
    std::io::BufReader::new(strace.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let (client, address) = (http(), address.trim().to_owned());
    let mut scenario = Scenario { client, address, acknowledged: Acknowledged::default() };
    let done = !scenario.address.is_empty() && scenario.run().await.is_ok();
    end(strace);
    (done, scenario.acknowledged)
}

/// `true` when it was over before it was killed.
fn collect(program: &Path, root: &Path, at: &Point, log: &Path) -> bool {
    let strace = traced(program, at, log, &["--single-thread", "--collect", root.to_str().unwrap()]);
    strace.wait_with_output().unwrap().status.success()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_may_be_killed_at_any_call() {
    let Some(program) = program() else { return };
    let whole = directory();
    let log = whole.path().join("log");
    let (done, _) = serve(&program, &whole.path().join("root"), &Point::never(), &log).await;
    assert!(done);
    let points = points(&log);
    let calls = points.len();
    let killed = Arc::new(AtomicUsize::new(0));
    everywhere(points, |at| {
        let (program, killed) = (program.clone(), Arc::clone(&killed));
        async move {
            let directory = directory();
            let root = directory.path().join("root");
            let (done, acknowledged) = serve(&program, &root, &at, Path::new("/dev/null")).await;
            killed.fetch_add(usize::from(!done), Ordering::Relaxed);
            assert_sound(&root, &acknowledged, &format!("killed at {at:?}")).await;
        }
    })
    .await;
    let killed = killed.load(Ordering::Relaxed);
    eprintln!("serving: {calls} calls, killed {killed} times");
    assert!(killed >= SAMPLES / 2, "{killed} of {calls}");
}

#[tokio::test]
async fn a_collection_may_be_killed_at_any_call() {
    let Some(program) = program() else { return };
    let whole = Arc::new(directory());
    let (log, before) = (whole.path().join("log"), whole.path().join("before"));
    let (done, acknowledged) = serve(&program, &before, &Point::never(), &log).await;
    assert!(done);
    // Something that was taken out earlier, and goes for good.
    let earlier = before.join("quarantine/7");
    copy(&before.join("blobs"), &earlier.join("blobs"));
    copy(&before.join("repositories/a/_blobs"), &earlier.join("repositories/a/_blobs"));

    let after = whole.path().join("after");
    copy(&before, &after);
    assert!(collect(&program, &after, &Point::never(), &log));
    let points = points(&log);
    let calls = points.len();
    let kept = Arc::new(kept(&after, acknowledged).await);
    let killed = Arc::new(AtomicUsize::new(0));
    everywhere(points, |at| {
        let (program, killed, kept, before) = (program.clone(), Arc::clone(&killed), Arc::clone(&kept), before.clone());
        async move {
            let directory = directory();
            let root = directory.path().join("root");
            copy(&before, &root);
            let done = collect(&program, &root, &at, Path::new("/dev/null"));
            killed.fetch_add(usize::from(!done), Ordering::Relaxed);
            assert_sound(&root, &kept, &format!("killed at {at:?}")).await;
        }
    })
    .await;
    let killed = killed.load(Ordering::Relaxed);
    eprintln!("collecting: {calls} calls, killed {killed} times");
    assert!(killed >= SAMPLES / 2, "{killed} of {calls}");
}

/// What a collection leaves of what was acknowledged.
async fn kept(root: &Path, mut acknowledged: Acknowledged) -> Acknowledged {
    let storage = reopen(root).await;
    let all = (acknowledged.blobs.len(), acknowledged.manifests.len());
    for key in acknowledged.blobs.keys().cloned().collect::<Vec<_>>() {
        if storage.blob_size(&name(&key.0), &key.1).await.unwrap().is_none() {
            acknowledged.blobs.remove(&key);
        }
    }
    for key in acknowledged.manifests.keys().cloned().collect::<Vec<_>>() {
        if storage.manifest(&name(&key.0), &key.1.parse().unwrap()).await.unwrap().is_none() {
            assert!(key.1.contains(':'), "tag {key:?} is gone");
            acknowledged.manifests.remove(&key);
        }
    }
    let left = (acknowledged.blobs.len(), acknowledged.manifests.len());
    assert!(left.0 < all.0 && left.1 < all.1 && left.0 > 0 && left.1 > 0, "{left:?} of {all:?}");
    acknowledged
}

/// What must be so after any kill: everything that was acknowledged is there, and everything that can be seen is whole.
async fn assert_sound(root: &Path, acknowledged: &Acknowledged, what: &str) {
    let storage = reopen(root).await;
    assert_eq!(std::fs::read_dir(root.join("tmp")).unwrap().count(), 0, "{what}");
    assert_intact(&storage, acknowledged, what).await;
    let usage = storage.usage();
    drop(storage);
    let storage = reopen(root).await;
    assert_eq!(storage.usage(), usage, "{what}");
    // The next collection copes with what it finds. Then everything but what was tagged may go.
    storage.collect(CollectOptions::default()).await.unwrap();
    let tags = acknowledged.manifests.iter().filter(|((_, reference), _)| !reference.contains(':'));
    let tagged = Acknowledged { manifests: tags.map(|(k, v)| (k.clone(), v.clone())).collect(), ..Default::default() };
    assert_intact(&storage, &tagged, what).await;
}

async fn assert_intact(storage: &Storage, acknowledged: &Acknowledged, what: &str) {
    for ((repository, digest), content) in &acknowledged.blobs {
        let blob = storage.blob(&name(repository), digest).await.unwrap();
        let mut blob = blob.unwrap_or_else(|| panic!("{what}: blob {digest} of {repository} is gone")).file;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut blob, &mut bytes).unwrap();
        assert_eq!(&bytes, content, "{what}");
    }
    for ((repository, reference), text) in &acknowledged.manifests {
        let selector: Selector = reference.parse().unwrap();
        let manifest = storage.manifest(&name(repository), &selector).await.unwrap();
        let (_, bytes) = manifest.unwrap_or_else(|| panic!("{what}: {repository} {reference} is gone"));
        assert_eq!(bytes, text.as_bytes(), "{what}");
    }
    assert_eq!(storage.check(CheckOptions::default(), |_| ()).await.unwrap().findings, [], "{what}");
}
