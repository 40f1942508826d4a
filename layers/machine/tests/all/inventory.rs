//! Files of machines: what they may be, and what is said about them when they are not.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use machine::inventory::{Error, Inventory};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nplanted\n-----END OPENSSH PRIVATE KEY-----\n";

/// A directory with these files, for nobody else to read.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    directory
}

fn read(text: &str) -> Result<Inventory, Error> {
    let directory = directory(&[("fleet.yaml", text), ("keys/web", KEY)]);
    Inventory::read(&directory.path().join("fleet.yaml"))
}

/// What is wrong, each without the directory before the name of its file.
fn wrong(text: &str) -> Vec<String> {
    let Err(Error::Problems(problems)) = read(text) else { panic!("nothing is wrong with {text}") };
    let told = |problem: &machine::inventory::Problem| {
        let text = problem.to_string();
        text[text.find("fleet.yaml").unwrap()..].to_owned()
    };
    problems.iter().map(told).collect()
}

const FLEET: &str = "\
# Two machines.
apiVersion: nio.homystack.com/v1alpha1
kind: Machine
metadata: {name: web, labels: {role: web}}
spec:
  hostname: web.example.org
  sshKeySecretRef: {name: login}
---
apiVersion: nio.homystack.com/v1alpha1
kind: Machine
metadata: {name: db, namespace: data}
spec: {ipAddress: '2001:db8::1', sshPort: 2222}
---
apiVersion: nio.homystack.com/v1alpha1
kind: NixosConfiguration
metadata: {name: web}
spec:
  gitRepo: https://git.example.org/infra.git
  flake: '#web'
  machineRef: {name: web}
  credentialsRef: {name: git}
  additionalFiles:
  - {path: token, valueType: SecretRef, secretRef: {name: git}, owner: nginx, mode: '0440'}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
secretFiles: {ssh-privatekey: keys/web}
stringData: {ssh-passphrase: open sesame}
---
apiVersion: v1
kind: Secret
metadata: {name: git}
data: {token: dG9rZW4K}
---
";

#[test]
fn a_file_of_several_documents_is_read() {
    let inventory = read(FLEET).unwrap();
    assert_eq!((inventory.machines.len(), inventory.configurations.len(), inventory.secrets.len()), (2, 1, 2));
    assert_eq!(inventory.warnings, []);
    let web = inventory.machine("default", "web").unwrap();
    assert_eq!(inventory.configuration_of(web).unwrap().metadata.name.as_deref(), Some("web"));
    let db = inventory.machine("data", "db").unwrap();
    assert!(inventory.configuration_of(db).is_none() && inventory.machine("default", "db").is_none());
    assert_eq!(inventory.machines[0].place.line, 2);
    let login = inventory.secret("default", "login").unwrap();
    assert_eq!(login.text("ssh-privatekey").unwrap().expose_secret(), KEY);
    assert_eq!(login.text("ssh-passphrase").unwrap().expose_secret(), "open sesame");
    let git = inventory.secret("default", "git").unwrap();
    assert_eq!(git.text("token").unwrap().expose_secret(), "token");
    assert_eq!(git.bytes("token").unwrap().expose_secret(), b"token\n");
    let printed = format!("{inventory:?}");
    assert!(!["planted", "sesame", "dG9rZW4K"].iter().any(|secret| printed.contains(secret)));
}

#[test]
fn a_directory_json_and_what_kubectl_saves_are_read() {
    let machine = r#"{"apiVersion": "nio.homystack.com/v1alpha1", "kind": "Machine",
        "metadata": {"name": "a"}, "spec": {"hostname": "a"}}"#;
    let saved = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: nio.homystack.com/v1alpha1\n  kind: Machine\n  metadata:\n    \
        name: b\n    namespace: default\n    uid: 1-2\n    creationTimestamp: '2025-11-08T09:00:00Z'\n  spec:\n    hostname: b\n  \
        status:\n    discoverable: true\n    kopf: {progress: {}}\n";
    let ours = directory(&[
        ("1.json", machine),
        ("2.yml", saved),
        ("README", "no"),
        (".hidden.yaml", "no: ["),
        ("below/3.yaml", "no: ["),
    ]);
    let inventory = Inventory::read(ours.path()).unwrap();
    let names: Vec<_> = inventory.machines.iter().map(|entry| entry.object.metadata.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(inventory.machines[1].place.line, 4);
    assert!(matches!(Inventory::read(directory(&[("README", "")]).path()), Err(Error::Empty(_))));
    assert!(matches!(Inventory::read(&ours.path().join("missing")), Err(Error::File(_))));
}

