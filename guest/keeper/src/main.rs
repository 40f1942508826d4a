//! `cairn-keeper`: the parent of one hypervisor. It outlives the daemon that starts it, and may itself be killed at any
//! instruction: the hypervisor goes on, and the next keeper goes on with it.
//!
//! ```text
//! cairn-keeper [--groups PREFIX [--detach]] DIRECTORY
//! ```
//!
//! What to do is in the directory (`libs/keeper` says which files are there). In order: lock, `keeper.json`, control group
//! and FIFOs, a process that waits, `process.json`, the process is let go, its output is kept, `ended.json`. A process
//! does nothing before the disk says which one it is, and a keeper that finds it said starts none: so a directory never
//! sees two.
//!
//! Without `--groups` the keeper is in a unit of its own: it stays in the unit's control group, which has the limits, and
//! puts the process into one below. With it the keeper moves to `PREFIX-keepers`, the process to `PREFIX-vms/NAME` with
//! the order's limits. `--detach` returns once the process has begun, or why it has not.
//!
//! Exit status: 0 when the process has ended or the keeper was told to (SIGTERM, which the process never hears of); 75
//! when another keeper is at work; 1 otherwise, with a line on standard error.
//!
//! Look next at `work.rs` (the order), `watch.rs` (the loop).

mod arguments;
mod detach;
mod watch;
mod work;

use std::process::ExitCode;

use arguments::Arguments;
use work::WorkError;

/// Another keeper is at work (sysexits.h: EX_TEMPFAIL).
const HELD: u8 = 75;

fn main() -> ExitCode {
    // First of all: nothing here is open yet that this would close.
    if let Err(error) = host::close_inherited() {
        eprintln!("cairn-keeper: cannot close inherited files: {error}");
        return ExitCode::FAILURE;
    }
    let _ = rustix::thread::set_name(c"cairn-keeper");
    let words = std::env::args_os().skip(1);
    let result = match Arguments::parse(words) {
        Ok(arguments) if arguments.detach => return detach::detach(&arguments),
        Ok(arguments) => work::work(&arguments),
        Err(message) => {
            eprintln!("cairn-keeper: {message}");
            return ExitCode::FAILURE;
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn-keeper: {}", cairn_core::chain(&error));
            if matches!(error, WorkError::Keeper(keeper::Error::Locked { .. })) {
                ExitCode::from(HELD)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}
