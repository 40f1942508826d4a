//! How fast the registry takes and gives blobs, beside Debian's docker-registry and nginx, in one run on one machine:
//! `cargo bench -p benches --bench registry`. docs/decisions/0016 has figures.
//!
//! Every server gets a directory of its own below one that is removed at the end, and a port on 127.0.0.1. Each round
//! goes through all servers, so that what disturbs the machine disturbs all of them; the best round counts.

mod client;
mod content;
mod measures;
mod servers;
mod table;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

/// Measures the registry beside docker-registry and nginx.
#[derive(Parser)]
struct Arguments {
    /// Small blobs and one round, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Measures `PATH registry serve` and not the library served by this program.
    #[arg(long, value_name = "PATH")]
    cairn: Option<PathBuf>,
    /// Where the servers keep their blobs: 8 GiB a round. In a file system in memory the disk does not count.
    #[arg(long, value_name = "PATH", default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: u64,
    /// Only the measures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Serves the library's registry from this directory, and nothing else.
    #[arg(long, hide = true, requires = "listen")]
    serve: Option<PathBuf>,
    /// Where to serve it.
    #[arg(long, hide = true)]
    listen: Option<SocketAddr>,
    /// Cargo says this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let (Some(root), Some(address)) = (arguments.serve, arguments.listen) {
        return servers::serve(root, address);
    }
    let sizes = if arguments.quick { measures::Sizes::QUICK } else { measures::Sizes::FULL };
    let rounds = if arguments.quick { 1 } else { arguments.rounds };
    let directory = tempfile::Builder::new()
        .prefix("cairn-bench-")
        .tempdir_in(&arguments.directory)
        .with_context(|| format!("cannot make a directory in {}", arguments.directory.display()))?;
    let servers = servers::start_all(directory.path(), arguments.cairn.as_deref())?;
    let figures = measures::measure(&servers, directory.path(), &sizes, rounds, &arguments.only)?;
    drop(servers);
    table::print(&figures, rounds);
    Ok(())
}
