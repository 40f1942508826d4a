//! Keeps secrets out of text that comes from a BMC or from an address.

use secrecy::{ExposeSecret, SecretString};

/// What stands in place of a secret.
const HIDDEN: &str = "[redacted]";

/// Longest text that is kept of an answer, in characters.
const LONGEST: usize = 600;

/// Runs of token characters from this length on are taken for a token or signature: HMAC-SHA256 in base64url has 43,
/// a UUID has 36.
const TOKEN_LENGTH: usize = 40;

/// Query parameters whose value is hidden whatever its length.
const PARAMETERS: [&str; 6] = ["sig=", "signature=", "token=", "password=", "secret=", "key="];

/// Removes the given secrets, anything that looks like a token, and values of telling query parameters; cuts the rest
/// to a length that fits into a log line.
pub(crate) fn scrub<'a>(text: &str, secrets: impl IntoIterator<Item = &'a SecretString>) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        let secret = secret.expose_secret();
        if !secret.is_empty() {
            text = text.replace(secret, HIDDEN);
            // JSON text shows quotes and backslashes escaped.
            let escaped = serde_json::Value::from(secret).to_string();
            text = text.replace(&escaped[1..escaped.len() - 1], HIDDEN);
        }
    }
    for parameter in PARAMETERS {
        text = hide_values(&text, parameter);
    }
    hide_user_information(&hide_tokens(&text)).chars().take(LONGEST).collect()
}

/// Whether a character can be part of a token.
fn in_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '+' | '=')
}

/// Hides what follows `parameter`, in any case, up to the end of the value.
fn hide_values(text: &str, parameter: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.to_ascii_lowercase().find(parameter) {
        let (before, after) = rest.split_at(at + parameter.len());
        let length =
            after.find(|c: char| c.is_whitespace() || matches!(c, '&' | '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        result.push_str(before);
        result.push_str(HIDDEN);
        rest = &after[length..];
    }
    result + rest
}

/// Hides runs of token characters that are too long to be a word, an id or a UUID.
fn hide_tokens(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut run = String::new();
    for character in text.chars().chain([' ']) {
        if in_token(character) {
            run.push(character);
            continue;
        }
        result.push_str(if run.len() >= TOKEN_LENGTH { HIDDEN } else { &run });
        run.clear();
        result.push(character);
    }
    result.pop();
    result
}

/// Hides `user:password` of addresses.
fn hide_user_information(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | '?')).unwrap_or(after.len());
        result.push_str(before);
        rest = after;
        if let Some(sign) = after[..end].rfind('@') {
            result.push_str(HIDDEN);
            rest = &after[sign..];
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signatures_in_both_forms_go() {
        let signature = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF";
        let text = format!(
            "cannot fetch 'http://192.0.2.1/media/s/1700000000/{signature}/3f2b8c1e-0000-4000-8000-000000000001/task.iso' or \
             http://u:pw@h/task.iso?expires=1&Sig=short&x=1"
        );
        let clean = scrub(&text, []);
        assert!(!clean.contains(signature) && !clean.contains("short") && !clean.contains("u:pw"), "{clean}");
        assert!(clean.contains("3f2b8c1e-0000-4000-8000-000000000001/task.iso"), "{clean}");
        assert!(clean.contains("&x=1"), "{clean}");
    }

    #[test]
    fn given_secrets_go() {
        let secrets = [SecretString::from("hun\"ter2"), SecretString::from("")];
        assert_eq!(scrub(r#"bad value hun"ter2 or "hun\"ter2""#, &secrets), r#"bad value [redacted] or "[redacted]""#);
    }

    proptest! {
        #[test]
        fn no_long_run_survives(text in "\\PC{0,80}", token in "[A-Za-z0-9_-]{40,90}") {
            let clean = scrub(&format!("{text}/{token}/{text}"), []);
            prop_assert!(!clean.contains(&token));
        }
    }
}
