//! Settings of the daemon itself; each layer has a table of its own beside this one.

use settings::Key;

/// Name, environment variables, default and meaning.
pub const KEYS: &[Key] = &[
    Key::new("data_dir", &["STORAGE_ROOT"], Some("/var/lib/cairn"), "Database, instance key, media and registry"),
    Key::new("listen", &["CONTROLLER_HTTP_ADDR"], Some(":8080"), "Address and port to listen on"),
    Key::new("db_path", &["DB_PATH"], None, "Database (default: db/cairn.db in the data directory)"),
    Key::new("auth_mode", &["AUTH_MODE"], None, "basic or none (default: basic when basic_user is set)"),
    Key::new("basic_user", &["BASIC_USER"], None, "User of API and registry"),
    Key::secret("basic_pass", &["BASIC_PASS"], "Password of that user"),
    Key::secret("basic_pass_hash", &["BASIC_PASS_HASH"], "argon2id or bcrypt hash of the password, instead of it"),
    Key::new("tls_cert_file", &["TLS_CERT_FILE"], None, "Certificate chain (PEM); read again on SIGHUP"),
    Key::new("tls_key_file", &["TLS_KEY_FILE"], None, "Private key (PEM); read again on SIGHUP"),
    Key::new("rate_limit_rpm", &["RATE_LIMIT_RPM"], Some("10"), "Changing requests a minute and client"),
    Key::new("rate_limit_burst", &["RATE_LIMIT_BURST"], Some("5"), "Of these, at once"),
    Key::new("trusted_proxies", &["TRUSTED_PROXIES"], Some(""), "Networks whose X-Forwarded-For is believed"),
    Key::new("otel_enabled", &["OTEL_ENABLED"], Some("false"), "Send traces to a collector by OTLP over HTTP"),
    Key::new("otel_endpoint", &["OTEL_ENDPOINT"], Some("localhost:4318"), "The collector: HOST:PORT or a URL"),
    Key::new("otel_sampling_rate", &["OTEL_SAMPLING_RATE"], Some("1.0"), "Share of traces that are recorded, 0 to 1"),
    Key::new("otel_service_name", &["OTEL_SERVICE_NAME"], Some("cairn"), "service.name of traces"),
    Key::new(
        "otel_service_version",
        &["OTEL_SERVICE_VERSION"],
        None,
        "service.version of traces (default: that of the program)",
    ),
    Key::new("log_level", &["LOG_LEVEL"], Some("info"), "debug, info, warn or error"),
    Key::new("log_format", &["LOG_FORMAT"], Some("json"), "json or text"),
];
