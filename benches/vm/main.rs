//! What the vm layer adds to what it drives, in one run on one machine: `cargo bench -p benches --bench vm`. docs/layers/vm.md
//! has figures.
//!
//! Everything runs in an enclosure with a network of its own (testkit): the kernel ends it as a whole, with every link, rule
//! and process, also on Ctrl-C. Only control groups are the host's; those that bear the run's name are removed outside. The
//! hypervisor is testkit's fake Firecracker in testkit's fake jail, which cost as little as can be, so that what is left is
//! ours; keepers, network, database and API are the real ones.

mod boots;
mod client;
mod commands;
mod daemon;
mod many;
mod networks;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Parser;
use host::Hierarchies;
use host::network::{LinkChange, LinuxNetworks, Networks as _, Place};
use testkit::enclosure::{self, Inside, Network, Stage};
use testkit::{environment, hypervisor, process};

/// Names of VMs begin with it: control groups outlive the enclosure and are found by it.
const NAME: &str = "bench-";
/// Groups of VMs, as the keepers of `metald` call them.
const GROUPS: &str = "metald-vms";

/// Measures the vm layer above raw hypervisors, and its network beside ip and nft.
#[derive(Parser)]
struct Arguments {
    /// Few VMs, to see that it works.
    #[arg(long)]
    quick: bool,
    /// How often a VM is booted and a network is made.
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Only the parts whose name contains this: boots, networks, many.
    #[arg(long, default_value = "")]
    only: String,
    /// What names of VMs begin with.
    #[arg(long, hide = true, default_value = NAME)]
    name: String,
    /// Runs the layer's daemon in this directory, and nothing else.
    #[arg(long, hide = true)]
    daemon: Option<PathBuf>,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How much is done.
struct Sizes {
    rounds: u32,
    at_rest: u32,
    live: u32,
    requests: u32,
}

fn main() -> ExitCode {
    let ended = match enclosure::stage() {
        Stage::Init(init) => return init.run(),
        Stage::Inside(inside) => measure(&inside).map(|()| 0),
        Stage::Outside => {
            let arguments = Arguments::parse();
            match &arguments.daemon {
                Some(directory) => daemon::serve(directory).map(|()| 0),
                None => outside(),
            }
        }
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds what is started, and runs the rest in an enclosure.
fn outside() -> anyhow::Result<u8> {
    let missing = ["ip", "nft", "tc", "nsenter", "sysctl"].into_iter().find(|program| !process::exists(program));
    let missing = missing.map(|program| format!("{program} is missing"));
    if let Some(why) = enclosure::obstacle().or(missing) {
        eprintln!("NOT RUN: vm: {why}");
        return Ok(0);
    }
    hypervisor::fakes()?;
    build_keeper()?;
    // What an earlier run left that was killed with SIGKILL.
    remove_groups(NAME);
    let name = format!("{NAME}{}-", std::process::id());
    let own: Vec<String> = std::env::args().skip(1).chain(["--name".to_owned(), name.clone()]).collect();
    let ended = enclosure::run(&own.iter().map(String::as_str).collect::<Vec<_>>(), Network::Own);
    remove_groups(&name);
    ended
}

/// Groups that processes live in stay.
fn remove_groups(prefix: &str) {
    let Ok(trees) = Hierarchies::of_host() else { return };
    for name in trees.children(GROUPS).unwrap_or_default().iter().filter(|name| name.starts_with(prefix)) {
        let removed = trees.group(&format!("{GROUPS}/{name}")).and_then(|group| group.remove());
        if let Err(error) = removed.as_ref().map_err(|error| error as &dyn std::error::Error) {
            eprintln!("control group {name} stays: {error}");
        }
    }
}

/// Where cargo puts programs.
fn programs() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("the path of the running program")?;
    // <target>/<profile>/deps/<benchmark>
    Ok(own.ancestors().nth(2).context("the benchmark lies in no target directory")?.to_owned())
}

fn keeper() -> anyhow::Result<PathBuf> {
    Ok(programs()?.join("cairn-keeper"))
}

fn build_keeper() -> anyhow::Result<()> {
    let profile = programs()?;
    let target = profile.parent().context("the benchmark lies in no target directory")?;
    let mut cargo = Command::new(environment::cargo());
    cargo.args(["build", "--quiet", "--package", "cairn-keeper", "--target-dir"]).arg(target);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    process::run(&mut cargo).map(drop)
}

fn measure(inside: &Inside) -> anyhow::Result<()> {
    let words = std::iter::once("vm").chain(inside.arguments.iter().map(String::as_str));
    let arguments = Arguments::try_parse_from(words)?;
    let sizes = match arguments.quick {
        true => Sizes { rounds: 3, at_rest: 20, live: 5, requests: 20 },
        false => Sizes { rounds: arguments.rounds, at_rest: 1000, live: 200, requests: 500 },
    };
    let names = inside.work.join("netns");
    enclosure::bind(&inside.work, &names, "/run/netns")?;
    LinuxNetworks::new().open(&Place::Host)?.change_link("lo", &LinkChange::Up)?;
    table::machine(&inside.work)?;
    let wanted = |part: &str| part.contains(&arguments.only);
    // First: the kernel takes down what the others leave for seconds.
    if wanted("boots") {
        boots::measure(&directory(&inside.work, "boots")?, &arguments.name, sizes.rounds)?;
    }
    if wanted("networks") {
        networks::measure(&arguments.name, sizes.rounds)?;
    }
    if wanted("many") {
        many::measure(&directory(&inside.work, "many")?, &arguments.name, &sizes)?;
    }
    Ok(())
}

/// A directory below the enclosure's own that users of VMs pass through.
fn directory(work: &Path, name: &str) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = work.join(name);
    std::fs::create_dir(&directory)?;
    for path in [work, &directory] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(directory)
}
