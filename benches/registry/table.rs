//! The figures, and how they stand to each other.

use crate::measures::{Figure, Measure};
use crate::servers::Kind;

const MIB: f64 = (1 << 20) as f64;

pub fn print(figures: &[Figure], rounds: u64) {
    println!("\nbest of {rounds}; CPU and peak memory are the server's\n");
    println!("{:<26}{:<17}{:>14}{:>10}{:>13}{:>9}{:>11}", "", "", "", "time s", "rate", "CPU s", "peak MiB");
    for measure in Measure::ALL {
        for figure in figures.iter().filter(|figure| figure.measure == measure) {
            line(figure);
        }
    }
    println!();
    let seconds =
        |measure, server| figures.iter().find(|f| f.measure == measure && f.server == server).map(|f| f.seconds);
    let (ours, theirs) = (Some(Kind::Cairn), Some(Kind::DockerRegistry));
    for measure in Measure::ALL {
        ratio(
            &format!("{}: cairn / docker-registry", measure.name()),
            seconds(measure, theirs),
            seconds(measure, ours),
        );
        let nginx = seconds(measure, Some(Kind::Nginx));
        ratio(&format!("{}: cairn / nginx", measure.name()), nginx, seconds(measure, ours));
    }
    for (name, alone) in
        [("SHA-256 pass", Measure::Hash), ("disk alone", Measure::Disk), ("socket to disk", Measure::Floor)]
    {
        ratio(&format!("time of push / {name}"), seconds(Measure::Push, ours), seconds(alone, None));
    }
}

fn line(figure: &Figure) {
    let server = figure.server.map_or("", Kind::name);
    let what = format!("{} x {}", figure.count, size(figure.bytes));
    let rate = match figure.bytes {
        ..MIB_BYTES => format!("{:.0} /s", figure.count as f64 / figure.seconds),
        bytes => format!("{:.0} MiB/s", (figure.count * bytes) as f64 / MIB / figure.seconds),
    };
    print!("{:<26}{server:<17}{what:>14}{:>10.3}{rate:>13}", figure.measure.name(), figure.seconds);
    match figure.server {
        Some(_) => println!("{:>9.2}{:>11.1}", figure.cpu, figure.peak as f64 / MIB),
        None => println!(),
    }
}

const MIB_BYTES: u64 = 1 << 20;

fn size(bytes: u64) -> String {
    if bytes < MIB_BYTES { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

fn ratio(name: &str, above: Option<f64>, below: Option<f64>) {
    if let (Some(above), Some(below)) = (above, below) {
        println!("{name:<60}{:>8.2}", above / below);
    }
}
