//! `cairn-init` as the first process of a microVM: Debian's kernel under QEMU's emulation.

#![allow(
    clippy::unwrap_used,
    reason = "a failed unwrap is a failed test; clippy.toml covers only the tests themselves"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tempfile::TempDir;
use testkit::debian_kernel::Kernel;
use testkit::microvm::{Initramfs, MODULES, Microvm, RunningMicrovm};
use testkit::process::{exists, run};
use testkit::wait;

/// Long enough for a boot on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// Programs without which nothing here can run.
const NEEDED: [&str; 4] = ["qemu-system-x86_64", "busybox", "depmod", "dpkg-deb"];

/// What all tests boot.
struct Base {
    directory: TempDir,
    kernel: Kernel,
}

/// Kernel and initramfs, made once; `None`, said, where a program is missing. The lock lets one machine run at a time.
fn base(test: &str) -> Option<(&'static Base, std::sync::MutexGuard<'static, ()>)> {
    static BASE: OnceLock<Base> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    if let Some(program) = NEEDED.iter().find(|program| !exists(program)) {
        eprintln!("NOT RUN: {test}: {program} is missing");
        return None;
    }
    let turn = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let base = BASE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Kernel::get().unwrap();
        let mut initramfs = Initramfs::default();
        initramfs.copy(&testkit::microvm::init().unwrap(), "init", 0o755).unwrap();
        initramfs.copy(&busybox(), "bin/busybox", 0o755).unwrap();
        initramfs.modules(&kernel, &MODULES).unwrap();
        initramfs.add("etc/cairn/modules", 0o644, format!("{}\n", MODULES.join("\n")).as_bytes());
        initramfs.add("www/index.html", 0o644, b"hello from the guest");
        initramfs.write(&directory.path().join("initramfs")).unwrap();
        Base { directory, kernel }
    });
    Some((base, turn))
}

fn busybox() -> PathBuf {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    places.into_iter().find(|path| path.exists()).unwrap()
}

/// A machine in a directory of its own.
struct Booted {
    machine: RunningMicrovm,
    _directory: TempDir,
}

fn boot(base: &Base, words: &str, disks: &[PathBuf]) -> Booted {
    let directory = tempfile::tempdir().unwrap();
    let initramfs = base.directory.path().join("initramfs");
    let machine = Microvm { kernel: &base.kernel, initramfs: &initramfs, words, disks };
    Booted { machine: machine.start(directory.path()).unwrap(), _directory: directory }
}

impl Booted {
    /// Waits for the end; gives back the console.
    fn ended(&mut self) -> String {
        self.machine.wait_off(PATIENCE).unwrap();
        self.machine.serial().text()
    }

    /// Asks the web server in the guest.
    fn ask(&self) -> String {
        let ask = || {
            let mut text = String::new();
            let asked = TcpStream::connect(("127.0.0.1", self.machine.port())).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
                stream.read_to_string(&mut text)
            });
            Ok(asked.is_ok_and(|length| length > 0).then_some(text))
        };
        let answer = wait::until("an answer of the guest", PATIENCE, Duration::from_millis(200), ask);
        answer.unwrap_or_else(|error| panic!("{error:#}\n{}", self.machine.serial().tail(20)))
    }
}

/// The words for a shell line of busybox, which knows its own programs without a path.
fn shell(line: &str) -> String {
    format!("cairn.run=\"/bin/busybox sh -c {}\"", line.replace('%', "%25").replace(' ', "%20").replace('"', "%22"))
}

const NETWORK: &str = "cairn.ip=10.0.2.15/24,10.0.2.2 cairn.ip=fec0::15/64,fec0::2 cairn.dns=10.0.2.3,fec0::3";

#[test]
fn a_server_answers_until_the_power_button_is_pressed() {
    let Some((base, _turn)) = base("a_server_answers_until_the_power_button_is_pressed") else { return };
    let words = format!("{NETWORK} cairn.run=\"/bin/busybox httpd -f -p 8080 -h /www\"");
    let mut booted = boot(base, &words, &[]);
    assert!(booted.ask().ends_with("hello from the guest"));
    booted.machine.press_power().unwrap();
    let text = booted.ended();
    // SIGTERM ended it.
    assert!(text.contains("\ncairn-init: exit 143\n"), "{text}");
}

#[test]
fn ctrl_alt_del_ends_even_who_does_not_want_to() {
    let Some((base, _turn)) = base("ctrl_alt_del_ends_even_who_does_not_want_to") else { return };
    let stubborn = shell("trap \"echo not yet\" TERM; echo at work; while true; do sleep 1; done");
    let mut booted = boot(base, &format!("{stubborn} cairn.grace=2 cairn.end=reboot reboot=k"), &[]);
    booted.machine.serial().wait_for("at work", PATIENCE).unwrap();
    booted.machine.press_ctrl_alt_del().unwrap();
    let text = booted.ended();
    assert!(text.contains("not yet") && text.contains("\ncairn-init: exit 137\n"), "{text}");
}

