//! Phases and how long they took.

use std::time::{Duration, Instant};

/// Prints each phase as it begins and a table at the end.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    before: Duration,
    running: Option<(String, Instant)>,
    done: Vec<(String, Duration)>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::after(&[])
    }
}

impl Progress {
    /// Begins after phases that another process has done already; their time is part of the total.
    pub fn after(done: &[(&str, Duration)]) -> Self {
        let done: Vec<_> = done.iter().map(|(name, time)| ((*name).to_owned(), *time)).collect();
        Self { start: Instant::now(), before: done.iter().map(|(_, time)| *time).sum(), running: None, done }
    }

    /// Ends the running phase and begins the next.
    pub fn phase(&mut self, name: &str) {
        self.end_phase();
        println!("[{:7.1} s] {name}", self.elapsed().as_secs_f64());
        self.running = Some((name.to_owned(), Instant::now()));
    }

    /// A line within the running phase.
    pub fn note(&self, text: &str) {
        println!("[{:7.1} s]   {text}", self.elapsed().as_secs_f64());
    }

    /// Ends the running phase; gives back the table of seconds.
    pub fn finish(&mut self) -> String {
        self.end_phase();
        table(&self.done, self.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.before + self.start.elapsed()
    }

    fn end_phase(&mut self) {
        if let Some((name, start)) = self.running.take() {
            self.done.push((name, start.elapsed()));
        }
    }
}

fn table(phases: &[(String, Duration)], total: Duration) -> String {
    let mut text = String::from("\n  seconds  phase\n");
    for (name, time) in phases {
        text.push_str(&format!("{:9.1}  {name}\n", time.as_secs_f64()));
    }
    text.push_str(&format!("{:9.1}  total\n", total.as_secs_f64()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_phase_and_the_total() {
        let phases =
            [("build".to_owned(), Duration::from_millis(2500)), ("install".to_owned(), Duration::from_secs(60))];
        let text = table(&phases, Duration::from_secs(63));
        assert_eq!(text, "\n  seconds  phase\n      2.5  build\n     60.0  install\n     63.0  total\n");
    }
}
