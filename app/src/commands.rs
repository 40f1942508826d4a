//! The command line, and what each command needs before it runs.

use std::ffi::OsString;
use std::path::Path;

use clap::{Parser, Subcommand};
use metal::cli::{Endpoint, MetalCommand, Output};
use web::Problem;

use crate::arguments::{Place, Serve};
use crate::{config, explain, serve};

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

/// The runbook's name of the controller: `shoal-controller` is `cairn serve --role metal` with its own data directory.
pub fn by_name(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let name = arguments.first().map(|name| Path::new(name).file_name().unwrap_or_default().to_owned());
    if name.is_some_and(|name| name == "shoal-controller") {
        let given = |flag: &str, arguments: &[OsString]| {
            arguments.iter().any(|word| word.to_str().is_some_and(|word| word.split('=').next() == Some(flag)))
        };
        let mut inserted: Vec<OsString> = ["serve", "--role", "metal"].map(OsString::from).into();
        if !given("--data-dir", &arguments) && !settings::process_environment().contains_key("STORAGE_ROOT") {
            inserted.extend(["--data-dir", "/var/lib/shoal"].map(OsString::from));
        }
        arguments.splice(1..1, inserted);
    }
    arguments
}

/// Runs a command to its end.
pub fn run(commands: Commands) -> Result<(), Problem> {
    let output = Output { json: commands.json };
    match commands.command {
        Command::Serve(options) => runtime()?.block_on(serve::serve(&options)),
        Command::Metal { endpoint, place, command } => {
            let resolved = config::resolve(&place, None)?;
            let data_dir = config::data_dir(&resolved)?;
            runtime()?.block_on(metal::cli::run(*command, &endpoint, &data_dir, &output))
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
        by_name(text.split(' ').map(OsString::from))
    }

    #[test]
    fn the_runbooks_name_is_the_metal_role() {
        assert_eq!(words("cairn serve"), ["cairn", "serve"]);
        let shoal = words("/usr/local/bin/shoal-controller --listen :8080");
        assert_eq!(shoal[1..4], ["serve", "--role", "metal"]);
        assert!(Commands::try_parse_from(shoal).is_ok());
        let own = words("shoal-controller --data-dir=/srv/x");
        assert_eq!(own, ["shoal-controller", "serve", "--role", "metal", "--data-dir=/srv/x"]);
    }
}
