//! Step reports. They are sent from a thread of their own: neither a slow controller nor a missing one holds a step up.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use recipe::callback::{Callback, Progress as Body, ProgressEvent};
use url::Url;

use super::post::SECRET_HEADER;
use crate::failure::Failure;
use crate::http::{self, Trust};

/// Time for one report.
const TIME: Duration = Duration::from_secs(3);
/// Reports that wait to be sent; more are dropped.
const WAITING: usize = 8;

/// Where step reports go in.
pub struct Progress {
    sender: SyncSender<Body>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Starts the thread.
    pub fn start(callback: &Callback) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        let (url, token) = (callback.progress_url.clone(), callback.webhook_token.clone());
        let thread = std::thread::spawn(move || {
            if let Err(failure) = send_all(&receiver, &url, &token) {
                tracing::warn!(error = %failure, "progress is not reported");
            }
        });
        Self { sender, thread }
    }

    /// Reports what happened to a unit.
    pub fn event(&self, unit: &str, event: ProgressEvent, message: Option<String>) {
        self.send(Body { unit: unit.to_owned(), event, message, bytes_done: None, bytes_total: None });
    }

    /// Reports how far a unit is.
    pub fn bytes(&self, unit: &str, event: ProgressEvent, done: u64, total: u64) {
        let (bytes_done, bytes_total) = (Some(done), Some(total));
        self.send(Body { unit: unit.to_owned(), event, message: None, bytes_done, bytes_total });
    }

    fn send(&self, body: Body) {
        if let Err(TrySendError::Full(body)) = self.sender.try_send(body) {
            tracing::debug!(unit = body.unit, "a progress report was dropped");
        }
    }

    /// Waits until what waits was sent, each within its time.
    pub fn finish(self) {
        drop(self.sender);
        // A panic there was printed and changes nothing here.
        let _ = self.thread.join();
    }
}

fn send_all(receiver: &Receiver<Body>, url: &Url, token: &str) -> Result<(), Failure> {
    let client = http::client(Some(TIME), TIME, Trust::System)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::of("runtime"))?;
    while let Ok(body) = receiver.recv() {
        let request = client.post(url.clone()).header(SECRET_HEADER, token).json(&body);
        // The request is built inside the runtime: its timer belongs to it.
        match runtime.block_on(async { request.send().await }) {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => tracing::debug!(status = %response.status(), "a progress report was refused"),
            Err(error) => tracing::debug!(error = %error.without_url(), "a progress report was lost"),
        }
    }
    Ok(())
}
