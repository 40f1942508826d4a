//! `make install` as a packager runs it, and the files that the guide copies, mounts or applies.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use testkit::process::run;

use crate::deploy::{has, repository, text, yaml};

/// Variables of the guide and of its original; `docker` ones are its last version's.
const VARIABLES: &str = "
    PORT ADDRESS BACKEND JAILER_UID JAILER_GID JAILER_CHROOT_DIR BILLING_ENABLED BILLING_ENDPOINT BILLING_MOCK_MODE
    ASSETMANAGER_ENABLED ASSETMANAGER_ENDPOINT ASSETMANAGER_CACHE_DIR DATA_DIR LOG_LEVEL MAX_PROCESSES SOCKET_DIR
    LOG_DIR OTEL_ENABLED OTEL_SERVICE_NAME OTEL_SERVICE_VERSION OTEL_SAMPLING_RATE OTEL_ENDPOINT
    OTEL_PROMETHEUS_ENABLED OTEL_PROMETHEUS_PORT OTEL_PROMETHEUS_INTERFACE OTEL_HIGH_CARDINALITY_ENABLED
    NETWORK_ENABLED NETWORK_IPV4_ENABLED NETWORK_IPV6_ENABLED NETWORK_RATE_LIMIT NETWORK_RATE_LIMIT_MBPS
    NETWORK_BRIDGE NETWORK_BRIDGE_IPV4 NETWORK_VM_SUBNET_IPV4 NETWORK_BRIDGE_IPV6 NETWORK_VM_SUBNET_IPV6
    NETWORK_IPV6_MODE NETWORK_DNS_IPV4 NETWORK_DNS_IPV6 NETWORK_MAX_VMS_PER_BRIDGE NETWORK_MULTI_BRIDGE
    NETWORK_BRIDGE_PREFIX NETWORK_HOST_PROTECTION NETWORK_PRIMARY_INTERFACE TLS_MODE SPIFFE_SOCKET TLS_CERT_FILE
    TLS_KEY_FILE TLS_CA_FILE TLS_ENABLE_CERT_CACHING TLS_CERT_CACHE_TTL DOCKER_HOST DOCKER_NETWORK
    DOCKER_PORT_RANGE_MIN DOCKER_PORT_RANGE_MAX
";

fn make(arguments: &[&str], built: &Path, destination: Option<&Path>) -> String {
    let mut command = Command::new("make");
    command.current_dir(repository()).arg("--no-print-directory").args(arguments);
    command.arg(format!("CARGO_TARGET_DIR={}", built.display()));
    if let Some(destination) = destination {
        command.arg(format!("DESTDIR={}", destination.display()));
    }
    run(&mut command).unwrap()
}

/// Programs that stand in for what a build makes.
fn built() -> TempDir {
    let directory = TempDir::new().unwrap();
    let release = directory.path().join("release");
    std::fs::create_dir(&release).unwrap();
    for name in ["cairn", "cairn-keeper"] {
        std::fs::write(release.join(name), format!("#!/bin/echo {name}\n")).unwrap();
    }
    directory
}

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o7777
}

#[test]
fn what_an_install_would_do() {
    if !has("what_an_install_would_do", &["make"]) {
        return;
    }
    let built = built();
    let whole = make(&["-n", "install"], built.path(), None);
    // The five things of the guide.
    for part in [
        "useradd --system --uid 977",
        "groupadd --system --gid 976",
        "/usr/local/bin/metald",
        "/etc/systemd/system/",
        "setcap 'cap_chown,",
        "install -d -m 0755 /srv/jailer /opt/metald",
        "chown root:metald /usr/local/bin/metald",
    ] {
        assert!(whole.contains(part), "{part}: {whole}");
    }
    let order = ["useradd", "mv -f /usr/local/bin/.metald.new", "chown root:metald", "setcap", "daemon-reload"];
    let places: Vec<usize> = order.iter().map(|part| whole.find(part).unwrap()).collect();
    assert!(places.is_sorted(), "{order:?} at {places:?}");
    // A package has no users and no capabilities in it.
    let packed = make(&["-n", "install"], built.path(), Some(Path::new("/nowhere")));
    for part in ["useradd", "setcap", "chown", "systemctl", " /etc/", " /usr/"] {
        assert!(!packed.contains(part), "{part}: {packed}");
    }
}

