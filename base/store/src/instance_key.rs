//! The key of this instance: it encrypts what lies in the database and must not be readable from a copy of it,
//! and stands in for signing secrets that nobody set.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use zeroize::Zeroizing;

const FILE: &str = "instance.key";
const LENGTH: usize = 32;
const NONCE_LENGTH: usize = 24;
const VERSION: &str = "v1";

/// Why there is no instance key.
#[derive(Debug, thiserror::Error)]
pub enum InstanceKeyError {
    /// The kernel gave no random bytes.
    #[error("cannot make an instance key: no random bytes")]
    Random { source: rand::rand_core::OsError },
    /// The new key cannot be written.
    #[error("cannot write the instance key {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The key cannot be read.
    #[error("cannot read the instance key {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// Somebody besides the owner can read it.
    #[error("the instance key {} has mode {mode:04o}: only its owner may read it (chmod 0600)", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    /// The file is not a key.
    #[error("the instance key {} has {length} bytes instead of {LENGTH}", path.display())]
    Length { path: PathBuf, length: usize },
}

/// Why a sealed text cannot be opened. Nothing of its content is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not a text that [`InstanceKey::seal`] made.
    #[error("this is not a sealed text")]
    Malformed,
    /// Sealed with the key of another instance, or before the key was lost.
    #[error(
        "sealed with instance key {sealed_with}, but this instance has {own}: restore instance.key from the backup"
    )]
    OtherKey { sealed_with: String, own: String },
    /// Changed since, or sealed for another purpose.
    #[error("the sealed text for {purpose} was changed")]
    Tampered { purpose: String },
}

/// 32 random bytes that never leave the data directory. Clones share them; they are wiped from memory with the last.
#[derive(Clone)]
pub struct InstanceKey(Arc<Zeroizing<[u8; LENGTH]>>);

impl InstanceKey {
    /// Reads `<directory>/instance.key`, and makes it with mode 0600 if there is none. The caller holds the directory
    /// ([`crate::DataDirLock`]).
    pub fn load_or_create(directory: &Path) -> Result<Self, InstanceKeyError> {
        let path = directory.join(FILE);
        match Self::read(&path) {
            Err(InstanceKeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut bytes = Zeroizing::new([0; LENGTH]);
        rand::rngs::OsRng.try_fill_bytes(bytes.as_mut()).map_err(|source| InstanceKeyError::Random { source })?;
        write_new(&path, bytes.as_ref()).map_err(|source| InstanceKeyError::Write { path: path.clone(), source })?;
        tracing::info!(path = %path.display(), "instance key made: keep a copy of it with every backup");
        Self::read(&path)
    }

    /// Reads `<directory>/instance.key`.
    pub fn load(directory: &Path) -> Result<Self, InstanceKeyError> {
        Self::read(&directory.join(FILE))
    }

    /// A key of these bytes.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }

    fn read(path: &Path) -> Result<Self, InstanceKeyError> {
        let failed = |source| InstanceKeyError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(InstanceKeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let length = bytes.len();
        let key =
            bytes.as_slice().try_into().map_err(|_| InstanceKeyError::Length { path: path.to_owned(), length })?;
        Ok(Self::from_bytes(key))
    }

    /// 16 hexadecimal digits that tell this key from another and nothing else about it.
    pub fn id(&self) -> String {
        self.mac("id", "")[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// 32 bytes for one purpose, always the same ones: for signing secrets that nobody set.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; LENGTH]> {
        self.mac("derive", purpose)
    }

    /// Encrypts a secret (XChaCha20-Poly1305, the purpose as associated data) to `v1.<key id>.<base64url>`. The
    /// purpose names the place, e.g. `servers/SN-1/bmc_password`: moved to another place the text does not open.
    pub fn seal(&self, purpose: &str, plain: &SecretString) -> String {
        let nonce: [u8; NONCE_LENGTH] = rand::random();
        let payload = Payload { msg: plain.expose_secret().as_bytes(), aad: purpose.as_bytes() };
        let encrypted = self
            .cipher()
            .encrypt(&XNonce::from(nonce), payload)
            .expect("the cipher takes 256 GiB, and a secret is shorter");
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&encrypted);
        format!("{VERSION}.{}.{}", self.id(), URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Decrypts what [`InstanceKey::seal`] made for the same purpose.
    pub fn open(&self, purpose: &str, sealed: &str) -> Result<SecretString, SealError> {
        let mut parts = sealed.splitn(3, '.');
        let (Some(VERSION), Some(sealed_with), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SealError::Malformed);
        };
        let own = self.id();
        if sealed_with != own {
            return Err(SealError::OtherKey { sealed_with: sealed_with.to_owned(), own });
        }
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| SealError::Malformed)?;
        let (nonce, encrypted) = bytes.split_first_chunk::<NONCE_LENGTH>().ok_or(SealError::Malformed)?;
        let tampered = || SealError::Tampered { purpose: purpose.to_owned() };
        let payload = Payload { msg: encrypted, aad: purpose.as_bytes() };
        let plain = self.cipher().decrypt(&XNonce::from(*nonce), payload).map_err(|_| tampered())?;
        String::from_utf8(plain).map(SecretString::from).map_err(|_| tampered())
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.mac("seal", "")).into())
    }

    /// One key for each use, so that none of them tells anything about another.
    fn mac(&self, usage: &str, purpose: &str) -> Zeroizing<[u8; LENGTH]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes a key of any length");
        mac.update(format!("cairn/{usage}/{VERSION}\0").as_bytes());
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InstanceKey").field(&self.id()).finish()
    }
}

