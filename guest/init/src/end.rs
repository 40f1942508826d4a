//! The end of the VM.

use std::io::Write;

use rustix::system::{RebootCommand, reboot};

/// What happens to the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    PowerOff,
    Reboot,
}

impl How {
    /// What the kernel's command line says, as far as it can be read.
    pub(crate) fn asked() -> Self {
        Self::of_line(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    /// Looks for `cairn.end` alone: it counts too when something else in the line is wrong.
    pub(crate) fn of_line(line: &str) -> Self {
        let reboots =
            line.split_whitespace().filter_map(|word| word.strip_prefix("cairn.end=")).next_back() == Some("reboot");
        if reboots { Self::Reboot } else { Self::PowerOff }
    }
}

/// Says the code, saves what is on disks and ends the VM. Nothing here can be told to anybody if it fails.
pub(crate) fn end(code: u8, how: How) -> ! {
    let mut console = std::io::stdout();
    let _ = console.write_all(format!("\ncairn-init: exit {code}\n").as_bytes()).and_then(|()| console.flush());
    // What is in the serial port's buffer would be lost.
    let _ = rustix::termios::tcdrain(&console);
    rustix::fs::sync();
    let _ = rustix::mount::mount_remount("/", rustix::mount::MountFlags::RDONLY, "");
    let command = if how == How::Reboot { RebootCommand::Restart } else { RebootCommand::PowerOff };
    let _ = reboot(command);
    // Where there is no power switch the call comes back; the kernel does not bear the end of its first process.
    loop {
        rustix::event::pause();
    }
}
