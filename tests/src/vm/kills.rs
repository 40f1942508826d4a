//! Guests outlive their daemon and its keepers: SIGKILL of either changes nothing for them, and a new daemon finds them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use testkit::metald::{LOOK, Metald, NEEDS as METALD, PATIENCE, ask, shell};
use testkit::{process, wait};

use super::count::{count, nothing_left, pids};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = METALD;

const NAMES: &[&str] = &["kill-a", "kill-b"];

/// See the module.
pub(crate) fn of_the_daemon_and_of_keepers(work: &Path) -> Result<()> {
    let mut metald = Metald::start(work, &[])?;
    metald.add_assets()?;
    let before = count(work, NAMES)?;
    let words = shell("echo it is up; httpd -f -p 8080 -h /www");
    for id in NAMES {
        metald.command(&["create", id, "--memory", "256MiB", "--kernel-args", &words, "--boot"])?;
    }
    for id in NAMES {
        metald.wait_console(id, "it is up")?;
    }
    let hypervisors = pids("qemu-system-x86")?;
    ensure!(hypervisors.len() == 2, "hypervisors: {hypervisors:?}");
    let url = format!("http://{}:8080/", metald.address("kill-a")?);
    let answers = |what: &str| wait::until(what, PATIENCE, LOOK, || Ok(ask(&url).ok().map(drop)));
    answers("the guest to answer")?;

    metald.kill()?;
    answers("the guest to answer without a daemon")?;
    metald.resume()?;
    for id in NAMES {
        metald.wait_state(id, "RUNNING")?;
    }
    ensure!(pids("qemu-system-x86")? == hypervisors, "other processes after a SIGKILL of the daemon");

    // A keeper that is killed is replaced, and how its process ends is still known.
    for keeper in pids("cairn-keeper")? {
        process::kill(keeper)?;
    }
    metald.stop()?;
    metald.resume()?;
    answers("the guest to answer after its keeper was killed")?;
    ensure!(pids("qemu-system-x86")? == hypervisors, "other processes after a SIGKILL of keepers");
    wait::until("keepers again", PATIENCE, LOOK, || Ok((pids("cairn-keeper")?.len() == 2).then_some(())))?;

    // A hypervisor that dies while nobody looks is found out.
    metald.kill()?;
    let killed = hypervisors.first().context("a hypervisor")?;
    process::kill(*killed)?;
    metald.resume()?;
    let failed = || {
        let states = NAMES.iter().map(|id| metald.state(id)).collect::<Result<Vec<_>>>()?;
        let failed = states.iter().filter(|state| *state == "FAILED").count();
        Ok((failed == 1 && states.iter().any(|state| state == "RUNNING")).then_some(()))
    };
    wait::until("the death to be found out", PATIENCE, LOOK, failed)?;
    for id in NAMES {
        metald.command(&["delete", id, "--force"])?;
    }
    nothing_left(work, &before, NAMES)
}
