//! `cairn metal image …`: runs on this machine, not on the controller.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use cli::{Output, read_text, usage};
use web::Problem;

use crate::image::{self, BuildOptions, ImageError, Lock, PackageList, Progress, RootOptions};
use cairn_core::chain;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build the maintenance image: a bootable ISO for BIOS and UEFI. Needs root
    #[command(after_help = "Examples:
  cairn metal image build
  cairn metal image build --output maintenance.iso --ca /etc/ssl/our-ca.pem
  cairn metal image build --refresh --lock image.lock")]
    Build(Build),
    /// Build a small bootable Debian as an archive to push and install. Needs root
    #[command(after_help = "Example:
  cairn metal image root --output debian.tar.zst
  cairn metal artifact push os-images/debian:trixie debian.tar.zst")]
    Root(Root),
}

#[derive(Debug, Args)]
pub struct Source {
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
}

#[derive(Debug, Args)]
pub struct Root {
    /// The archive to write, .tar.zst
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, Args)]
pub struct Build {
    /// The ISO to write [default: static/isos/bootc-maintenance.iso in the data directory]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    source: Source,
    /// The dispatcher [default: provisioner beside this program]
    #[arg(long, value_name = "FILE")]
    dispatcher: Option<PathBuf>,
    /// Certificate authority that the maintenance OS trusts, PEM; may be given more than once
    #[arg(long = "ca", value_name = "FILE")]
    authorities: Vec<PathBuf>,
    /// A root shell without a password on the serial console, for finding faults
    #[arg(long)]
    debug_shell: bool,
    /// Say what would be fetched and built; do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(command: ImageCommand, data_dir: &Path, output: &Output) -> Result<(), Problem> {
    let stop = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&stop);
    let printer = output.clone();
    let mut work = match command {
        ImageCommand::Build(build) => {
            let options = options(&build, data_dir, &stop)?;
            tokio::task::spawn_blocking(move || iso(&build, &options, &printer))
        }
        ImageCommand::Root(root) => {
            let stop = Arc::clone(&stop);
            tokio::task::spawn_blocking(move || self::root(&root, stop, &printer))
        }
    };
    loop {
        tokio::select! {
            done = &mut work => {
                let done = done.map_err(|error| Problem::internal(&error))?;
                // A program that was cut off by the same Ctrl-C is not the reason.
                return match done {
                    Err(_) if interrupted.load(Ordering::Relaxed) => Err(problem(&ImageError::Interrupted)),
                    done => done,
                };
            }
            Ok(()) = tokio::signal::ctrl_c() => {
                if !interrupted.swap(true, Ordering::Relaxed) {
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
        cache: build.source.cache_dir.clone(),
        lock: build.source.lock.clone(),
        mirror: build.source.mirror.clone(),
        dispatcher,
        authorities: build.authorities.clone(),
        debug_shell: build.debug_shell,
        stop: Arc::clone(stop),
    })
}

/// Renews the lock file when that is asked for.
fn refresh(source: &Source, packages: &PackageList, suite: &str, output: &Output) -> Result<(), Problem> {
    let (true, Some(path)) = (source.refresh, &source.lock) else { return Ok(()) };
    output.note("renewing the lock");
    let lock = image::refresh(packages, suite, source.mirror.as_deref(), &source.cache_dir)
        .map_err(|error| problem(&error))?;
    host::write_atomic(path, lock.to_string().as_bytes(), 0o644).map_err(|error| usage(chain(&error)))
}

fn root(root: &Root, stop: Arc<AtomicBool>, output: &Output) -> Result<(), Problem> {
    let built_in = image::default_root_lock().map_err(|error| problem(&error))?;
    let packages = image::default_root_packages().map_err(|error| problem(&error))?;
    refresh(&root.source, &packages, &built_in.suite, output)?;
    let lock = match &root.source.lock {
        Some(path) => Lock::parse(&path.display().to_string(), &read_text(path)?).map_err(|error| problem(&error))?,
        None => built_in,
    };
    let options = RootOptions {
        output: root.output.clone(),
        cache: root.source.cache_dir.clone(),
        lock,
        mirror: root.source.mirror.clone(),
        entries: image::bootable_entries(),
        stop,
    };
    let built = image::debian_root(&options, &Told(output)).map_err(|error| problem(&error))?;
    if output.json {
        output.json(&serde_json::json!({ "output": root.output, "sha256": built.sha256, "size": built.size }));
    } else {
        output.line(format_args!("{}: {} MiB, sha256 {}", root.output.display(), built.size >> 20, built.sha256));
    }
    Ok(())
}

fn iso(build: &Build, options: &BuildOptions, output: &Output) -> Result<(), Problem> {
    if !build.dry_run {
        let packages = image::default_packages().map_err(|error| problem(&error))?;
        let suite = image::default_lock().map_err(|error| problem(&error))?.suite;
        refresh(&build.source, &packages, &suite, output)?;
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
