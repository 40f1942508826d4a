//! The registry's settings: every name, its variable and its default in one table (design 036), and what they resolve to.

mod values;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use settings::{Key, Resolved, SettingsError};
use url::Url;

pub use values::{AuthMode, CacheRule, MinFree, PushAllow};
use values::{cache_rules, is_address};

/// What most of its variables begin with.
pub const PREFIX: &str = "REGISTRY_";

/// Name, environment variables, default and meaning.
pub const KEYS: &[Key] = &[
    Key::new("registry_storage", &["REGISTRY_STORAGE"], None, "Registry (default: oci in the data directory)"),
    Key::new("enable_registry", &["ENABLE_REGISTRY"], Some("true"), "Serve the registry under /v2/"),
    Key::new(
        "registry_auth_mode",
        &["REGISTRY_AUTH_MODE"],
        None,
        "none, basic, htpasswd or token (default: the users file's login, else the API's, else none)",
    ),
    Key::new(
        "registry_htpasswd_file",
        &["REGISTRY_HTPASSWD_FILE", "REGISTRY_USERS_FILE", "REGISTRY_BASIC_USERS_FILE"],
        None,
        "Users of the registry: NAME:HASH a line, bcrypt or argon2id; read again when it changes",
    ),
    Key::new(
        "registry_public_url",
        &["REGISTRY_PUBLIC_URL"],
        None,
        "Where clients reach the registry, for token logins",
    ),
    Key::new("registry_token_ttl", &["REGISTRY_TOKEN_TTL"], Some("5m"), "Bearer tokens hold so long (1m to 24h)"),
    Key::new("registry_allow_anon", &["REGISTRY_ALLOW_ANON"], Some("false"), "Everybody may pull"),
    Key::new(
        "registry_push_allow",
        &["REGISTRY_PUSH_ALLOW"],
        None,
        "Who may push where: USER=PREFIX,PREFIX;USER=PREFIX, * for every user (default: every user everywhere)",
    ),
    Key::new("registry_read_only", &["REGISTRY_READ_ONLY"], Some("false"), "Nobody may push or delete"),
    Key::new("registry_catalog", &["REGISTRY_CATALOG"], Some("false"), "Serve /v2/_catalog"),
    Key::new(
        "registry_immutable_tags",
        &["REGISTRY_IMMUTABLE_TAGS"],
        Some("false"),
        "A tag that exists cannot be pointed elsewhere",
    ),
    Key::new("registry_max_blob_size", &["REGISTRY_MAX_BLOB_SIZE"], Some("20GiB"), "Largest blob"),
    Key::new(
        "registry_min_free",
        &["REGISTRY_MIN_FREE"],
        Some("5%"),
        "Room that pushes leave free: a size, or percent of the disk; 0 for none",
    ),
    Key::new(
        "registry_max_concurrent_uploads",
        &["REGISTRY_MAX_CONCURRENT_UPLOADS", "REGISTRY_MAX_CONCURRENCY"],
        Some("8"),
        "Uploads at once (1 to 100); more wait",
    ),
    Key::new("registry_upload_timeout", &["REGISTRY_UPLOAD_TIMEOUT"], Some("1h"), "For one request that pushes a blob"),
    Key::new(
        "registry_download_timeout",
        &["REGISTRY_DOWNLOAD_TIMEOUT"],
        Some("30m"),
        "For one request that pulls a blob",
    ),
    Key::new(
        "registry_read_timeout",
        &["REGISTRY_READ_TIMEOUT"],
        Some("30s"),
        "For silence within a request, and for answers without a blob",
    ),
    Key::new("registry_gc_interval", &["REGISTRY_GC_INTERVAL"], Some("1h"), "Between two collections (1m or more)"),
    Key::new(
        "registry_gc_grace_period",
        &["REGISTRY_GC_GRACE_PERIOD"],
        Some("24h"),
        "What nothing refers to is kept so long, and as long again in quarantine (1h or more)",
    ),
    Key::new(
        "registry_gc_digest_only",
        &["REGISTRY_GC_DIGEST_ONLY"],
        Some("keep"),
        "Manifests that never had a tag: keep or collect",
    ),
    Key::new(
        "registry_retention_tools_keep",
        &["REGISTRY_RETENTION_TOOLS_KEEP"],
        Some("5"),
        "Newest tags kept in each repository below tools/; 0 keeps all",
    ),
    Key::new(
        "registry_retention_maintenance_keep",
        &["REGISTRY_RETENTION_MAINTENANCE_KEEP"],
        Some("0"),
        "Newest tags kept of each minor version below maintenance/; 0 keeps all",
    ),
    Key::new("registry_enable_audit_log", &["REGISTRY_ENABLE_AUDIT_LOG"], Some("true"), "Record who did what"),
    Key::new(
        "registry_audit_log_path",
        &["REGISTRY_AUDIT_LOG_PATH"],
        None,
        "File for that record, a JSON object a line, beside log and database",
    ),
    Key::new(
        "registry_cache",
        &["REGISTRY_CACHE"],
        None,
        "Registries whose content is fetched and kept on demand: PREFIX=https://HOST, separated by commas",
    ),
    Key::new(
        "registry_cache_credentials_file",
        &["REGISTRY_CACHE_CREDENTIALS_FILE"],
        None,
        "Logins for those registries",
    ),
];

