//! The host on which the lines run: a checkout with built programs, and what the guide takes for granted.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::debian_kernel::Kernel;
use testkit::metald::{LOOK, PATIENCE, busybox, initramfs};
use testkit::process::run;
use testkit::systemd_host::SystemdHost;
use testkit::{environment, wait};

use crate::runner::CannotRun;

const LINES: &str = include_str!("lines.sh");
/// Where the checkout is.
const CHECKOUT: &str = "/root/cairn";
/// In the place of an editor: adds the lines that are meant for this file.
const VIM: &str = "#!/bin/sh\ncat \"/root/edit/$(basename \"$1\")\" >> \"$1\"\n";
/// The same for `systemctl edit`, which takes what is below its first remark.
const EDITOR: &str = "#!/bin/sh\nfor file; do :; done\nsed -i '/^### Anything/r /root/edit/metald.service' \"$file\"\n";

/// See the module.
pub(super) struct Lab {
    host: SystemdHost,
    parts: BTreeMap<&'static str, &'static str>,
}

impl Lab {
    /// Boots it and puts everything there that the guide's lines find.
    pub(super) fn boot(work: &Path) -> Result<Self> {
        if let Some(why) = SystemdHost::missing() {
            return Err(CannotRun(why).into());
        }
        let name = work.file_name().context("a work directory without a name")?.to_string_lossy().into_owned();
        let directory = work.join("host");
        let host = SystemdHost::boot(&directory, &name)
            .with_context(|| format!("its log:\n{}", fs::read_to_string(directory.join("log")).unwrap_or_default()))?;
        let parts = LINES.split("\n#: ").skip(1).filter_map(|part| part.split_once('\n')).collect();
        let lab = Self { host, parts };
        lab.sh("ip link set lo up")?;
        checkout(&lab.host.root())?;
        editors(&lab.host.root())?;
        assets(&lab.host.root(), work)?;
        Ok(lab)
    }

    /// Its file system, as seen from here.
    pub(super) fn root(&self) -> PathBuf {
        self.host.root()
    }

    /// Lines that are not the guide's, which must end well; gives back what they said.
    pub(super) fn sh(&self, text: &str) -> Result<String> {
        run(self.host.command("bash").args(["-ec", text]))
    }

    /// A part of the guide's lines, as it ends.
    pub(super) fn part(&self, name: &str) -> Result<Output> {
        let file = self.write(name, &[])?;
        self.start(&["bash", "-e", &file])
    }

    /// A part that does not end by itself, ended after some seconds.
    pub(super) fn part_for(&self, seconds: u32, name: &str) -> Result<Output> {
        let file = self.write(name, &[])?;
        self.start(&["timeout", &seconds.to_string(), "bash", "-e", &file])
    }

    /// A part that wants a terminal.
    pub(super) fn part_on_terminal(&self, name: &str) -> Result<Output> {
        let file = self.write(name, &[])?;
        self.start(&["script", "-qefc", &format!("bash -e {file}"), "/dev/null"])
    }

    /// A part as a file, so that its lines are in no command line that pgrep looks at.
    fn write(&self, name: &str, replaced: &[(&str, &str)]) -> Result<String> {
        let mut text = (*self.parts.get(name).with_context(|| format!("no part {name}"))?).to_owned();
        for (unknown, known) in replaced {
            text = text.replace(unknown, known);
        }
        let file = format!("root/{name}.sh");
        fs::write(self.root().join(&file), text).context("write a part")?;
        Ok(format!("/{file}"))
    }

    /// A command in the checkout, with an operator's token.
    fn start(&self, words: &[&str]) -> Result<Output> {
        let token = fs::read_to_string(self.root().join("var/lib/metald/operator.token")).unwrap_or_default();
        let mut command = self.host.command("env");
        command.args(["-C", CHECKOUT]).args(words).env("TOKEN", token.trim()).stdin(Stdio::null());
        command.output().with_context(|| format!("start {}", words.join(" ")))
    }

    /// A part that must end well; gives back what it said.
    pub(super) fn ok(&self, name: &str) -> Result<String> {
        self.ok_with(name, &[])
    }

