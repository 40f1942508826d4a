//! Keys and tokens for as long as one command runs: in files of mode 0600 in a directory of mode 0700, in memory where
//! there is such a directory. Nothing of them is in an argument, an environment, a URL or the mirror.

use std::path::{Path, PathBuf};

use host::{FileError, PrivateDirectory, memory_directory, write_atomic};
use russh::keys::ssh_key::LineEnding;
use secrecy::{ExposeSecret, SecretString};

use super::Error;
use super::address::{Address, Protocol};

/// What the directories begin with.
const PREFIX: &str = "cairn-git-";
/// What a server that asks for a token takes as the name of its user: most take any, GitLab wants this one.
const TOKEN_USER: &str = "oauth2";
/// Seconds until an SSH server has to answer.
const CONNECT_SECONDS: u32 = 20;

/// Who we are to the server.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Nobody.
    #[default]
    None,
    /// The holder of a private key, for SSH.
    Key {
        /// The key, as OpenSSH, PKCS#8 or PEM.
        pem: SecretString,
        /// What it is encrypted with.
        passphrase: Option<SecretString>,
    },
    /// The holder of a token, for HTTP.
    Token(SecretString),
    /// A user with a password or a token that goes with the name, for HTTP.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
}

/// Which SSH hosts are the right ones.
#[derive(Debug, Clone, Default)]
pub enum KnownHosts {
    /// These lines alone: of known_hosts(5), or public keys (`ssh-ed25519 AAAA…`), which are then the URL's host's.
    Pinned(String),
    /// The first key that is seen is taken, kept with the mirror and wanted from then on.
    #[default]
    TrustFirst,
}

/// Files that git and ssh read, until this value goes.
pub(super) struct Access {
    directory: PrivateDirectory,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Access {
    /// Writes what is needed. `kept` is the file for keys that are seen for the first time; `fallback` the directory to use
    /// where none is in memory.
    pub(super) fn prepare(
        address: &Address,
        credentials: &Credentials,
        known_hosts: &KnownHosts,
        authorities: Option<&str>,
        kept: &Path,
        fallback: &Path,
    ) -> Result<Self, Error> {
        let memory = memory_directory();
        let directory = PrivateDirectory::new(memory.as_deref().unwrap_or(fallback), PREFIX)?;
        let mut access = Self { directory, arguments: Vec::new(), environment: Vec::new() };
        match address.protocol {
            Protocol::Ssh => access.ssh(address, credentials, known_hosts, kept, memory.is_some())?,
            Protocol::Http | Protocol::Https => access.http(address, credentials, authorities)?,
            Protocol::File => {}
        }
        Ok(access)
    }

    /// Arguments of git in front of its command.
    pub(super) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// What git finds in its environment: paths.
    pub(super) fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    fn write(&self, name: &str, contents: &str) -> Result<PathBuf, Error> {
        let path = self.directory.path().join(name);
        write_atomic(&path, contents.as_bytes(), 0o600)?;
        Ok(path)
    }

    fn ssh(
        &mut self,
        address: &Address,
        credentials: &Credentials,
        known_hosts: &KnownHosts,
        kept: &Path,
        in_memory: bool,
    ) -> Result<(), Error> {
        let identity = match credentials {
            Credentials::Key { pem, passphrase } => {
                let key = plain_key(address, pem, passphrase.as_ref(), in_memory)?;
                self.write("key", key.expose_secret())?.display().to_string()
            }
            _ => "none".to_owned(),
        };
        let (known, strict) = match known_hosts {
            KnownHosts::Pinned(lines) => (self.write("known_hosts", &with_host(lines, &address.known_host()))?, "yes"),
            KnownHosts::TrustFirst => (kept.to_owned(), "accept-new"),
        };
        // A percent sign begins a token of ssh, a dollar sign a variable.
        if known.to_string_lossy().contains(['%', '$', '"', '\'', '\\', '\n', '~']) {
            let source = std::io::ErrorKind::InvalidFilename.into();
            return Err(FileError { operation: "name to ssh", path: known, source }.into());
        }
        let lines = [
            "Host *".to_owned(),
            format!("IdentityFile \"{identity}\""),
            format!("UserKnownHostsFile \"{}\"", known.display()),
            format!("StrictHostKeyChecking {strict}"),
            "GlobalKnownHostsFile /dev/null".to_owned(),
            "IdentitiesOnly yes".to_owned(),
            "IdentityAgent none".to_owned(),
            "BatchMode yes".to_owned(),
            "PreferredAuthentications publickey".to_owned(),
            "UpdateHostKeys no".to_owned(),
            "HashKnownHosts no".to_owned(),
            "CheckHostIP no".to_owned(),
            "ClearAllForwardings yes".to_owned(),
            "ForwardAgent no".to_owned(),
            "ControlMaster no".to_owned(),
            "ControlPath none".to_owned(),
            "PermitLocalCommand no".to_owned(),
            format!("ConnectTimeout {CONNECT_SECONDS}"),
            "ServerAliveInterval 15".to_owned(),
            "ServerAliveCountMax 4".to_owned(),
        ];
        let file = self.write("ssh_config", &(lines.join("\n") + "\n"))?;
        // git hands this to a shell. The path is one of ours: letters, digits, slashes, hyphens.
        self.environment.push(("GIT_SSH_COMMAND".to_owned(), format!("ssh -F '{}'", file.display())));
        self.environment.push(("GIT_SSH_VARIANT".to_owned(), "ssh".to_owned()));
        Ok(())
    }

    fn http(&mut self, address: &Address, credentials: &Credentials, authorities: Option<&str>) -> Result<(), Error> {
        let login = match credentials {
            Credentials::Token(token) => Some((TOKEN_USER, token)),
            Credentials::Password { user, password } => Some((user.as_str(), password)),
            Credentials::None | Credentials::Key { .. } => None,
        };
        if let Some((user, secret)) = login {
            // The file says which host it is for, so no other is told, wherever a redirection leads.
            let (protocol, place) = address.origin();
            let (user, secret) = (percent(user), SecretString::from(percent(secret.expose_secret())));
            let line = format!("{protocol}://{user}:{}@{place}\n", secret.expose_secret());
            let file = self.write("credentials", SecretString::from(line).expose_secret())?;
            self.arguments.extend(["-c".to_owned(), format!("credential.helper=store --file='{}'", file.display())]);
        }
        if let Some(authorities) = authorities {
            let file = self.write("authorities.pem", authorities)?;
            self.arguments.extend(["-c".to_owned(), format!("http.sslCAInfo={}", file.display())]);
        }
        Ok(())
    }
}

/// Whether the credentials are of the kind that the address takes.
pub(super) fn fit(address: &Address, credentials: &Credentials) -> Result<(), Error> {
    let refused = |credentials| Err(Error::CredentialsDoNotFit { url: address.url.clone(), credentials });
    match (address.protocol, credentials) {
        (Protocol::Ssh, Credentials::Token(_)) => refused("a token"),
        (Protocol::Ssh, Credentials::Password { .. }) => refused("a password"),
        (Protocol::Http | Protocol::Https, Credentials::Key { .. }) => refused("a key"),
        (Protocol::File, Credentials::Key { .. } | Credentials::Token(_) | Credentials::Password { .. }) => {
            refused("credentials")
        }
        _ => Ok(()),
    }
}

/// Removes what killed processes left.
pub(super) fn sweep(fallback: &Path) {
    for place in memory_directory().as_deref().into_iter().chain([fallback]) {
        PrivateDirectory::sweep(place, PREFIX);
    }
}

/// The key as ssh reads it without asking. One that has a passphrase is decrypted only for a file that never is on a disk.
fn plain_key(
    address: &Address,
    pem: &SecretString,
    passphrase: Option<&SecretString>,
    in_memory: bool,
) -> Result<SecretString, Error> {
    let unusable = |source| Error::KeyUnusable { url: address.url.clone(), source: Box::new(source) };
    let text = pem.expose_secret().trim();
    let word = passphrase.map(|passphrase| passphrase.expose_secret());
    let key = russh::keys::decode_secret_key(text, word).map_err(unusable)?;
    if passphrase.is_none() {
        // ssh wants a line end behind the last line, which people lose when they copy.
        return Ok(SecretString::from(format!("{text}\n")));
    }
    if !in_memory {
        return Err(Error::NoMemoryDirectory { url: address.url.clone() });
    }
    let plain = key.to_openssh(LineEnding::LF).map_err(|source| unusable(source.into()))?;
    Ok(SecretString::from(plain.as_str()))
}

/// Puts the host in front of lines that are a key alone.
fn with_host(lines: &str, host: &str) -> String {
    let is_key = |line: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|start| line.starts_with(start));
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| if is_key(line) { format!("{host} {line}\n") } else { format!("{line}\n") }).collect()
}

