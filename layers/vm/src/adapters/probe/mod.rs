//! Whether KVM can run a kernel here (decision 27). That `/dev/kvm` opens says little: there are hosts whose KVM runs
//! simple programs and no kernel. So a small guest does what a kernel needs, under the same KVM, and says how far it got.
//! The verdict is kept, and holds until kernel, processor or KVM module change.

mod choose;
mod guest;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host::{Command, FileError, ProcessError, Processes};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use choose::{BackendSetting, Choice, Present, choose};

/// How long the guest may take. It takes a fraction of a second where it ends at all.
const LIMIT: Duration = Duration::from_secs(5);

/// Memory of the guest in MiB.
const MEMORY: u32 = 64;

/// Whether KVM can run a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It can.
    Usable,
    /// It cannot, and why.
    NotUsable(String),
}

/// What a verdict depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Release of the host's kernel.
    pub kernel: String,
    /// Model of the processor.
    pub processor: String,
    /// KVM's modules, as `kvm_intel`.
    pub modules: Vec<String>,
}

impl Key {
    /// This host's.
    ///
    /// # Errors
    /// When the kernel does not say it.
    pub fn of_this_host() -> Result<Self, FileError> {
        let cpuinfo = Path::new("/proc/cpuinfo");
        let text = std::fs::read_to_string(cpuinfo).map_err(FileError::at("read", cpuinfo))?;
        let line = text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
        let processor = line.map(|(_, model)| model.trim().to_owned()).unwrap_or_default();
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        // Also built-in ones are named there.
        let entries = std::fs::read_dir("/sys/module").into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut modules: Vec<String> = names.filter(|name| name.starts_with("kvm_")).collect();
        modules.sort();
        Ok(Self { kernel, processor, modules })
    }
}

/// A verdict with what it depends on, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    key: Key,
    verdict: Verdict,
}

/// The probe. Calls block.
#[derive(Clone)]
pub struct Probe {
    /// `/dev/kvm`.
    pub device: PathBuf,
    /// QEMU, which runs the guest where it is installed.
    pub qemu: Option<PathBuf>,
    /// Firecracker, which runs it elsewhere.
    pub firecracker: Option<PathBuf>,
    /// File that keeps the verdict.
    pub file: PathBuf,
    /// Runs them.
    pub processes: Arc<dyn Processes>,
}

impl Probe {
    /// The verdict that is kept, if it is one about this host as it is now.
    pub fn kept(&self) -> Option<Verdict> {
        let text = std::fs::read(&self.file).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        (record.key == Key::of_this_host().ok()?).then_some(record.verdict)
    }

    /// The verdict: the one that is kept, unless it is asked for `again`, otherwise what the guest says now. Only a guest's
    /// word is kept; that a program is missing or the device does not open can be mended at any time.
    ///
    /// # Errors
    /// When the verdict cannot be kept.
    pub fn verdict(&self, again: bool) -> Result<Verdict, FileError> {
        if let Err(error) = std::fs::File::options().read(true).write(true).open(&self.device) {
            return Ok(Verdict::NotUsable(format!("{} does not open: {error}", self.device.display())));
        }
        if let Some(verdict) = self.kept().filter(|_| !again) {
            return Ok(verdict);
        }
        let Some(mut verdict) = self.run("kvm")? else {
            let reason = "neither QEMU nor Firecracker is installed to try it with";
            return Ok(Verdict::NotUsable(reason.to_owned()));
        };
        if verdict != Verdict::Usable {
            // It may have been a busy moment, and this is kept for as long as the kernel is.
            verdict = self.run("kvm")?.unwrap_or(verdict);
        }
        let record = Record { key: Key::of_this_host()?, verdict };
        let text = serde_json::to_vec_pretty(&record).map_err(FileError::at("write", &self.file))?;
        host::write_atomic(&self.file, &text, 0o644)?;
        tracing::info!(verdict = ?record.verdict, key = ?record.key, "accelerator probed");
        Ok(record.verdict)
    }

    /// Runs the guest; nothing when there is no program for it. The accelerator is `kvm`; the guest itself is tried out
    /// under `tcg`.
    ///
    /// # Errors
    /// When its files cannot be written.
    pub fn run(&self, accelerator: &str) -> Result<Option<Verdict>, FileError> {
        let directory = tempfile::tempdir().map_err(FileError::at("make a directory in", &std::env::temp_dir()))?;
        let (kernel, serial) = (directory.path().join("guest"), directory.path().join("serial"));
        std::fs::write(&kernel, guest::elf()).map_err(FileError::at("write", &kernel))?;
        let command = match (&self.qemu, &self.firecracker) {
            (Some(qemu), _) => by_qemu(qemu, &kernel, accelerator),
            (None, Some(firecracker)) => by_firecracker(firecracker, &kernel, directory.path())?,
            (None, None) => return Ok(None),
        };
        let ran = self.processes.run(&command.output_to(&serial).timeout(LIMIT));
        let text = std::fs::read(&serial).unwrap_or_default();
        let said = ran.err().map(|error| match error {
            // The hypervisor's registers on standard error tell nobody anything.
            ProcessError::Timeout { timeout, .. } => format!("it stood still for {} s", timeout.as_secs()),
            error => cairn_core::chain(&error),
        });
        Ok(Some(judge(guest::passed(&String::from_utf8_lossy(&text)), said.as_deref())))
    }
}

