//! The maintenance image is the same each time it is built from one lock.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testkit::environment;
use testkit::process::run;
use testkit::progress::Progress;

/// Programs that it needs.
pub(crate) const NEEDS: &[&str] = &["xorriso", "mksquashfs", "mformat", "grub-mkimage", "sha256sum"];

/// Twice with a cache of its own, in which only packages are: the first builds everything, the second takes what the
/// first has kept. A dry run builds nothing.
pub(crate) fn equal(work: &Path) -> Result<()> {
    let mut progress = Progress::default();
    progress.phase("fill the cache");
    let known = environment::cache()?;
    image(&known, &work.join("any.iso"), &[])?;
    let cache = work.join("cache");
    std::fs::create_dir(&cache)?;
    std::os::unix::fs::symlink(known.join("debs"), cache.join("debs"))?;
    let dry = image(&cache, &work.join("dry.iso"), &["--dry-run"])?;
    ensure!(dry["base_layer"] == true && dry["packages_to_download"] == 0, "dry run: {dry:#}");
    ensure!(!work.join("dry.iso").exists(), "the dry run wrote an image");
    ensure!(!cache.join("images").exists(), "the dry run filled the cache");
    progress.phase("build everything");
    let first = built(&cache, &work.join("first.iso"))?;
    let dry = image(&cache, &work.join("dry.iso"), &["--dry-run"])?;
    ensure!(dry["base_layer"] == false, "dry run: {dry:#}");
    progress.phase("build again");
    let second = built(&cache, &work.join("second.iso"))?;
    ensure!(first == second, "two builds differ: {first} and {second}");
    print!("{}", progress.finish());
    Ok(())
}

/// Builds an image and gives back its hash, which is also the one that the command tells.
fn built(cache: &Path, output: &Path) -> Result<String> {
    let told = image(cache, output, &[])?;
    let found = run(Command::new("sha256sum").arg(output))?;
    let found = found.split(' ').next().unwrap_or_default();
    ensure!(told["sha256"] == found, "the image has {found}, the command says {told:#}");
    Ok(found.to_owned())
}

fn image(cache: &Path, output: &Path, more: &[&str]) -> Result<Value> {
    let mut command = Command::new(environment::cairn()?);
    command.args(["metal", "image", "build", "--json", "--output"]).arg(output).args(more);
    let text = run(command.env("CAIRN_CACHE", cache))?;
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}
