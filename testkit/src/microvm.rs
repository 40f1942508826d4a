//! A microVM under QEMU's emulation with Debian's kernel and an initramfs made here, for programs that run as its first
//! process. See decision 0013 for the processor.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::debian_kernel::Kernel;
use crate::environment;
use crate::process::{Daemon, free_port, run};
use crate::serial::SerialLog;

/// Modules that a guest of QEMU's microvm machine needs: devices, network, disks, the power button.
pub const MODULES: [&str; 5] = ["virtio_mmio", "virtio_net", "virtio_blk", "button", "evdev"];

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;

/// An initramfs in the making (kernel documentation, driver-api/early-userspace/buffer-format, "newc").
#[derive(Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    directories: Vec<String>,
}

impl Initramfs {
    /// Adds a file, and the directories above it; `path` has no slash in front.
    pub fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        let ends = path.char_indices().filter(|(_, letter)| *letter == '/').map(|(at, _)| &path[..at]);
        for directory in ends {
            if !self.directories.iter().any(|known| known == directory) {
                self.directories.push(directory.to_owned());
                self.entry(directory, DIRECTORY, &[]);
            }
        }
        self.entry(path, REGULAR | mode, content);
    }

    /// Adds a file of this machine.
    pub fn copy(&mut self, from: &Path, path: &str, mode: u32) -> Result<()> {
        self.add(path, mode, &std::fs::read(from).with_context(|| format!("read {}", from.display()))?);
        Ok(())
    }

    /// Adds modules of a kernel, with what they need.
    pub fn modules(&mut self, kernel: &Kernel, names: &[&str]) -> Result<()> {
        for (name, content) in kernel.modules(names)? {
            self.add(&format!("lib/modules/{}/{name}", kernel.release()), 0o644, &content);
        }
        Ok(())
    }

    /// Writes it.
    pub fn write(mut self, path: &Path) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[]);
        std::fs::write(path, self.bytes).with_context(|| format!("write {}", path.display()))
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        // inode, mode, uid, gid, links, date, size, device, represented device, length of the name, checksum
        let fields = [0, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let out = &mut self.bytes;
        out.extend_from_slice(b"070701");
        for field in fields {
            out.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        for part in [[name.as_bytes(), b"\0"].concat().as_slice(), content] {
            out.extend_from_slice(part);
            out.resize(out.len().next_multiple_of(4), 0);
        }
    }
}

/// `cairn-init`, built by cargo without shared libraries.
pub fn init() -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let program = std::env::current_exe().context("the path of the running program")?;
    // <target>/<profile>/deps/<test>
    let target = program.ancestors().nth(3).context("the test lies in no target directory")?;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest/init/Cargo.toml");
    let flags = format!("target.{TARGET}.rustflags=[\"-C\",\"target-feature=+crt-static\"]");
    let mut cargo = Command::new(environment::cargo());
    cargo.args(["build", "--quiet", "--manifest-path", manifest, "--bins", "--target", TARGET, "--config", &flags]);
    run(cargo.arg("--target-dir").arg(target))?;
    Ok(target.join(TARGET).join("debug/cairn-init"))
}

/// A machine to start.
#[derive(Debug)]
pub struct Microvm<'a> {
    /// Kernel.
    pub kernel: &'a Kernel,
    /// Initial file system.
    pub initramfs: &'a Path,
    /// Words for the kernel's command line, after those that the emulation needs.
    pub words: &'a str,
    /// Raw images on virtio-blk.
    pub disks: &'a [PathBuf],
}

/// A running machine; ended with its value.
#[derive(Debug)]
pub struct RunningMicrovm {
    daemon: Daemon,
    serial: SerialLog,
    control: PathBuf,
    port: u16,
}

impl Microvm<'_> {
    /// Starts it with one processor, 256 MiB and an AT keyboard. `directory` takes the console log. The guest reaches the
    /// host at 10.0.2.2 and fec0::2; its port 8080 is [`RunningMicrovm::port`] of 127.0.0.1. A reboot ends it.
    pub fn start(&self, directory: &Path) -> Result<RunningMicrovm> {
        let serial = directory.join("serial.log");
        let control = directory.join("qmp.sock");
        let port = free_port()?;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "microvm,accel=tcg", "-cpu", "qemu64,-cx16", "-m", "256", "-smp", "1"]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-device", "i8042"]);
        command.args(["-chardev", &format!("file,id=console,path={}", serial.display()), "-serial", "chardev:console"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", control.display())]);
        command.args(["-netdev", &format!("user,id=net0,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:8080")]);
        command.args(["-device", "virtio-net-device,netdev=net0"]);
        for (index, disk) in self.disks.iter().enumerate() {
            command.args(["-drive", &format!("file={},if=none,id=drive{index},format=raw", disk.display())]);
            command.args(["-device", &format!("virtio-blk-device,drive=drive{index}")]);
        }
        command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(self.initramfs);
        let words = format!("console=ttyS0 quiet oops=panic panic=-1 {} {}", clock()?, self.words);
        command.args(["-append", &words]);
        let daemon = Daemon::start("qemu", &mut command, &directory.join("qemu.log"))?;
        Ok(RunningMicrovm { daemon, serial: SerialLog::new(serial), control, port })
    }
}

/// The kernel cannot measure the emulated time stamp counter, which is the host's.
fn clock() -> Result<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let megahertz = text.lines().find(|line| line.starts_with("cpu MHz")).and_then(|line| line.split(": ").nth(1));
    let megahertz: f64 = megahertz.context("/proc/cpuinfo names no frequency")?.trim().parse()?;
    Ok(format!("tsc_early_khz={:.0}", megahertz * 1000.0))
}

impl RunningMicrovm {
    /// The serial console.
    pub fn serial(&self) -> &SerialLog {
        &self.serial
    }

    /// Port of 127.0.0.1 that is the guest's port 8080.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Presses the power button.
    pub fn press_power(&self) -> Result<()> {
        self.control(&json!({ "execute": "system_powerdown" }))
    }

    /// Presses Ctrl-Alt-Del.
    pub fn press_ctrl_alt_del(&self) -> Result<()> {
        let keys = ["ctrl", "alt", "delete"].map(|key| json!({ "type": "qcode", "data": key }));
        self.control(&json!({ "execute": "send-key", "arguments": { "keys": keys } }))
    }

    /// Waits until the guest powers off or reboots.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        self.daemon.wait_end(limit).with_context(|| format!("last lines:\n{}", self.serial.tail(20)))?;
        Ok(())
    }

    fn control(&self, command: &Value) -> Result<()> {
        let mut stream = UnixStream::connect(&self.control).context("connect to QEMU")?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        for line in [&json!({ "execute": "qmp_capabilities" }), command] {
            stream.write_all(format!("{line}\n").as_bytes()).context("write to QEMU")?;
        }
        for _ in 0..2 {
            let answer = lines
                .find(|line| line.as_ref().is_ok_and(|line| !line.contains("\"QMP\"") && !line.contains("\"event\"")));
            let answer = answer.context("QEMU hung up")??;
            ensure!(answer.contains("\"return\""), "QEMU answered {answer}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_directories_once_and_before_their_files() {
        let mut initramfs = Initramfs::default();
        initramfs.add("bin/a", 0o755, b"x");
        initramfs.add("bin/b", 0o755, b"");
        let text = String::from_utf8_lossy(&initramfs.bytes).into_owned();
        assert!(text.starts_with("07070100000000000041ED"), "{text}");
        assert_eq!((text.matches("bin\0").count(), text.matches("bin/").count()), (1, 2));
        assert_eq!(initramfs.bytes.len() % 4, 0);
    }
}
