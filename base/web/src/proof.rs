//! Passwords and what proves them.

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// How a password is proved.
#[derive(Debug, Clone)]
pub enum Proof {
    /// An argon2 hash in PHC form (`$argon2id$…`) or a bcrypt hash (`$2a$`, `$2b$`, `$2y$`).
    Hash(SecretString),
    /// The password itself.
    Plain(SecretString),
}

impl Proof {
    /// Takes as long for a wrong password as for a right one; argon2 and bcrypt take about a tenth of a second.
    pub(crate) fn accepts(&self, key: &[u8; 32], password: &SecretString) -> bool {
        let password = password.expose_secret();
        match self {
            Self::Plain(expected) => digest(key, &[expected.expose_secret()]).ct_eq(&digest(key, &[password])).into(),
            Self::Hash(hash) if is_bcrypt(hash) => bcrypt::verify(password, hash.expose_secret()).unwrap_or(false),
            Self::Hash(hash) => PasswordHash::new(hash.expose_secret())
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        }
    }

    /// Whether any password could be accepted.
    pub(crate) fn is_well_formed(&self) -> bool {
        match self {
            Self::Plain(password) => !password.expose_secret().is_empty(),
            Self::Hash(hash) if is_bcrypt(hash) => hash.expose_secret().parse::<bcrypt::HashParts>().is_ok(),
            Self::Hash(hash) => PasswordHash::new(hash.expose_secret()).is_ok_and(|hash| {
                hash.algorithm.as_str().starts_with("argon2") && hash.salt.is_some() && hash.hash.is_some()
            }),
        }
    }
}

fn is_bcrypt(hash: &SecretString) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.expose_secret().starts_with(prefix))
}

/// A keyed hash of the parts, each with its length, so that no two lists of parts look the same.
pub(crate) fn digest(key: &[u8; 32], parts: &[&str]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}
