//! The whole way against sushy-tools' emulator with its fake driver.
//!
//! Needs a Python environment with sushy-tools 2.2.0 and bcrypt in the folder `sushy-2.2.0` of `$CAIRN_CACHE`, or of
//! `~/.cache/cairn`. It is used, never made.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, Uri};
use redfish::{
    AuthMode, Bmc, BootWarning, Error, InsertOutcome, MediaOptions, Options, PowerState, ResetIntent, ResetOutcome,
};
use tempfile::TempDir;
use url::Url;

use crate::support::{
    PASSWORD, SIGNATURE, Seen, USER, assert_clean, connect, connect_as, credentials, http, not_run, phase, quick,
};
use crate::tls::{Running, certificate};

const VERSION: &str = "2.2.0";

/// An emulator that ends with the test.
struct Emulator {
    _child: Running,
    folder: TempDir,
    url: Url,
}

fn environment() -> Option<PathBuf> {
    let cache = std::env::var_os("CAIRN_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/cairn")))?;
    Some(cache.join(format!("sushy-{VERSION}")).join("bin")).filter(|bin| bin.join("sushy-emulator").exists())
}

/// The line of a password file; sushy-tools takes bcrypt only.
fn password_line(python: &Path) -> String {
    let script =
        "import bcrypt,sys; print(sys.argv[1]+':'+bcrypt.hashpw(sys.argv[2].encode(),bcrypt.gensalt(4)).decode())";
    let output = Command::new(python).args(["-c", script, USER, PASSWORD]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Emulator {
    /// Starts on a port of its own choice; `None`, said by name, when it is not installed.
    fn start(test: &str, tls: bool) -> Option<Self> {
        let Some(bin) = environment() else {
            not_run(test, "sushy-emulator");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        if tls && !certificate(folder.path()) {
            not_run(test, "openssl");
            return None;
        }
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("htpasswd"), password_line(&bin.join("python"))).unwrap();
        let mut settings = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = 0\n\
             SUSHY_EMULATOR_AUTH_FILE = '{}'\nSUSHY_EMULATOR_STATE_DIR = '{}'\n",
            path("htpasswd"),
            path(""),
        );
        if tls {
            let lines = [("CERT", path("certificate.pem")), ("KEY", path("key.pem"))];
            settings.extend(lines.map(|(key, value)| format!("SUSHY_EMULATOR_SSL_{key} = '{value}'\n")));
        }
        std::fs::write(path("sushy.conf"), settings).unwrap();
        let mut child = Command::new(bin.join("sushy-emulator"))
            .args(["--fake", "--config", &path("sushy.conf")])
            .env("TMPDIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let child = Running(child);
        let url = lines.find_map(|line| line.split_once("Running on ").map(|(_, url)| url.trim().to_owned())).unwrap();
        // The emulator must be able to go on writing.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { _child: child, folder, url: url.parse().unwrap() })
    }
}

/// Serves one image under a signed address; the emulator downloads it.
async fn images() -> Url {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/media/s/1700000000/{SIGNATURE}/job/", listener.local_addr().unwrap());
    let app = Router::new().fallback(|uri: Uri| async move {
        if uri.path().ends_with("/task.iso") {
            (StatusCode::OK, vec![7; 65536])
        } else {
            (StatusCode::NOT_FOUND, vec![])
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url.parse().unwrap()
}

#[tokio::test]
async fn sushy_the_whole_way() {
    let Some(emulator) = Emulator::start("sushy_the_whole_way", false) else { return };
    let seen = Seen::new();
    let bmc = connect(&emulator.url, quick(), &seen).await.unwrap();
    let inventory = bmc.inventory(phase("discover")).await.unwrap();
    assert_eq!(inventory.manufacturer.as_deref(), Some("Sushy Emulator"));
    assert_eq!(bmc.vendor_label(), "sushy_emulator");
    let slots = bmc.slots().unwrap().to_vec();
    let drives: Vec<_> = slots.iter().map(|slot| (slot.id.as_str(), slot.is_cd)).collect();
    assert_eq!(drives, [("Cd", true), ("Floppy", false)]);

    let image = images().await.join("task.iso").unwrap();
    let insert = || bmc.insert(phase("mount.task"), &slots[0], &image, MediaOptions::default());
    assert_eq!(insert().await.unwrap(), InsertOutcome::Inserted);
    assert_eq!(insert().await.unwrap(), InsertOutcome::AlreadyInserted);
    let renewed = image.join("task.iso?renewed").unwrap();
    let other = bmc.insert(phase("mount.task"), &slots[0], &renewed, MediaOptions::default()).await.unwrap();
    assert_eq!(other, InsertOutcome::Inserted);

    let set = bmc.boot_once_from_cd(phase("boot.override"), None).await.unwrap();
    assert_eq!(set.target.as_deref(), Some("Cd"));
    assert_eq!(set.warnings, [BootWarning::OnceReadsContinuous]);

    assert_eq!(bmc.reset(phase("reset"), ResetIntent::ForceOff).await.unwrap(), ResetOutcome::AlreadyThere);
    assert_eq!(bmc.reset(phase("reset"), ResetIntent::On).await.unwrap(), ResetOutcome::Accepted);
    bmc.wait_for_power(phase("power"), PowerState::On).await.unwrap();
    assert_eq!(bmc.reset(phase("reset"), ResetIntent::ForceOff).await.unwrap(), ResetOutcome::Accepted);
    bmc.wait_for_power(phase("power"), PowerState::Off).await.unwrap();

    bmc.eject(phase("cleanup.unmount"), &slots[0]).await.unwrap();
    bmc.eject(phase("cleanup.unmount"), &slots[0]).await.unwrap();
    let cleared = bmc.clear_boot_override(phase("cleanup.unmount")).await.unwrap();
    assert!(matches!(cleared.target.as_deref(), Some("None" | "Hdd")), "{cleared:?}");
    bmc.close(phase("discover")).await.unwrap();
    assert!(seen.codes("session.login").is_empty(), "it has no session service");
    assert!(seen.codes("mount.task").iter().all(|code| code.starts_with("20")));
}

#[tokio::test]
async fn sushy_images_that_cannot_be_fetched() {
    let Some(emulator) = Emulator::start("sushy_images_that_cannot_be_fetched", false) else { return };
    let bmc = connect(&emulator.url, quick(), &Seen::new()).await.unwrap();
    let slot = bmc.slots().unwrap()[0].clone();
    let missing = images().await.join("missing.iso").unwrap();
    let nobody: Url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/media/s/1/{SIGNATURE}/job/a.iso", listener.local_addr().unwrap()).parse().unwrap()
    };
    for image in [missing, nobody] {
        let error = bmc.insert(phase("mount.task"), &slot, &image, MediaOptions::default()).await.unwrap_err();
        assert!(matches!(&error, Error::MediaUnreachable { slot, .. } if slot == "Cd"), "{error}");
        assert_clean(&error);
    }
}

#[tokio::test]
async fn sushy_a_wrong_password() {
    let Some(emulator) = Emulator::start("sushy_a_wrong_password", false) else { return };
    let seen = Seen::new();
    let error = connect_as(&emulator.url, "wrong", quick(), &seen).await.unwrap_err();
    assert!(matches!(error, Error::Auth { .. }), "{error}");
    assert_eq!(seen.codes("discover"), ["200", "401"], "one try");
    let error = connect(&emulator.url, Options { auth: AuthMode::Session, ..quick() }, &seen).await.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn sushy_a_system_by_name_and_over_tls() {
    let Some(emulator) = Emulator::start("sushy_a_system_by_name_and_over_tls", true) else { return };
    let error = connect(&emulator.url, quick(), &Seen::new()).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let pem = std::fs::read(emulator.folder.path().join("certificate.pem")).unwrap();
    let trusting = http().tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()]);
    let options = Options { system: Some("27946b59-9e44-4fa7-8e91-f3527a1ef094".to_owned()), ..quick() };
    let url = emulator.url.clone();
    let bmc =
        Bmc::connect(trusting, url, credentials(PASSWORD), options, Arc::new(()), phase("discover")).await.unwrap();
    assert_eq!(bmc.power_state(phase("power")).await.unwrap(), PowerState::Off);
}
