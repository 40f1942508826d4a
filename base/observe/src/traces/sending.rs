//! The task that takes spans out of the queue and sends them.

use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::post::{Answer, Post};
use super::{Pace, SpanCounters};

/// See the module.
pub(super) struct Sending {
    spans: mpsc::Receiver<SpanData>,
    /// What is sent next, or again. It is not lost when the task is told to stop meanwhile.
    batch: Vec<SpanData>,
    post: Post,
    pace: Pace,
    counters: SpanCounters,
    trouble: Trouble,
}

/// What the log knows about a collector that does not take spans.
#[derive(Debug, Default)]
struct Trouble {
    is_on: bool,
    told: Option<Instant>,
}

impl Sending {
    pub(super) fn new(spans: mpsc::Receiver<SpanData>, post: Post, pace: Pace, counters: SpanCounters) -> Self {
        Self { spans, batch: Vec::new(), post, pace, counters, trouble: Trouble::default() }
    }

    /// Until it is told to stop; then what is left has the time that is named. A request that is under way then is waited
    /// for, so that nothing arrives twice.
    pub(super) async fn run(mut self, stop: oneshot::Receiver<Duration>) {
        let ending = CancellationToken::new();
        let over = async {
            if let Ok(limit) = stop.await {
                ending.cancel();
                sleep(limit).await;
            }
        };
        tokio::select! {
            () = self.work(&ending) => {}
            () = over => {}
        }
        let left = self.batch.len() + self.spans.len();
        if left > 0 {
            self.lose(left as u64);
            tracing::warn!(collector = %self.post.url(), spans = left, "traces were lost: they were not sent in time");
        }
    }

    async fn work(&mut self, ending: &CancellationToken) {
        while self.collect(ending).await && self.deliver(ending).await {}
    }

    /// Waits for a span and, for a while, for more. Nothing when there are none any more.
    async fn collect(&mut self, ending: &CancellationToken) -> bool {
        let mut due = None;
        while self.batch.len() < self.pace.batch {
            let room = self.pace.batch - self.batch.len();
            // Counted from the first span.
            let wait = match due {
                None if self.batch.is_empty() => None,
                known => Some(*due.insert(known.unwrap_or_else(|| Instant::now() + self.pace.delay))),
            };
            tokio::select! {
                biased;
                more = self.spans.recv_many(&mut self.batch, room) => if more == 0 { break },
                () = ending.cancelled() => break,
                () = sleep_until(wait.unwrap_or_else(Instant::now)), if wait.is_some() => break,
            }
        }
        !self.batch.is_empty()
    }

    /// Sends the batch, again and again for a while if need be. Whether there is a point in going on.
    async fn deliver(&mut self, ending: &CancellationToken) -> bool {
        let begun = Instant::now();
        let mut pause = self.pace.pauses.0;
        loop {
            let is_last = ending.is_cancelled();
            let Err(wish) = self.once().await else { return true };
            if is_last {
                return false;
            }
            if begun.elapsed() >= self.pace.give_up {
                let lost = self.batch.drain(..).count();
                self.lose(lost as u64);
                return true;
            }
            tokio::select! {
                () = ending.cancelled() => {}
                () = sleep(wish.unwrap_or(pause).min(self.pace.pauses.1)) => {}
            }
            pause = (pause * 2).min(self.pace.pauses.1);
        }
    }

    /// Sends the batch once. What is given back when it is to be sent again is the pause that the collector asks for.
    async fn once(&mut self) -> Result<(), Option<Duration>> {
        match self.post.send(&self.batch).await {
            Answer::Taken { rejected } => {
                let spans = self.batch.drain(..).count() as u64;
                self.counters.sent.inc_by(spans.saturating_sub(rejected));
                if rejected > 0 {
                    self.lose(rejected.min(spans));
                    self.tell(&format!("it takes all but {rejected} of {spans} spans"));
                } else if std::mem::take(&mut self.trouble.is_on) {
                    tracing::info!(collector = %self.post.url(), "traces are sent again");
                }
                Ok(())
            }
            Answer::Refused { reason } => {
                let lost = self.batch.drain(..).count();
                self.lose(lost as u64);
                self.tell(&reason);
                Ok(())
            }
            Answer::Later { reason, after } => {
                self.tell(&reason);
                Err(after)
            }
        }
    }

    fn lose(&self, spans: u64) {
        self.counters.dropped.inc_by(spans);
    }

    /// Says that the collector does not take spans, not more often than it helps.
    fn tell(&mut self, reason: &str) {
        self.trouble.is_on = true;
        if self.trouble.told.is_some_and(|told| told.elapsed() < self.pace.tell) {
            return;
        }
        self.trouble.told = Some(Instant::now());
        let lost = self.counters.dropped.get();
        tracing::warn!(collector = %self.post.url(), reason, spans_lost = lost, "traces cannot be sent; work goes on");
    }
}
