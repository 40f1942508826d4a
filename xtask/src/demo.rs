//! `cargo xtask demo`: one real install on a virtual bare machine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testkit::enclosure::{self, Inside, Network};
use testkit::progress::Progress;

use crate::{cargo, setup};

/// Sets up, builds, and does the rest in an enclosure; gives back the exit code.
pub(crate) fn outside() -> Result<u8> {
    let start = Instant::now();
    setup::setup()?;
    let set_up = start.elapsed();
    cargo::build()?;
    let built = start.elapsed() - set_up;
    if let Some(obstacle) = enclosure::obstacle() {
        bail!("{obstacle}");
    }
    let millis = [set_up, built].map(|time| time.as_millis().to_string());
    let code = enclosure::run(&[&millis[0], &millis[1]], Network::Host)?;
    if code == 130 {
        eprintln!("interrupted; nothing is left running");
    }
    Ok(code)
}

/// The part inside the enclosure; its arguments are how long the part outside took.
pub(crate) fn inside(inside: &Inside) -> Result<()> {
    let [set_up, built] = inside.arguments.as_slice() else { bail!("two times are expected") };
    let time = |text: &String| text.parse().map(Duration::from_millis).context("a time in milliseconds");
    let mut progress = Progress::after(&[("set up", time(set_up)?), ("build cairn", time(built)?)]);
    let ended = testkit::demo::demo(&inside.work, &mut progress);
    println!("{}", progress.finish());
    ended?;
    println!("The machine booted from its own disk and reported it.");
    Ok(())
}
