//! The commands: what they print, and how they end.

use clap::{CommandFactory, Parser};
use cli::{Endpoint, Output};
use registry::cli::RegistryCommand;
use registry::settings::{KEYS, RegistrySettings};
use serde_json::Value;
use settings::Resolver;
use web::Problem;

use crate::fixture::{Server, Setup, push_image};

#[derive(Parser)]
#[command(name = "cairn registry")]
struct Words {
    #[command(flatten)]
    endpoint: Box<Endpoint>,
    #[command(subcommand)]
    command: RegistryCommand,
}

/// Runs a command; what it printed, and how it ended.
async fn command(json: bool, words: &[&str]) -> (String, Result<(), Problem>) {
    crate::fixture::crypto();
    let words = Words::try_parse_from(["cairn registry"].iter().chain(words)).unwrap();
    let RegistryCommand::Work(work) = words.command else { panic!("serve is the daemon's") };
    let resolved = Resolver::new(&[KEYS]).resolve();
    let settings = RegistrySettings::resolve(&resolved, std::path::Path::new("/nowhere")).unwrap();
    let output = Output::into_text(json);
    let done = registry::cli::run(work, &words.endpoint, &settings, &output).await;
    (output.taken(), done)
}

async fn good(words: &[&str]) -> String {
    let (text, done) = command(false, words).await;
    done.unwrap();
    text
}

async fn json(words: &[&str]) -> Value {
    let (text, done) = command(true, words).await;
    done.unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn bad(words: &[&str]) -> (u8, String) {
    let (_, done) = command(false, words).await;
    let problem = done.unwrap_err();
    (problem.kind().exit_code(), problem.code)
}

async fn filled() -> Server {
    let server = Setup::default().start().await;
    let client = server.client(None);
    push_image(&client, "os-images/debian", "13", b"the layer of Debian").await;
    push_image(&client, "tools/disk", "1", b"the first tool").await;
    push_image(&client, "tools/disk", "2", b"the second tool").await;
    server
}

#[test]
fn help() {
    let mut text = String::new();
    let mut all = Words::command().term_width(100);
    all.build();
    for command in all.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let help = command.render_long_help();
        text.push_str(&format!("# {}\n\n{help}\n", command.get_name()));
    }
    let tidy: Vec<_> = text.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(tidy.join("\n"));
}

#[tokio::test]
async fn what_is_there_is_listed_and_shown() {
    let server = filled().await;
    let url = server.url("");
    let at =
        |words: &[&str]| [&["--url", &url], words].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let said = |words: Vec<String>| async move { good(&words.iter().map(String::as_str).collect::<Vec<_>>()).await };
    insta::assert_snapshot!("ls", said(at(&["ls"])).await);
    insta::assert_snapshot!("ls_below", said(at(&["ls", "tools"])).await);
    insta::assert_snapshot!("inspect", said(at(&["inspect", "os-images/debian:13"])).await);
    insta::assert_snapshot!("du", said(at(&["du", "--largest", "2"])).await);
    let status = said(at(&["status"])).await;
    let told: Vec<_> = status.lines().filter(|line| !line.starts_with("disk")).collect();
    insta::assert_snapshot!("status", told.join("\n"));
    let audit = said(at(&["audit", "--repository", "tools/disk"])).await;
    assert!(audit.starts_with("TIME") && audit.contains("push_manifest  tools/disk 2"), "{audit}");

    let listed = json(&["--url", &url, "ls", "os-images"]).await;
    assert_eq!(listed[0]["tags"][0]["name"], "13");
    let shown = json(&["--url", &url, "inspect", "os-images/debian:13"]).await;
    assert_eq!(shown["manifest"]["layers"][0]["size"], 19);
    for words in [&["status"][..], &["du"], &["audit"], &["gc", "--dry-run"], &["retention", "--dry-run"], &["fsck"]] {
        json(&[&["--url", &url], words].concat()).await;
    }
    assert_eq!(bad(&["--url", &url, "inspect", "os-images/debian:14"]).await, (3, "artifact_missing".to_owned()));
    assert_eq!(bad(&["--url", "http://127.0.0.1:1", "ls"]).await, (6, "controller_unreachable".to_owned()));
}

