//! What is missing, here and on the machines.

use std::path::Path;
use std::time::Duration;

use cairn_core::ErrorKind;
use cli::Output;
use serde::Serialize;
use web::Problem;

use super::Place;
use super::site::Site;
use crate::activation::{Remote, Shell as _};
use crate::errors;
use crate::model::MachineName;
use crate::ports::Host as _;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    place: String,
    what: String,
    ok: bool,
    detail: String,
}

impl Finding {
    fn new(place: &str, what: &str, ok: bool, detail: impl Into<String>) -> Self {
        Self { place: place.to_owned(), what: what.to_owned(), ok, detail: detail.into() }
    }
}

const LIMIT: Duration = Duration::from_secs(60);

/// `cairn machine doctor`.
pub(super) async fn run(place: &Place, output: &Output) -> Result<(), Problem> {
    let site = Site::open(place).await?;
    let mut findings = here();
    for name in &site.chosen {
        findings.extend(there(&site, name).await);
    }
    let bad = findings.iter().filter(|finding| !finding.ok).count();
    if output.json {
        output.json(&findings);
    } else {
        let rows: Vec<_> = findings
            .into_iter()
            .map(|finding| {
                let word = if finding.ok { "ok" } else { "FAIL" };
                [word.to_owned(), finding.place, finding.what, finding.detail]
            })
            .collect();
        output.table(["", "WHERE", "WHAT", "DETAIL"], &rows);
    }
    if bad == 0 {
        return Ok(());
    }
    Err(Problem::new(ErrorKind::Failed, errors::MACHINE_HOST, format!("{bad} of the checks failed")))
}

/// The programs that work for the controller.
fn here() -> Vec<Finding> {
    let path = settings::process_environment().get("PATH").cloned().unwrap_or_default();
    let path = format!("{path}:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin");
    let found =
        |program: &str| path.split(':').map(|directory| Path::new(directory).join(program)).find(|at| at.exists());
    ["git", "nix", "nix-instantiate", "nix-store"]
        .map(|program| match found(program) {
            Some(at) => Finding::new("here", program, true, at.display().to_string()),
            None => Finding::new("here", program, false, "install it, or put it into PATH"),
        })
        .into()
}

async fn there(site: &Site, name: &MachineName) -> Vec<Finding> {
    let at = name.as_str();
    let ssh = match site.ssh(name).await {
        Ok(ssh) => ssh,
        Err(fault) => return vec![Finding::new(at, "inventory", false, fault.message)],
    };
    let connected = ssh.connection().await.map(drop);
    if let Err(fault) = connected {
        return vec![Finding::new(at, "login", false, format!("{} ({})", fault.message, fault.code))];
    }
    let key = ssh.host_key().map(|key| key.fingerprint()).unwrap_or_default();
    let mut findings = vec![Finding::new(at, "login", true, format!("host key {key}"))];
    if let Err(fault) = site.keep_key(name, &ssh).await {
        findings.push(Finding::new(at, "state", false, fault.message));
    }
    let asked = [
        ("root", &["true"][..], "log in as root, or allow sudo without a password"),
        ("systemd-run", &["systemd-run", "--version"], "the machine needs systemd 240 or newer"),
        ("nix-env", &["nix-env", "--version"], "the machine needs Nix in the PATH of a login"),
        ("nix-daemon", &["nix-daemon", "--version"], "copying needs nix-daemon in the PATH of a login"),
    ];
    for (what, argv, hint) in asked {
        let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
        findings.push(match ssh.run(&argv, b"", true, LIMIT).await {
            Ok(answered) if answered.code == Some(0) => {
                let said = String::from_utf8_lossy(&answered.stdout);
                Finding::new(at, what, true, said.lines().next().unwrap_or_default())
            }
            Ok(_) => Finding::new(at, what, false, hint),
            Err(fault) => Finding::new(at, what, false, fault.message),
        });
    }
    let remote = Remote::new(ssh);
    findings.push(match remote.running().await {
        Ok(running) => match running.current {
            Some(system) => Finding::new(at, "NixOS", true, system.name()),
            None => Finding::new(at, "NixOS", false, "it runs no NixOS; installing one is not possible yet"),
        },
        Err(fault) => Finding::new(at, "NixOS", false, fault.message),
    });
    findings
}
