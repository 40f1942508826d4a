//! The guest: what it writes on the serial port, and how it ends.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use testkit::guest_kernel::{End, Guest};

/// Exit code of Firecracker when a guest resets.
const RESET: u8 = 0;

/// Exit code of Firecracker when a processor cannot go on.
const CRASHED: u8 = 1;

/// A guest at work.
#[derive(Debug)]
pub(crate) struct Work {
    guest: Option<Guest>,
    serial: Option<File>,
}

impl Work {
    /// Loads a kernel. `serial` is a file for its output instead of standard output. Err is the fault.
    pub(crate) fn load(kernel: &Path, serial: Option<&Path>) -> Result<Self, String> {
        let bytes = std::fs::read(kernel).unwrap_or_default();
        // An ELF file, or a bzImage with its boot sector.
        let loadable = bytes.starts_with(b"\x7fELF") || bytes.get(0x202..0x206) == Some(b"HdrS");
        if !loadable {
            return Err("Start microvm error: System configuration error: Cannot load kernel due to invalid memory \
                        configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image"
                .to_owned());
        }
        let serial = serial.map(|path| File::options().append(true).create(true).open(path));
        let serial = serial.transpose().map_err(|error| format!("Start microvm error: serial output: {error}"))?;
        Ok(Self { guest: Guest::read(&bytes), serial })
    }

    /// Runs on to the next pause; gives back the exit code when the VM is over.
    pub(crate) fn step(&mut self) -> Option<u8> {
        let guest = self.guest.as_ref()?;
        let end = guest.end;
        let text = guest.text.as_bytes();
        let mut standard = std::io::stdout();
        let out: &mut dyn Write = self.serial.as_mut().map_or(&mut standard, |file| file);
        // Firecracker loses serial output that nobody takes.
        let _ = out.write_all(text).and_then(|()| out.flush());
        match end {
            End::Reset => return Some(RESET),
            End::Crash => return Some(CRASHED),
            End::Halt => self.guest = None,
            End::Repeat => {}
        }
        None
    }

    /// Whether it has anything left to do.
    pub(crate) fn is_busy(&self) -> bool {
        self.guest.is_some()
    }
}
