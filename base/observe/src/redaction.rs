//! What never leaves the process in a log line: secrets by the name of their field, and secrets inside a text.

use std::borrow::Cow;

/// What stands where a secret was.
pub const REDACTED: &str = "[redacted]";

/// Names of fields whose value is never printed, as a whole or as the last word of a longer name
/// (`webhook_secret`). Recipes and what they carry belong here: they may hold a customer's own passwords.
const SECRET_FIELDS: &[&str] = &[
    "api_key",
    "auth_token",
    "authorization",
    "cookie",
    "ks_cfg",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "recipe",
    "recipe_json",
    "secret",
    "sig",
    "signature",
    "token",
    "unattend",
    "unattend_xml",
    "user_data",
];

/// Names that mark a secret inside a text as `name=value`.
const SECRET_PARAMETERS: &[&str] =
    &["access_token", "api_key", "passphrase", "passwd", "password", "secret", "sig", "signature", "token"];

/// Header names that mark everything to the end of the line as a secret.
const SECRET_HEADERS: &[&str] = &["authorization", "cookie", "x-auth-token", "x-webhook-secret"];

/// Whether a field of this name prints [`REDACTED`] instead of its value. Case, `-` and `.` do not matter.
pub fn is_secret_field(name: &str) -> bool {
    let name: String = name
        .chars()
        .map(|c| match c {
            '-' | '.' => '_',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    SECRET_FIELDS
        .iter()
        .any(|secret| name.strip_suffix(secret).is_some_and(|before| before.is_empty() || before.ends_with('_')))
}

/// The text without the secrets that can be recognised in it: user and password of a URL, `sig=…` and the like,
/// the signature in `/media/s/<expiry>/<signature>/`, `Authorization: …`, `Bearer …`, `Basic …`, and
/// `"password":"…"` in JSON.
pub fn redact_text(text: &str) -> Cow<'_, str> {
    let mut output = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < text.len() {
        if let Some((start, end)) = secret_at(text, at) {
            output.push_str(&text[copied..start]);
            output.push_str(REDACTED);
            copied = end;
            at = end.max(at + 1);
        } else {
            at += 1;
        }
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    output.push_str(&text[copied..]);
    Cow::Owned(output)
}

/// The bytes of the secret whose mark begins at `at`, if one begins there and it is not empty.
fn secret_at(text: &str, at: usize) -> Option<(usize, usize)> {
    let range = match text.as_bytes()[at] {
        b':' => user_info(text, at),
        b'/' => path_signature(text, at),
        _ if starts_word(text, at) => header(text, at).or_else(|| parameter(text, at)).or_else(|| scheme(text, at)),
        _ => None,
    };
    range.filter(|(start, end)| start < end && !text[*start..].starts_with(REDACTED))
}

fn starts_word(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    bytes[at].is_ascii_alphabetic() && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric())
}

/// The text after `prefix` at `at`, whatever its case.
fn after(text: &str, at: usize, prefix: &str) -> Option<usize> {
    let end = at + prefix.len();
    text.get(at..end)?.eq_ignore_ascii_case(prefix).then_some(end)
}

/// The first position from `from` on where `ends` holds, or the end of the text.
fn until(text: &str, from: usize, ends: impl Fn(char) -> bool) -> usize {
    text[from..].find(ends).map_or(text.len(), |length| from + length)
}

fn ends_value(c: char) -> bool {
    c.is_whitespace() || matches!(c, '&' | '#' | '"' | '\'' | '\\' | '<' | '>' | ')' | ']' | '}' | ',' | ';' | '/')
}

/// `://user:password@`
fn user_info(text: &str, at: usize) -> Option<(usize, usize)> {
    let start = after(text, at, "://")?;
    let end = until(text, start, |c| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\' | '<' | '>'));
    text[start..end].rfind('@').map(|length| (start, start + length))
}

/// `/media/s/<expiry>/<signature>/`: only the signature goes, the expiry helps to understand a refusal.
fn path_signature(text: &str, at: usize) -> Option<(usize, usize)> {
    let expiry = after(text, at, "/media/s/")?;
    let slash = until(text, expiry, |c| !c.is_ascii_digit());
    let start = after(text, slash, "/")?;
    Some((start, until(text, start, ends_value)))
}

/// `Authorization: …` to the end of the line or of the quoted text around it.
fn header(text: &str, at: usize) -> Option<(usize, usize)> {
    let name_end = SECRET_HEADERS.iter().find_map(|name| after(text, at, name))?;
    let colon = text[name_end..].trim_start_matches(['"', '\\', ' ']);
    let value = colon.strip_prefix(':')?.trim_start_matches(['"', '\\', ' ']);
    let start = text.len() - value.len();
    Some((start, until(text, start, |c| matches!(c, '\n' | '\r' | '"' | '\''))))
}

/// `sig=…`, `token=…`, `"password":"…"`.
fn parameter(text: &str, at: usize) -> Option<(usize, usize)> {
    SECRET_PARAMETERS.iter().find_map(|name| {
        let name_end = after(text, at, name)?;
        if let Some(start) = after(text, name_end, "=") {
            if let Some(quote) = text[start..].chars().next().filter(|c| matches!(c, '"' | '\'')) {
                return Some((start + 1, until(text, start + 1, |c| c == quote)));
            }
            return Some((start, until(text, start, ends_value)));
        }
        let rest = &text[name_end..];
        let value = rest.trim_start_matches('\\').strip_prefix('"')?.trim_start().strip_prefix(':')?;
        let value = value.trim_start().trim_start_matches('\\').strip_prefix('"')?;
        let start = text.len() - value.len();
        Some((start, until(text, start, |c| matches!(c, '"' | '\\'))))
    })
}

/// `Bearer …`; `Basic …` only where what follows looks like an encoded credential, so that prose stays readable.
fn scheme(text: &str, at: usize) -> Option<(usize, usize)> {
    if let Some(start) = after(text, at, "bearer ") {
        return (!text[start..].starts_with("realm=")).then(|| (start, until(text, start, ends_value)));
    }
    let start = after(text, at, "basic ")?;
    let end = until(text, start, |c| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '-' | '_')));
    let value = &text[start..end];
    let encoded =
        value.len() >= 8 && value.len().is_multiple_of(4) && value.contains(|c: char| !c.is_ascii_lowercase());
    (encoded && !value.starts_with("realm=")).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_a_text_are_cut_out_and_the_rest_stays() {
        for (text, expected) in [
            ("GET http://root:calvin@10.0.0.7/redfish/v1", "GET http://[redacted]@10.0.0.7/redfish/v1"),
            ("http://root:p@ss@bmc:8000/x and http://b/", "http://[redacted]@bmc:8000/x and http://b/"),
            (
                "/media/tasks/1/task.iso?expires=17&sig=abc-_D&ip=1",
                "/media/tasks/1/task.iso?expires=17&sig=[redacted]&ip=1",
            ),
            ("http://c/media/s/1780000000/a-B_c/42/task.iso", "http://c/media/s/1780000000/[redacted]/42/task.iso"),
            ("Authorization: Basic cm9vdDpjYWx2aW4=\nHost: x", "Authorization: [redacted]\nHost: x"),
            (
                "{\"authorization\": \"Bearer abc.def\", \"host\": \"x\"}",
                "{\"authorization\": \"[redacted]\", \"host\": \"x\"}",
            ),
            ("sent Bearer abc.def-ghi to it", "sent Bearer [redacted] to it"),
            ("Basic cm9vdDpjYWx2aW4= was refused", "Basic [redacted] was refused"),
            ("x-auth-token: 0123", "x-auth-token: [redacted]"),
            (r#"body {"UserName":"root","Password":"calvin"}"#, r#"body {"UserName":"root","Password":"[redacted]"}"#),
            (r#"{\"password\": \"calvin\"}"#, r#"{\"password\": \"[redacted]\"}"#),
            ("token='a b' rest", "token='[redacted]' rest"),
            ("webhook_secret=hush", "webhook_secret=[redacted]"),
            ("größe sig=ß, ende", "größe sig=[redacted], ende"),
        ] {
            assert_eq!(redact_text(text), expected);
        }
    }

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in [
            "",
            "Basic authentication is required",
            "Basic realm=\"shoal-provisioner\"",
            "http://bmc.example.com/redfish/v1/Systems/1?a=b@c",
            "designsig = 4",
            "password is wrong",
            "/media/tasks/42/task.iso",
            "naïve ünïcode",
        ] {
            assert!(matches!(redact_text(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn redacting_twice_changes_nothing_more() {
        let once = redact_text("http://a:b@c/?sig=1&token=2 Authorization: x").into_owned();
        assert_eq!(redact_text(&once), once);
    }

    #[test]
    fn secret_fields_are_known_by_their_last_word() {
        for name in ["password", "BMC_PASSWORD", "x-auth-token", "webhook_secret", "user_data", "ks.cfg", "recipe"] {
            assert!(is_secret_field(name), "{name}");
        }
        for name in ["recipe_digest", "user", "design", "job_id", "tokens", "password_length"] {
            assert!(!is_secret_field(name), "{name}");
        }
    }
}
