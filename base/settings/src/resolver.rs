//! Takes the layers in, each above the one before.

use std::collections::BTreeMap;
use std::path::Path;

use crate::resolved::{Entry, Resolved};
use crate::{Key, Origin, SettingsError, files};

/// Collects values. The order of the calls is the order of precedence: file, then environment, then flags.
#[derive(Debug)]
pub struct Resolver {
    entries: Vec<Entry>,
}

impl Resolver {
    /// A resolver for these tables together.
    ///
    /// # Panics
    /// When two tables claim one name or one variable: a mistake in the program, seen at the first start.
    pub fn new(tables: &[&'static [Key]]) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for key in tables.iter().copied().flatten() {
            for other in entries.iter().map(|entry| entry.key) {
                assert!(other.name != key.name, "{} is in two tables", key.name);
                let shared = key.env.iter().find(|variable| other.env.contains(variable));
                assert!(shared.is_none(), "{shared:?} belongs to {} and {}", other.name, key.name);
            }
            let origin = if key.default.is_some() { Origin::BuiltIn } else { Origin::Unset };
            entries.push(Entry { key, value: key.default.map(str::to_owned), origin });
        }
        Self { entries }
    }

    /// Takes another default for a setting, where the program is called by the name of a manual that has its own.
    ///
    /// # Panics
    /// When no table knows the name: a mistake in the program, seen at the first start.
    #[must_use]
    pub fn preset(mut self, name: &str, value: &str) -> Self {
        let Some(entry) = self.entry(name) else { panic!("no table has a setting {name:?}") };
        entry.origin = Origin::BuiltIn;
        entry.value = Some(value.to_owned());
        self
    }

    /// Looks whether every variable that begins with `prefix` is in a table: who misspells one means something else than
    /// the default.
    ///
    /// # Errors
    /// One is not.
    pub fn known_variables(self, prefix: &str, environment: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let unknown = self.unknown_variables(prefix, environment).next();
        match unknown {
            Some(name) => {
                let similar = self.similar_variable(prefix, name, 0.6);
                Err(SettingsError::UnknownVariable { name: name.clone(), similar })
            }
            None => Ok(self),
        }
    }