#[test]
fn an_install_into_a_directory() {
    if !has("an_install_into_a_directory", &["make"]) {
        return;
    }
    let (built, root) = (built(), TempDir::new().unwrap());
    let at = |name: &str| root.path().join(name);
    make(&["install"], built.path(), Some(root.path()));
    let inode = |name: &str| std::fs::metadata(at(name)).unwrap().ino();
    let before = inode("usr/local/bin/metald");
    // Again, over itself, as an upgrade does: by a new file, so that a daemon that runs is left alone.
    make(&["install"], built.path(), Some(root.path()));
    assert_ne!(inode("usr/local/bin/metald"), before);
    for (name, wanted) in [
        ("usr/local/bin/metald", 0o750),
        ("usr/local/bin/cairn", 0o755),
        ("usr/local/libexec/cairn/cairn-keeper", 0o755),
        ("etc/systemd/system/metald.service", 0o644),
        ("etc/systemd/system/metald-vm@.service", 0o644),
        ("etc/systemd/system/metald.service.d", 0o755),
        ("etc/metald", 0o755),
        ("etc/polkit-1/rules.d/50-metald.rules", 0o644),
        ("etc/sysusers.d/metald.conf", 0o644),
        ("etc/tmpfiles.d/metald.conf", 0o644),
        ("etc/sysctl.d/99-metald.conf", 0o644),
        ("etc/logrotate.d/metald", 0o644),
        ("etc/apparmor.d/metald", 0o644),
        ("srv/jailer", 0o755),
        ("opt/metald/assets", 0o755),
        ("opt/metald/sockets", 0o755),
        ("var/lib/metald", 0o750),
        ("var/log/metald", 0o750),
    ] {
        assert_eq!(mode(&at(name)), wanted, "{name}");
    }
    // Capabilities belong to a file, and everybody may run cairn.
    assert!(std::fs::symlink_metadata(at("usr/local/bin/metald")).unwrap().is_file());
    assert_ne!(inode("usr/local/bin/metald"), inode("usr/local/bin/cairn"));
    assert_eq!(std::fs::metadata(at("usr/local/bin/metald")).unwrap().nlink(), 1);
    let left: Vec<_> =
        std::fs::read_dir(at("usr/local/bin")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn another_prefix_is_in_the_units_too() {
    if !has("another_prefix_is_in_the_units_too", &["make"]) {
        return;
    }
    let (built, root) = (built(), TempDir::new().unwrap());
    make(&["install", "PREFIX=/usr"], built.path(), Some(root.path()));
    for (unit, program) in
        [("metald.service", "/usr/bin/metald"), ("metald-vm@.service", "/usr/libexec/cairn/cairn-keeper")]
    {
        let text = std::fs::read_to_string(root.path().join("etc/systemd/system").join(unit)).unwrap();
        assert!(text.contains(&format!("ExecStart={program}")) && !text.contains("/usr/local/"), "{text}");
        assert!(root.path().join(&program[1..]).is_file(), "{program}");
    }
}

#[test]
fn the_guides_paths_lead_to_the_files() {
    for (link, target) in [
        ("contrib/systemd/metald.env.example", "deploy/metald/metald.env.example"),
        ("contrib/grafana-dashboards/metald.json", "deploy/metald/grafana/metald.json"),
    ] {
        let link = repository().join(link);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink(), "{}", link.display());
        assert_eq!(link.canonicalize().unwrap(), repository().join(target));
    }
}

#[test]
fn the_example_names_every_variable() {
    let example = text("metald.env.example");
    let word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let named: BTreeSet<&str> =
        example.split(|character| !word(character)).filter_map(|name| name.strip_prefix("UNKEY_METALD_")).collect();
    for variable in VARIABLES.split_whitespace() {
        assert!(named.contains(variable), "UNKEY_METALD_{variable}");
    }
    for name in vm::settings::KEYS.iter().flat_map(|key| key.env).filter(|name| name.starts_with(vm::settings::PREFIX))
    {
        assert!(example.contains(*name), "{name}");
    }
    // What is set without a hand is what the guide sets, and what lets its prometheus.yml in.
    let set: Vec<&str> = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(
        set,
        [
            "UNKEY_METALD_PORT=8080",
            "UNKEY_METALD_OTEL_PROMETHEUS_INTERFACE=0.0.0.0",
            "UNKEY_METALD_JAILER_UID=977",
            "UNKEY_METALD_JAILER_GID=976",
        ]
    );
}

#[test]
fn the_daemon_set_mounts_what_a_new_pod_needs() {
    let set = yaml("kubernetes/daemonset.yaml");
    assert_eq!((set["apiVersion"].as_str(), set["kind"].as_str()), (Some("apps/v1"), Some("DaemonSet")));
    let pod = &set["spec"]["template"];
    assert_eq!(set["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]);
    let note = |name: &str| pod["metadata"]["annotations"][format!("prometheus.io/{name}")].as_str();
    assert_eq!((note("scrape"), note("port"), note("path")), (Some("true"), Some("9464"), Some("/metrics")));
    assert_eq!((&pod["spec"]["hostNetwork"], &pod["spec"]["hostPID"]), (&Value::Bool(true), &Value::Bool(true)));
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    let list = |value: &Value| value.as_array().unwrap().clone();
    let paths = [
        "/dev/kvm",
        "/dev/net/tun",
        "/etc/metald",
        "/opt/metald",
        "/run/netns",
        "/srv/jailer",
        "/sys/fs/cgroup",
        "/var/lib/metald",
        "/var/log/metald",
    ];
    let mounts = list(&container["volumeMounts"]);
    let mounted: BTreeSet<&str> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(mounted, paths.into());
    // Each is the host's own, under its own path: what a keeper was told has to be true for the next pod, too.
    for volume in list(&pod["spec"]["volumes"]) {
        let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]).unwrap();
        assert_eq!(mount["mountPath"], volume["hostPath"]["path"]);
        let shared = mount["mountPath"] == "/run/netns";
        assert_eq!(mount["mountPropagation"] == "Bidirectional", shared, "{mount}");
    }
}

#[test]
fn users_and_directories_are_those_of_the_guide() {
    if !has("users_and_directories_are_those_of_the_guide", &["systemd-sysusers", "systemd-tmpfiles", "make"]) {
        return;
    }
    let (built, root) = (built(), TempDir::new().unwrap());
    make(&["install"], built.path(), Some(root.path()));
    let at_root = format!("--root={}", root.path().display());
    run(Command::new("systemd-sysusers").args([&at_root, "metald.conf"])).unwrap();
    let accounts = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(accounts.contains("metald:x:977:976:"), "{accounts}");
    // Owners can be set by root only.
    if rustix::process::geteuid().is_root() {
        run(Command::new("systemd-tmpfiles").args([&at_root, "--create", "metald.conf"])).unwrap();
        let owner = |name: &str| {
            let metadata = std::fs::metadata(root.path().join(name)).unwrap();
            (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777)
        };
        for name in ["var/lib/metald", "var/log/metald"] {
            assert_eq!(owner(name), (977, 976, 0o750), "{name}");
        }
        for name in ["opt/metald", "opt/metald/assets", "opt/metald/sockets"] {
            assert_eq!(owner(name), (977, 976, 0o755), "{name}");
        }
        for name in ["srv/jailer", "run/netns", "etc/metald"] {
            assert_eq!(owner(name), (0, 0, 0o755), "{name}");
        }
    } else {
        eprintln!("NOT RUN: users_and_directories_are_those_of_the_guide: owners need root");
    }
}
