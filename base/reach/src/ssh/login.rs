//! Proving who we are: by key, or by password.

use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse as Answer};
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{MethodKind, MethodSet};
use secrecy::{ExposeSecret, SecretString};

use super::handler::{Findings, Watch};
use super::{Error, HostKeys, Login, Target};

/// Rounds of `keyboard-interactive` before it is given up: a question, and a few empty ones with notices.
const ROUNDS: usize = 8;

/// Proof that can be used: a key is read before anything is sent, so that a wrong one costs no connection.
pub(super) enum Proof {
    Key(Arc<PrivateKey>),
    Password(SecretString),
}

/// Reads the login of a target.
///
/// # Errors
/// `KeyUnusable`, or `PasswordWithoutPinnedKey`.
pub(super) fn proof(target: &Target) -> Result<Proof, Error> {
    match &target.login {
        Login::Key { pem, passphrase } => read_key(pem, passphrase.as_ref())
            .map(|key| Proof::Key(Arc::new(key)))
            .map_err(|reason| Error::KeyUnusable { name: target.name.clone(), reason }),
        Login::Password(_) if target.host_keys == HostKeys::TrustFirst => {
            Err(Error::PasswordWithoutPinnedKey { name: target.name.clone() })
        }
        Login::Password(password) => Ok(Proof::Password(password.clone())),
    }
}

fn read_key(pem: &SecretString, passphrase: Option<&SecretString>) -> Result<PrivateKey, String> {
    let passphrase = passphrase.map(|passphrase| passphrase.expose_secret());
    let key = decode_secret_key(pem.expose_secret().trim(), passphrase).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => "it is encrypted, and there is no passphrase".to_owned(),
        russh::keys::Error::SshKey(russh::keys::ssh_key::Error::Crypto) if passphrase.is_some() => {
            "the passphrase does not open it".to_owned()
        }
        russh::keys::Error::CouldNotReadKey => "it is not a private key in PEM form".to_owned(),
        // Other messages speak of the form of the file, never of what is in it.
        other => format!("it cannot be read ({other})"),
    })?;
    match key.algorithm() {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256 => Err("it needs its hardware token".to_owned()),
        other => Err(format!("keys of kind {other} are not supported")),
    }
}

/// Logs in.
///
/// # Errors
/// `LoginRefused`, or `Closed` when the host went away in the middle.
pub(super) async fn log_in(
    handle: &mut Handle<Watch>,
    target: &Target,
    proof: &Proof,
    findings: &Findings,
) -> Result<(), Error> {
    let attempt = Attempt { target, findings };
    match proof {
        Proof::Key(key) => {
            let with = format!("key {}", key.public_key().fingerprint(HashAlg::Sha256));
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
            let answer = handle.authenticate_publickey(&target.user, key).await.map_err(|_| attempt.closed())?;
            match answer {
                AuthResult::Success => Ok(()),
                AuthResult::Failure { remaining_methods, partial_success } => {
                    Err(attempt.refused(handle, with, &remaining_methods, partial_success))
                }
            }
        }
        Proof::Password(password) => attempt.by_password(handle, password).await,
    }
}

struct Attempt<'a> {
    target: &'a Target,
    findings: &'a Findings,
}

impl Attempt<'_> {
    async fn by_password(&self, handle: &mut Handle<Watch>, password: &SecretString) -> Result<(), Error> {
        let user = &self.target.user;
        let answer = handle.authenticate_password(user, password.expose_secret()).await.map_err(|_| self.closed())?;
        match answer {
            AuthResult::Success => Ok(()),
            // Where `password` is offered too, the password was judged and is wrong: it is not tried a second time.
            AuthResult::Failure { remaining_methods, partial_success: false }
                if remaining_methods.contains(&MethodKind::KeyboardInteractive)
                    && !remaining_methods.contains(&MethodKind::Password) =>
            {
                self.by_question(handle, password).await
            }
            AuthResult::Failure { remaining_methods, partial_success } => {
                Err(self.refused(handle, "password".to_owned(), &remaining_methods, partial_success))
            }
        }
    }

    /// Answers the one question for a password that a host may ask, and nothing else.
    async fn by_question(&self, handle: &mut Handle<Watch>, password: &SecretString) -> Result<(), Error> {
        let user = &self.target.user;
        let mut answer =
            handle.authenticate_keyboard_interactive_start(user, None::<String>).await.map_err(|_| self.closed())?;
        let mut asked = false;
        for _ in 0..ROUNDS {
            let replies = match answer {
                Answer::Success => return Ok(()),
                Answer::Failure { remaining_methods, partial_success } => {
                    return Err(self.refused(handle, "password".to_owned(), &remaining_methods, partial_success));
                }
                Answer::InfoRequest { prompts, .. } => match prompts.as_slice() {
                    [] => Vec::new(),
                    [question] if !question.echo && !asked => {
                        asked = true;
                        vec![password.expose_secret().to_owned()]
                    }
                    _ => return Err(self.refusal("password".to_owned(), "more questions than the password".to_owned())),
                },
            };
            answer = handle.authenticate_keyboard_interactive_respond(replies).await.map_err(|_| self.closed())?;
        }
        Err(self.refusal("password".to_owned(), "questions without an end".to_owned()))
    }

    /// The transport answers "refused, and nothing else is offered" also when the connection broke.
    fn refused(&self, handle: &Handle<Watch>, with: String, offered: &MethodSet, partial: bool) -> Error {
        if offered.is_empty() && handle.is_closed() && !self.findings.refused() {
            return self.closed();
        }
        let methods = offered.iter().map(String::from).collect::<Vec<_>>().join(", ");
        let offered = match (partial, methods.is_empty()) {
            (true, _) => format!("{methods} as a second step, which is not supported"),
            (false, true) => "nothing else".to_owned(),
            (false, false) => methods,
        };
        self.refusal(with, offered)
    }

    fn refusal(&self, with: String, offered: String) -> Error {
        Error::LoginRefused { name: self.target.name.clone(), user: self.target.user.clone(), with, offered }
    }

    fn closed(&self) -> Error {
        Error::Closed { name: self.target.name.clone(), reason: self.findings.ended() }
    }
}
