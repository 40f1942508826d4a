//! Where a repository is.

use super::Error;

/// How a repository is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP over TLS.
    Https,
    /// HTTP in the clear: a token can be read on the way.
    Http,
    /// SSH.
    Ssh,
    /// A directory of this machine.
    File,
}

impl Protocol {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

/// A URL that can be handed to git.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) protocol: Protocol,
    /// As it was written. `git@host:path` stays so: what a server makes of a path without a slash in front is its own.
    pub(super) url: String,
    /// Host as in a URL: an IPv6 address in brackets. Empty for a directory.
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Address {
    /// Understands a URL; only these protocols are allowed.
    pub(super) fn parse(text: &str, allowed: &[Protocol]) -> Result<Self, Error> {
        let wrong = |reason| Error::Url { url: redacted(text), reason };
        if text.is_empty() || text.starts_with('-') {
            return Err(wrong("it is empty or begins with a hyphen"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("it holds white space or a control character"));
        }
        if text.split_once("::").is_some_and(|(word, _)| word.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
            return Err(wrong("it names a helper program"));
        }
        let long = if text.contains("://") { text.to_owned() } else { long_form(text).ok_or_else(|| wrong(FORMS))? };
        let (scheme, rest) = long.split_once("://").ok_or_else(|| wrong(FORMS))?;
        let protocol = [Protocol::Https, Protocol::Http, Protocol::Ssh, Protocol::File];
        let protocol = protocol.into_iter().find(|protocol| protocol.as_str() == scheme).ok_or_else(|| wrong(FORMS))?;
        if rest.contains(['?', '#']) {
            return Err(wrong("a query or a fragment has no meaning here"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (user, place) = authority.rsplit_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
        if user.is_some_and(|user| user.contains(':') || (!user.is_empty() && protocol != Protocol::Ssh)) {
            return Err(Error::UrlWithCredentials { url: redacted(&long) });
        }
        let (host, port) = split_port(place).ok_or_else(|| wrong("the port is no number"))?;
        if (protocol == Protocol::File) != host.is_empty() {
            return Err(wrong("the host is missing, or a file has one"));
        }
        if [host, path.trim_start_matches('/'), user.unwrap_or_default()].iter().any(|word| word.starts_with('-')) {
            return Err(wrong("a part of it begins with a hyphen"));
        }
        if path.len() < 2 {
            return Err(wrong("it names no repository"));
        }
        if !allowed.contains(&protocol) {
            return Err(Error::ProtocolNotAllowed { protocol: protocol.as_str(), url: redacted(&long) });
        }
        Ok(Self { protocol, host: host.to_owned(), port, url: text.to_owned() })
    }

    /// Host and port as known_hosts(5) has them.
    pub(super) fn known_host(&self) -> String {
        let host = self.host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        match self.port {
            Some(port) if port != 22 => format!("[{host}]:{port}"),
            _ => host,
        }
    }

    /// Protocol, host and port: what a token is for.
    pub(super) fn origin(&self) -> (&'static str, String) {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        (self.protocol.as_str(), format!("{}{port}", self.host))
    }
}

const FORMS: &str = "it is none of https://HOST/PATH, ssh://USER@HOST/PATH, USER@HOST:PATH, file:///PATH";

/// `git@host:path` as a URL, to look at its parts.
fn long_form(text: &str) -> Option<String> {
    let end = if text.contains('[') { text.find("]:")? + 1 } else { text.find(':')? };
    let (place, path) = (&text[..end], &text[end + 1..]);
    let is_place = !place.is_empty() && !place.contains('/');
    is_place.then(|| format!("ssh://{place}/{}", path.trim_start_matches('/')))
}

fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    match place.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => Some((host, Some(port.parse().ok()?))),
        _ => Some((place, None)),
    }
}

/// A URL without what is in front of the host.
pub(super) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, place)) if user.contains(':') || scheme != "ssh" => {
            format!("{scheme}://…@{place}{}", &rest[end..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Protocol; 4] = [Protocol::Https, Protocol::Http, Protocol::Ssh, Protocol::File];

    #[test]
    fn what_git_understands_is_understood() {
        let parse = |url| Address::parse(url, &ALL).unwrap();
        assert_eq!(parse("https://git.example.org/a/b.git").host, "git.example.org");
        assert_eq!(parse("ssh://git@[2001:db8::1]:2222/a").known_host(), "[2001:db8::1]:2222");
        assert_eq!(parse("ssh://git@Example.org:22/a").known_host(), "example.org");
        assert_eq!(parse("http://127.0.0.1:8080/a").origin(), ("http", "127.0.0.1:8080".to_owned()));
        assert_eq!(parse("git@github.com:a/b.git").url, "git@github.com:a/b.git");
        assert_eq!(parse("git@host:2222/srv/a.git").known_host(), "host");
        assert_eq!(parse("git@[::1]:/srv/a.git").host, "[::1]");
        assert_eq!(parse("file:///srv/a.git").protocol, Protocol::File);
    }

    #[test]
    fn what_could_mean_something_else_is_refused() {
        for url in [
            "",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "ssh://-oProxyCommand=x/a",
            "ssh://git@-x/a",
            "ext::sh -c x",
            "ext::x",
            "https://",
            "https://host",
            "https://host/",
            "file://host/a",
            "https:///a",
            "ftp://host/a",
            "https://host:x/a",
            "https://host/a?b",
            "https://host/a\nb",
            "/srv/a",
            "host",
            "ssh://host/-x",
            "git@host:-x",
            "-x@host:a",
        ] {
            assert!(matches!(Address::parse(url, &ALL), Err(Error::Url { .. })), "{url:?}");
        }
        let refused = Address::parse("http://host/a", &[Protocol::Https]).unwrap_err();
        assert!(matches!(refused, Error::ProtocolNotAllowed { protocol: "http", .. }));
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for url in ["https://user:hunter2@host/a", "https://hunter2@host/a", "ssh://git:hunter2@host/a"] {
            let error = Address::parse(url, &ALL).unwrap_err();
            assert!(matches!(error, Error::UrlWithCredentials { .. }), "{url}");
            assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"), "{error}");
        }
    }
}
