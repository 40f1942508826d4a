//! What a VM costs from the request to its running guest, above the same hypervisor started by hand.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use firecracker::{BootSource, Client, Config, HugePages, MachineConfig, Options};
use testkit::guest_kernel::{End, Guest};
use testkit::hypervisor;
use tokio::runtime::Runtime;

use crate::daemon::{self, Daemon};
use crate::table::{self, Times};

/// How long a hypervisor may take to answer.
const READY: Duration = Duration::from_secs(20);
/// User of what is started by hand.
const USER: &str = "299999";

#[derive(Default)]
struct Figures {
    /// From the start of the program until its API answers; and until the guest runs.
    raw: [Times; 2],
    /// The same with the jailer in front.
    jailed: [Times; 2],
    create: Times,
    boot: Times,
    delete: Times,
}

pub fn measure(directory: &Path, name: &str, rounds: u32) -> anyhow::Result<()> {
    let fakes = hypervisor::fakes()?;
    let jailer = fakes.jailer.context("no fake jailer")?;
    let kernel = directory.join("kernel");
    Guest::line("tick", End::Halt).write(&kernel)?;
    let jails = directory.join("by-hand");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let daemon = Daemon::start(directory)?;
    daemon.add_kernel()?;
    let mut client = daemon.client()?;
    let mut figures = Figures::default();
    for round in 0..rounds {
        let socket = directory.join(format!("{round}.sock"));
        let mut command = Command::new(&fakes.firecracker);
        command.arg("--api-sock").arg(&socket);
        by_hand(&runtime, command, &socket, &kernel, &mut figures.raw)?;

        let id = format!("by-hand-{round}");
        let root = jails.join("fake-firecracker").join(&id).join("root");
        std::fs::create_dir_all(&root)?;
        std::fs::copy(&kernel, root.join("kernel"))?;
        let mut command = Command::new(&jailer);
        command.args(["--id", &id, "--uid", USER, "--gid", USER, "--chroot-base-dir"]).arg(&jails);
        command.arg("--exec-file").arg(&fakes.firecracker).args(["--", "--api-sock", "/run/api.sock"]);
        by_hand(&runtime, command, &root.join("run/api.sock"), Path::new("/kernel"), &mut figures.jailed)?;

        let id = format!("{name}boot-{round}");
        figures.create.take(|| client.post("/v1/vms", &daemon::wish(&id)))?;
        figures.boot.take(|| client.post(&format!("/v1/vms/{id}/boot"), &serde_json::json!({})))?;
        figures.delete.take(|| client.exchange("DELETE", &format!("/v1/vms/{id}?force=true"), b""))?;
    }
    print(&figures);
    Ok(())
}

/// A hypervisor that is started, told of its VM and ended.
fn by_hand(
    runtime: &Runtime,
    mut command: Command,
    socket: &Path,
    kernel: &Path,
    [answers, runs]: &mut [Times; 2],
) -> anyhow::Result<()> {
    let machine = MachineConfig {
        vcpu_count: 1,
        mem_size_mib: 128,
        smt: false,
        track_dirty_pages: false,
        huge_pages: HugePages::None,
    };
    let boot = BootSource { kernel_image_path: kernel.to_owned(), initrd_path: None, boot_args: None };
    let config = Config::new(machine, boot);
    let client = Client::new(socket, Options::default());
    let begun = Instant::now();
    let _process = Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    runtime.block_on(async {
        client.wait_ready(READY).await?;
        answers.since(begun);
        config.apply(&client).await?;
        client.start().await?;
        runs.since(begun);
        Ok(())
    })
}

/// Ends with its owner.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn print(figures: &Figures) {
    let Figures { raw, jailed, create, boot, delete } = figures;
    let whole = create.plus(boot);
    table::title("boots: fake Firecracker by hand (one process, no network), and through the daemon's API");
    table::line("by hand: spawn to API answers", &raw[0]);
    table::line("by hand: spawn to guest runs", &raw[1]);
    table::line("by hand, in the jailer: spawn to API answers", &jailed[0]);
    table::line("by hand, in the jailer: spawn to guest runs", &jailed[1]);
    table::line("cairn: create", create);
    table::line("cairn: boot (network, jail, keeper, guest runs)", boot);
    table::line("cairn: create and boot", &whole);
    table::line("cairn: delete by force", delete);
    table::ratio("create and boot / by hand to API answers", &whole, &raw[0]);
    table::ratio("create and boot / by hand, in the jailer, to guest runs", &whole, &jailed[1]);
    table::figure("own time above by hand to API answers", whole.percentile(50) - raw[0].percentile(50), "ms");
    table::figure(
        "own time above by hand, in the jailer, to guest runs",
        whole.percentile(50) - jailed[1].percentile(50),
        "ms",
    );
}