    /// Looks for variables that begin with `prefix` and read almost like one in a table. For a prefix that other programs
    /// use too: what reads otherwise is theirs.
    ///
    /// # Errors
    /// One does.
    pub fn no_misspelt_variables(
        self,
        prefix: &str,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, SettingsError> {
        let mut unknown = self.unknown_variables(prefix, environment);
        let misspelt = unknown.find_map(|name| Some((name.clone(), self.similar_variable(prefix, name, 0.8)?)));
        drop(unknown);
        match misspelt {
            Some((name, similar)) => Err(SettingsError::UnknownVariable { name, similar: Some(similar) }),
            None => Ok(self),
        }
    }

    /// Variables that begin with `prefix` and are in no table.
    fn unknown_variables<'e>(
        &self,
        prefix: &str,
        environment: &'e BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'e String> {
        let is_known = |name: &str| self.entries.iter().any(|entry| entry.key.env.contains(&name));
        let is_secret_file = |name: &str| {
            let stem = name.strip_suffix("_FILE");
            stem.is_some_and(|stem| self.entries.iter().any(|entry| entry.key.secret && entry.key.env.contains(&stem)))
        };
        environment.keys().filter(move |name| name.starts_with(prefix) && !is_known(name) && !is_secret_file(name))
    }

    /// The name in a table that this one is most like, by at least `least` of 1. Only what follows the prefix counts, or
    /// every name would be like every other.
    fn similar_variable(&self, prefix: &str, name: &str, least: f64) -> Option<&'static str> {
        let rest = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
        let known = self.entries.iter().flat_map(|entry| entry.key.env);
        known
            .map(|other| (strsim::normalized_damerau_levenshtein(&rest(name), &rest(other)), *other))
            .filter(|(likeness, _)| *likeness >= least)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, other)| other)
    }

    /// Takes the values of a TOML file with flat keys.
    ///
    /// # Errors
    /// The file cannot be read, is not TOML, has a key that no table knows, or holds a secret and is world-readable.
    pub fn file(self, path: &Path) -> Result<Self, SettingsError> {
        let file = files::read(path)?;
        self.file_text(path, &file.text, file.world_readable)
    }

    fn file_text(mut self, path: &Path, text: &str, world_readable: bool) -> Result<Self, SettingsError> {
        let line_at = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let table = toml::de::DeTable::parse(text).map_err(|source| {
            let line = line_at(source.span().map_or(0, |span| span.start));
            // Only the message: the error itself shows the line, and there may be a secret on it.
            SettingsError::Toml { path: path.to_owned(), line, reason: source.message().to_owned() }
        })?;
        for (name, value) in table.get_ref() {
            let line = line_at(name.span().start);
            let name: &str = name.get_ref();
            let Some(entry) = self.entry(name) else {
                let similar = self.similar(name);
                return Err(SettingsError::UnknownKey { path: path.to_owned(), line, name: name.to_owned(), similar });
            };
            let Some(value) = plain(value.get_ref()) else {
                return Err(SettingsError::NotPlain { path: path.to_owned(), line, name: entry.key.name });
            };
            if entry.key.secret && world_readable {
                return Err(SettingsError::WorldReadable { path: path.to_owned() });
            }
            entry.origin = Origin::File { path: path.to_owned(), line };
            refuse_empty(entry, &value)?;
            entry.value = Some(value);
        }
        Ok(self)
    }

    /// Takes the variables that the tables name. An empty value counts as not set, as an environment file with
    /// `WEBHOOK_SECRET=` means it.
    ///
    /// # Errors
    /// Two names of one setting differ; the file that a `…_FILE` variable names cannot be read or is world-readable.
    pub fn environment(mut self, environment: &BTreeMap<String, String>) -> Result<Self, SettingsError> {
        let set = |variable: &str| environment.get(variable).filter(|value| !value.is_empty());
        for entry in &mut self.entries {
            let mut found: Option<(String, String)> = None;
            for variable in entry.key.env {
                let mut candidates = Vec::new();
                if let Some(value) = set(variable) {
                    candidates.push(((*variable).to_owned(), value.clone()));
                }
                let file_variable = format!("{variable}_FILE");
                if entry.key.secret
                    && let Some(path) = set(&file_variable)
                {
                    candidates.push((file_variable, files::read_secret(Path::new(path))?));
                }
                for (name, value) in candidates {
                    match &found {
                        Some((first, other)) if *other != value => {
                            return Err(SettingsError::Differ { first: first.clone(), second: name });
                        }
                        Some(_) => {}
                        None => found = Some((name, value)),
                    }
                }
            }
            if let Some((variable, value)) = found {
                entry.origin = Origin::Environment { variable };
                refuse_empty(entry, &value)?;
                entry.value = Some(value);
            }
        }
        Ok(self)
    }

    /// Takes the value of a flag; `None` means that it was not given.
    ///
    /// # Errors
    /// No table knows the name.
    pub fn flag(mut self, name: &str, value: Option<String>) -> Result<Self, SettingsError> {
        let Some(entry) = self.entry(name) else {
            let similar = self.similar(name);
            return Err(SettingsError::UnknownFlag { name: name.to_owned(), similar });
        };
        if let Some(value) = value {
            entry.origin = Origin::Flag { flag: entry.key.flag() };
            entry.value = Some(value);
        }
        Ok(self)
    }

    /// All values.
    pub fn resolve(self) -> Resolved {
        Resolved::new(self.entries)
    }

    fn entry(&mut self, name: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.key.name == name)
    }

    /// The name that was probably meant. Somebody may write a variable into the file, so those count too.
    fn similar(&self, name: &str) -> Option<&'static str> {
        let wanted = name.to_ascii_lowercase().replace('-', "_");
        let names = self.entries.iter().flat_map(|entry| {
            let variables = entry.key.env.iter().map(|variable| (variable.to_ascii_lowercase(), entry.key.name));
            variables.chain([(entry.key.name.to_owned(), entry.key.name)])
        });
        names
            .map(|(candidate, name)| (strsim::normalized_damerau_levenshtein(&wanted, &candidate), name))
            .filter(|(likeness, _)| *likeness >= 0.6)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, name)| name)
    }
}

/// The text of a plain value, as it would stand in the environment.
fn plain(value: &toml::de::DeValue<'_>) -> Option<String> {
    use toml::de::DeValue;
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) | DeValue::Table(_) => return None,
    })
}