/// The model of the processor has no say in what is asked here, and one of its features is known to be refused by some
/// KVMs.
fn by_qemu(program: &Path, kernel: &Path, accelerator: &str) -> Command {
    let processor = if accelerator == "kvm" { "host,-arch-capabilities" } else { "qemu64" };
    Command::new(program.to_string_lossy())
        .args(["-M", "microvm", "-accel", accelerator, "-cpu", processor, "-m", &format!("{MEMORY}M")])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-device", "i8042"])
        .args(["-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial"])
        .arg("-kernel")
        .arg(kernel.to_string_lossy())
}

fn by_firecracker(program: &Path, kernel: &Path, directory: &Path) -> Result<Command, FileError> {
    let config = directory.join("config.json");
    let machine = json!({
        "boot-source": { "kernel_image_path": kernel, "boot_args": "" },
        "drives": [],
        "machine-config": { "vcpu_count": 1, "mem_size_mib": MEMORY },
    });
    std::fs::write(&config, machine.to_string()).map_err(FileError::at("write", &config))?;
    Ok(Command::new(program.to_string_lossy())
        .args(["--no-api", "--id", "cairn-probe", "--level", "Error", "--config-file"])
        .arg(config.to_string_lossy()))
}

/// What follows from how far the guest got, and from what was said about the end of its hypervisor.
fn judge(passed: usize, said: Option<&str>) -> Verdict {
    let Some(stage) = guest::STAGES.get(passed) else { return Verdict::Usable };
    let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
    Verdict::NotUsable(format!("a guest under KVM could not {stage}{said}"))
}

#[cfg(test)]
mod tests {
    use host::{Fake, Reply};

    use super::*;

    fn probe(directory: &Path, processes: Arc<dyn Processes>) -> Probe {
        Probe {
            // Any file that opens.
            device: "/dev/null".into(),
            qemu: Some("/usr/bin/qemu-system-x86_64".into()),
            firecracker: Some("/usr/bin/firecracker".into()),
            file: directory.join("probe.json"),
            processes,
        }
    }

    #[test]
    fn the_first_thing_that_is_missing_is_the_reason() {
        assert_eq!(judge(6, Some("QEMU was killed")), Verdict::Usable);
        let reason = "a guest under KVM could not execute LOCK CMPXCHG16B (it stood still for 5 s)".to_owned();
        assert_eq!(judge(5, Some("it stood still for 5 s")), Verdict::NotUsable(reason));
        let reason = "a guest under KVM could not run its first instruction".to_owned();
        assert_eq!(judge(0, None), Verdict::NotUsable(reason));
    }

    #[test]
    fn a_verdict_holds_until_what_it_depends_on_changes() {
        let directory = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::new().on(&["/usr/bin/qemu-system-x86_64"], Reply::Exit(1, "no".to_owned())));
        let probe = probe(directory.path(), fake.clone());
        assert_eq!(probe.kept(), None);
        let first = probe.verdict(false).unwrap();
        assert!(matches!(&first, Verdict::NotUsable(reason) if reason.contains("first instruction")), "{first:?}");
        assert_eq!(probe.verdict(false).unwrap(), first);
        // What it could not do it is asked twice.
        assert_eq!((fake.lines().len(), probe.kept()), (2, Some(first)));
        probe.verdict(true).unwrap();
        assert_eq!(fake.lines().len(), 4);
        let mut record: Record = serde_json::from_slice(&std::fs::read(&probe.file).unwrap()).unwrap();
        record.key.kernel.push_str("-next");
        std::fs::write(&probe.file, serde_json::to_vec(&record).unwrap()).unwrap();
        probe.verdict(false).unwrap();
        assert_eq!(fake.lines().len(), 6);
    }

    #[test]
    fn what_can_be_mended_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut probe = probe(directory.path(), Arc::new(Fake::new()));
        (probe.qemu, probe.firecracker) = (None, None);
        let verdict = probe.verdict(false).unwrap();
        assert!(matches!(&verdict, Verdict::NotUsable(reason) if reason.contains("neither")), "{verdict:?}");
        probe.device = directory.path().join("kvm");
        let verdict = probe.verdict(false).unwrap();
        assert!(matches!(&verdict, Verdict::NotUsable(reason) if reason.contains("does not open")), "{verdict:?}");
        assert!(!probe.file.exists());
    }

    #[test]
    fn firecracker_is_asked_where_there_is_no_qemu() {
        let directory = tempfile::tempdir().unwrap();
        let fake = Arc::new(Fake::new());
        let mut probe = probe(directory.path(), fake.clone());
        probe.qemu = None;
        probe.verdict(false).unwrap();
        assert!(fake.lines()[0].starts_with("/usr/bin/firecracker --no-api --id cairn-probe"), "{:?}", fake.lines());
    }
}
