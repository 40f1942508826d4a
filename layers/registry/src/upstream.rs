//! Registries whose content is fetched and kept on demand, and the logins for them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_registry::cache::Upstream;
use oci_registry::client::{Client, Credentials};
use secrecy::SecretString;
use serde::Deserialize;
use url::{Host, Url};

use crate::settings::RegistrySettings;

/// A connection that is silent for so long is broken and resumed.
const SILENCE: Duration = Duration::from_secs(60);
/// Names of Docker's own registry: where it is, and those that its login is kept under.
const DOCKER: [&str; 3] = ["registry-1.docker.io", "index.docker.io", "docker.io"];
const CONNECT: Duration = Duration::from_secs(10);

/// Why logins or upstream registries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The file cannot be read.
    #[error("cannot read the logins in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Every user can read it.
    #[error("{} holds passwords and can be read by every user", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It has another form. The text is not told: it may hold a password.
    #[error("{} is not of the form {{\"auths\": {{\"HOST\": {{\"auth\": \"BASE64\"}}}}}}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

/// Logins by host, in the form that `docker login` and `podman login --authfile` write.
pub(crate) struct AuthFile(BTreeMap<String, Credentials>);

#[derive(Deserialize)]
struct Form {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: String,
}

impl AuthFile {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, has another form, or is readable for every user.
    pub(crate) fn read(path: &Path) -> Result<Self, UpstreamError> {
        let failed = |source| UpstreamError::Read { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o004 != 0 {
            return Err(UpstreamError::Exposed { path: path.to_owned() });
        }
        let form = || UpstreamError::Form { path: path.to_owned() };
        let read: Form = serde_json::from_reader(std::io::BufReader::new(file)).map_err(|_| form())?;
        let mut logins = BTreeMap::new();
        for (host, entry) in read.auths {
            // Docker leaves an entry without a password where that lies in a store of the system's.
            if entry.auth.is_empty() {
                tracing::warn!(path = %path.display(), host, "the file has no password for this registry: left out");
                continue;
            }
            logins.insert(host_of(&host).to_owned(), entry.credentials().ok_or_else(form)?);
        }
        Ok(Self(logins))
    }

    /// The login for `host[:port]`. Docker's own registry has one under the name of its index.
    pub(crate) fn login(&self, host: &str) -> Option<Credentials> {
        let others = if DOCKER.contains(&host) { DOCKER.as_slice() } else { &[] };
        std::iter::once(&host).chain(others).find_map(|name| self.0.get(*name)).cloned()
    }
}

impl Entry {
    fn credentials(&self) -> Option<Credentials> {
        let text = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Credentials { username: username.to_owned(), password: SecretString::from(password) })
    }
}

/// Some write a whole address in front of a host, or a path behind it.
fn host_of(text: &str) -> &str {
    let text = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
    text.split('/').next().unwrap_or(text)
}

/// `host[:port]` of an address, whatever path is behind it.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// All of the settings' upstream registries.
pub(crate) fn all(settings: &RegistrySettings) -> Result<Vec<Upstream>, UpstreamError> {
    let logins = settings.cache_credentials.as_deref().map(AuthFile::read).transpose()?;
    if settings.cache.is_empty() {
        return Ok(Vec::new());
    }
    let http = reqwest::Client::builder()
        .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
        // As everywhere in Cairn: where requests go is said by the settings alone.
        .no_proxy()
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .build()
        .map_err(UpstreamError::Client)?;
    let upstream = settings.cache.iter().map(|rule| {
        let login = logins.as_ref().and_then(|logins| logins.login(&authority(&rule.upstream)));
        if login.is_some() && rule.upstream.scheme() == "http" && !is_loopback(&rule.upstream) {
            tracing::warn!(upstream = %rule.upstream, "the login for this registry goes over the network unencrypted");
        }
        Upstream::new(rule.prefix.clone(), Client::new(http.clone(), rule.upstream.clone(), login))
    });
    Ok(upstream.collect())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_login_goes_by_the_host_of_an_address() {
        for (address, wanted) in [
            ("https://host.example", "host.example"),
            ("https://host.example/base", "host.example"),
            ("https://host.example:5000/base/", "host.example:5000"),
            ("http://[::1]:5000", "[::1]:5000"),
        ] {
            assert_eq!(authority(&address.parse().unwrap()), wanted);
        }
    }

    #[test]
    fn logins_are_read_as_others_write_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.json");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let auth = STANDARD.encode("me:pa:ss");
        let text = format!(
            r#"{{"auths":{{"stored":{{}},"https://index.docker.io/v1/":{{"auth":"{auth}"}},"q:5":{{"auth":"{auth}"}}}}}}"#
        );
        write(&text, 0o600);
        let logins = AuthFile::read(&path).unwrap();
        let login = logins.login("index.docker.io").unwrap();
        assert_eq!((login.username.as_str(), login.password.expose_secret()), ("me", "pa:ss"));
        assert!(logins.login("q:5").is_some() && logins.login("q").is_none());
        assert!(logins.login("registry-1.docker.io").is_some() && logins.login("stored").is_none());
        write(&text, 0o604);
        assert!(matches!(AuthFile::read(&path), Err(UpstreamError::Exposed { .. })));
        for wrong in ["", "7", r#"{"auths":{"h":{"auth":"planted"}}}"#] {
            write(wrong, 0o600);
            let error = AuthFile::read(&path).err().unwrap();
            assert!(!cairn_core::chain(&error).contains("planted"));
        }
    }
}