/// An empty secret would be one that everybody knows.
fn refuse_empty(entry: &Entry, value: &str) -> Result<(), SettingsError> {
    if entry.key.secret && value.is_empty() {
        return Err(SettingsError::EmptySecret { name: entry.key.name, origin: entry.origin.to_string() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEYS: &[Key] = &[
        Key::new("media_url", &["MEDIA_URL"], None, "What BMCs fetch from."),
        Key::new("listen", &["CONTROLLER_HTTP_ADDR"], Some(":8080"), "Where to listen."),
        Key::new("worker_concurrency", &["WORKER_CONCURRENCY"], Some("4"), "Jobs at a time."),
        Key::new("redfish_insecure", &["REDFISH_INSECURE", "REDFISH_INSECURE_TLS"], Some("false"), "No check."),
        Key::secret("webhook_secret", &["WEBHOOK_SECRET"], "Shared with machines."),
        Key::secret("media_secret", &["SIGNED_URL_SECRET", "MEDIA_SIGNING_SECRET"], "Signs media URLs."),
    ];

    fn resolver() -> Resolver {
        Resolver::new(&[KEYS])
    }

    fn environment(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn from_file(text: &str) -> Result<Resolver, SettingsError> {
        resolver().file_text(Path::new("/etc/cairn.toml"), text, false)
    }

    #[test]
    fn later_layers_win_and_say_where_from() {
        let resolved = from_file("listen = \"127.0.0.1:1\"\n\nworker_concurrency = 7\nredfish_insecure = true\n")
            .and_then(|r| {
                r.environment(&environment(&[("WORKER_CONCURRENCY", "8"), ("MEDIA_URL", "http://m"), ("OTHER", "x")]))
            })
            .and_then(|r| r.flag("media_url", Some("http://flag".to_owned())))
            .and_then(|r| r.flag("listen", None))
            .unwrap()
            .resolve();
        let origins: Vec<_> =
            resolved.show().into_iter().map(|row| format!("{} = {} ({})", row.name, row.value, row.origin)).collect();
        insta::assert_snapshot!(origins.join("\n"), @r###"
        media_url = http://flag (--media-url)
        listen = 127.0.0.1:1 (/etc/cairn.toml:1)
        worker_concurrency = 8 (environment WORKER_CONCURRENCY)
        redfish_insecure = true (/etc/cairn.toml:4)
        webhook_secret =  (unset)
        media_secret =  (unset)
        "###);
    }

    #[test]
    fn an_unknown_key_names_file_line_and_what_was_meant() {
        let error = from_file("# comment\nlisten = \":1\"\nmedia_ulr = \"x\"\n").unwrap_err();
        assert_eq!(error.to_string(), "/etc/cairn.toml:3: there is no setting \"media_ulr\"");
        assert_eq!(error.hint().unwrap(), "did you mean \"media_url\"?");
        let error = from_file("CONTROLLER_HTTP_ADDR = \":1\"").unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean \"listen\"?");
        let error = from_file("completely_other = 1").unwrap_err();
        assert_eq!(error.hint().unwrap(), "`cairn config show` lists every setting");
    }

    #[test]
    fn wrong_toml_and_sections_are_refused_with_the_line() {
        let error = from_file("listen = \":1\"\n=\n").unwrap_err().to_string();
        assert!(error.starts_with("/etc/cairn.toml:2: this is not TOML: "), "{error}");
        assert!(from_file("listen = 1\nlisten = 2\n").unwrap_err().to_string().starts_with("/etc/cairn.toml:2"));
        let error = from_file("\n[listen]\na = 1\n").unwrap_err();
        assert_eq!(error.to_string(), "/etc/cairn.toml:2: listen needs a plain value, not a table or a list");
    }

    #[test]
    fn an_unknown_flag_is_refused() {
        let error = resolver().flag("media-url", None).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean \"media_url\"?");
    }

    #[test]
    fn two_names_of_one_setting_must_agree() {
        let both = [("REDFISH_INSECURE", "true"), ("REDFISH_INSECURE_TLS", "true")];
        assert!(resolver().environment(&environment(&both)).is_ok());
        let differ = [("SIGNED_URL_SECRET", "hush-1"), ("MEDIA_SIGNING_SECRET", "hush-2")];
        let error = resolver().environment(&environment(&differ)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "SIGNED_URL_SECRET and MEDIA_SIGNING_SECRET are two names of one setting and differ"
        );
        assert!(!format!("{error:?}").contains("hush"));
    }

    #[test]
    fn an_unknown_variable_with_a_known_prefix_is_refused() {
        let known = |name| resolver().known_variables("MEDIA_", &environment(&[(name, "x"), ("MEDI", "x")]));
        assert!(known("MEDIA_URL").is_ok() && known("MEDIA_SIGNING_SECRET_FILE").is_ok());
        let error = known("MEDIA_SIGNIN_SECRET").unwrap_err();
        assert_eq!(error.to_string(), "there is no variable MEDIA_SIGNIN_SECRET");
        assert_eq!(error.hint().unwrap(), "did you mean MEDIA_SIGNING_SECRET?");
        assert!(known("MEDIA_URL_FILE").is_err(), "only secrets come from a file");
        let error = known("MEDIA_COMPLETELY_OTHER").unwrap_err();
        assert_eq!(error.hint().unwrap(), "remove it; `cairn config show` lists every setting");
    }

    #[test]
    fn a_variable_that_is_almost_known_is_refused() {
        let known = |name| resolver().no_misspelt_variables("MEDIA_", &environment(&[(name, "x"), ("MEDI", "x")]));
        assert!(
            known("MEDIA_URL").is_ok() && known("MEDIA_COMPLETELY_OTHER").is_ok() && known("MEDIA_UML_FILE").is_ok()
        );
        assert_eq!(known("MEDIA_SIGNIN_SECRET").unwrap_err().hint().unwrap(), "did you mean MEDIA_SIGNING_SECRET?");
    }

    #[test]
    fn a_manuals_default_is_below_every_other_layer() {
        let preset = || resolver().preset("listen", ":9");
        assert_eq!(preset().resolve().get("listen"), Some(":9"));
        let set = preset().environment(&environment(&[("CONTROLLER_HTTP_ADDR", ":1")])).unwrap().resolve();
        assert_eq!(set.get("listen"), Some(":1"));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let resolved = resolver().environment(&environment(&[("WEBHOOK_SECRET", "")])).unwrap().resolve();
        assert!(resolved.secret("webhook_secret").is_none());
    }

    #[test]
    fn a_secret_comes_from_a_file_that_others_cannot_read() {
        use secrecy::ExposeSecret;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        let values = environment(&[("WEBHOOK_SECRET_FILE", path.to_str().unwrap())]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = resolver().environment(&values).unwrap_err();
        assert_eq!(error.hint().unwrap(), format!("chmod o-rwx {}", path.display()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let resolved = resolver().environment(&values).unwrap().resolve();
        assert_eq!(resolved.secret("webhook_secret").unwrap().expose_secret(), "hush");
        assert_eq!(resolved.origin("webhook_secret").to_string(), "environment WEBHOOK_SECRET_FILE");
    }

    #[test]
    fn a_settings_file_with_a_secret_must_not_be_world_readable() {
        let text = "webhook_secret = \"hush\"";
        let error = resolver().file_text(Path::new("/etc/cairn.toml"), text, true).unwrap_err();
        assert_eq!(error.to_string(), "/etc/cairn.toml holds a secret and can be read by every user");
        assert!(from_file(text).is_ok());
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = resolver().file(Path::new("/no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /no/such/file");
    }

    #[test]
    #[should_panic(expected = "media_url is in two tables")]
    fn a_name_belongs_to_one_table() {
        Resolver::new(&[KEYS, KEYS]);
    }

    #[test]
    fn an_empty_secret_is_refused_wherever_it_stands() {
        let error = from_file("webhook_secret = \"\"").unwrap_err();
        assert!(matches!(error, SettingsError::EmptySecret { .. }), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        let error = resolver().environment(&environment(&[("WEBHOOK_SECRET_FILE", &path)])).unwrap_err();
        assert!(matches!(error, SettingsError::EmptySecret { .. }), "{error}");
    }

    #[test]
    fn a_line_that_is_no_toml_is_not_repeated() {
        let error = from_file("webhook_secret = hush-hush").unwrap_err();
        let mut told = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            told.push_str(&error.to_string());
            source = error.source();
        }
        assert!(!told.contains("hush"), "{told}");
    }
}
