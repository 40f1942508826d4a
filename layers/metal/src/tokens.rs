//! Proofs that the controller hands out: per-job tokens and signed media URLs. Nothing is stored; each is an HMAC-SHA256
//! that can be computed again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::model::JobId;

/// What a token of a job is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Terminal report and step reports.
    Webhook,
    /// Report of the first boot.
    FirstBoot,
    /// Pulling the job's artifact.
    Registry,
}

/// A secret and, while it is being rotated, the one before it. New proofs come from the first; both are accepted.
#[derive(Clone)]
pub struct Secrets {
    current: SecretString,
    old: Option<SecretString>,
}

/// Which of two secrets a proof came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// The current one.
    Current,
    /// The one before it.
    Old,
}

impl Secrets {
    /// `old` is accepted beside `current` while a rotation is under way.
    pub fn new(current: SecretString, old: Option<SecretString>) -> Self {
        Self { current, old }
    }

    /// The token of a job for a purpose. A requeue raises `attempt` and makes earlier tokens worthless.
    pub fn token(&self, purpose: Purpose, job: JobId, attempt: u32) -> String {
        sign(&self.current, &token_text(purpose, job, attempt))
    }

    /// Whether `given` is a token of this job, attempt and purpose.
    pub fn check_token(&self, given: &str, purpose: Purpose, job: JobId, attempt: u32) -> Option<Match> {
        self.check(given, &token_text(purpose, job, attempt))
    }

    /// Whether `given` is the secret itself (images that were built with it send it plainly).
    pub fn check_plain(&self, given: &str) -> Option<Match> {
        if same(given, self.current.expose_secret()) {
            return Some(Match::Current);
        }
        self.old.as_ref().filter(|old| same(given, old.expose_secret())).map(|_| Match::Old)
    }

    /// Signature of a media path (decision: method, path, expiry and content, one per line; `GET` stands for `HEAD` too).
    pub fn sign_media(&self, path: &str, expires: i64, sha256: &str) -> String {
        sign(&self.current, &media_text(path, expires, sha256))
    }

    /// Whether `given` signs this path, expiry and content. The expiry itself is the caller's to judge.
    pub fn check_media(&self, given: &str, path: &str, expires: i64, sha256: &str) -> Option<Match> {
        self.check(given, &media_text(path, expires, sha256))
    }

    fn check(&self, given: &str, text: &str) -> Option<Match> {
        if same(given, &sign(&self.current, text)) {
            return Some(Match::Current);
        }
        self.old.as_ref().filter(|old| same(given, &sign(old, text))).map(|_| Match::Old)
    }
}

/// User name of a job at the registry.
pub(crate) fn job_user(job: JobId) -> String {
    format!("job-{job}")
}

fn token_text(purpose: Purpose, job: JobId, attempt: u32) -> String {
    let purpose = match purpose {
        Purpose::Webhook => "webhook",
        Purpose::FirstBoot => "first-boot",
        Purpose::Registry => "registry",
    };
    format!("{purpose}\n{job}\n{attempt}")
}

fn media_text(path: &str, expires: i64, sha256: &str) -> String {
    format!("GET\n{path}\n{expires}\n{sha256}")
}

fn sign(secret: &SecretString, text: &str) -> String {
    #[allow(clippy::expect_used)] // HMAC takes keys of any length
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).expect("any key length");
    mac.update(text.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

fn same(left: &str, right: &str) -> bool {
    left.as_bytes().ct_eq(right.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::new("current".to_owned().into(), Some("old".to_owned().into()))
    }

    #[test]
    fn a_token_is_good_for_one_job_attempt_and_purpose() {
        let job = JobId::new();
        let token = secrets().token(Purpose::Webhook, job, 1);
        assert_eq!(secrets().check_token(&token, Purpose::Webhook, job, 1), Some(Match::Current));
        assert_eq!(secrets().check_token(&token, Purpose::Webhook, job, 2), None);
        assert_eq!(secrets().check_token(&token, Purpose::FirstBoot, job, 1), None);
        assert_eq!(secrets().check_token(&token, Purpose::Webhook, JobId::new(), 1), None);
        assert_eq!(secrets().check_token("", Purpose::Webhook, job, 1), None);
    }

    #[test]
    fn the_old_secret_is_accepted_and_told_apart() {
        let before = Secrets::new("old".to_owned().into(), None);
        let signature = before.sign_media("/media/tasks/x/task.iso", 10, "ab");
        assert_eq!(secrets().check_media(&signature, "/media/tasks/x/task.iso", 10, "ab"), Some(Match::Old));
        assert_eq!(secrets().check_media(&signature, "/media/tasks/x/task.iso", 11, "ab"), None);
        assert_eq!(secrets().check_plain("old"), Some(Match::Old));
        assert_eq!(secrets().check_plain("current"), Some(Match::Current));
        assert_eq!(secrets().check_plain("curren"), None);
    }
}
