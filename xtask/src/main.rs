//! The project's own tasks: `cargo xtask setup | demo | test | arrows | goldens | ci`.

mod arrows;
mod cargo;
mod demo;
mod deny;
mod goldens;
mod packages;
mod parts;
mod setup;
mod summary;

use std::process::ExitCode;

use anyhow::{Result, bail};
use testkit::enclosure::{self, Stage};

const USAGE: &str = "\
Usage: cargo xtask COMMAND

  setup                      install the Debian packages and the Python environment that demo and test need
  demo                       set up, build, install an operating system on a virtual bare machine and watch it boot
  test [--all] [--only NAME] set up, then every check and test; --all adds the long scenarios;
                             NAME is a part (fmt, clippy, arrows, deny, tests, peers, scenarios) or a
                             scenario
  arrows                     check which crate may depend on which
  goldens                    write the files in api/ and the snapshots from what the program says now
  ci                         what .ci/run runs: test --all
";

fn main() -> ExitCode {
    let ended = match enclosure::stage() {
        Stage::Init(init) => return init.run(),
        Stage::Inside(inside) => demo::inside(&inside).map(|()| 0),
        Stage::Outside => command(&std::env::args().skip(1).collect::<Vec<_>>()),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn command(words: &[String]) -> Result<u8> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["setup"] => setup::setup().map(|()| 0),
        ["demo"] => demo::outside(),
        ["test", ref options @ ..] => parts::test(&parts::Options::parse(options)?),
        ["arrows"] => arrows::check().map(|count| {
            println!("{count} arrows, all allowed");
            0
        }),
        ["goldens"] => goldens::write().map(|()| 0),
        ["ci"] => parts::test(&parts::Options::parse(&["--all"])?),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(0)
        }
        _ => bail!("unknown command: {}\n\n{USAGE}", words.join(" ")),
    }
}
