//! A terminal with a program in it, as somebody who types sees it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::wait;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Debug)]
pub struct Terminal {
    keys: File,
    line: File,
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program in one.
    pub fn start(command: &mut Command) -> Result<Self> {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("open a terminal")?;
        grantpt(&ours).context("grant a terminal")?;
        unlockpt(&ours).context("unlock a terminal")?;
        let name = ptsname(&ours, Vec::new()).context("name a terminal")?;
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let line = OpenOptions::new().read(true).write(true).open(path).context("open a terminal's line")?;
        let child = command.stdin(line.try_clone()?).stdout(line.try_clone()?).stderr(line.try_clone()?).spawn();
        let child = child.context("start a program in a terminal")?;
        let (keys, said) = (File::from(ours), Arc::<Mutex<Vec<u8>>>::default());
        let (mut reader, heard) = (keys.try_clone()?, Arc::clone(&said));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
            }
        });
        Ok(Self { keys, line, child, said })
    }

    /// Everything on it so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a text stands on it.
    pub fn wait_text(&self, text: &str) -> Result<()> {
        let found = wait::until(&format!("the terminal to show {text:?}"), PATIENCE, LOOK, || {
            Ok(self.text().contains(text).then_some(()))
        });
        found.with_context(|| format!("it shows:\n{}", self.text()))
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) -> Result<()> {
        self.keys.write_all(keys).context("press keys")
    }

    /// Whether every key goes to the program as it is.
    pub fn is_raw(&self) -> Result<bool> {
        let modes = tcgetattr(&self.line).context("look at a terminal")?.local_modes;
        Ok(!modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("end the program of a terminal")
    }

    /// Waits for the end of the program.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        wait::until("the program of a terminal to end", PATIENCE, LOOK, || Ok(self.child.try_wait()?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has mostly ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