/// Everything but letters, digits and `-._~` as in a URL.
pub(super) fn percent(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn address(url: &str) -> Address {
        Address::parse(url, &[Protocol::Http, Protocol::Https, Protocol::Ssh]).unwrap()
    }

    #[test]
    fn a_token_is_in_one_file_of_its_own_which_goes_away() {
        let token = Credentials::Token(SecretString::from("p@ss:w/rd"));
        let (hosts, place) = (KnownHosts::TrustFirst, tempfile::tempdir().unwrap());
        let address = address("http://127.0.0.1:8080/a");
        let access = Access::prepare(&address, &token, &hosts, None, Path::new("/x"), place.path()).unwrap();
        let file = access.directory.path().join("credentials");
        let written = std::fs::read_to_string(&file).unwrap();
        assert_eq!(written, "http://oauth2:p%40ss%3Aw%2Frd@127.0.0.1:8080\n");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(access.directory.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert!(access.arguments.iter().all(|word| !word.contains("p%40ss")) && access.environment.is_empty());
        sweep(place.path());
        assert!(file.exists(), "what is in use stays");
        let directory = access.directory.path().to_owned();
        drop(access);
        assert!(!directory.exists());
    }

    #[test]
    fn a_key_alone_is_the_hosts() {
        assert_eq!(with_host("ssh-ed25519 AAAA\n\nh ssh-rsa B\n", "[h]:2"), "[h]:2 ssh-ed25519 AAAA\nh ssh-rsa B\n");
    }

    #[test]
    fn credentials_of_the_wrong_kind_are_refused() {
        let token = Credentials::Token(SecretString::from("x"));
        assert!(matches!(fit(&address("git@h:a"), &token), Err(Error::CredentialsDoNotFit { .. })));
        let key = Credentials::Key { pem: SecretString::from("x"), passphrase: None };
        assert!(matches!(fit(&address("https://h/a"), &key), Err(Error::CredentialsDoNotFit { .. })));
        assert!(fit(&address("https://h/a"), &token).is_ok());
    }
}