#[tokio::test]
async fn a_damaged_record_of_a_tag_costs_the_list_that_tag_only() {
    let server = filled().await;
    let record = std::fs::read_dir(server.storage.join("repositories/tools/disk")).unwrap().flat_map(|entry| {
        let path = entry.unwrap().path().join("1");
        path.is_file().then_some(path)
    });
    let record: Vec<_> = record.collect();
    std::fs::write(&record[0], b"{").unwrap();
    let url = server.url("");
    let listed = json(&["--url", &url, "ls"]).await;
    assert_eq!((&listed[0]["name"], &listed[0]["tags"][0]["name"]), (&"os-images/debian".into(), &"13".into()));
    assert!(listed[0].get("damage").is_none());
    assert_eq!((&listed[1]["name"], &listed[1]["tags"][0]["name"]), (&"tools/disk".into(), &"2".into()));
    assert_eq!(listed[1]["damage"], "tags that cannot be read: 1");
    let text = good(&["--url", &url, "ls"]).await;
    assert!(text.contains("(damaged: tags that cannot be read: 1; see cairn registry fsck)"), "{text}");
    assert!(text.contains("tools/disk:2") && text.contains("os-images/debian:13"), "{text}");
    let storage = server.storage.display().to_string();
    let _held = server.stop().await;
    assert_eq!(json(&["ls", "--storage", &storage]).await, listed);
}

#[tokio::test]
async fn the_registry_is_switched_and_kept_small() {
    let server = filled().await;
    let url = server.url("");
    assert_eq!(good(&["--url", &url, "read-only"]).await, "off: pushes and deletes are taken\n");
    assert_eq!(good(&["--url", &url, "read-only", "on"]).await, "on: pushes and deletes are refused\n");
    assert_eq!(bad(&["--url", &url, "gc"]).await, (4, "registry_read_only".to_owned()));
    good(&["--url", &url, "read-only", "off"]).await;
    insta::assert_snapshot!("gc", good(&["--url", &url, "gc"]).await);
    insta::assert_snapshot!("fsck", good(&["--url", &url, "fsck"]).await);
    insta::assert_snapshot!("retention", good(&["--url", &url, "retention", "--dry-run"]).await);
    assert_eq!(bad(&["--url", &url, "gc", "--restore", "17"]).await, (3, "registry_run_unknown".to_owned()));
    insta::assert_snapshot!("restore", good(&["--url", &url, "gc", "--restore"]).await);
}

#[tokio::test]
async fn a_directory_is_worked_on_once_no_daemon_holds_it() {
    let server = filled().await;
    let storage = server.storage.display().to_string();
    assert_eq!(bad(&["gc", "--storage", &storage]).await, (4, "registry_locked".to_owned()));
    let held = server.stop().await;
    let nothing = held.path().join("nothing");
    assert_eq!(bad(&["gc", "--storage", nothing.to_str().unwrap()]).await, (3, "registry".to_owned()));
    assert!(!nothing.exists(), "a directory that is no registry is not made one");
    assert_eq!(json(&["ls", "--storage", &storage]).await.as_array().unwrap().len(), 2);
    let shown = json(&["inspect", "tools/disk:2", "--storage", &storage]).await;
    assert_eq!(shown["manifest"]["layers"][0]["size"], 15);
    for words in [&["status"][..], &["du"], &["gc"], &["retention"], &["fsck", "--repair"], &["gc", "--restore"]] {
        good(&[words, &["--storage", &storage]].concat()).await;
    }
    let unknown = bad(&["gc", "--restore", "17", "--storage", &storage]).await;
    assert_eq!(unknown, (3, "registry_run_unknown".to_owned()));
    let layer = oci_registry::Digest::sha256_of(b"the second tool");
    std::fs::write(std::path::Path::new(&storage).join("blobs/sha256").join(layer.hex()), b"the second fool").unwrap();
    assert_eq!(bad(&["fsck", "--storage", &storage]).await, (1, "registry_damaged".to_owned()));
}

