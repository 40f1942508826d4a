//! A line a machine on a terminal, lines of text elsewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cli::{Output, for_a_terminal};
use indicatif::{MultiProgress, ProgressBar};

use crate::model::{Desired, MachineName};
use crate::ports::{Event, Watcher};

/// Shows how deployments go.
pub(super) struct Shown<'a> {
    output: &'a Output,
    bars: Option<MultiProgress>,
    of: Mutex<BTreeMap<MachineName, ProgressBar>>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        let bars = (output.is_watched() && !output.json).then(MultiProgress::new);
        Self { output, bars, of: Mutex::default() }
    }

    pub(super) fn say(&self, machine: &MachineName, text: &str) {
        let text = for_a_terminal(&format!("{machine}: {text}"));
        let Some(bars) = &self.bars else { return self.output.note(text) };
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = of.entry(machine.clone()).or_insert_with(|| {
            let bar = bars.add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_message(text);
    }

    /// The line of a machine goes; what came of it is the command's result.
    pub(super) fn ended(&self, machine: &MachineName) {
        if let Some(bar) = self.of.lock().unwrap_or_else(PoisonError::into_inner).remove(machine) {
            bar.finish_and_clear();
        }
    }
}

impl Watcher for Shown<'_> {
    fn told(&self, desired: &Desired, event: &Event<'_>) {
        match event {
            Event::Phase(phase) => self.say(&desired.machine, phase.as_str()),
            // On a terminal it is seen for as long as it lasts; a log would have it twice a second.
            Event::Waiting(reason) if self.bars.is_some() => self.say(&desired.machine, reason),
            Event::Waiting(reason) => tracing::debug!(machine = %desired.machine, reason, "waiting"),
            Event::TakenUp(id) => self.say(&desired.machine, &format!("deployment {id} is taken up again")),
        }
    }
}
