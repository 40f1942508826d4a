//! What is written in Nix's language. Pure.

/// What an expression throws when the flake has no such host; the names that it has follow as JSON.
pub(super) const HOSTS: &str = "cairn-flake-hosts:";
/// What an expression throws when what the flake has is no system.
pub(super) const NO_SYSTEM: &str = "cairn-flake-no-system";

/// Whether the word can name a host in a flake: letters, digits and `-_.@+`, not beginning with a hyphen or a dot.
pub fn is_host_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    !name.is_empty() && name.len() <= 128 && !name.starts_with(['-', '.']) && name.bytes().all(allowed)
}

/// A text as a string of Nix's language: `"`, `\` and `${` mean nothing in it.
pub fn nix_string(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            // Every dollar sign, so that none comes to stand before a brace.
            '$' => out.push_str("\\$"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// The system of a host, or a throw that says why there is none.
pub(super) fn system(flake: &str, host: &str) -> String {
    let (flake, host) = (nix_string(flake), nix_string(host));
    format!(
        "let hosts = (builtins.getFlake {flake}).nixosConfigurations or {{ }}; \
         system = hosts.${{{host}}}.config.system.build.toplevel or {{ }}; in \
         if !(hosts ? ${{{host}}}) then throw ({} + builtins.toJSON (builtins.attrNames hosts)) \
         else if (system.type or null) != \"derivation\" then throw {} else system",
        nix_string(HOSTS),
        nix_string(NO_SYSTEM)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_in_a_string_means_anything() {
        assert_eq!(nix_string(r#"a"b\c${d}$e"#), r#""a\"b\\c\${d}\$e""#);
        assert_eq!(nix_string("a\nb"), "\"a\\nb\"");
    }

    #[test]
    fn names_of_hosts_are_plain_words() {
        for name in ["web1", "web-1.example.org", "ada@laptop", "a_b"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in ["", "-x", ".x", "a b", "a\"", "a#b", "${x}", "a;b", "a/b", "a\n", "ä", "a^out", "a%20"] {
            assert!(!is_host_name(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_string_ends_where_it_ends(text in any::<String>()) {
            let written = nix_string(&text);
            let inner = &written[1..written.len() - 1];
            let mut escaped = false;
            let mut before = ' ';
            for character in inner.chars() {
                if escaped {
                    escaped = false;
                    before = ' ';
                    continue;
                }
                let ends = character == '"' || (before == '$' && character == '\u{7b}');
                prop_assert!(!ends);
                escaped = character == '\\';
                before = character;
            }
            prop_assert!(!escaped);
        }
    }
}
