//! Deployments of several machines at once.

use cairn_core::{ErrorKind, SystemClock, chain};
use clap::Args;
use cli::{Output, usage};
use futures::StreamExt as _;
use host::{LockError, LockFile};
use reach::git::Mirror;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use web::Problem;

use super::Place;
use super::progress::Shown;
use super::site::{Site, fault_problem, resolve_fault, several, store_fault};
use crate::activation::{Remote, Shell as _};
use crate::adapters::git::{Git, fault as git_fault};
use crate::adapters::nix::{Nix, NixSettings};
use crate::adapters::nix_builder::{NixBuilder, fault as nix_fault};
use crate::adapters::ssh::Ssh;
use crate::errors;
use crate::facts;
use crate::model::{DeploymentId, Desired, MachineName, Placement, Preview, StorePath};
use crate::plan::{Failure, Fault, Progress};
use crate::resolve;
use crate::run::{Engine, Error, Request};

/// Flags of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    place: Place,
    /// Build, copy, say what would change, and stop there
    #[arg(long)]
    dry_run: bool,
    /// Try systems again that a machine took back
    #[arg(long)]
    retry: bool,
}

/// Flags of `rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    #[command(flatten)]
    place: Place,
    /// Go to this system, which the machine has
    #[arg(long, value_name = "STORE_PATH")]
    to: Option<String>,
    /// Say what would change, and stop there
    #[arg(long)]
    dry_run: bool,
    /// Go also to a system that the machine took back
    #[arg(long)]
    retry: bool,
}

/// What came of one machine.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    machine: MachineName,
    /// `applied`, `unchanged`, `previewed` or `failed`.
    outcome: &'static str,
    deployment: Option<DeploymentId>,
    commit: Option<String>,
    system: Option<StorePath>,
    previous_system: Option<StorePath>,
    reboot_required: bool,
    preview: Option<Preview>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Problem>,
    #[serde(skip_serializing_if = "String::is_empty")]
    log: String,
}

impl Outcome {
    fn of(machine: &MachineName, outcome: &'static str, deployment: Option<DeploymentId>, progress: Progress) -> Self {
        Self {
            machine: machine.clone(),
            outcome,
            deployment,
            commit: progress.commit.map(String::from),
            system: progress.system,
            previous_system: progress.before.and_then(|before| before.current),
            reboot_required: progress.reboot_required,
            preview: progress.preview,
            error: None,
            log: String::new(),
        }
    }

    fn failed(machine: &MachineName, fault: &Fault) -> Self {
        let error = Problem::new(fault.kind, fault.code, fault.message.clone());
        let error =
            if fault.log.is_empty() || fault.log.contains('\n') { error } else { error.hint(fault.log.clone()) };
        Self { error: Some(error), log: fault.log.clone(), ..Self::of(machine, "failed", None, Progress::default()) }
    }
}

/// Which system.
enum Wanted {
    Repository,
    Before,
    This(StorePath),
}

/// `cairn machine apply`.
pub(super) async fn apply(options: &Apply, output: &Output) -> Result<(), Problem> {
    let site = Site::open(&options.place).await?;
    let request = Request { dry_run: options.dry_run, retry: options.retry, system: None };
    all(&site, &Wanted::Repository, &request, output).await
}

/// `cairn machine diff`.
pub(super) async fn diff(site: &Site, output: &Output) -> Result<(), Problem> {
    all(site, &Wanted::Repository, &Request { dry_run: true, ..Request::default() }, output).await
}

/// `cairn machine rollback`.
pub(super) async fn rollback(options: &Rollback, output: &Output) -> Result<(), Problem> {
    if options.place.machines.is_empty() && options.place.on.is_empty() {
        return Err(usage("name the machines that are to go back"));
    }
    let wanted = match &options.to {
        None => Wanted::Before,
        Some(path) => Wanted::This(path.parse().map_err(|error| usage(format!("--to: {error}")))?),
    };
    let site = Site::open(&options.place).await?;
    let request = Request { dry_run: options.dry_run, retry: options.retry, system: None };
    all(&site, &wanted, &request, output).await
}

