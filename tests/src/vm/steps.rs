//! A daemon that is killed while it does something with a VM: the next one finishes it, or it was never begun; nothing is
//! done twice and nothing is left. Where exactly it dies is a matter of time here; that each single call can be the last
//! one is tried with a host that is played, in `layers/vm/src/run/tests.rs`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::metald::{LOOK, Metald, NEEDS as METALD, PATIENCE, shell};
use testkit::{environment, process, wait};

use super::count::{count, nothing_left, pids};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = METALD;

/// What is done, from what, and what may come of it; nothing stands for no VM.
struct Deed {
    name: &'static str,
    words: &'static [&'static str],
    booted: bool,
    ends: &'static [Option<&'static str>],
}

const DEEDS: &[Deed] = &[
    Deed { name: "create", words: &[], booted: false, ends: &[None, Some("CREATED")] },
    Deed { name: "boot", words: &["boot"], booted: false, ends: &[Some("CREATED"), Some("RUNNING")] },
    Deed { name: "reboot", words: &["reboot", "--timeout", "1"], booted: true, ends: &[Some("RUNNING")] },
    Deed { name: "stop", words: &["stop", "--force"], booted: true, ends: &[Some("RUNNING"), Some("SHUTDOWN")] },
    Deed { name: "delete", words: &["delete", "--force"], booted: true, ends: &[Some("RUNNING"), None] },
];

/// A few moments of each.
pub(crate) fn a_few(work: &Path) -> Result<()> {
    killed(work, 6)
}

/// Many.
pub(crate) fn many(work: &Path) -> Result<()> {
    killed(work, 40)
}

fn killed(work: &Path, moments: u32) -> Result<()> {
    let mut metald = Metald::start(work, &[])?;
    metald.add_assets()?;
    let before = count(work, &[])?;
    let mut seen = Vec::new();
    for deed in DEEDS {
        for moment in 0..moments {
            let id = format!("step-{}-{moment}", deed.name);
            let end = once(&mut metald, deed, &id, moment, moments).with_context(|| format!("{id}, killed"))?;
            seen.push(format!("{} {}", deed.name, end.as_deref().unwrap_or("gone")));
            nothing_left(work, &before, &[&id]).with_context(|| format!("after {id}"))?;
        }
    }
    seen.sort();
    seen.dedup();
    println!("came to: {}", seen.join(", "));
    Ok(())
}

/// Kills the daemon at one moment, and every other time its keepers with it.
fn once(metald: &mut Metald, deed: &Deed, id: &str, moment: u32, moments: u32) -> Result<Option<String>> {
    let words = shell("echo it is up; sleep 1000");
    let create = ["create", id, "--memory", "128MiB", "--kernel-args", &words];
    if deed.name != "create" {
        metald.command(&create)?;
    }
    if deed.booted {
        metald.command(&["boot", id])?;
    }
    let hypervisors = pids("qemu-system-x86")?;
    let asked =
        if deed.words.is_empty() { create.to_vec() } else { [&deed.words[..1], &[id], &deed.words[1..]].concat() };
    let mut asking = ask(metald, &asked)?;
    // All of it takes about a fifth of a second; the command line itself needs some of that.
    pause(Duration::from_millis(u64::from(10 + 240 * moment / moments)));
    metald.kill()?;
    if moment % 2 == 1 {
        for keeper in pids("cairn-keeper")? {
            process::kill(keeper)?;
        }
    }
    asking.wait().context("wait for the command")?;
    metald.resume()?;
    let settled = wait::until("the VM to settle", PATIENCE, LOOK, || settled(metald, id))?;
    ensure!(deed.ends.contains(&settled.as_deref()), "it came to {settled:?}");
    let now = pids("qemu-system-x86")?;
    let lives = usize::from(settled.as_deref() == Some("RUNNING"));
    ensure!(now.len() == lives, "{} hypervisors of a VM that is {settled:?}", now.len());
    if deed.name != "reboot" && deed.booted && lives == 1 {
        ensure!(now == hypervisors, "another process although nothing was begun");
    }
    if settled.is_some() {
        metald.command(&["delete", id, "--force"])?;
    }
    Ok(settled)
}

fn ask(metald: &Metald, words: &[&str]) -> Result<Child> {
    let mut command = Command::new(environment::cairn()?);
    command.arg("vm").args(words).arg("--token-file").arg(metald.data().join("operator.token"));
    command.env("CAIRN_URL", metald.url("")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("start cairn vm")
}

/// Its state once nothing is being done with it.
fn settled(metald: &Metald, id: &str) -> Result<Option<Option<String>>> {
    let output = metald.try_command(&["show", id, "--json"])?;
    match output.status.code() {
        Some(0) => {
            let vm: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let state = vm["state"].as_str().unwrap_or_default().trim_start_matches("VM_STATE_").to_owned();
            let rests = ["CREATED", "RUNNING", "PAUSED", "SHUTDOWN", "FAILED"].contains(&state.as_str());
            Ok(rests.then_some(Some(state)))
        }
        Some(3) => Ok(Some(None)),
        _ => bail!("show ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

fn pause(time: Duration) {
    // The moment itself is what is tried.
    let _ = wait::until::<()>("a moment", time, Duration::from_millis(5), || Ok(None));
}