/// What [`KEYS`] resolve to.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Where content lies.
    pub storage: PathBuf,
    /// Serve it.
    pub enabled: bool,
    /// How people log in; `None` where nobody has said.
    pub auth_mode: Option<AuthMode>,
    /// Users file.
    pub users_file: Option<PathBuf>,
    /// Where clients reach the registry.
    pub public_url: Option<Url>,
    /// Life of a bearer token.
    pub token_ttl: Duration,
    /// Everybody may pull.
    pub allow_anonymous: bool,
    /// Who may push where.
    pub push_allow: PushAllow,
    /// Nobody may push or delete.
    pub read_only: bool,
    /// Serve the catalog.
    pub catalog: bool,
    /// Tags stay where they point.
    pub immutable_tags: bool,
    /// Largest blob in bytes.
    pub max_blob_size: u64,
    /// Room that pushes leave free.
    pub min_free: MinFree,
    /// Uploads at once.
    pub max_concurrent_uploads: usize,
    /// For one request that pushes a blob.
    pub upload_timeout: Duration,
    /// For one request that pulls a blob.
    pub download_timeout: Duration,
    /// For silence within a request, and for answers without a blob.
    pub read_timeout: Duration,
    /// How what is stored is kept small.
    pub upkeep: UpkeepSettings,
    /// Record who did what.
    pub audit: bool,
    /// File for that record.
    pub audit_path: Option<PathBuf>,
    /// Registries whose content is kept on demand.
    pub cache: Vec<CacheRule>,
    /// Logins for them.
    pub cache_credentials: Option<PathBuf>,
}

/// Collection and retention.
#[derive(Debug, Clone)]
pub struct UpkeepSettings {
    /// Between two collections.
    pub interval: Duration,
    /// What nothing refers to is kept so long.
    pub grace: Duration,
    /// Manifests that never had a tag are collected too.
    pub collect_digest_only: bool,
    /// Tags kept in each repository below `tools/`; 0 for all.
    pub tools_keep: usize,
    /// Tags kept of each minor version below `maintenance/`; 0 for all.
    pub maintenance_keep: usize,
}

