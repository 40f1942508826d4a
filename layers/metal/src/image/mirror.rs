//! Which Debian archive this host uses, from its apt sources.

use std::path::{Path, PathBuf};

/// Suites of the Debian archive proper; `-security` and third parties live elsewhere and have other paths.
const SUITES: [&str; 14] = [
    "stable",
    "testing",
    "unstable",
    "sid",
    "oldstable",
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "stable-updates",
    "bookworm-updates",
    "trixie-updates",
];

/// The first http(s) Debian archive among the sources below `etc_apt` (usually `/etc/apt`), without a slash at the end.
pub(super) fn of_host(etc_apt: &Path) -> Option<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(etc_apt.join("sources.list.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.sort();
    files.insert(0, etc_apt.join("sources.list"));
    files.iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => from_stanzas(&text),
            Some("list") => from_lines(&text),
            _ => None,
        }
    })
}

/// Reads the deb822 form, sources.list(5) "DEB822-STYLE FORMAT".
fn from_stanzas(text: &str) -> Option<String> {
    let uncommented: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    uncommented.split(|line| line.trim().is_empty()).find_map(|stanza| {
        let field = |name: &str| -> Vec<&str> {
            let mut words = Vec::new();
            let mut inside = false;
            for line in stanza {
                if !line.starts_with([' ', '\t']) {
                    inside = false;
                    if let Some((key, value)) = line.split_once(':') {
                        inside = key.eq_ignore_ascii_case(name);
                        if inside {
                            words.extend(value.split_whitespace());
                        }
                    }
                } else if inside {
                    words.extend(line.split_whitespace());
                }
            }
            words
        };
        let enabled = !field("Enabled").first().is_some_and(|value| matches!(*value, "no" | "false"));
        let wanted = enabled && field("Types").contains(&"deb") && field("Components").contains(&"main");
        if !wanted || !field("Suites").iter().any(|suite| SUITES.contains(suite)) {
            return None;
        }
        field("URIs").into_iter().find_map(usable)
    })
}

/// Reads the one-line form, sources.list(5) "ONE-LINE-STYLE FORMAT".
fn from_lines(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let line = line.split('#').next()?.trim();
        let rest = line.strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        if SUITES.contains(&suite) && words.any(|component| component == "main") { usable(uri) } else { None }
    })
}

fn usable(uri: &str) -> Option<String> {
    let is_http = uri.starts_with("http://") || uri.starts_with("https://");
    is_http.then(|| uri.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stanza_gives_its_first_web_address() {
        let text = "Types: deb\nURIs: http://security.example/debian-security\nSuites: bookworm-security\n\
                    Components: main\n\n# Types: deb\nTypes: deb-src deb\nURIs: cdrom:[x]/\n https://a.example/debian/\n\
                    Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n";
        assert_eq!(from_stanzas(text).as_deref(), Some("https://a.example/debian"));
    }

    #[test]
    fn switched_off_and_foreign_stanzas_are_passed_over() {
        let off = "Enabled: no\nTypes: deb\nURIs: http://a.example/debian\nSuites: trixie\nComponents: main\n";
        let foreign = "Types: deb\nURIs: http://b.example/node\nSuites: nodistro\nComponents: main\n";
        assert_eq!(from_stanzas(&format!("{off}\n{foreign}")), None);
    }

    #[test]
    fn lines_are_read_with_options_and_comments() {
        let text = "# deb http://no.example/debian trixie main\ndeb-src http://s.example/debian trixie main\n\
                    deb https://third.example/apt cloud-sdk-bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian/ trixie main contrib # ours\n";
        assert_eq!(from_lines(text).as_deref(), Some("http://a.example/debian"));
    }

    #[test]
    fn the_files_are_asked_in_apts_order() {
        let directory = tempfile::tempdir().unwrap();
        let parts = directory.path().join("sources.list.d");
        std::fs::create_dir(&parts).unwrap();
        std::fs::write(parts.join("b.list"), "deb http://b.example/debian trixie main\n").unwrap();
        std::fs::write(parts.join("a.list"), "deb http://a.example/debian trixie main\n").unwrap();
        assert_eq!(of_host(directory.path()).as_deref(), Some("http://a.example/debian"));
        std::fs::write(directory.path().join("sources.list"), "deb http://main.example/debian sid main\n").unwrap();
        assert_eq!(of_host(directory.path()).as_deref(), Some("http://main.example/debian"));
    }
}
