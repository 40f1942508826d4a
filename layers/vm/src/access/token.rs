//! What a token is, and its text.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::model::{CustomerId, InvalidName};

/// In front of every token, so that a scanner of sources can find one that was lost there.
const PREFIX: &str = "cvm_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;

/// Name of a token in lists and records: 12 hexadecimal digits. Not secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if is_hex(text, ID_BYTES) {
            return Ok(Self(text.to_owned()));
        }
        Err(InvalidName { kind: "id of a token", text: text.to_owned(), rule: "12 hexadecimal digits" })
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A token, without its secret, which is known to nobody but who was given it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Id.
    pub id: TokenId,
    /// What it is for, for people.
    pub name: String,
    /// Whose VMs it is for; all, and the host itself, when there is none: an operator's.
    pub customer: Option<CustomerId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<Timestamp>,
    /// When it was ended.
    pub revoked_at: Option<Timestamp>,
}

impl Token {
    /// Why it cannot be used any more, if so.
    pub fn ended(&self, now: Timestamp) -> Option<&'static str> {
        if self.revoked_at.is_some() {
            return Some("the token was revoked");
        }
        self.expires_at.is_some_and(|end| end <= now).then_some("the token has expired")
    }
}

/// A new id and the text of its token.
pub(super) fn random() -> (TokenId, SecretString) {
    let id = TokenId(hex(&rand::random::<[u8; ID_BYTES]>()));
    let secret = hex(&rand::random::<[u8; SECRET_BYTES]>());
    let text = SecretString::from(format!("{PREFIX}{id}_{secret}"));
    (id, text)
}

/// Id and hash of the secret in a token's text; none when it is no token.
pub(super) fn parse(text: &SecretString) -> Option<(TokenId, String)> {
    let (id, secret) = text.expose_secret().strip_prefix(PREFIX)?.split_once('_')?;
    let id = id.parse().ok()?;
    is_hex(secret, SECRET_BYTES).then(|| (id, hash(secret)))
}

/// Compares without telling by its time how much is alike.
pub(super) fn is_same(hash: &str, stored: &str) -> bool {
    hash.as_bytes().ct_eq(stored.as_bytes()).into()
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(text: &str, bytes: usize) -> bool {
    text.len() == 2 * bytes && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_text_and_by_nothing_else() {
        let (id, text) = random();
        let (found, hash) = parse(&text).unwrap();
        assert_eq!(found, id);
        assert!(is_same(&hash, &parse(&text).unwrap().1));
        let (_, other) = random();
        assert!(!is_same(&hash, &parse(&other).unwrap().1));
        let text = text.expose_secret();
        assert!(!hash.contains(&text[text.len() - 64..]));
        for wrong in
            ["", "cvm_", "cvm_x_y", &text[1..], &text[..text.len() - 1], &format!("{text}0"), &text.to_uppercase()]
        {
            assert!(parse(&SecretString::from(wrong)).is_none(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn only_our_own_form_is_a_token(text in "(cvm_)?[0-9a-fx_é]{0,90}") {
            if let Some((id, hash)) = parse(&SecretString::from(text.as_str())) {
                proptest::prop_assert_eq!((text.len(), id.as_str(), hash.len()), (81, &text[4..16], 64));
            }
        }
    }
}
