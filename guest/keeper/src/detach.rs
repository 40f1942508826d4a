//! Going on in the background: this program starts itself again and waits until that one has begun its work.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use crate::arguments::Arguments;

/// Starts the keeper that stays. It says on a pipe why it cannot begin, and closes the pipe once it has.
pub(crate) fn detach(arguments: &Arguments) -> ExitCode {
    match stay(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cairn-keeper: cannot go on in the background: {error}");
            ExitCode::FAILURE
        }
    }
}

fn stay(arguments: &Arguments) -> io::Result<ExitCode> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("cairn-keeper").arg("--detached");
    command.args(arguments.groups.iter().flat_map(|groups| ["--groups", groups])).arg(&arguments.directory);
    let mut child = command
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .current_dir("/")
        .spawn()?;
    let mut told = String::new();
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_string(&mut told)?;
    }
    if told.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    io::stderr().write_all(told.as_bytes())?;
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1).max(1)))
}

/// What the one that stays does first: its starter's session and signals are nothing to it.
pub(crate) fn leave_session() -> rustix::io::Result<()> {
    rustix::process::setsid().map(drop)
}

/// What it does when it has begun: whoever waits is let go.
pub(crate) fn let_go() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
