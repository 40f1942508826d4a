//! How long a task image takes: this library, against spawning xorriso for the same files, in turn in
//! the same run. Both write to a file and wait for no disk; xorriso finds its input already on disk.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use iso9660::Image;

const ROUNDS: usize = 51;
const VOLUME_ID: &str = "TASK_0123456789ABCDEF0123456789A";
const TIMESTAMP: i64 = 1_749_990_645;
const FILES: [(&str, usize); 5] = [
    ("recipe.json", 4 << 10),
    ("recipe.schema.json", 12 << 10),
    ("callback.json", 1 << 10),
    ("network.json", 300),
    ("user-data", 64 << 10),
];

fn contents(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

fn with_library(files: &[(&str, Vec<u8>)], target: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut image = Image::builder(VOLUME_ID, TIMESTAMP)?;
    for (name, contents) in files {
        image.file(name, contents)?;
    }
    std::fs::write(target, image.build()?)?;
    Ok(())
}

fn with_xorriso(tree: &Path, target: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let status = Command::new("xorriso")
        .args(["-no_rc", "-as", "mkisofs", "-quiet", "-J", "-R", "-V", VOLUME_ID, "-o"])
        .args([target, tree])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("xorriso: {status}").into()) }
}

fn timed(
    work: impl Fn() -> Result<(), Box<dyn std::error::Error>>,
    times: &mut Vec<Duration>,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    work()?;
    times.push(start.elapsed());
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn compare() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree)?;
    let files = FILES.map(|(name, length)| (name, contents(length)));
    for (name, contents) in &files {
        std::fs::write(tree.join(name), contents)?;
    }
    let (ours, theirs) = (directory.path().join("ours.iso"), directory.path().join("theirs.iso"));
    let found = Command::new("xorriso").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let have_xorriso = !matches!(found, Err(error) if error.kind() == std::io::ErrorKind::NotFound);

    let (mut library, mut xorriso) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        timed(|| with_library(&files, &ours), &mut library)?;
        if have_xorriso {
            // xorriso appends to an image that is there already.
            let _ = std::fs::remove_file(&theirs);
            timed(|| with_xorriso(&tree, &theirs), &mut xorriso)?;
        }
    }
    let library = median(&mut library);
    println!("task_iso: library  median {library:>10.1?} of {ROUNDS}, {} bytes", std::fs::metadata(&ours)?.len());
    if !have_xorriso {
        eprintln!("NOT RUN: task_iso against xorriso: xorriso is missing");
        return Ok(());
    }
    let xorriso = median(&mut xorriso);
    println!("task_iso: xorriso  median {xorriso:>10.1?} of {ROUNDS}, {} bytes", std::fs::metadata(&theirs)?.len());
    println!("task_iso: xorriso takes {:.1} times as long", xorriso.as_secs_f64() / library.as_secs_f64());
    Ok(())
}

fn main() -> ExitCode {
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("task_iso: {error}");
            ExitCode::FAILURE
        }
    }
}
