//! The order in which a VM comes up.

use std::error::Error;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::arguments::Arguments;
use crate::end::How;
use crate::{FAILED, modules, mounts, network, supervise};

/// Does everything; gives back how the VM is to end. A root disk's own init takes the place of this process.
pub(crate) fn boot() -> (u8, How) {
    let early = mounts::early();
    open_console();
    if let Err(error) = early {
        say(&error);
        return (FAILED, How::PowerOff);
    }
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let code = follow(&line).unwrap_or_else(|error| {
        say(error.as_ref());
        FAILED
    });
    (code, How::of_line(&line))
}

fn follow(line: &str) -> Result<u8, Box<dyn Error>> {
    let arguments = Arguments::parse(line)?;
    modules::load(&arguments.modules)?;
    network::up(&arguments)?;
    if let Some(root) = &arguments.root {
        mounts::switch(root)?;
    }
    network::resolver(&arguments)?;
    match (&arguments.root, arguments.run.is_empty()) {
        (_, false) => Ok(supervise::run(&arguments.run, arguments.grace)?),
        (Some(root), true) => Err(Command::new(&root.init).exec().into()),
        (None, true) => Err("neither root= nor cairn.run= is on the kernel's command line".into()),
    }
}

/// The kernel opens the console for the first process only where the initramfs has its device node.
fn open_console() {
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
}

/// Writes an error with its causes.
fn say(error: &dyn Error) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    println!("cairn-init: {text}");
}