#[test]
fn what_is_wrong_has_its_line_and_a_hint() {
    let head = "apiVersion: nio.homystack.com/v1alpha1\nkind: Machine\nmetadata: {name: web}\nspec:\n  hostname: web\n";
    for (more, expected) in [
        ("  sshPrt: 22\n", "fleet.yaml:6: Machine web: spec.sshPrt: is not known; did you mean sshPort?"),
        ("  sshPort: 99999\n", "fleet.yaml:6: Machine web: spec.sshPort: 99999 is not within 1 to 65535"),
        ("  sshPort: '22'\n", "fleet.yaml:6: Machine web: spec.sshPort: is text, not a whole number"),
        ("  sshUser: 1000\n", "fleet.yaml:6: Machine web: spec.sshUser: is a number, not text; put it in quotes"),
        (
            "  hostKeyPolicy: strict\n",
            "fleet.yaml:6: Machine web: spec.hostKeyPolicy: \"strict\" is none of Strict, TrustOnFirstUse; did you mean Strict?",
        ),
        ("  hostKeys: x\n", "fleet.yaml:6: Machine web: spec.hostKeys: is text, not a list"),
        ("  hostname: again\n", "fleet.yaml:6: "),
        ("  jumpHost:\n    sshUser: a\n", "fleet.yaml:7: Machine web: spec.jumpHost.hostname: is missing"),
        (
            "  sshUser: 'a b'\n",
            "fleet.yaml:6: Machine web: spec.sshUser: \"a b\" has ' '; a user has letters, digits, `.`, `-` and `_`",
        ),
        ("status:\n  lastAppliedTime: yesterday\n", "fleet.yaml:7: Machine web: status.lastAppliedTime: "),
        (
            "---\nkind: NixOSConfiguration\n",
            "fleet.yaml:7: NixOSConfiguration: kind: \"NixOSConfiguration\" is not known here; did you mean NixosConfiguration?",
        ),
        (
            "---\napiVersion: cluster.x-k8s.io/v1beta1\nkind: Machine\n",
            "fleet.yaml:7: Machine: apiVersion: is \"cluster.x-k8s.io/v1beta1\", not nio.homystack.com/v1alpha1",
        ),
        ("---\n- a\n", "fleet.yaml:7: is not an object"),
        ("---\na: [\n", "fleet.yaml:"),
    ] {
        let found = wrong(&format!("{head}{more}"));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{more}: {found:?}");
    }
    // Everything at once.
    assert_eq!(wrong(&format!("{head}  sshPrt: 22\n  suspnd: true\n  hostkeys: []\n")).len(), 3);
}

#[test]
fn labels_are_text() {
    let text = "apiVersion: nio.homystack.com/v1alpha1\nkind: Machine\nmetadata:\n  name: web\n  lables: {}\n  labels:\n    \
        edge: true\nspec: {hostname: web}\n";
    assert_eq!(
        wrong(text),
        [
            "fleet.yaml:5: Machine web: metadata.lables: is not known; did you mean labels?",
            "fleet.yaml:7: Machine web: metadata.labels.edge: is not text; put it in quotes",
        ]
    );
}