/// Either the whole key is there after a loss of power, or none; an existing key is never replaced.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("key.new");
    // A rest of a start that was cut short; nobody else writes here while the directory is held.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::hard_link(&unfinished, path)?;
    fs::remove_file(&unfinished)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> InstanceKey {
        InstanceKey::from_bytes([byte; LENGTH])
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("instance.key.new"), b"cut short").unwrap();
        let made = InstanceKey::load_or_create(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), 32);
        assert!(!directory.path().join("instance.key.new").exists());
        assert_eq!(InstanceKey::load_or_create(directory.path()).unwrap().id(), made.id());
        assert_eq!(InstanceKey::load(directory.path()).unwrap().id(), made.id());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = InstanceKey::load_or_create(directory.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the instance key {} has mode 0640: only its owner may read it (chmod 0600)", path.display())
        );
    }

    #[test]
    fn a_file_of_another_length_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for content in [&b""[..], &[0; 31], &[0; 33]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = InstanceKey::load_or_create(directory.path()).unwrap_err();
            assert!(matches!(error, InstanceKeyError::Length { length, .. } if length == content.len()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_sealed_text_opens_only_here_and_only_for_its_purpose() {
        let secret = SecretString::from("calvin");
        let sealed = key(1).seal("servers/SN-1/bmc_password", &secret);
        assert!(!sealed.contains("calvin"));
        assert_ne!(sealed, key(1).seal("servers/SN-1/bmc_password", &secret), "a nonce is used once");
        let opened = key(1).open("servers/SN-1/bmc_password", &sealed).unwrap();
        assert_eq!(opened.expose_secret(), "calvin");
        assert_eq!(
            key(1).open("servers/SN-2/bmc_password", &sealed).unwrap_err(),
            SealError::Tampered { purpose: "servers/SN-2/bmc_password".into() }
        );
        assert!(matches!(key(2).open("servers/SN-1/bmc_password", &sealed), Err(SealError::OtherKey { .. })));
    }

    #[test]
    fn a_changed_text_does_not_open() {
        let sealed = key(1).seal("p", &SecretString::from(""));
        for broken in ["", "v1", "v1..", "v2.x.y", &sealed[..sealed.len() - 4], &format!("{sealed}!")] {
            assert!(key(1).open("p", broken).is_err(), "{broken}");
        }
        let start = sealed.rfind('.').unwrap() + 1;
        for at in start..sealed.len() - 1 {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(key(1).open("p", std::str::from_utf8(&changed).unwrap()).is_err());
        }
    }

    #[test]
    fn derived_keys_differ_by_purpose_and_by_instance() {
        assert_eq!(key(1).derive("webhook"), key(1).derive("webhook"));
        assert_ne!(key(1).derive("webhook"), key(1).derive("media"));
        assert_ne!(key(1).derive("webhook"), key(2).derive("webhook"));
        assert_eq!(format!("{:?}", key(1)), format!("InstanceKey({:?})", key(1).id()));
    }
}
