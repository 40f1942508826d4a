//! `provisioner`: parse, run, exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use cairn_core::SystemClock;
use clap::Parser;
use dispatcher::arguments::{Arguments, Command};
use dispatcher::failure::{Failure, code};
use dispatcher::report::webhook::Reported;
use dispatcher::report::{Patience, first_boot, webhook};
use dispatcher::{dispatch, steps};
use host::Linux;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = tracing_subscriber::EnvFilter::new(&arguments.log_level);
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .init();
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&arguments)))
        .unwrap_or_else(|_| Err(Failure::new(code::PANIC, "a defect of this program; the message above says where")));
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    tracing::error!(code = failure.code, "{failure}");
    match arguments.command {
        None => ExitCode::from(dispatch::exit_code(&failure)),
        Some(_) if failure.code == code::PANIC => ExitCode::from(20),
        Some(_) => ExitCode::FAILURE,
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let paths = arguments.dispatch.paths();
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::new(code::NOT_PRIVILEGED, "this needs root"));
    }
    match &arguments.command {
        None => {
            let serial = std::env::var(&arguments.dispatch.serial_env_key).ok();
            let target = dispatch::run(&Linux, &paths, &arguments.dispatch, serial.as_deref(), &SystemClock)?;
            tracing::info!(%target, "the target is started");
        }
        Some(Command::Step { step }) => steps::run(&Linux, &paths, *step)?,
        Some(Command::Report(report)) => {
            let (power_off, patience) = (!report.no_poweroff, Patience::default());
            match webhook::run(&Linux, &paths, &report.ending, power_off, patience, &SystemClock)? {
                Reported::Refused(reason) => {
                    tracing::error!(reason, "the controller refuses the report; the machine stays on")
                }
                reported => tracing::info!(?reported, "the end is reported"),
            }
        }
        Some(Command::FirstBoot { config }) => first_boot::run(config, "/".as_ref(), Patience::default())?,
    }
    Ok(())
}
