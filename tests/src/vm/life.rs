//! The life of a VM: it boots, is reached, reaches what it may and nothing else, stands still, goes on, ends, and leaves
//! nothing.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::metald::{LOOK, Metald, NEEDS as METALD, Outside, PATIENCE, PORT, PRIVATE, PUBLIC, ask, shell};
use testkit::terminal::Terminal;
use testkit::wait;

use super::count::{count, nothing_left};

/// Programs that these scenarios need.
pub(crate) const NEEDS: &[&str] = METALD;

const NAMES: &[&str] = &["life-a", "life-b", "life-c"];

/// A guest that tries to reach others, says how it went, and serves a page.
fn guest() -> String {
    let attempt = |name: &str, address: Ipv4Addr, port: u16| {
        let ask = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 4 {address} {port} | grep -q hello");
        format!("{ask} && echo {name}: reached || echo {name}: refused; ")
    };
    let attempts = [
        attempt("public", PUBLIC, PORT),
        attempt("private", PRIVATE, PORT),
        attempt("metadata", Ipv4Addr::new(169, 254, 169, 254), 80),
    ];
    shell(&format!("{}echo all tried; httpd -f -p 8080 -h /www", attempts.concat()))
}

/// See the module.
pub(crate) fn boots_is_reached_and_leaves_nothing(work: &Path) -> Result<()> {
    let metald = Metald::start(work, &[])?;
    let _outside = Outside::start(work)?;
    metald.add_assets()?;
    let before = count(work, NAMES)?;
    let words = guest();
    metald.command(&[
        "create",
        "life-a",
        "--memory",
        "256MiB",
        "--kernel-args",
        &words,
        "--port",
        "20080:8080",
        "--boot",
        "--wait",
    ])?;
    let egress = format!("{PRIVATE}/32,tcp:{PORT}");
    metald.command(&[
        "create",
        "life-b",
        "--memory",
        "256MiB",
        "--kernel-args",
        &words,
        "--egress",
        &egress,
        "--boot",
    ])?;
    for (id, private) in [("life-a", "private: refused"), ("life-b", "private: reached")] {
        let said = metald.wait_console(id, "all tried")?;
        for expected in ["public: reached", private, "metadata: refused"] {
            ensure!(said.contains(expected), "{id} did not say {expected:?}:\n{said}");
        }
    }
    reached(&metald)?;
    typed_to(&metald)?;
    jailed(&metald)?;
    stands_still_and_goes_on(&metald)?;
    ends(&metald)?;
    panics(&metald)?;
    for id in NAMES {
        metald.command(&["delete", id, "--force"])?;
    }
    let strays: serde_json::Value = serde_json::from_str(&metald.strays()?)?;
    let list = strays.as_array().or_else(|| strays["strays"].as_array());
    ensure!(list.is_some_and(Vec::is_empty), "strays: {strays}");
    nothing_left(work, &before, NAMES)
}

/// From the host, through a port of the host, and from outside; one guest does not reach another.
fn reached(metald: &Metald) -> Result<()> {
    let (a, b) = (metald.address("life-a")?, metald.address("life-b")?);
    ensure!(a != b, "two VMs have one address");
    let hello = |url: &str| {
        let answered = || Ok(ask(url).ok().filter(|text| text.contains("hello from the guest")));
        wait::until(&format!("an answer at {url}"), PATIENCE, LOOK, answered).map(drop)
    };
    hello(&format!("http://{a}:8080/"))?;
    hello(&format!("http://{b}:8080/"))?;
    hello("http://127.0.0.1:20080/")?;
    let through = Outside::ask("http://198.51.100.1:20080/")?;
    ensure!(through.contains("hello from the guest"), "from outside: {through}");
    Ok(())
}

