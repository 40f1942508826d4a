//! `cairn machine …`: machines of an inventory, without a daemon and without Kubernetes.

mod apply;
mod doctor;
mod look;
mod progress;
mod site;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cli::Output;
use web::Problem;

use site::Site;

/// Commands of the layer.
#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// List the machines of the inventory and how their last deployments ended; asks no machine
    #[command(after_help = "Examples:
  cairn machine list --inventory machines.yaml
  cairn machine list --on @web --json")]
    List(Place),
    /// Log in and say what each machine runs
    #[command(after_help = "Examples:
  cairn machine probe
  cairn machine probe web-1 --json

Exit codes: 0 all answer, 6 none does, 7 some do not")]
    Probe(Place),
    /// Say what each machine is made of
    #[command(after_help = "Example:
  cairn machine facts web-1 --json")]
    Facts(Place),
    /// Build, copy, and say what would change; nothing is activated
    #[command(after_help = "Example:
  cairn machine diff web-1

The same as cairn machine apply --dry-run.")]
    Diff(Place),
    /// Bring machines to what the repository wants, on trial until their health is known
    #[command(after_help = "Examples:
  cairn machine apply web-1
  cairn machine apply --on @web --parallel 4
  cairn machine apply --dry-run --json
  cairn machine apply web-1 --retry

Exit codes: 0 all run it, 1 a machine took the old system back, 4 somebody else has a machine or the system is quarantined,
5 login or host key refused, 6 unreachable, 7 some of several failed, 130 interrupted")]
    Apply(apply::Apply),
    /// Bring machines back to the system that they ran before the last deployment
    #[command(after_help = "Examples:
  cairn machine rollback web-1
  cairn machine rollback web-1 --to /nix/store/…-nixos-system-web-24.11")]
    Rollback(apply::Rollback),
    /// Show deployments and how they ended
    #[command(after_help = "Example:
  cairn machine history web-1 --limit 5")]
    History(look::History),
    /// Say what is missing here and on the machines, and what to do about it
    #[command(after_help = "Example:
  cairn machine doctor

Exit codes: 0 nothing fails, 1 something does")]
    Doctor(Place),
}

/// Which machines, and how they are reached.
#[derive(Debug, Args)]
pub struct Place {
    /// Machines, by name or NAMESPACE/NAME; all of the inventory when none is named
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    /// Machines by name, or by label: @KEY or @KEY=VALUE; may be given more than once
    #[arg(long, value_name = "NAME|@LABEL")]
    on: Vec<String>,
    /// Inventory: a YAML file, or a directory of them, with Machines, NixosConfigurations and Secrets
    #[arg(long, value_name = "FILE|DIR", default_value = "machines.yaml")]
    inventory: PathBuf,
    /// Where history, host keys and mirrors are kept [default: /var/lib/cairn/machine as root, else
    /// $XDG_STATE_HOME/cairn/machine]
    #[arg(long, visible_alias = "data-dir", value_name = "DIR")]
    state_directory: Option<PathBuf>,
    /// So many machines at once
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    parallel: u16,
    /// Private key for machines that name none; '-' reads it from standard input
    #[arg(long, value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// Refuse a machine whose host key is neither in the inventory nor known from before
    #[arg(long)]
    strict_host_keys: bool,
    /// Forget the host keys that were trusted on first use, for machines that were installed anew
    #[arg(long, conflicts_with = "strict_host_keys")]
    trust_new_host_keys: bool,
}

/// Carries a command out.
///
/// # Errors
/// What went wrong, with the exit code of its kind.
pub async fn run(command: MachineCommand, output: &Output) -> Result<(), Problem> {
    match command {
        MachineCommand::List(place) => look::list(&Site::open(&place).await?, output).await,
        MachineCommand::Probe(place) => look::probe(&Site::open(&place).await?, output).await,
        MachineCommand::Facts(place) => look::facts(&Site::open(&place).await?, output).await,
        MachineCommand::Diff(place) => apply::diff(&Site::open(&place).await?, output).await,
        MachineCommand::Apply(options) => apply::apply(&options, output).await,
        MachineCommand::Rollback(options) => apply::rollback(&options, output).await,
        MachineCommand::History(options) => look::history(&options, output).await,
        MachineCommand::Doctor(place) => doctor::run(&place, output).await,
    }
}
