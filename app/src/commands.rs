//! The command line, and what each command needs before it runs.

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};
use cli::{Endpoint, Output};
use machine::cli::MachineCommand;
use metal::cli::MetalCommand;
use registry::cli::RegistryCommand;
use registry::settings::RegistrySettings;
use vm::cli::{Access, VmCommand};
use web::Problem;

use crate::arguments::{Called, Place, Role, Serve};
use crate::{config, explain, metald, serve};

/// From the address of a BMC to a running service
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    propagate_version = true,
    after_help = "Examples:
  cairn serve --data-dir /var/lib/cairn --listen 127.0.0.1:8080
  cairn metal image build
  cairn metal server add ABC123 --bmc https://192.0.2.7 --bmc-user root --bmc-password-file pw
  cairn metal job create ABC123 --recipe debian.json --watch
  cairn machine apply web-1 --inventory machines.yaml
  cairn serve --role vm
  cairn vm create web-1 --disk debian-13 --boot

Exit codes: 0 done, 1 failed, 2 usage or settings, 3 not found, 4 conflict, 5 refused, 6 unreachable or timed out,
7 partly done, 130 interrupted"
)]
pub struct Commands {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Serve),
    /// Bare metal: servers, jobs, images, artifacts
    Metal {
        #[command(flatten)]
        endpoint: Box<Endpoint>,
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: Box<MetalCommand>,
    },
    /// NixOS machines from Git: applied on trial, kept when healthy
    #[command(subcommand)]
    Machine(Box<MachineCommand>),
    /// The registry: what is stored, who may use it, what is collected
    Registry {
        #[command(flatten)]
        endpoint: Box<Endpoint>,
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: Box<RegistryCommand>,
    },
    /// MicroVMs: their life, consoles, networks, assets and tokens
    Vm {
        #[command(flatten)]
        endpoint: Box<Endpoint>,
        #[command(flatten)]
        access: Box<Access>,
        #[command(flatten)]
        place: Place,
        #[command(subcommand)]
        command: Box<VmCommand>,
    },
    /// Settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Explain an error code
    #[command(after_help = "Example:
  cairn explain bmc_unreachable")]
    Explain {
        /// The code, as errors print it; all codes when it is left out
        code: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting of `cairn serve`
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        place: Place,
    },
}

/// What is to be done. The name that the program was called by decides how its arguments are read.
///
/// # Errors
/// The call is wrong, or help is asked for.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Commands, clap::Error> {
    let arguments: Vec<OsString> = arguments.collect();
    let name = arguments.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default().to_owned();
    if name == "metald" {
        metald::parse(arguments)?;
        let place = Place { data_dir: None, config: None };
        let options = Serve { role: Role::Vm, place, listen: None, called: Called::Metald };
        return Ok(Commands { json: false, command: Command::Serve(options) });
    }
    Commands::try_parse_from(if name == "shoal-controller" { shoal(arguments) } else { arguments })
}

/// The runbook's name of the controller: `shoal-controller` is `cairn serve --role metal` with its own data directory.
fn shoal(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let given = |flag: &str| {
        arguments.iter().any(|word| word.to_str().is_some_and(|word| word.split('=').next() == Some(flag)))
    };
    let mut inserted: Vec<OsString> = ["serve", "--role", "metal"].map(OsString::from).into();
    if !given("--data-dir") && !settings::process_environment().contains_key("STORAGE_ROOT") {
        inserted.extend(["--data-dir", "/var/lib/shoal"].map(OsString::from));
    }
    arguments.splice(1..1, inserted);
    arguments
}

impl Commands {
    /// The role of the daemon that this process is to be.
    fn role(&self) -> Option<Role> {
        if let Command::Serve(options) = &self.command { Some(options.role) } else { None }
    }
}

/// Runs a command to its end.
pub fn run(commands: Commands) -> Result<(), Problem> {
    let output = Output::new(commands.json);
    // The file that metald is may carry capabilities, for everybody who can run it. The daemon of VMs needs them, and so do
    // nft and the keepers that it starts; nothing else does.
    let kept = if commands.role() == Some(Role::Vm) { host::hand_on_capabilities() } else { host::drop_capabilities() };
    kept.map_err(|error| Problem::internal(&error))?;
    match commands.command {
        Command::Serve(options) => runtime()?.block_on(serve::serve(&options)),
        Command::Metal { endpoint, place, command } => {
            let resolved = config::resolve(&place, None)?;
            let data_dir = config::data_dir(&resolved)?;
            runtime()?.block_on(metal::cli::run(*command, &endpoint, &data_dir, &output))
        }
        Command::Machine(command) => runtime()?.block_on(machine::cli::run(*command, &output)),
        Command::Registry { endpoint, place, command } => match *command {
            RegistryCommand::Serve(options) => {
                let called = Called::Cairn;
                let options = Serve { role: Role::Registry, place, listen: options.listen, called };
                runtime()?.block_on(serve::serve(&options))
            }
            RegistryCommand::Work(command) => {
                let resolved = config::resolve(&place, None)?;
                let data_dir = config::data_dir(&resolved)?;
                let settings =
                    RegistrySettings::resolve(&resolved, &data_dir).map_err(|error| config::problem(&error))?;
                runtime()?.block_on(registry::cli::run(command, &endpoint, &settings, &output))
            }
        },
        Command::Vm { endpoint, access, place, command } => {
            let known = config::known_tokens(&place)?;
            runtime()?.block_on(vm::cli::run(*command, &endpoint, &access, &known, &output))
        }
        Command::Config(ConfigCommand::Show { origin, place }) => config::show(&place, origin, &output),
        Command::Explain { code } => explain::explain(code.as_deref(), &output),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    // One provider of cryptography, chosen here for everything in the process; a second call would find it chosen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| Problem::internal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn parsed(text: &str) -> Result<Commands, clap::Error> {
        parse(words(text).into_iter())
    }

    #[test]
    fn the_runbooks_name_is_the_metal_role() {
        let with = |text| shoal(words(text));
        let shoal = with("/usr/local/bin/shoal-controller --listen :8080");
        assert_eq!(shoal[1..4], ["serve", "--role", "metal"]);
        assert!(Commands::try_parse_from(shoal).is_ok());
        let own = with("shoal-controller --data-dir=/srv/x");
        assert_eq!(own, ["shoal-controller", "serve", "--role", "metal", "--data-dir=/srv/x"]);
        assert_eq!(parsed("shoal-controller").unwrap().role(), Some(Role::Metal));
    }

    #[test]
    fn the_guides_name_is_the_vm_role() {
        let commands = parsed("/usr/local/bin/metald").unwrap();
        assert_eq!((commands.role(), commands.json), (Some(Role::Vm), false));
        let Command::Serve(options) = commands.command else { panic!("metald is a daemon") };
        assert_eq!((options.role, options.called), (Role::Vm, Called::Metald));
        for wrong in ["metald serve", "metald --json", "metald --listen :1", "metald vm list", "metald x"] {
            assert_eq!(parsed(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        for asked in ["metald -help", "metald --help", "metald -h", "metald -version", "metald --version"] {
            assert_eq!(parsed(asked).unwrap_err().exit_code(), 0, "{asked}");
        }
        assert_eq!(parsed("cairn vm list").unwrap().role(), None);
        assert_eq!(parsed("cairn serve --role vm").unwrap().role(), Some(Role::Vm));
    }
}