async fn all(site: &Site, wanted: &Wanted, request: &Request, output: &Output) -> Result<(), Problem> {
    let nix = nix(site)?;
    let stop = CancellationToken::new();
    let shown = Shown::new(output);
    let interrupt = {
        let stop = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        })
    };
    let (nix, stop, shown) = (&nix, &stop, &shown);
    let runs = site.chosen.iter().map(|name| async move {
        let outcome = Box::pin(one(site, nix, name, wanted, request, shown, stop)).await;
        shown.ended(name);
        outcome.unwrap_or_else(|fault| Outcome::failed(name, &fault))
    });
    let mut outcomes: Vec<Outcome> = futures::stream::iter(runs).buffer_unordered(site.parallel).collect().await;
    interrupt.abort();
    outcomes.sort_by(|one, other| one.machine.cmp(&other.machine));
    show(&outcomes, output);
    let count = outcomes.len();
    let failed = outcomes.into_iter().filter_map(|outcome| Some((outcome.machine, outcome.error?))).collect();
    several(failed, count)
}

fn nix(site: &Site) -> Result<Nix, Problem> {
    let mut settings = NixSettings::new(site.state.join("nix"));
    let environment = settings::process_environment();
    if let Some(path) = environment.get("PATH") {
        settings.search_path = format!("{path}:{}", settings.search_path);
    }
    let own = ["NIX_CONF_DIR", "NIX_REMOTE", "NIX_SSL_CERT_FILE", "NIX_STATE_DIR", "NIX_STORE_DIR", "NIX_LOG_DIR"];
    let given = own.iter().filter_map(|name| Some(((*name).to_owned(), environment.get(*name)?.clone())));
    settings.environment.extend(given);
    Nix::new(settings).map_err(|error| fault_problem(&nix_fault(&error, errors::MACHINE_STATE)))
}

/// One machine, held for this process alone.
async fn one(
    site: &Site,
    nix: &Nix,
    name: &MachineName,
    wanted: &Wanted,
    request: &Request,
    shown: &Shown<'_>,
    stop: &CancellationToken,
) -> Result<Outcome, Fault> {
    if stop.is_cancelled() {
        let message = "interrupted before anything was begun";
        return Err(Fault::lasting(ErrorKind::Interrupted, errors::MACHINE_INTERRUPTED, message));
    }
    let _lock = lock(site, name)?;
    let configuration = site.configuration(name)?;
    if configuration.spec.suspend || site.machine(name)?.spec.suspend {
        let message = "the machine or its configuration is suspended";
        return Err(Fault::lasting(ErrorKind::Conflict, errors::MACHINE_CONFLICT, message));
    }
    let mut request = request.clone();
    request.system = match wanted {
        Wanted::Repository => None,
        Wanted::This(system) => Some(system.clone()),
        Wanted::Before => Some(before(site, name).await?),
    };
    shown.say(name, "connect");
    let ssh = site.ssh(name).await?;
    if configuration.spec.full_install {
        installed(site, name, &ssh).await?;
    }
    let facts = if resolve::needs_facts(configuration) {
        Some(facts::file(&facts::ask(&ssh).await?, name.name(), &ssh.address()))
    } else {
        None
    };
    let desired = resolve::desired(&site.inventory, name, configuration, facts.as_deref());
    let desired = desired.map_err(|error| resolve_fault(&error))?;
    let builder_host = match &desired.placement {
        Placement::Builder(builder) => Some(site.ssh(builder).await?),
        _ => None,
    };
    let repository = resolve::repository(&site.inventory, name, configuration, true);
    let repository = repository.map_err(|error| resolve_fault(&error))?;
    let mirror = Mirror::open(&site.state.join("git"), repository).await.map_err(|error| git_fault(&error))?;
    let source = Git::new(mirror.into());
    let ssh = Remote::new(ssh);
    let builder = NixBuilder::new(nix, name, ssh.shell(), builder_host.as_ref());
    let engine = Engine {
        source: &source,
        builder: &builder,
        host: &ssh,
        store: &site.store,
        clock: &SystemClock,
        watcher: shown,
        stop,
    };
    let ended = engine.apply(&desired, request).await;
    builder.release(&desired.placement).await;
    site.keep_key(name, ssh.shell()).await?;
    if let (Placement::Builder(builder), Some(host)) = (&desired.placement, &builder_host) {
        site.keep_key(builder, host).await?;
    }
    Ok(told(&desired, ended))
}