    /// The same with something in the place of what the guide does not know.
    pub(super) fn ok_with(&self, name: &str, replaced: &[(&str, &str)]) -> Result<String> {
        let file = self.write(name, replaced)?;
        let output = self.start(&["bash", "-e", &file])?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "part {name} ended with {}:\n{out}{err}", output.status);
        println!("guide: {name}: ok");
        Ok(out.into_owned())
    }

    /// health-check.sh as the guide has it: its exit code and its line.
    pub(super) fn health(&self) -> Result<(Option<i32>, String)> {
        let output = self.part("health-check")?;
        Ok((output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }

    /// Waits until health-check.sh ends like this and says a line that begins so.
    pub(super) fn wait_health(&self, code: i32, word: &str) -> Result<()> {
        let mut last = (None, String::new());
        let looked = wait::until(&format!("{word} of health-check.sh"), PATIENCE, LOOK, || {
            last = self.health()?;
            Ok((last.0 == Some(code) && last.1.starts_with(word)).then_some(()))
        });
        looked.with_context(|| format!("it ended with {last:?}"))
    }

    /// A VM as JSON.
    pub(super) fn vm(&self, id: &str) -> Result<Value> {
        let text = self.sh(&format!("cairn vm show {id} --json"))?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Its hypervisor's process there.
    pub(super) fn process(&self, id: &str) -> Result<String> {
        Ok(self.sh(&format!("pgrep -f 'firecracker.*ns_vm_{id}'"))?.trim().to_owned())
    }

    /// Waits until no process has this name.
    pub(super) fn wait_none(&self, name: &str) -> Result<()> {
        let ended = || Ok(self.sh(&format!("pidof {name} || true"))?.trim().is_empty().then_some(()));
        wait::until(&format!("the end of {name}"), PATIENCE, LOOK, ended)
    }

    /// Waits until its guest serves its page: the VM lives and is reached.
    pub(super) fn wait_page(&self, id: &str) -> Result<()> {
        let vm = self.vm(id)?;
        let address = vm["network_info"]["ip_address"].as_str().with_context(|| format!("no address: {vm:#}"))?;
        let ask = format!("curl -s --max-time 2 http://{address}:8080/ || true");
        let answered = wait::until(&format!("a page of {id}"), Duration::from_secs(90), LOOK, || {
            Ok(self.sh(&ask)?.contains("hello from the guest").then_some(()))
        });
        answered.with_context(|| {
            let console = self.sh(&format!("cairn vm logs {id} | tail -n 30")).unwrap_or_default();
            let network = self.sh("ip route; nft list ruleset | head -n 60").unwrap_or_default();
            format!("{vm:#}\n{console}\n{network}")
        })
    }

    /// What the daemon said last.
    pub(super) fn journal(&self) -> String {
        self.sh("journalctl -u metald -u 'metald-vm@*' -n 60 --no-pager").unwrap_or_default()
    }
}

/// What `make install` takes, and a newer daemon at the place that the guide has for it.
fn checkout(root: &Path) -> Result<()> {
    let source = root.join(CHECKOUT.trim_start_matches('/'));
    let release = source.join("target/release");
    fs::create_dir_all(&release).context("make the checkout")?;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the repository")?;
    for part in ["Makefile", "deploy", "docs", "contrib"] {
        run(Command::new("cp").arg("-r").arg(repository.join(part)).arg(&source))?;
    }
    let cairn = environment::cairn()?;
    let keeper = cairn.with_file_name("cairn-keeper");
    fs::create_dir_all(root.join("new")).context("make /new")?;
    for (from, to) in
        [(&cairn, release.join("cairn")), (&keeper, release.join("cairn-keeper")), (&cairn, root.join("new/metald"))]
    {
        fs::copy(from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

fn program(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context("make it a program")
}

fn editors(root: &Path) -> Result<()> {
    fs::create_dir_all(root.join("root/edit")).context("make a directory for edits")?;
    program(&root.join("usr/local/bin/vim"), VIM)?;
    program(&root.join("usr/local/bin/editor"), EDITOR)?;
    fs::create_dir_all(root.join("backup")).context("make /backup")
}

/// A kernel, an initial file system and a root disk, whose init serves a page.
fn assets(root: &Path, work: &Path) -> Result<()> {
    let kernel = Kernel::get()?;
    let to = root.join("root/assets");
    fs::create_dir_all(&to).context("make a directory for assets")?;
    fs::copy(kernel.image(), to.join("vmlinuz")).context("copy the kernel")?;
    initramfs(&kernel)?.write(&to.join("initrd"))?;
    let tree = work.join("guest");
    for name in ["bin", "sbin", "dev", "proc", "sys", "run", "tmp", "etc", "www"] {
        fs::create_dir_all(tree.join(name)).context("make the guest's directories")?;
    }
    fs::copy(busybox()?, tree.join("bin/busybox")).context("copy busybox")?;
    symlink("/bin/busybox", tree.join("sbin/init")).context("link the guest's init")?;
    fs::write(tree.join("etc/inittab"), "::respawn:/bin/busybox httpd -f -p 8080 -h /www\n").context("inittab")?;
    fs::write(tree.join("www/index.html"), "hello from the guest").context("the guest's page")?;
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&tree).arg(to.join("root.img")).arg("16M"))
        .map(drop)
}
