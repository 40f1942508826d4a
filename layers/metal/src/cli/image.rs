//! `cairn metal image …`: runs on this machine, not on the controller.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use web::Problem;

use super::client::usage;
use super::output::Output;
use crate::adapters::bmc::chain;
use crate::image::{self, BuildOptions, ImageError, Progress};

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build the maintenance image: a bootable ISO for BIOS and UEFI. Needs root
    #[command(after_help = "Examples:
  cairn metal image build
  cairn metal image build --output maintenance.iso --ca /etc/ssl/our-ca.pem
  cairn metal image build --refresh --lock image.lock")]
    Build(Build),
}

#[derive(Debug, Args)]
pub struct Build {
    /// The ISO to write [default: static/isos/bootc-maintenance.iso in the data directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Lock file in place of the one built in
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Renew the lock from what the archive has now, write it to --lock, and build from it
    #[arg(long, requires = "lock")]
    refresh: bool,
    /// Debian archive [default: the first one in this host's apt sources]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Where packages and layers are kept between builds
    #[arg(long, env = "CAIRN_CACHE", value_name = "DIR", default_value = "/var/cache/cairn")]
    cache_dir: PathBuf,
    /// The dispatcher [default: provisioner beside this program]
    #[arg(long, value_name = "FILE")]
    dispatcher: Option<PathBuf>,
    /// Certificate authority that the maintenance OS trusts, PEM; may be given more than once
    #[arg(long = "ca", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// Put the shared webhook secret into the image. Whoever has the image then has the secret
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// A root shell without a password on the serial console, for finding faults
    #[arg(long)]
    debug_shell: bool,
    /// Say what would be fetched and built; do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(command: ImageCommand, data_dir: &Path, output: &Output) -> Result<(), Problem> {
    let ImageCommand::Build(build) = command;
    let stop = Arc::new(AtomicBool::new(false));
    let options = options(&build, data_dir, &stop)?;
    let printer = *output;
    let mut work = tokio::task::spawn_blocking(move || work(&build, &options, &printer));
    loop {
        tokio::select! {
            done = &mut work => return done.map_err(|error| Problem::internal(&error))?,
            Ok(()) = tokio::signal::ctrl_c() => {
                if !stop.swap(true, Ordering::Relaxed) {
                    output.note("stopping at the next step");
                }
            }
        }
    }
}

fn options(build: &Build, data_dir: &Path, stop: &Arc<AtomicBool>) -> Result<BuildOptions, Problem> {
    let dispatcher = match &build.dispatcher {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .map_err(|error| usage(format!("this program cannot find itself: {error}")))?
            .with_file_name("provisioner"),
    };
    if !dispatcher.is_file() {
        return Err(usage(format!("there is no dispatcher at {}", dispatcher.display()))
            .hint("say where it is: --dispatcher FILE (cargo build makes it beside cairn)"));
    }
    Ok(BuildOptions {
        output: build.output.clone().unwrap_or_else(|| data_dir.join("static/isos/bootc-maintenance.iso")),
        cache: build.cache_dir.clone(),
        lock: build.lock.clone(),
        mirror: build.mirror.clone(),
        dispatcher,
        authorities: build.authorities.clone(),
        webhook_secret_file: build.webhook_secret_file.clone(),
        debug_shell: build.debug_shell,
        stop: Arc::clone(stop),
    })
}

fn work(build: &Build, options: &BuildOptions, output: &Output) -> Result<(), Problem> {
    if build.refresh
        && let Some(path) = &build.lock
    {
        output.note("renewing the lock");
        let packages = image::default_packages().map_err(|error| problem(&error))?;
        let suite = image::default_lock().map_err(|error| problem(&error))?.suite;
        let lock = image::refresh(&packages, &suite, build.mirror.as_deref(), &build.cache_dir)
            .map_err(|error| problem(&error))?;
        if build.dry_run {
            output.note(format_args!("would write {} packages to {}", lock.packages.len(), path.display()));
        } else {
            host::write_atomic(path, lock.to_string().as_bytes(), 0o644).map_err(|error| usage(chain(&error)))?;
        }
    }
    if build.dry_run {
        let plan = image::plan(options).map_err(|error| problem(&error))?;
        if output.json {
            output.json(&plan);
        } else {
            output.line(format_args!(
                "would build {} with kernel {} from {} packages ({} to download, {} MiB){}",
                options.output.display(),
                plan.kernel,
                plan.packages,
                plan.packages_to_download,
                plan.bytes_to_download >> 20,
                if plan.base_layer { ", base layer included" } else { "; the base layer is in the cache" }
            ));
        }
        return Ok(());
    }
    let built = image::build(options, &Told(output)).map_err(|error| problem(&error))?;
    if output.json {
        output.json(&built);
    } else {
        output.line(format_args!("{}: {} MiB, sha256 {}", options.output.display(), built.size >> 20, built.sha256));
    }
    Ok(())
}

/// Tells the steps on standard error.
struct Told<'a>(&'a Output);

impl Progress for Told<'_> {
    fn step(&self, text: &str) {
        self.0.note(text);
    }
}

fn problem(error: &ImageError) -> Problem {
    let problem = Problem::new(error.kind(), error.code(), chain(error));
    match error.hint() {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}
