//! Public keys of hosts.

use std::fmt;
use std::str::FromStr;

use russh::keys::{Algorithm, HashAlg, PublicKey};

/// Public key of a host. Two are equal when kind and key are; the comment of a line does not count.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey(PublicKey);

/// The text is not a public key as OpenSSH writes it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not a public host key such as `ssh-ed25519 AAAA…`: {text}")]
pub struct InvalidHostKey {
    /// What was given, shortened.
    pub text: String,
    /// Why it cannot be read.
    #[source]
    source: russh::keys::ssh_key::Error,
}

impl HostKey {
    pub(super) fn new(key: &PublicKey) -> Self {
        Self(PublicKey::new(key.key_data().clone(), ""))
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Kind of the key, such as `ssh-ed25519`.
    pub fn algorithm(&self) -> String {
        self.0.algorithm().to_string()
    }

    pub(super) fn kind(&self) -> Algorithm {
        self.0.algorithm()
    }
}

impl FromStr for HostKey {
    type Err = InvalidHostKey;

    /// Reads `KIND BASE64 [COMMENT]`, the line of a `.pub` file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        PublicKey::from_openssh(text.trim())
            .map(|key| Self::new(&key))
            .map_err(|source| InvalidHostKey { text: text.chars().take(80).collect(), source })
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.to_openssh().map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HostKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[test]
    fn comment_and_blanks_do_not_count() {
        let plain: HostKey = LINE.parse().unwrap();
        let commented: HostKey = format!("  {LINE} root@somewhere else\n").parse().unwrap();
        assert_eq!(plain, commented);
        assert_eq!(plain.to_string(), LINE);
        assert_eq!(commented.to_string(), LINE);
        assert_eq!(plain.algorithm(), "ssh-ed25519");
        assert_eq!(plain.fingerprint(), "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ");
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        for text in ["", "ssh-ed25519", "ssh-ed25519 !!!", "hello world", "ssh-rsa AAAAC3NzaC1lZDI1NTE5"] {
            let error = text.parse::<HostKey>().unwrap_err();
            assert!(error.to_string().contains("not a public host key"), "{error}");
        }
    }
}
