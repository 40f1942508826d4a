//! Where a collector is.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// Below this path OTLP/HTTP takes spans.
const PATH: &str = "v1/traces";

/// A collector that speaks OTLP over HTTP: `HOST:PORT`, or a URL below which `/v1/traces` lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(Url);

/// Why a text names no collector.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// It is no address. The text is not repeated: it may hold a password.
    #[error("HOST:PORT or a URL with http or https was expected")]
    Address,
    /// It has a user or a password, which would stand in logs.
    #[error("a user or password in the URL is not taken")]
    Credentials,
    /// It has a query or a fragment, below which no path lies.
    #[error("a query or fragment in the URL is not taken")]
    Query,
}

impl Collector {
    /// Where spans are posted.
    pub(super) fn traces(&self) -> Url {
        self.0.clone()
    }
}

impl FromStr for Collector {
    type Err = CollectorError;

    fn from_str(text: &str) -> Result<Self, CollectorError> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let mut url = Url::parse(&text).map_err(|_| CollectorError::Address)?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(CollectorError::Address);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(CollectorError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(CollectorError::Query);
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        url.join(PATH).map(Self).map_err(|_| CollectorError::Address)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_url_names_it() {
        for (text, posts_to) in [
            ("localhost:4318", "http://localhost:4318/v1/traces"),
            ("[::1]:4318", "http://[::1]:4318/v1/traces"),
            ("http://otel", "http://otel/v1/traces"),
            ("https://otel.example:443/otlp", "https://otel.example/otlp/v1/traces"),
            ("https://otel.example/otlp/", "https://otel.example/otlp/v1/traces"),
        ] {
            assert_eq!(text.parse::<Collector>().unwrap().to_string(), posts_to);
        }
    }

    #[test]
    fn what_names_none_is_refused_without_its_password() {
        for text in ["", "grpc://otel:4317", "http://", "http://me:hunter2@otel", "http://otel/?key=hunter2", "a b"] {
            let error = text.parse::<Collector>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}");
        }
    }
}
