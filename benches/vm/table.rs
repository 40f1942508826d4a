//! Times, how they stand to each other, and the machine that they were taken on.

use std::path::Path;
use std::time::Instant;

/// Times of the same thing, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    /// Does something and takes its time.
    pub fn take<T>(&mut self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let begun = Instant::now();
        let done = work()?;
        self.since(begun);
        Ok(done)
    }

    pub fn since(&mut self, begun: Instant) {
        self.0.push(begun.elapsed().as_secs_f64() * 1e3);
    }

    /// The one below which so many of a hundred are.
    pub fn percentile(&self, hundredths: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
        sorted.get(at).copied().unwrap_or(f64::NAN)
    }

    /// One of ten parts, in the order in which they were taken.
    pub fn tenth(&self, number: usize) -> Self {
        let size = self.0.len().div_ceil(10).max(1);
        Self(self.0.chunks(size).nth(number).unwrap_or_default().to_vec())
    }

    /// Those and these.
    pub fn and(&self, other: &Self) -> Self {
        Self([&*self.0, &*other.0].concat())
    }

    /// Each with its fellow.
    pub fn plus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, two)| one + two).collect())
    }
}

pub fn title(title: &str) {
    println!("\n{title}\n{:<58}{:>5}{:>10}{:>10}{:>10}", "", "n", "p50 ms", "p99 ms", "least ms");
}

pub fn line(name: &str, times: &Times) {
    let (middle, worst, least) = (times.percentile(50), times.percentile(99), times.percentile(0));
    println!("{name:<58}{:>5}{middle:>10.2}{worst:>10.2}{least:>10.2}", times.0.len());
}

/// By the middle ones.
pub fn ratio(name: &str, above: &Times, below: &Times) {
    println!("{name:<58}{:>15.2}", above.percentile(50) / below.percentile(50));
}

pub fn figure(name: &str, figure: f64, unit: &str) {
    println!("{name:<58}{figure:>15.2} {unit}");
}

/// What all of it was measured on.
pub fn machine(work: &Path) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism()?;
    let kernel = rustix::system::uname();
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{cores} cores ({}), Linux {}, load before {}; files in {}",
        model.trim_start_matches([' ', '\t', ':']),
        kernel.release().to_string_lossy(),
        load.split(' ').next().unwrap_or_default(),
        work.display()
    );
    Ok(())
}