fn lock(site: &Site, name: &MachineName) -> Result<LockFile, Fault> {
    let path = site.state.join("locks").join(format!("{}_{}", name.namespace(), name.name()));
    LockFile::acquire(&path, &format!("process {}", std::process::id())).map_err(|error| {
        let kind = match error {
            LockError::Held { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Failed,
        };
        Fault::lasting(kind, errors::MACHINE_CONFLICT, format!("{name} is being worked on: {}", chain(&error)))
    })
}

/// What the machine ran before the last deployment that changed something.
async fn before(site: &Site, name: &MachineName) -> Result<StorePath, Fault> {
    let before = site.store.before(name).await.map_err(|error| store_fault(&error))?;
    before.ok_or_else(|| {
        let message = format!("the history has no system that {name} ran before");
        Fault::lasting(ErrorKind::NotFound, errors::MACHINE_NOT_FOUND, message).log("--to names one")
    })
}

/// A machine that is to be installed in full, and is not, is refused: nothing is pretended.
async fn installed(site: &Site, name: &MachineName, ssh: &Ssh) -> Result<(), Fault> {
    let known = site.store.last_applied(name).await.map_err(|error| store_fault(&error))?.is_some();
    let refused = |found: String| {
        let message =
            format!("InstallNotAvailable: fullInstall is set, and {found}; Cairn cannot install a machine yet");
        Fault::lasting(ErrorKind::Conflict, errors::MACHINE_INSTALL_NOT_AVAILABLE, message)
            .log("install NixOS on it by other means, or leave fullInstall out")
    };
    let argv = ["test", "-e", "/run/current-system/bin/switch-to-configuration"].map(str::to_owned);
    match ssh.run(&argv, b"", false, std::time::Duration::from_secs(60)).await {
        Ok(answered) if answered.code == Some(0) => Ok(()),
        Ok(_) => Err(refused("the machine runs no NixOS".to_owned())),
        // It was here before: it is only away.
        Err(fault) if known => Err(fault),
        Err(fault) => Err(refused(format!("the machine cannot be asked ({fault})"))),
    }
}

fn told(desired: &Desired, ended: Result<crate::run::Report, Error>) -> Outcome {
    let machine = &desired.machine;
    match ended {
        Ok(report) => {
            let word = report.progress.phase.as_str();
            Outcome::of(machine, word, Some(report.deployment), report.progress)
        }
        Err(error @ Error::Interrupted { .. }) => {
            let message = error.to_string();
            let Error::Interrupted { deployment, progress } = error else { unreachable!("matched above") };
            let problem = Problem::new(ErrorKind::Interrupted, errors::MACHINE_INTERRUPTED, message);
            Outcome { error: Some(problem), ..Outcome::of(machine, "failed", Some(deployment), *progress) }
        }
        Err(Error::Failed { deployment, progress, failure }) => {
            let log = failure.log().to_owned();
            let problem = Problem::new(failure.kind(), failure.code(), failure.to_string());
            let problem = match hint(&failure) {
                Some(hint) => problem.hint(hint),
                None => problem,
            };
            Outcome { error: Some(problem), log, ..Outcome::of(machine, "failed", Some(deployment), *progress) }
        }
        Err(Error::Store(error)) => Outcome::failed(machine, &store_fault(&error)),
    }
}

fn hint(failure: &Failure) -> Option<&str> {
    match failure {
        Failure::Quarantined { .. } => Some("--retry tries it again"),
        Failure::Conflict { .. } => {
            Some("wait until the other deployment has ended; the host ends it by itself in time")
        }
        Failure::Fault(fault) if !fault.log.contains('\n') && !fault.log.is_empty() => Some(&fault.log),
        _ => None,
    }
}

fn show(outcomes: &[Outcome], output: &Output) {
    if output.json {
        output.json(&outcomes);
        return;
    }
    for outcome in outcomes {
        let system = outcome.system.as_ref().map(StorePath::as_str).unwrap_or_default();
        match &outcome.error {
            Some(error) => output.line(format_args!("{}: failed: {} ({})", outcome.machine, error.detail, error.code)),
            None => {
                let reboot = if outcome.reboot_required { ", needs a restart" } else { "" };
                output.line(format_args!("{}: {} {system}{reboot}", outcome.machine, outcome.outcome));
            }
        }
        if let Some(preview) = outcome.preview.as_ref().filter(|_| outcome.outcome == "previewed") {
            show_preview(preview, output);
        }
        if outcome.log.contains('\n') {
            outcome.log.lines().for_each(|line| output.line(format_args!("    {line}")));
        }
    }
}

fn show_preview(preview: &Preview, output: &Output) {
    let lists = [
        ("stop", &preview.stop),
        ("start", &preview.start),
        ("restart", &preview.restart),
        ("reload", &preview.reload),
        ("leave alone", &preview.untouched),
        ("new in the closure", &preview.added),
        ("gone from the closure", &preview.removed),
    ];
    for (what, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        output.line(format_args!("  {what}: {}", list.join(", ")));
    }
}
