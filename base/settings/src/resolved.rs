//! Answers what is set, in the types that the caller wants.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

use crate::{Key, Origin, SettingsError, parse_boolean, parse_duration, parse_size};

const REDACTED: &str = "[redacted]";

pub(crate) struct Entry {
    pub(crate) key: &'static Key,
    pub(crate) value: Option<String>,
    pub(crate) origin: Origin,
}

impl Entry {
    fn shown(&self) -> &str {
        match &self.value {
            Some(_) if self.key.secret => REDACTED,
            Some(value) => value,
            None => "",
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {:?} ({})", self.key.name, self.shown(), self.origin)
    }
}

/// A line of `cairn config show`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value, `[redacted]` for a secret, empty when unset.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
    /// What it is for.
    pub help: &'static str,
}

/// Every setting with its value and origin.
///
/// # Panics
/// All methods panic for a name that no table has, and the plain ones for a secret: mistakes in the program.
#[derive(Debug)]
pub struct Resolved {
    entries: Vec<Entry>,
}

impl Resolved {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The value, if there is one.
    pub fn get(&self, name: &str) -> Option<&str> {
        let entry = self.entry(name);
        assert!(!entry.key.secret, "{name} is a secret");
        entry.value.as_deref()
    }

    /// The value, or an error that says how to set it.
    pub fn require(&self, name: &str) -> Result<&str, SettingsError> {
        self.get(name).ok_or_else(|| self.missing(name))
    }

    /// The secret, if there is one.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        let entry = self.entry(name);
        assert!(entry.key.secret, "{name} is no secret");
        entry.value.as_deref().map(SecretString::from)
    }

    /// The value as a type of the caller.
    pub fn parse<T>(&self, name: &str) -> Result<T, SettingsError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.parse_optional(name)?.ok_or_else(|| self.missing(name))
    }

    /// The value as a type of the caller, `None` when unset.
    pub fn parse_optional<T>(&self, name: &str) -> Result<Option<T>, SettingsError>
    where
        T: FromStr,
        T::Err: Display,
    {
        self.get(name).map(|text| text.parse().map_err(|error: T::Err| self.wrong(name, error.to_string()))).transpose()
    }

    /// The value as a boolean, see [`parse_boolean`].
    pub fn boolean(&self, name: &str) -> Result<bool, SettingsError> {
        self.with_unit(name, parse_boolean)
    }

    /// The value as a duration, see [`parse_duration`].
    pub fn duration(&self, name: &str) -> Result<Duration, SettingsError> {
        self.with_unit(name, parse_duration)
    }

    /// The value as a number of bytes, see [`parse_size`].
    pub fn size(&self, name: &str) -> Result<u64, SettingsError> {
        self.with_unit(name, parse_size)
    }

    /// Where the value came from.
    pub fn origin(&self, name: &str) -> Origin {
        self.entry(name).origin.clone()
    }

    /// Every setting, in the order of the tables.
    pub fn show(&self) -> Vec<Row> {
        self.entries
            .iter()
            .map(|entry| Row {
                name: entry.key.name,
                value: entry.shown().to_owned(),
                origin: entry.origin.clone(),
                help: entry.key.help,
            })
            .collect()
    }

    /// The error for a value that can be read but not used, e.g. together with another one.
    pub fn wrong(&self, name: &str, reason: impl Into<String>) -> SettingsError {
        let entry = self.entry(name);
        SettingsError::Value {
            name: entry.key.name,
            value: entry.shown().to_owned(),
            origin: entry.origin.clone(),
            reason: reason.into(),
        }
    }

    /// The error for a value that is needed and not there.
    pub fn missing(&self, name: &str) -> SettingsError {
        let key = self.entry(name).key;
        let ways = match key.env.first() {
            Some(variable) if key.secret => format!("set {variable} or {variable}_FILE"),
            Some(variable) => format!("set {} or {variable}", key.flag()),
            None => format!("set {}", key.flag()),
        };
        SettingsError::Missing { name: key.name, hint: format!("{ways}: {}", key.help) }
    }

    fn with_unit<T>(&self, name: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, SettingsError> {
        parse(self.require(name)?).map_err(|reason| self.wrong(name, reason))
    }

    #[track_caller]
    fn entry(&self, name: &str) -> &Entry {
        match self.entries.iter().find(|entry| entry.key.name == name) {
            Some(entry) => entry,
            None => panic!("no table has a setting {name:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resolver;

    const KEYS: &[Key] = &[
        Key::new("job_stuck_timeout", &["JOB_STUCK_TIMEOUT"], Some("4h"), "When a job ends for lack of news."),
        Key::new("max_blob_size", &["REGISTRY_MAX_BLOB_SIZE"], Some("20GiB"), "Largest blob."),
        Key::new("enable_tls", &[], Some("maybe"), "Whether to speak TLS."),
        Key::new("worker_concurrency", &["WORKER_CONCURRENCY"], Some("four"), "Jobs at a time."),
        Key::new("media_url", &["MEDIA_URL"], None, "What BMCs fetch from."),
        Key::secret("webhook_secret", &["WEBHOOK_SECRET"], "Shared with machines."),
    ];

    fn resolved() -> Resolved {
        Resolver::new(&[KEYS]).flag("webhook_secret", Some("hush".to_owned())).unwrap().resolve()
    }

    #[test]
    fn values_come_in_the_type_that_is_wanted() {
        let resolved = resolved();
        assert_eq!(resolved.duration("job_stuck_timeout").unwrap(), Duration::from_secs(14_400));
        assert_eq!(resolved.size("max_blob_size").unwrap(), 20 << 30);
        assert_eq!(resolved.parse::<String>("job_stuck_timeout").unwrap(), "4h");
        assert_eq!(resolved.parse_optional::<u32>("media_url").unwrap(), None);
    }

    #[test]
    fn a_wrong_value_is_shown_with_its_origin() {
        let error = resolved().parse::<u32>("worker_concurrency").unwrap_err();
        assert_eq!(
            error.to_string(),
            "worker_concurrency cannot be \"four\" (built-in): invalid digit found in string"
        );
        let error = resolved().boolean("enable_tls").unwrap_err();
        assert_eq!(error.to_string(), "enable_tls cannot be \"maybe\" (built-in): true or false was expected");
    }

    #[test]
    fn a_missing_value_says_how_to_set_it() {
        let error = resolved().require("media_url").unwrap_err();
        assert_eq!(error.hint().unwrap(), "set --media-url or MEDIA_URL: What BMCs fetch from.");
    }

    #[test]
    fn a_secret_is_never_shown() {
        let resolved = resolved();
        let everything =
            format!("{resolved:?} {:?} {:?}", resolved.show(), resolved.wrong("webhook_secret", "too short"));
        assert!(!everything.contains("hush") && everything.contains("[redacted]"), "{everything}");
    }

    #[test]
    #[should_panic(expected = "webhook_secret is a secret")]
    fn a_secret_is_asked_for_as_a_secret() {
        resolved().get("webhook_secret");
    }
}