/// At a terminal every key is the guest's until Ctrl-], and the terminal is as before, however the console ends.
fn typed_to(metald: &Metald) -> Result<()> {
    let mut terminal = Terminal::start(&mut metald.prepare(&["console", "life-a"])?)?;
    terminal.wait_text("Ctrl-] ends")?;
    ensure!(terminal.is_raw()?, "keys are not the guest's");
    terminal.wait_text("all tried")?;
    // The guest's own terminal gives back what is typed.
    terminal.press(b"knock-knock\r")?;
    metald.wait_console("life-a", "knock-knock")?;
    terminal.wait_text("knock-knock")?;
    // Ctrl-C is the guest's too; what is after Ctrl-] is nobody's.
    terminal.press(b"\x1dnobody")?;
    let ended = terminal.wait()?;
    ensure!(ended.success() && !terminal.is_raw()?, "Ctrl-] ended it with {ended}: {}", terminal.text());
    let mut terminal = Terminal::start(&mut metald.prepare(&["console", "life-a"])?)?;
    terminal.wait_text("Ctrl-] ends")?;
    terminal.terminate()?;
    let ended = terminal.wait()?;
    ensure!(ended.code() == Some(130) && !terminal.is_raw()?, "a signal ended it with {ended}: {}", terminal.text());
    let mut follow = Terminal::start(&mut metald.prepare(&["logs", "life-a", "--follow"])?)?;
    follow.wait_text("knock-knock")?;
    follow.terminate()?;
    follow.wait().map(drop)
}

/// Its process has a user of its own, no capabilities, another network, and a filter on its system calls.
fn jailed(metald: &Metald) -> Result<()> {
    let mut users = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
        };
        if field("Name:") != "qemu-system-x86" {
            continue;
        }
        for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            let left = u64::from_str_radix(&field(capabilities), 16)?;
            ensure!(left == 0, "{capabilities} {left:x}");
        }
        ensure!((field("NoNewPrivs:"), field("Seccomp:")) == ("1".to_owned(), "2".to_owned()), "{status}");
        let network = |path: &Path| std::fs::read_link(path.join("ns/net"));
        ensure!(network(&entry.path())? != network(Path::new("/proc/self"))?, "it is in the host's network");
        let words = std::fs::read_to_string(entry.path().join("cmdline"))?.replace('\0', " ");
        // The guide's clean-up deletes the namespace of who is not found like this.
        let at = words.find("firecracker").map(|at| &words[at..]).unwrap_or_default();
        ensure!(at.contains("ns_vm_life-"), "{words}");
        users.push(field("Uid:"));
    }
    users.sort();
    users.dedup();
    ensure!(users.len() == 2 && !users.contains(&"0".to_owned()), "users of two hypervisors: {users:?}");
    let processes = metald.process().into_iter().count();
    ensure!(processes == 1, "the daemon");
    Ok(())
}

fn stands_still_and_goes_on(metald: &Metald) -> Result<()> {
    let url = format!("http://{}:8080/", metald.address("life-a")?);
    metald.command(&["pause", "life-a"])?;
    ensure!(metald.state("life-a")? == "PAUSED", "it does not stand still");
    let address = SocketAddr::from((metald.address("life-a")?, 8080));
    let answered = TcpStream::connect_timeout(&address, Duration::from_secs(2));
    ensure!(answered.is_err(), "a guest that stands still answers");
    metald.command(&["resume", "life-a"])?;
    wait::until("an answer again", PATIENCE, LOOK, || Ok(ask(&url).ok().map(drop)))
}

fn ends(metald: &Metald) -> Result<()> {
    metald.command(&["reboot", "life-a", "--timeout", "60"])?;
    metald.wait_console("life-a", "all tried")?;
    // The power button is obeyed, and the command's end is told.
    metald.command(&["stop", "life-a", "--timeout", "120"])?;
    ensure!(metald.state("life-a")? == "SHUTDOWN", "after a stop");
    let said = metald.console("life-a")?;
    ensure!(said.contains("cairn-init: exit"), "it was not asked to end:\n{said}");
    metald.command(&["stop", "life-b", "--force"])?;
    ensure!(metald.state("life-b")? == "SHUTDOWN", "after a forced stop");
    let again = metald.try_command(&["pause", "life-b"])?;
    ensure!(again.status.code() == Some(4), "a pause of who is at rest ended with {}", again.status);
    Ok(())
}

/// A guest whose kernel panics has failed, and its last words stand beside that.
fn panics(metald: &Metald) -> Result<()> {
    let words = shell("sleep 1; echo c > /proc/sysrq-trigger; sleep 100");
    metald.command(&["create", "life-c", "--memory", "256MiB", "--kernel-args", &words, "--boot"])?;
    metald.wait_state("life-c", "FAILED")?;
    let vm = metald.vm("life-c")?;
    let text = vm.to_string();
    ensure!(text.contains("vm_panicked") && text.contains("Kernel panic"), "{vm:#}");
    Ok(())
}
