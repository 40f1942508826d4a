//! `cairn vm …`: the commands. All of them talk to a daemon, and none to the host.

mod asset;
mod console;
mod create;
mod events;
mod life;
mod token;
mod tree;
mod upkeep;
mod view;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use cli::{Daemon, Endpoint, Output, read_secret};
use secrecy::SecretString;
use url::{Host, Url};
use web::Problem;

use crate::access::OPERATOR_FILE;

/// Commands of the layer.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Make a VM, and boot it with --boot
    #[command(after_help = "Examples:
  cairn vm create --boot
  cairn vm create web-1 --vcpus 2 --memory 512MiB --disk debian-13 --port 20080:80 --boot --wait
  cairn vm create --disk data --disk tools:ro --no-internet --egress 192.0.2.7,tcp:443
  cairn vm create --config vm.json

Kernels and disks are assets (cairn vm asset list); those of the host's settings are taken where none is named. FILE holds
the JSON of a VM as POST /v1/vms takes it and as lists show it; flags go before what it says.")]
    Create(Box<create::Create>),
    /// Boot a VM that is at rest
    #[command(after_help = "Example:
  cairn vm boot web-1")]
    Boot(life::One),
    /// List VMs
    #[command(after_help = "Examples:
  cairn vm list
  cairn vm list --state running --state paused --json")]
    List(life::List),
    /// Show a VM: state and why, addresses, ports, and the console's end where it failed
    #[command(after_help = "Example:
  cairn vm show web-1")]
    Show(life::One),
    /// Wait until a VM is in a state
    #[command(after_help = "Examples:
  cairn vm wait web-1
  cairn vm wait web-1 --state shutdown --state failed --timeout 10m

Exit codes: 0 it is, 6 it was not in time")]
    Wait(life::Wait),
    /// Let a VM end: ask its guest, and end it by force when its time is over
    #[command(after_help = "Examples:
  cairn vm stop web-1 --timeout 2m
  cairn vm stop web-1 --force")]
    Stop(life::Ending),
    /// Let a VM's processors stand still
    #[command(after_help = "Example:
  cairn vm pause web-1")]
    Pause(life::One),
    /// Let them run again
    #[command(after_help = "Example:
  cairn vm resume web-1")]
    Resume(life::One),
    /// Let a VM end, and boot it again
    #[command(after_help = "Example:
  cairn vm reboot web-1 --timeout 10s")]
    Reboot(life::Ending),
    /// Remove a VM, its disks and its addresses
    #[command(after_help = "Examples:
  cairn vm delete web-1 --dry-run
  cairn vm delete web-1 --force")]
    Delete(life::Delete),
    /// Print what a guest wrote to its serial console
    #[command(after_help = "Examples:
  cairn vm logs web-1
  cairn vm logs web-1 --follow
  cairn vm logs web-1 --raw > console.log

What steers a terminal is shown and not obeyed, unless --raw is given.")]
    Logs(console::Logs),
    /// Follow the serial console and type into it
    #[command(after_help = "Example:
  cairn vm console web-1

At a terminal every key goes to the guest, and Ctrl-] ends this command. Otherwise lines are sent as they come.")]
    Console(life::One),
    /// Show what happened to a VM, or to all of them
    #[command(after_help = "Examples:
  cairn vm events
  cairn vm events web-1 --follow")]
    Events(events::Events),
    /// Networks of VMs
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Remove what on this host belongs to no VM
    #[command(after_help = "Examples:
  cairn vm gc --dry-run
  cairn vm gc")]
    Gc(upkeep::Gc),
    /// Say what this host lacks for VMs, and what to do about it
    #[command(after_help = "Example:
  cairn vm doctor

Exit codes: 0 nothing fails, 1 something does")]
    Doctor,
    /// Tokens: who may call the API
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Assets: kernels, initial file systems and disks that VMs are made of
    #[command(subcommand)]
    Asset(asset::AssetCommand),
    /// Refuse changes for a while; guests go on
    #[command(after_help = "Examples:
  cairn vm maintenance on
  cairn vm maintenance show

Survives a restart of the daemon. Reading goes on, changes are refused with 503.")]
    Maintenance {
        /// What to do
        #[arg(value_enum, default_value = "show")]
        switch: Switch,
    },
}

/// Commands about networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Show rules, counters and addresses of a VM, or of all of them
    #[command(after_help = "Examples:
  cairn vm network show
  cairn vm network show web-1 --json")]
    Show {
        /// Only this VM
        #[arg(value_name = "VM")]
        id: Option<String>,
    },
}

/// What is done about maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Changes are refused
    On,
    /// They are taken
    Off,
    /// Say which
    Show,
}