impl RegistrySettings {
    /// Reads the registry's keys; the storage lies in `data_dir` unless it is set.
    ///
    /// # Errors
    /// A value cannot be used; the error names its key.
    pub fn resolve(resolved: &Resolved, data_dir: &Path) -> Result<Self, SettingsError> {
        let path = |name: &str| resolved.get(name).map(PathBuf::from);
        let between = |name: &str, least: Duration, most: Duration, reason: &str| {
            let duration = resolved.duration(name)?;
            if (least..=most).contains(&duration) { Ok(duration) } else { Err(resolved.wrong(name, reason)) }
        };
        let minute = Duration::from_secs(60);
        let day = Duration::from_hours(24);
        let at_least_a_second =
            |name: &str| between(name, Duration::from_secs(1), Duration::MAX, "1s or more was expected");
        let keep = |name: &str| count(resolved, name, 0..=usize::MAX, "a number was expected, 0 to keep all");
        let auth_mode: Option<AuthMode> = resolved.parse_optional("registry_auth_mode")?;
        let users_file = path("registry_htpasswd_file");
        if auth_mode == Some(AuthMode::Htpasswd) && users_file.is_none() {
            return Err(resolved.missing("registry_htpasswd_file"));
        }
        let uploads = count(resolved, "registry_max_concurrent_uploads", 1..=100, "1 to 100 was expected")?;
        let max_blob_size = resolved.size("registry_max_blob_size")?;
        if max_blob_size == 0 {
            return Err(resolved.wrong("registry_max_blob_size", "1 byte or more was expected"));
        }
        Ok(Self {
            storage: path("registry_storage").unwrap_or_else(|| data_dir.join("oci")),
            enabled: resolved.boolean("enable_registry")?,
            auth_mode,
            users_file,
            public_url: public_url(resolved)?,
            token_ttl: between("registry_token_ttl", minute, day, "1m to 24h was expected")?,
            allow_anonymous: resolved.boolean("registry_allow_anon")?,
            push_allow: resolved.parse_optional("registry_push_allow")?.unwrap_or_default(),
            read_only: resolved.boolean("registry_read_only")?,
            catalog: resolved.boolean("registry_catalog")?,
            immutable_tags: resolved.boolean("registry_immutable_tags")?,
            max_blob_size,
            min_free: resolved.parse("registry_min_free")?,
            max_concurrent_uploads: uploads,
            upload_timeout: at_least_a_second("registry_upload_timeout")?,
            download_timeout: at_least_a_second("registry_download_timeout")?,
            read_timeout: at_least_a_second("registry_read_timeout")?,
            upkeep: UpkeepSettings {
                interval: between("registry_gc_interval", minute, Duration::MAX, "1m or more was expected")?,
                grace: between("registry_gc_grace_period", 60 * minute, Duration::MAX, "1h or more was expected")?,
                collect_digest_only: digest_only(resolved)?,
                tools_keep: keep("registry_retention_tools_keep")?,
                maintenance_keep: keep("registry_retention_maintenance_keep")?,
            },
            audit: resolved.boolean("registry_enable_audit_log")?,
            audit_path: path("registry_audit_log_path"),
            cache: match resolved.get("registry_cache") {
                Some(text) => cache_rules(text).map_err(|reason| resolved.wrong("registry_cache", reason))?,
                None => Vec::new(),
            },
            cache_credentials: path("registry_cache_credentials_file"),
        })
    }
}

/// A number, within limits.
fn count(
    resolved: &Resolved,
    name: &str,
    within: RangeInclusive<usize>,
    expected: &str,
) -> Result<usize, SettingsError> {
    let number = resolved.require(name)?.trim().parse().ok();
    number.filter(|number| within.contains(number)).ok_or_else(|| resolved.wrong(name, expected))
}

fn public_url(resolved: &Resolved) -> Result<Option<Url>, SettingsError> {
    let Some(text) = resolved.get("registry_public_url") else { return Ok(None) };
    match text.parse::<Url>().ok().filter(is_address) {
        None => Err(resolved
            .wrong("registry_public_url", "http(s)://host[:port][/path] was expected, without credentials and query")),
        url => Ok(url),
    }
}

