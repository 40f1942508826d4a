//! Registries elsewhere that images are pulled from (runbook 7.3): the account that may pull there, and the authorities
//! that sign their certificate. Controller and maintenance OS use the same.

use std::time::Duration;

use cairn_core::chain;
use jiff::Timestamp;
use oci_registry::Reference;
use oci_registry::client::{Client, Credentials};
use recipe::callback::PullCredentials;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::adapters::tls;
use crate::context::Metal;
use crate::model::BmcTls;

/// For one request to a registry elsewhere.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is known of a registry elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRegistry {
    /// `host` or `host:port`, as [`host_of`] writes it.
    pub host: String,
    /// Account that may pull; everybody may when absent.
    pub account: Option<Account>,
    /// Authorities that its certificate is checked against, in PEM; those of the system when absent.
    pub ca_pem: Option<String>,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// An account at a registry elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User name.
    pub username: String,
    /// Password or token, sealed with the instance key under [`password_purpose`].
    pub sealed_password: String,
}

/// What the API shows of one; never the password.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PullRegistryView {
    /// `host` or `host:port`.
    pub host: String,
    /// Account that pulls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Own authorities, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl From<PullRegistry> for PullRegistryView {
    fn from(registry: PullRegistry) -> Self {
        Self {
            host: registry.host,
            username: registry.account.map(|account| account.username),
            ca_pem: registry.ca_pem,
            created_at: registry.created_at,
            updated_at: registry.updated_at,
        }
    }
}

/// All of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct PullRegistryList {
    /// In order of their hosts.
    pub registries: Vec<PullRegistryView>,
}

/// The password of a registry elsewhere cannot be opened with this instance key.
#[derive(Debug, thiserror::Error)]
#[error("the password of registry {host} cannot be opened")]
pub(crate) struct Sealed {
    host: String,
    #[source]
    source: store::SealError,
}

/// Purpose under which the password is sealed: it is of use in one record only.
pub(crate) fn password_purpose(host: &str) -> String {
    format!("metal registry password {host}")
}

/// The host of a base URL, with its port unless that is the scheme's own.
pub(crate) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// A host as people write it, in the form of [`host_of`]; `None` for what is no host.
pub(crate) fn parse_host(text: &str) -> Option<String> {
    // The grammar of references decides, with a name behind the host that is surely one.
    let reference = Reference::parse(&format!("{text}/x")).ok()?;
    (reference.registry.as_deref() == Some(text))
        .then(|| Url::parse(&format!("https://{text}")).ok())?
        .map(|url| host_of(&url))
}

impl PullRegistry {
    /// The account, unless the registry is asked in the clear: a recipe decides how it is asked, and must not be able to
    /// have a password sent where everybody can read it.
    fn account_at(&self, base: &Url) -> Option<&Account> {
        self.account.as_ref().filter(|_| base.scheme() == "https")
    }

    /// The account with its password, as the maintenance OS gets it.
    pub(crate) fn credentials(&self, metal: &Metal, base: &Url) -> Result<Option<PullCredentials>, Sealed> {
        let Some(account) = self.account_at(base) else { return Ok(None) };
        let opened = metal.key.open(&password_purpose(&self.host), &account.sealed_password);
        let password = opened.map_err(|source| Sealed { host: self.host.clone(), source })?;
        let (username, password) = (account.username.clone(), password.expose_secret().to_owned());
        Ok(Some(PullCredentials { username, password }))
    }
}

/// A client of the registry at `base`, with the account and the authorities of its record. The error is for people.
pub(crate) fn client(metal: &Metal, base: &Url, record: Option<&PullRegistry>) -> Result<Client, String> {
    let judgement = match record.and_then(|record| record.ca_pem.clone()) {
        Some(pem) => BmcTls::Ca { pem },
        None => BmcTls::System,
    };
    let http = tls::client(&judgement, TIMEOUT).map_err(|error| chain(&error))?;
    let account =
        record.map(|record| record.credentials(metal, base)).transpose().map_err(|error| chain(&error))?.flatten();
    let credentials = account
        .map(|account| Credentials { username: account.username, password: SecretString::from(account.password) });
    Ok(Client::new(http, base.clone(), credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
        for (text, want) in [
            ("registry.example", Some("registry.example")),
            ("registry.example:443", Some("registry.example")),
            ("registry.example:5000", Some("registry.example:5000")),
            ("localhost", Some("localhost")),
            ("192.0.2.1:5000", Some("192.0.2.1:5000")),
            ("[2001:db8::1]:5000", Some("[2001:db8::1]:5000")),
            ("registry", None),
            ("https://registry.example", None),
            ("registry.example/a", None),
            ("user@registry.example", None),
            ("", None),
        ] {
            assert_eq!(parse_host(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn an_account_is_not_used_in_the_clear() {
        let account = Account { username: "installer".to_owned(), sealed_password: String::new() };
        let (now, host) = (Timestamp::UNIX_EPOCH, "registry.example".to_owned());
        let record = PullRegistry { host, account: Some(account), ca_pem: None, created_at: now, updated_at: now };
        assert!(record.account_at(&"https://registry.example".parse().unwrap()).is_some());
        assert!(record.account_at(&"http://registry.example".parse().unwrap()).is_none());
    }
}
