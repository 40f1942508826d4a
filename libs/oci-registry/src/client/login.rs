//! Logging in: Basic (RFC 7617) and the distribution token flow (Bearer).

use base64::Engine as _;
use reqwest::header::{self, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::{Client, ClientError};
use crate::RepositoryName;

/// User name and password or token.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
}

/// How much a request needs to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Need {
    Pull,
    Push,
}

/// What a `WWW-Authenticate` header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// Meets the challenge of a 401 and returns the `Authorization` header to try next.
    pub(super) async fn log_in(
        &self,
        url: &str,
        challenges: &[String],
        repository: &RepositoryName,
        need: Need,
    ) -> Result<HeaderValue, ClientError> {
        let failed = |reason: &str| ClientError::Login { url: url.to_owned(), reason: reason.to_owned() };
        let basic = self
            .inner
            .credentials
            .as_ref()
            .map(basic)
            .transpose()
            .map_err(|_| failed("the user name does not fit into a header"))?;
        let known: Vec<Challenge> = challenges.iter().filter_map(|text| parse(text)).collect();
        // A token can be had without credentials; a password cannot.
        let bearer = known.iter().find_map(|challenge| match challenge {
            Challenge::Bearer { realm, service } => Some((realm, service)),
            Challenge::Basic => None,
        });
        match (bearer, basic) {
            (Some((realm, service)), basic) => {
                let realm = Url::parse(realm).map_err(|_| failed("the token server's address is no URL"))?;
                if self.inner.registry.scheme() == "https" && realm.scheme() != "https" {
                    return Err(failed("the token server is not reached over https although the registry is"));
                }
                self.fetch_token(realm, service.as_deref(), basic, repository, need).await
            }
            (None, Some(basic)) if known.contains(&Challenge::Basic) => Ok(basic),
            (None, None) => Err(failed("it asks for credentials and none are given")),
            (None, Some(_)) => Err(failed("it asks for neither Basic nor Bearer")),
        }
    }

    async fn fetch_token(
        &self,
        mut realm: Url,
        service: Option<&str>,
        basic: Option<HeaderValue>,
        repository: &RepositoryName,
        need: Need,
    ) -> Result<HeaderValue, ClientError> {
        let actions = match need {
            Need::Pull => "pull",
            Need::Push => "pull,push",
        };
        if let Some(service) = service {
            realm.query_pairs_mut().append_pair("service", service);
        }
        realm.query_pairs_mut().append_pair("scope", &format!("repository:{repository}:{actions}"));
        let shown = super::shown(&realm);
        let mut request = self.inner.http.get(realm);
        if let Some(basic) = basic {
            request = request.header(header::AUTHORIZATION, basic);
        }
        let response = request
            .send()
            .await
            .map_err(|source| ClientError::Send { url: shown.clone(), source: source.without_url() })?;
        let response = super::successful(response, &shown).await?;
        let answer: TokenAnswer = response
            .json()
            .await
            .map_err(|source| ClientError::Receive { url: shown.clone(), source: source.without_url() })?;
        let token = answer.token.or(answer.access_token).unwrap_or_default();
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| ClientError::Login { url: shown, reason: "the token server sent no token".to_owned() })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn basic(credentials: &Credentials) -> Result<HeaderValue, header::InvalidHeaderValue> {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose_secret());
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))?;
    value.set_sensitive(true);
    Ok(value)
}

fn parse(text: &str) -> Option<Challenge> {
    let text = text.trim();
    let (scheme, parameters) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Challenge::Bearer { realm: parameter(parameters, "realm")?, service: parameter(parameters, "service") })
}

/// The value of `name="value"`; a comma inside the quotes belongs to the value.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').unwrap_or((after, "")),
        };
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = parse(
            r#"Bearer scope="repository:a:pull,push",realm="https://auth.example/token",service=registry.example"#,
        );
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".to_owned(),
            service: Some("registry.example".to_owned()),
        };
        assert_eq!(bearer, Some(expected));
        assert_eq!(parse(r#"Basic realm="Registry""#), Some(Challenge::Basic));
        assert_eq!(parse("Negotiate"), None);
        assert_eq!(parse("Bearer realm=\"x"), None);
    }

    #[test]
    fn the_password_does_not_print() {
        let credentials = Credentials { username: "job".to_owned(), password: SecretString::from("planted") };
        assert!(!format!("{credentials:?} {:?}", basic(&credentials)).contains("planted"));
    }
}
