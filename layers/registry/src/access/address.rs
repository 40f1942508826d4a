//! Under which names this host is asked, and where it sends clients for a token.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, header};
use url::Url;

use crate::ports::Reached;

/// Path of the token endpoint.
pub(crate) const TOKEN_PATH: &str = "/api/v1/registry/token";

/// What the `Host` header of a request is compared with.
#[derive(Debug, Clone)]
pub(crate) struct OwnAddress {
    tls: bool,
    listener: Url,
    /// The registry's own setting, which goes before what others have configured.
    public: Option<Url>,
    configured: Vec<Url>,
}

/// What a proxy writes into the requests that it forwards.
const FORWARDED: [&str; 3] = ["forwarded", "x-forwarded-for", "x-real-ip"];

impl OwnAddress {
    pub(crate) fn new(reached: &Reached, public: Option<&Url>) -> Self {
        Self {
            tls: reached.tls,
            listener: reached.listener.clone(),
            public: public.cloned(),
            configured: reached.configured.clone(),
        }
    }

    /// Whether a request comes from this machine itself, as far as its headers tell: it is addressed to a loopback address,
    /// `localhost` or a configured host, no proxy has forwarded it, and no web page from elsewhere has sent it. A page can
    /// point a name of its own at a loopback address (DNS rebinding), or just send a request there, and would then speak to
    /// the registry with the operator's browser.
    pub(crate) fn is_own(&self, headers: &HeaderMap) -> bool {
        self.is_here(headers, &self.known())
    }

    /// The same for orders. The public URL is where the world comes in, so its host is not this machine.
    pub(crate) fn may_manage(&self, headers: &HeaderMap) -> bool {
        let is_public = |url: &&Url| self.public.as_ref().is_some_and(|public| public.host() == url.host());
        self.is_here(headers, &self.configured.iter().filter(|url| !is_public(url)))
    }

    fn is_here<'a>(&self, headers: &HeaderMap, known: &(impl Iterator<Item = &'a Url> + Clone)) -> bool {
        let is_own_host = |host: &str| {
            let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            loopback || known.clone().any(|url| has_host(url, host))
        };
        let forwarded = FORWARDED.iter().any(|name| headers.contains_key(*name));
        let cross_site = headers.get_all("sec-fetch-site").iter().any(|site| site == "cross-site");
        // No browser leaves the host out. An origin that has none (`null`) is nobody's.
        let to_us =
            headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(|it| is_own_host(host_of(it))));
        let from_us =
            headers.get_all(header::ORIGIN).iter().all(|origin| origin_host(origin).is_some_and(|it| is_own_host(&it)));
        !forwarded && !cross_site && to_us && from_us
    }

    /// All configured addresses, the registry's own first.
    fn known(&self) -> impl Iterator<Item = &Url> + Clone {
        self.public.iter().chain(&self.configured)
    }

    /// Where a client that asked with these headers gets a token. The header is believed only for names that are ours and
    /// for plain addresses, which nobody can make point elsewhere; else it is the first configured address, or the
    /// listener's.
    pub(crate) fn token_realm(&self, headers: &HeaderMap) -> String {
        let fallback = self.known().next().unwrap_or(&self.listener);
        let Some(authority) = host_header(headers) else { return realm(fallback) };
        let host = host_of(authority);
        if let Some(url) = self.known().find(|url| has_authority(url, authority)) {
            return realm(url);
        }
        let plain = host == "localhost" || host.parse::<IpAddr>().is_ok() || has_host(&self.listener, host);
        let scheme = if self.tls { "https" } else { "http" };
        match Url::parse(&format!("{scheme}://{authority}")) {
            Ok(url) if plain && url.username().is_empty() && url.password().is_none() && url.path() == "/" => {
                realm(&url)
            }
            _ => realm(fallback),
        }
    }
}

fn realm(base: &Url) -> String {
    format!("{}{TOKEN_PATH}", base.as_str().trim_end_matches('/'))
}

fn host_header(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::HOST)?.to_str().ok()
}

fn origin_host(origin: &HeaderValue) -> Option<String> {
    let url = Url::parse(origin.to_str().ok()?).ok()?;
    Some(url.host_str()?.trim_matches(['[', ']']).to_owned())
}

fn has_host(url: &Url, host: &str) -> bool {
    url.host_str().is_some_and(|own| own.trim_matches(['[', ']']).eq_ignore_ascii_case(host))
}