#[test]
fn references_lead_somewhere() {
    for (from, to, expected) in [
        (
            "machineRef: {name: web}",
            "machineRef: {name: wep}",
            "fleet.yaml:14: NixosConfiguration web: spec.machineRef.name: there is no Machine wep in the namespace default; did you mean web?",
        ),
        (
            "machineRef: {name: web}",
            "machineRef: {name: db}",
            "fleet.yaml:14: NixosConfiguration web: spec.machineRef.name: there is no Machine db in the namespace default",
        ),
        (
            "credentialsRef: {name: git}",
            "credentialsRef: {name: gone}",
            "fleet.yaml:14: NixosConfiguration web: spec.credentialsRef: there is no Secret gone in the namespace default",
        ),
        (
            "secretFiles: {ssh-privatekey: keys/web}",
            "secretFiles: {ssh-private-key: keys/web}",
            "fleet.yaml:2: Machine web: spec.sshKeySecretRef: the Secret login has no ssh-privatekey; did you mean ssh-private-key?",
        ),
        (
            "secretRef: {name: git}",
            "secretRef: {name: login}",
            "fleet.yaml:14: NixosConfiguration web: spec.additionalFiles[0].secretRef: the Secret login has the keys ssh-passphrase, ssh-privatekey; key has to say which",
        ),
        (
            "metadata: {name: db, namespace: data}",
            "metadata: {name: web}",
            "fleet.yaml:9: Machine web: is there twice; the other one is at ",
        ),
        (
            "secretFiles: {ssh-privatekey: keys/web}",
            "secretFiles: {ssh-privatekey: keys/db}",
            "fleet.yaml:28: Secret login: secretFiles.ssh-privatekey: cannot read ",
        ),
        ("data: {token: dG9rZW4K}", "data: {token: '!!!'}", "fleet.yaml:34: Secret git: data.token: is not base64"),
    ] {
        let found = wrong(&FLEET.replace(from, to));
        assert!(found[0].starts_with(expected), "{to}: {found:?}");
    }
}

#[test]
fn secrets_of_other_namespaces_have_to_be_given() {
    let text = FLEET.replace(
        "spec: {ipAddress: '2001:db8::1'",
        "spec: {sshKeySecretRef: {name: login, namespace: default}, hostname: db",
    );
    let found = wrong(&text);
    assert!(found[0].contains("the Secret default/login may not be used from the namespace data"), "{found:?}");
    let given = "metadata: {name: login, annotations: {nio.homystack.com/allowed-namespaces: data}}";
    let inventory = read(&text.replace("metadata: {name: login}", given)).unwrap();
    assert_eq!(inventory.warnings.len(), 1);
}

#[test]
fn two_configurations_of_a_machine_are_a_conflict() {
    let second = "apiVersion: nio.homystack.com/v1alpha1\nkind: NixosConfiguration\nmetadata: {name: other}\nspec: {gitRepo: 'git@a:b', \
        flake: web, machineRef: {name: web}}\n";
    let found = wrong(&format!("{FLEET}{second}"));
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("NixosConfiguration other: spec.machineRef.name: is the machine of web at "),
        "{found:?}"
    );
}

#[test]
fn files_with_secrets_are_for_nobody_else() {
    let ours = directory(&[("fleet.yaml", FLEET), ("keys/web", KEY)]);
    let fleet = ours.path().join("fleet.yaml");
    for (name, expected) in
        [("keys/web", "can be read by others; chmod 600"), ("fleet.yaml", "others can read it; chmod 600")]
    {
        let path = ours.path().join(name);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let error = Inventory::read(&fleet).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("planted") && !error.contains("sesame"));
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
    }
    Inventory::read(&fleet).unwrap();
    // Names of files with secrets are no secret.
    let open = directory(&[
        ("fleet.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nsecretFiles: {password: p}\n"),
        ("p", "x"),
    ]);
    fs::set_permissions(open.path().join("fleet.yaml"), Permissions::from_mode(0o644)).unwrap();
    Inventory::read(open.path()).unwrap();
}

#[test]
fn no_message_has_a_secret_in_it() {
    for text in [
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: [planted]}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {password: 'planted!'}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: planted\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  password: planted\n  password: planted\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  password: 'planted\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData:\n  password: \"planted\\q\"\n",
    ] {
        let found = wrong(text);
        assert!(found.iter().all(|problem| !problem.contains("planted")), "{found:?}");
    }
}
