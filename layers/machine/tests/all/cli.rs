//! `cairn machine …` without a machine: what it says about inventories and machines that are not there.

use std::os::unix::fs::PermissionsExt as _;

use clap::Parser;
use cli::Output;
use machine::cli::{MachineCommand, run};
use web::Problem;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: MachineCommand,
}

const INVENTORY: &str = r"
apiVersion: nio.homystack.com/v1alpha1
kind: Machine
metadata: {name: web-1, labels: {env: prod}}
spec: {hostname: 127.0.0.1, sshPort: 1, sshKeySecretRef: {name: key}}
---
apiVersion: nio.homystack.com/v1alpha1
kind: Machine
metadata: {name: db-1}
spec: {hostname: 127.0.0.1, sshPort: 1, sshKeySecretRef: {name: key}}
---
apiVersion: nio.homystack.com/v1alpha1
kind: NixosConfiguration
metadata: {name: web-1}
spec: {gitRepo: https://git.example/infra.git, flake: web-1, fullInstall: true, machineRef: {name: web-1}}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {ssh-privatekey: planted-secret}
";

/// Runs a command line in a directory of its own with the inventory.
async fn told(line: &str, inventory: &str, json: bool) -> (Result<(), Problem>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("machines.yaml");
    std::fs::write(&file, inventory).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let state = directory.path().join("state");
    let words = ["machine"].into_iter().chain(line.split(' ')).map(str::to_owned);
    let places = ["--inventory".to_owned(), file.display().to_string()];
    let states = ["--state-directory".to_owned(), state.display().to_string()];
    let line = Line::try_parse_from(words.chain(places).chain(states)).unwrap();
    let output = Output::into_text(json);
    let ended = run(line.command, &output).await;
    (ended, output.taken())
}

#[tokio::test]
async fn machines_are_chosen_by_name_and_label() {
    for (line, names) in [
        ("list", &["default/web-1", "default/db-1"][..]),
        ("list web-1", &["default/web-1"]),
        ("list default/db-1", &["default/db-1"]),
        ("list --on @env", &["default/web-1"]),
        ("list --on @env=prod --on db-1", &["default/web-1", "default/db-1"]),
    ] {
        let (ended, text) = told(line, INVENTORY, true).await;
        ended.unwrap();
        let machines: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let found: Vec<_> = machines.iter().map(|machine| machine["machine"].as_str().unwrap()).collect();
        assert_eq!(found, names, "{line}");
    }
    for line in ["list nobody", "list --on @env=test", "list web-1 nobody"] {
        let problem = told(line, INVENTORY, false).await.0.unwrap_err();
        assert_eq!((problem.code.as_str(), problem.kind().exit_code()), ("machine_not_found", 3), "{line}");
    }
}

#[tokio::test]
async fn what_cannot_be_installed_is_refused_and_not_pretended() {
    let (ended, text) = told("apply web-1", INVENTORY, false).await;
    let problem = ended.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.kind().exit_code()), ("machine_install_not_available", 4));
    assert!(problem.detail.starts_with("InstallNotAvailable"), "{}", problem.detail);
    assert!(!text.contains("planted-secret") && !problem.detail.contains("planted-secret"));
}

#[tokio::test]
async fn several_that_fail_differently_are_partly_done() {
    let problem = told("apply", INVENTORY, false).await.0.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.kind().exit_code()), ("machine_partly", 7));
    assert!(problem.detail.starts_with("2 of 2 machines failed"), "{}", problem.detail);
}

#[tokio::test]
async fn a_wrong_inventory_is_told_with_its_line() {
    let problem = told("list", &INVENTORY.replace("flake", "flaek"), false).await.0.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.kind().exit_code()), ("machine_inventory", 2));
    assert!(problem.detail.contains("machines.yaml:") && problem.detail.contains("flaek"), "{}", problem.detail);
}

#[tokio::test]
async fn going_back_needs_a_name_and_a_history() {
    let problem = told("rollback", INVENTORY, false).await.0.unwrap_err();
    assert_eq!(problem.kind().exit_code(), 2);
    let problem = told("rollback web-1", INVENTORY, false).await.0.unwrap_err();
    assert_eq!(problem.code, "machine_not_found");
}