#[test]
fn a_command_finds_what_it_expects_and_its_code_is_said() {
    let Some((base, _turn)) = base("a_command_finds_what_it_expects_and_its_code_is_said") else { return };
    let look = "ip addr; ip route; ip -6 route; mount; cat /etc/resolv.conf; sleep 1000 & true; exit 7";
    let text = boot(base, &format!("{NETWORK} {}", shell(look)), &[]).ended();
    for expected in [
        "inet 127.0.0.1/8",
        "inet6 ::1/128",
        "inet 10.0.2.15/24",
        "inet6 fec0::15/64",
        "default via 10.0.2.2 dev eth0",
        "default via fec0::2 dev eth0",
        "proc on /proc type proc",
        "sysfs on /sys type sysfs",
        "devtmpfs on /dev type devtmpfs",
        "tmpfs on /run type tmpfs",
        "tmpfs on /tmp type tmpfs",
        "nameserver 10.0.2.3\nnameserver fec0::3\n",
        "\ncairn-init: exit 7\n",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
}

#[test]
fn what_cannot_be_done_is_said_and_ends_the_machine() {
    let Some((base, _turn)) = base("what_cannot_be_done_is_said_and_ends_the_machine") else { return };
    for (words, said, code) in [
        ("cairn.modules=no_such", format!("the kernel {} has no module no_such", base.kernel.release()), 125),
        ("cairn.ip=10.0.0.2", "cairn.ip=10.0.0.2: ADDRESS/PREFIX[,GATEWAY] is needed".to_owned(), 125),
        ("quiet", "neither root= nor cairn.run= is on the kernel's command line".to_owned(), 125),
        ("cairn.run=/bin/missing", "cannot start /bin/missing: No such file".to_owned(), 127),
    ] {
        let text = boot(base, words, &[]).ended();
        let lines = (format!("cairn-init: {said}"), format!("\ncairn-init: exit {code}\n"));
        assert!(text.contains(&lines.0) && text.contains(&lines.1), "{words}:\n{text}");
    }
}

/// A disk with busybox and a few directories; `/sbin/init` says that it runs and powers off.
fn disk(directory: &Path) -> PathBuf {
    let tree = directory.join("tree");
    for name in ["bin", "sbin", "etc", "proc", "sys", "dev", "run"] {
        std::fs::create_dir_all(tree.join(name)).unwrap();
    }
    std::fs::copy(busybox(), tree.join("bin/busybox")).unwrap();
    std::fs::write(tree.join("etc/resolv.conf"), "").unwrap();
    let init = "#!/bin/busybox sh\necho init of the disk is process $$\nmount\npoweroff -f\n";
    std::fs::write(tree.join("sbin/init"), init).unwrap();
    run(Command::new("chmod").arg("755").arg(tree.join("sbin/init"))).unwrap();
    let disk = directory.join("disk");
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(&disk).arg("16M")).unwrap();
    disk
}

#[test]
fn a_root_disk_takes_over_or_holds_the_command() {
    let test = "a_root_disk_takes_over_or_holds_the_command";
    let Some((base, _turn)) = base(test) else { return };
    if !exists("mke2fs") {
        return eprintln!("NOT RUN: {test}: mke2fs is missing");
    }
    let directory = tempfile::tempdir().unwrap();
    let disks = [disk(directory.path())];
    let text = boot(base, "root=/dev/vda", &disks).ended();
    assert!(text.contains("init of the disk is process 1\n") && !text.contains("cairn-init: exit"), "{text}");
    assert!(text.contains("/dev/vda on / type ext4 (ro"), "{text}");

    // Read-only: the file with name servers is laid over that of the disk.
    let words = format!("root=/dev/vda {NETWORK} {}", shell("cat /etc/resolv.conf; touch /etc/a; exit 3"));
    let text = boot(base, &words, &disks).ended();
    assert!(text.contains("nameserver 10.0.2.3\n") && text.contains("Read-only file system"), "{text}");
    assert!(text.contains("\ncairn-init: exit 3\n"), "{text}");

    let words = format!("root=/dev/vda rw {NETWORK} {}", shell("echo kept > /etc/kept"));
    assert!(boot(base, &words, &disks).ended().contains("\ncairn-init: exit 0\n"));
    let text = run(Command::new("debugfs").args(["-R", "cat /etc/kept"]).arg(&disks[0])).unwrap();
    assert_eq!(text, "kept\n");
}