fn digest_only(resolved: &Resolved) -> Result<bool, SettingsError> {
    match resolved.require("registry_gc_digest_only")? {
        "keep" => Ok(false),
        "collect" => Ok(true),
        _ => Err(resolved.wrong("registry_gc_digest_only", "keep or collect was expected")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use settings::Resolver;

    use super::*;

    fn resolve(values: &[(&str, &str)]) -> Result<RegistrySettings, SettingsError> {
        let environment: BTreeMap<String, String> =
            values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let resolved = Resolver::new(&[KEYS]).environment(&environment)?.resolve();
        RegistrySettings::resolve(&resolved, Path::new("/data"))
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.storage, Path::new("/data/oci"));
        assert!(settings.enabled && settings.audit && settings.auth_mode.is_none() && !settings.allow_anonymous);
        assert_eq!((settings.max_blob_size, settings.max_concurrent_uploads), (21_474_836_480, 8));
        let hours = |hours| Duration::from_hours(hours);
        assert_eq!((settings.upkeep.interval, settings.upkeep.grace), (hours(1), hours(24)));
        assert_eq!((settings.upload_timeout, settings.download_timeout), (hours(1), Duration::from_secs(1800)));
        assert_eq!((settings.upkeep.tools_keep, settings.min_free), (5, MinFree::Percent(5)));
    }

    #[test]
    fn the_three_names_of_the_users_file_are_one_setting() {
        for name in ["REGISTRY_HTPASSWD_FILE", "REGISTRY_USERS_FILE", "REGISTRY_BASIC_USERS_FILE"] {
            assert_eq!(resolve(&[(name, "/u")]).unwrap().users_file.as_deref(), Some(Path::new("/u")), "{name}");
        }
        assert_eq!(resolve(&[("REGISTRY_MAX_CONCURRENCY", "3")]).unwrap().max_concurrent_uploads, 3);
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (name, value, key) in [
            ("REGISTRY_AUTH_MODE", "kerberos", "registry_auth_mode"),
            ("REGISTRY_AUTH_MODE", "htpasswd", "registry_htpasswd_file"),
            ("REGISTRY_GC_INTERVAL", "59s", "registry_gc_interval"),
            ("REGISTRY_GC_GRACE_PERIOD", "59m", "registry_gc_grace_period"),
            ("REGISTRY_GC_DIGEST_ONLY", "maybe", "registry_gc_digest_only"),
            ("REGISTRY_MAX_CONCURRENT_UPLOADS", "0", "registry_max_concurrent_uploads"),
            ("REGISTRY_MAX_CONCURRENT_UPLOADS", "101", "registry_max_concurrent_uploads"),
            ("REGISTRY_UPLOAD_TIMEOUT", "0", "registry_upload_timeout"),
            ("REGISTRY_READ_TIMEOUT", "soon", "registry_read_timeout"),
            ("REGISTRY_MAX_BLOB_SIZE", "0", "registry_max_blob_size"),
            ("REGISTRY_MIN_FREE", "51%", "registry_min_free"),
            ("REGISTRY_MIN_FREE", "much", "registry_min_free"),
            ("REGISTRY_PUSH_ALLOW", "alice", "registry_push_allow"),
            ("REGISTRY_PUSH_ALLOW", "=tools", "registry_push_allow"),
            ("REGISTRY_PUSH_ALLOW", " ; ", "registry_push_allow"),
            ("REGISTRY_PUSH_ALLOW", " ", "registry_push_allow"),
            ("REGISTRY_PUSH_ALLOW", "alice=../x", "registry_push_allow"),
            ("REGISTRY_TOKEN_TTL", "30s", "registry_token_ttl"),
            ("REGISTRY_RETENTION_TOOLS_KEEP", "-1", "registry_retention_tools_keep"),
            ("REGISTRY_CACHE", "docker.io", "registry_cache"),
            ("REGISTRY_CACHE", "hub=ftp://x", "registry_cache"),
            ("REGISTRY_CACHE", "hub=https://u:p@x", "registry_cache"),
            ("REGISTRY_CACHE", "hub=https://x,hub=https://y", "registry_cache"),
            ("REGISTRY_PUBLIC_URL", "https://x/?a=b", "registry_public_url"),
            ("REGISTRY_PUBLIC_URL", "registry.example", "registry_public_url"),
            ("REGISTRY_ALLOW_ANON", "perhaps", "registry_allow_anon"),
        ] {
            let error = resolve(&[(name, value)]).unwrap_err();
            assert!(error.to_string().starts_with(key), "{name}={value}: {error}");
            // Not what a parser says of itself.
            assert!(
                !error.to_string().contains("invalid digit") && !error.to_string().contains("relative URL"),
                "{error}"
            );
        }
    }

    #[test]
    fn caches_are_read() {
        let settings = resolve(&[("REGISTRY_CACHE", "hub=https://registry-1.docker.io, q/x=http://127.0.0.1:5000")]);
        let rules: Vec<_> =
            settings.unwrap().cache.into_iter().map(|rule| format!("{} {}", rule.prefix, rule.upstream)).collect();
        assert_eq!(rules, ["hub https://registry-1.docker.io/", "q/x http://127.0.0.1:5000/"]);
    }
}
