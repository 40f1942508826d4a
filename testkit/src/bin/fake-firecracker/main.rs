//! A Firecracker for tests that need one at hand, or one that fails when told to: the command line, the API, its rules
//! of what is allowed when, its limits, its metrics lines and its exit codes, without a virtual machine behind them.
//! The guests of [`testkit::guest_kernel`] do what they would do; another kernel stays silent.
//!
//! It keeps the rules of Firecracker 1.16 (`src/vmm/src/rpc_interface.rs` there; the texts are what 1.16 and 1.17-dev
//! answered). The test suite of the client runs against it and against the real one.
//!
//! Orders to fail are read from the file `<socket>.orders` ([`testkit::hypervisor::Order`]) before each request.
//! Differences: it makes no tap devices, has no log lines, and processor templates, pmem and memory hotplug are only
//! remembered.
//!
//! Look next at `machine.rs` (the rules), `server.rs` (connections), `guest.rs`.

mod arguments;
mod devices;
mod fields;
mod guest;
mod http;
mod machine;
mod metrics;
mod server;
mod snapshot;
mod values;

use std::process::ExitCode;

use arguments::{Arguments, Wanted};
use machine::Machine;
use server::Server;

/// `FcExitCode::GenericError`.
const FAILED: u8 = 1;

/// `FcExitCode::BadConfiguration`.
const BAD_CONFIGURATION: u8 = 152;

/// `FcExitCode::ArgParsing`.
const BAD_ARGUMENTS: u8 = 153;

/// Version that it plays.
const VERSION: &str = "1.16.0";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match Arguments::parse(&words) {
        Ok(Wanted::Version) => {
            println!("Firecracker v{VERSION}\n");
            ExitCode::SUCCESS
        }
        Ok(Wanted::Run(arguments)) => ExitCode::from(run(&arguments)),
        Err(problem) => {
            eprintln!("Error: ParseArguments({problem})");
            ExitCode::from(BAD_ARGUMENTS)
        }
    }
}

fn run(arguments: &Arguments) -> u8 {
    if let Some(jail) = &arguments.jail
        && let Err(error) = jail.enter()
    {
        eprintln!("Error: {error:#}");
        return FAILED;
    }
    let mut machine = Machine::new(arguments);
    if let Some(path) = &arguments.config_file
        && let Err(problem) = machine.configure(path)
    {
        eprintln!("Error: RunWithoutApiError(BuildMicroVMFromJson({problem}))");
        return BAD_CONFIGURATION;
    }
    let server = if arguments.no_api { Ok(Server::silent()) } else { Server::listen(arguments) };
    match server.and_then(|mut server| server.run(&mut machine)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: RunWithApi({error:#})");
            FAILED
        }
    }
}