/// Who calls.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Controller")]
pub struct Access {
    /// File with a token (cairn vm token create); '-' reads it from standard input. Without it CAIRN_TOKEN counts, and on
    /// the daemon's own host the operator's token in its data directory
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// What is known of tokens without a flag.
#[derive(Debug, Default)]
pub struct Known {
    /// From the settings.
    pub token: Option<SecretString>,
    /// Data directories of daemons of this host, the likelier first.
    pub data_dirs: Vec<PathBuf>,
}

impl Access {
    fn token(&self, known: &Known, daemon: &Url) -> Result<Option<SecretString>, Problem> {
        if let Some(path) = &self.token_file {
            return read_secret(path).map(Some);
        }
        if known.token.is_some() {
            return Ok(known.token.clone());
        }
        // The token of this host's daemon is no other host's business.
        if !is_loopback(daemon) {
            return Ok(None);
        }
        let readable = |directory: &Path| read_secret(&directory.join(OPERATOR_FILE)).ok();
        Ok(known.data_dirs.iter().find_map(|directory| readable(directory)))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Carries a command out.
///
/// # Errors
/// What went wrong, with the exit code of its kind.
pub async fn run(
    command: VmCommand,
    endpoint: &Endpoint,
    access: &Access,
    known: &Known,
    output: &Output,
) -> Result<(), Problem> {
    let daemon = Daemon::new(endpoint)?;
    let token = access.token(known, daemon.base())?;
    let daemon = daemon.with_token(token);
    match command {
        VmCommand::Create(create) => create::run(&create, &daemon, output).await,
        VmCommand::Boot(one) => life::change(&one.id, "boot", &daemon, output).await,
        VmCommand::List(list) => life::list(&list, &daemon, output).await,
        VmCommand::Show(one) => life::show(&one.id, &daemon, output).await,
        VmCommand::Wait(wait) => life::wait(&wait, &daemon, output).await,
        VmCommand::Stop(ending) => life::end(&ending, "shutdown", &daemon, output).await,
        VmCommand::Pause(one) => life::change(&one.id, "pause", &daemon, output).await,
        VmCommand::Resume(one) => life::change(&one.id, "resume", &daemon, output).await,
        VmCommand::Reboot(ending) => life::end(&ending, "reboot", &daemon, output).await,
        VmCommand::Delete(delete) => life::delete(&delete, &daemon, output).await,
        VmCommand::Logs(logs) => console::logs(&logs, &daemon, output).await,
        VmCommand::Console(one) => console::console(&one.id, &daemon).await,
        VmCommand::Events(events) => events::run(&events, &daemon, output).await,
        VmCommand::Network(NetworkCommand::Show { id }) => upkeep::network(id.as_deref(), &daemon, output).await,
        VmCommand::Gc(gc) => upkeep::gc(&gc, &daemon, output).await,
        VmCommand::Doctor => upkeep::doctor(&daemon, output).await,
        VmCommand::Token(command) => token::run(command, &daemon, output).await,
        VmCommand::Asset(command) => asset::run(command, &daemon, output).await,
        VmCommand::Maintenance { switch } => upkeep::maintenance(switch, &daemon, output).await,
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn the_operators_token_of_this_host_stays_on_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(OPERATOR_FILE), "local\n").unwrap();
        let known = |token: Option<&str>| Known {
            token: token.map(SecretString::from),
            data_dirs: vec![PathBuf::from("/nowhere"), directory.path().to_owned()],
        };
        let token = |access: &Access, token, url: &str| {
            let token = access.token(&known(token), &url.parse().unwrap()).unwrap();
            token.map(|token| token.expose_secret().to_owned())
        };
        let none = Access::default();
        for local in ["http://127.0.0.1:8080", "http://localhost:8080", "http://[::1]:8080"] {
            assert_eq!(token(&none, None, local).as_deref(), Some("local"), "{local}");
        }
        assert_eq!(token(&none, None, "http://metald.example:8080"), None);
        assert_eq!(token(&none, Some("mine"), "http://metald.example:8080").as_deref(), Some("mine"));
        assert_eq!(token(&none, Some("mine"), "http://127.0.0.1:8080").as_deref(), Some("mine"));
        let file = directory.path().join("file");
        std::fs::write(&file, "from a file").unwrap();
        let access = Access { token_file: Some(file) };
        assert_eq!(token(&access, Some("mine"), "http://[2001:db8::1]").as_deref(), Some("from a file"));
        assert!(
            Access { token_file: Some("/nowhere".into()) }.token(&known(None), &"http://x".parse().unwrap()).is_err()
        );
    }
}