#[tokio::test]
async fn an_image_is_copied_there_and_back_with_what_refers_to_it() {
    let (from, to) = (filled().await, Setup::default().api_login().start().await);
    let client = from.client(None);
    let image = client.resolve(&crate::fixture::name("tools/disk"), &crate::fixture::tag("2")).await.unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": oci_registry::media_type::OCI_INDEX,
        "manifests": [{ "mediaType": image.media_type, "digest": image.digest, "size": image.size }],
    });
    let name = crate::fixture::name("tools/disk");
    let push = |tag: &'static str, media_type: &'static str, json: Value| {
        let (client, name) = (client.clone(), name.clone());
        async move {
            let bytes = bytes::Bytes::from(json.to_string());
            client.push_manifest(&name, &crate::fixture::tag(tag), media_type, bytes).await.unwrap()
        }
    };
    let index = push("all", oci_registry::media_type::OCI_INDEX, index).await;
    let empty = oci_registry::Descriptor::empty();
    let signature = serde_json::json!({
        "schemaVersion": 2, "mediaType": oci_registry::media_type::OCI_MANIFEST, "artifactType": "application/x.signature",
        "config": empty, "layers": [empty],
        "subject": { "mediaType": index.media_type, "digest": index.digest, "size": index.size },
    });
    let signature = push("signature", oci_registry::media_type::OCI_MANIFEST, signature).await;

    let directory = tempfile::tempdir().unwrap();
    let layout = format!("oci:{}:all", directory.path().join("layout").display());
    let source = format!("{}/tools/disk:all", from.address);
    let copied = json(&["copy", &source, &layout, "--referrers"]).await;
    assert_eq!((&copied["manifests"], &copied["blobs"]), (&serde_json::json!(3), &serde_json::json!(2)), "{copied}");
    let again = json(&["copy", &source, &layout, "--referrers"]).await;
    assert_eq!((&again["blobs"], &again["present"]), (&serde_json::json!(0), &serde_json::json!(2)), "{again}");
    let shown = json(&["inspect", &layout]).await;
    assert_eq!(shown["referrers"][0]["digest"], signature.digest.to_string());

    let password = directory.path().join("password");
    std::fs::write(&password, "root\n").unwrap();
    let url = to.url("");
    let login = ["--url", &url, "--user", "admin", "--user-password-file", password.to_str().unwrap()];
    let copied = json(&[&login[..], &["copy", &layout, "copies/disk:v1", "--referrers"]].concat()).await;
    assert_eq!(copied["digest"], index.digest.to_string());
    let copy = to.client(Some(("admin", "root")));
    let found = copy.resolve(&crate::fixture::name("copies/disk"), &crate::fixture::tag("v1")).await.unwrap();
    assert_eq!(found.digest, index.digest);
    let referrers = copy.referrers(&crate::fixture::name("copies/disk"), &index.digest, None).await.unwrap();
    assert_eq!(referrers[0].digest, signature.digest);

    // From registry to registry, with a login for one of them.
    json(&[&login[..], &["copy", &format!("{}/os-images/debian:13", from.address), "copies/debian:13"]].concat()).await;
    assert!(copy.resolve(&crate::fixture::name("copies/debian"), &crate::fixture::tag("13")).await.is_ok());
    let refused = bad(&["--url", &url, "copy", &layout, "copies/disk:v2"]).await;
    assert_eq!(refused, (5, "registry_copy".to_owned()));
    let other = format!("oci:{}:none", directory.path().join("layout").display());
    assert_eq!(bad(&["copy", &other, "x:1"]).await, (3, "artifact_missing".to_owned()));

    // Damage is not copied on.
    let layer = oci_registry::Digest::sha256_of(b"the second tool");
    let path = directory.path().join("layout/blobs/sha256").join(layer.hex());
    std::fs::write(&path, b"the second fool").unwrap();
    let elsewhere = format!("oci:{}:all", directory.path().join("elsewhere").display());
    assert_eq!(bad(&["copy", &layout, &elsewhere]).await, (1, "registry_copy".to_owned()));
    assert!(!directory.path().join("elsewhere").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn copies_into_one_layout_at_once_all_arrive() {
    let server = Setup::default().start().await;
    let client = server.client(None);
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("layout");
    let to = |tag: usize| format!("oci:{}:{tag}", root.display());
    let missing = format!("{}/tools/disk:none", server.address);
    assert_eq!(bad(&["copy", &missing, &to(0)]).await, (3, "artifact_missing".to_owned()));
    assert!(!root.exists(), "a copy that failed leaves nothing");

    // They share a layer.
    for tag in 0..12 {
        push_image(&client, "tools/disk", &tag.to_string(), b"one layer").await;
    }
    let copies = (0..12).map(|tag| {
        let (source, to) = (format!("{}/tools/disk:{tag}", server.address), to(tag));
        tokio::spawn(async move { json(&["copy", &source, &to]).await })
    });
    for copy in futures::future::join_all(copies).await {
        copy.unwrap();
    }
    for tag in 0..12 {
        json(&["inspect", &to(tag)]).await;
    }
    let blobs = std::fs::read_dir(root.join("blobs/sha256")).unwrap();
    assert!(blobs.into_iter().all(|blob| blob.unwrap().file_name().len() == 64), "nothing unfinished stays");
}
