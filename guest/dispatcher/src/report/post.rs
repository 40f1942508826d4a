//! A report that has to arrive.

use std::time::Duration;

use reqwest::{Client, StatusCode};
use url::Url;

use cairn_core::chain;

/// The header that carries the token.
pub(super) const SECRET_HEADER: &str = "X-Webhook-Secret";

/// How often and how long a report is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Attempts in all.
    pub attempts: u32,
    /// Pause after the first failure; doubles with each further one.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
}

impl Default for Patience {
    /// About six minutes: 16 attempts, pauses from 1 s to 30 s.
    fn default() -> Self {
        Self { attempts: 16, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(30) }
    }
}

/// How the report was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Taken {
    /// With a 2xx.
    Accepted,
    /// With an answer that another attempt would get again.
    Refused(String),
    /// Not at all; the last reason.
    Lost(String),
}

/// Posts until it is taken, refused, or patience ends. `body` stays the same over all attempts.
pub(super) async fn deliver(client: &Client, url: &Url, token: &str, body: &[u8], patience: Patience) -> Taken {
    let mut pause = patience.first_pause;
    let mut last = String::new();
    for attempt in 1..=patience.attempts {
        if attempt > 1 {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(patience.longest_pause);
        }
        let request = client.post(url.clone()).header(SECRET_HEADER, token);
        let request = request.header("Content-Type", "application/json").body(body.to_vec());
        match request.send().await {
            Ok(response) if response.status().is_success() => return Taken::Accepted,
            Ok(response) if is_final(response.status()) => {
                let status = response.status();
                let text = response.text().await.unwrap_or_default();
                return Taken::Refused(format!("{status} {}", text.chars().take(300).collect::<String>()));
            }
            Ok(response) => last = response.status().to_string(),
            Err(error) => last = chain(&error.without_url()),
        }
        tracing::warn!(attempt, reason = last, "the report was not taken");
    }
    Taken::Lost(last)
}

/// A redirect or a client's mistake is answered the same way again; a time-out or too many requests is not.
fn is_final(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    status.is_redirection() || status.is_client_error() && !again.contains(&status)
}