/// Host and port; a port that is the scheme's own may be left out.
fn has_authority(url: &Url, authority: &str) -> bool {
    let host = host_of(authority);
    let own = if url.scheme() == "https" { 443 } else { 80 };
    let port = match authority.rsplit_once(':') {
        Some((_, port)) if !port.ends_with(']') => port.parse().ok(),
        _ => Some(own),
    };
    has_host(url, host) && port == Some(url.port().unwrap_or(own))
}

/// Host of `host:port`, without the brackets of IPv6; empty, which is nobody's name, when something else than a port follows.
fn host_of(authority: &str) -> &str {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port) { host } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::HOST, host.parse().unwrap())])
    }

    fn address(tls: bool, configured: &[&str]) -> OwnAddress {
        OwnAddress::new(
            &Reached {
                loopback: true,
                tls,
                listener: "http://node7:8080".parse().unwrap(),
                configured: configured.iter().map(|url| url.parse().unwrap()).collect(),
            },
            None,
        )
    }

    #[test]
    fn a_realm_is_never_on_a_host_that_somebody_else_chose() {
        let configured = address(false, &["https://registry.example/base/", "http://media.example:8080"]);
        for (host, realm) in [
            ("registry.example", "https://registry.example/base"),
            ("REGISTRY.example:443", "https://registry.example/base"),
            ("media.example:8080", "http://media.example:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("192.0.2.7", "http://192.0.2.7"),
            ("localhost:5000", "http://localhost:5000"),
            ("node7:8080", "http://node7:8080"),
            ("evil.example", "https://registry.example/base"),
            ("registry.example:1", "https://registry.example/base"),
            ("127.0.0.1@evil.example", "https://registry.example/base"),
            ("127.0.0.1:80@evil.example", "https://registry.example/base"),
            ("localhost:80/..//evil", "https://registry.example/base"),
            ("127.0.0.1:x", "https://registry.example/base"),
        ] {
            assert_eq!(configured.token_realm(&headers(host)), format!("{realm}{TOKEN_PATH}"), "{host}");
        }
        let plain = address(true, &[]);
        assert_eq!(plain.token_realm(&headers("evil.example")), format!("http://node7:8080{TOKEN_PATH}"));
        assert_eq!(plain.token_realm(&headers("192.0.2.7:443")), format!("https://192.0.2.7{TOKEN_PATH}"));
        assert_eq!(plain.token_realm(&HeaderMap::new()), format!("http://node7:8080{TOKEN_PATH}"));
    }

    #[test]
    fn own_names() {
        let own = address(false, &["http://media.example:8080"]);
        for (host, is_own) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("localhost", true),
            ("Media.example", true),
            ("evil.example:8080", false),
            ("192.0.2.7", false),
            ("localhost:80@evil.example", false),
            ("[::1]evil.example", false),
            ("[::1", false),
        ] {
            assert_eq!(own.is_own(&headers(host)), is_own, "{host}");
        }
        assert!(own.is_own(&HeaderMap::new()));
    }

    #[test]
    fn what_the_world_sends_through_a_proxy_or_a_browser_is_not_own() {
        let mut own = address(false, &["http://media.example:8080"]);
        own.public = Some("https://registry.example".parse().unwrap());
        for (name, value, is_own) in [
            ("x-forwarded-for", "192.0.2.7", false),
            ("forwarded", "for=192.0.2.7", false),
            ("x-real-ip", "127.0.0.1", false),
            ("origin", "http://127.0.0.1:8080", true),
            ("origin", "http://[::1]:8080", true),
            ("origin", "http://localhost", true),
            ("origin", "http://media.example:8080", true),
            ("origin", "https://evil.example", false),
            ("origin", "http://localhost.evil.example", false),
            ("origin", "null", false),
            ("sec-fetch-site", "cross-site", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
        ] {
            let mut headers = headers("127.0.0.1:8080");
            headers.insert(name, value.parse().unwrap());
            assert_eq!(own.is_own(&headers), is_own, "{name}: {value}");
            assert_eq!(own.may_manage(&headers), is_own, "{name}: {value}");
        }
        for (host, manages) in [("registry.example", false), ("media.example:8080", true), ("localhost", true)] {
            assert!(own.is_own(&headers(host)), "{host}");
            assert_eq!(own.may_manage(&headers(host)), manages, "{host}");
        }
        own.configured.push("http://registry.example:8080".parse().unwrap());
        assert!(!own.may_manage(&headers("registry.example")));
    }
}
