//! Settings: resolved from the tables of all roles, shown with their origin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cli::Output;
use metal::settings::MetalSettings;
use registry::settings::RegistrySettings;
use serde_json::json;
use settings::{Key, Origin, Resolved, Resolver, SettingsError, process_environment};
use vm::cli::Known;
use vm::settings::{METALD, PREFIX, VmSettings};
use web::{ListenAddress, Problem};

use crate::arguments::{Called, Place, Role, Serve};
use crate::serve::traces;
use crate::settings_table::KEYS;

/// The tables of all roles: a settings file serves them all.
pub const TABLES: &[&[Key]] = &[KEYS, metal::settings::KEYS, registry::settings::KEYS, vm::settings::KEYS];

/// What a daemon is to do.
pub fn of_daemon(options: &Serve) -> Result<Resolved, Problem> {
    match (options.called, options.role) {
        (Called::Metald, _) => as_metald(&process_environment()).map_err(|error| problem(&error)),
        (Called::Cairn, Role::Vm) => {
            known_variables().map_err(|error| problem(&error))?;
            resolve(&options.place, options.listen.as_deref())
        }
        (Called::Cairn, _) => resolve(&options.place, options.listen.as_deref()),
    }
}

/// The guide's program takes its guide's variables and no others: what else stands in the environment was not meant for it.
/// The settings of the daemon itself follow from them.
fn as_metald(environment: &BTreeMap<String, String>) -> Result<Resolved, SettingsError> {
    let is_own = |name: &str| name.starts_with(PREFIX) || name.starts_with("CAIRN_");
    let own: BTreeMap<_, _> = environment.iter().filter(|(name, _)| is_own(name)).collect();
    let own: BTreeMap<String, String> = own.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let presets = || METALD.iter().fold(Resolver::new(TABLES), |resolver, (name, value)| resolver.preset(name, value));
    let resolved = presets().known_variables(PREFIX, &own)?.environment(&own)?.resolve();
    let data_dir = PathBuf::from(resolved.require("vm_data_dir")?);
    let settings = VmSettings::resolve(&resolved, &data_dir)?;
    traces::settings(Called::Metald, Role::Vm, &resolved)?;
    let text = |path: &Path| path.display().to_string();
    let mut resolver = presets()
        .preset("data_dir", &text(&data_dir))
        .preset("db_path", &text(&data_dir.join("metald.db")))
        .preset("listen", &settings.listen);
    if let Some(level) = &settings.log_level {
        resolver = resolver.preset("log_level", level);
    }
    if let Some(tls) = &settings.tls {
        resolver = resolver.preset("tls_cert_file", &text(&tls.certificate)).preset("tls_key_file", &text(&tls.key));
    }
    Ok(resolver.environment(&own)?.resolve())
}

/// A misspelt variable of metald means something else than its default.
fn known_variables() -> Result<(), SettingsError> {
    Resolver::new(TABLES).known_variables(PREFIX, &process_environment()).map(drop)
}

/// Built-in < file < environment < flags.
pub fn resolve(place: &Place, listen: Option<&str>) -> Result<Resolved, Problem> {
    let mut resolver = Resolver::new(TABLES);
    if let Some(file) = &place.config {
        resolver = resolver.file(file).map_err(|error| problem(&error))?;
    }
    let data_dir = place.data_dir.as_ref().map(|path| path.display().to_string());
    Ok(resolver
        .environment(&process_environment())
        .and_then(|resolver| resolver.flag("data_dir", data_dir))
        .and_then(|resolver| resolver.flag("listen", listen.map(str::to_owned)))
        .map_err(|error| problem(&error))?
        .resolve())
}

/// Where the data is.
pub fn data_dir(resolved: &Resolved) -> Result<PathBuf, Problem> {
    resolved.require("data_dir").map(PathBuf::from).map_err(|error| problem(&error))
}

/// Where the data of a role is: the vm role has a variable of its own for it.
pub fn data_dir_of(role: Role, resolved: &Resolved) -> Result<PathBuf, Problem> {
    match resolved.get("vm_data_dir") {
        Some(path) if role == Role::Vm && !matches!(resolved.origin("data_dir"), Origin::Flag { .. }) => {
            Ok(path.into())
        }
        _ => data_dir(resolved),
    }
}

/// Where `cairn vm` finds a token when nobody names one.
pub fn known_tokens(place: &Place) -> Result<Known, Problem> {
    let resolved = resolve(place, None)?;
    let data_dirs = match &place.data_dir {
        Some(path) => vec![path.clone()],
        None => {
            let metald = METALD.iter().find(|(name, _)| *name == "vm_data_dir").map(|(_, path)| PathBuf::from(path));
            [resolved.get("vm_data_dir").map(PathBuf::from), metald, Some(data_dir(&resolved)?)]
                .into_iter()
                .flatten()
                .collect()
        }
    };
    Ok(Known { token: resolved.secret("vm_token"), data_dirs })
}

/// Prints every setting; secrets only say whether they are set.
pub fn show(place: &Place, origin: bool, output: &Output) -> Result<(), Problem> {
    let resolved = resolve(place, None)?;
    let rows = resolved.show();
    if output.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| json!({ "name": row.name, "value": row.value, "origin": row.origin.to_string(), "help": row.help }))
            .collect();
        output.json(&rows);
    } else if origin {
        let rows: Vec<_> =
            rows.into_iter().map(|row| [row.name.to_owned(), row.value, row.origin.to_string()]).collect();
        output.table(["SETTING", "VALUE", "ORIGIN"], &rows);
    } else {
        let rows: Vec<_> = rows.into_iter().map(|row| [row.name.to_owned(), row.value, row.help.to_owned()]).collect();
        output.table(["SETTING", "VALUE", "MEANING"], &rows);
    }
    // Shown first, because the origin of a wrong value is among them.
    check(&resolved)
}

/// Whether `cairn serve` would take these settings.
fn check(resolved: &Resolved) -> Result<(), Problem> {
    let data_dir = data_dir(resolved)?;
    MetalSettings::resolve(resolved, &data_dir).map_err(|error| problem(&error))?;
    RegistrySettings::resolve(resolved, &data_dir).map_err(|error| problem(&error))?;
    VmSettings::resolve(resolved, &data_dir).map_err(|error| problem(&error))?;
    for role in [Role::Metal, Role::Vm] {
        traces::settings(Called::Cairn, role, resolved).map_err(|error| problem(&error))?;
    }
    known_variables().map_err(|error| problem(&error))?;
    resolved.parse::<ListenAddress>("listen").map_err(|error| problem(&error))?;
    Ok(())
}

/// A wrong setting, for the edge.
pub fn problem(error: &SettingsError) -> Problem {
    let problem = Problem::new(error.kind(), "settings", cairn_core::chain(error));
    match error.hint() {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metald(values: &[(&str, &str)]) -> Result<Resolved, SettingsError> {
        as_metald(&values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn metald_is_where_its_guide_says() {
        let resolved = metald(&[("LOG_LEVEL", "debug"), ("STORAGE_ROOT", "/elsewhere"), ("BASIC_USER", "x")]).unwrap();
        for (name, value) in [
            ("listen", "0.0.0.0:8080"),
            ("data_dir", "/var/lib/metald"),
            ("db_path", "/var/lib/metald/metald.db"),
            ("log_level", "info"),
            ("vm_asset_dir", "/opt/metald/assets"),
        ] {
            assert_eq!(resolved.get(name), Some(value), "{name}");
        }
        assert_eq!(resolved.get("basic_user"), None, "variables of others are not its own");
        assert_eq!(data_dir_of(Role::Vm, &resolved).unwrap(), Path::new("/var/lib/metald"));
    }

    #[test]
    fn metalds_variables_move_it() {
        let resolved = metald(&[
            ("UNKEY_METALD_ADDRESS", "127.0.0.1"),
            ("UNKEY_METALD_PORT", "9"),
            ("UNKEY_METALD_DATA_DIR", "/opt/metald/data"),
            ("UNKEY_METALD_LOG_LEVEL", "debug"),
            ("UNKEY_METALD_TLS_MODE", "file"),
            ("UNKEY_METALD_TLS_CERT_FILE", "/c"),
            ("UNKEY_METALD_TLS_KEY_FILE", "/k"),
        ])
        .unwrap();
        for (name, value) in [
            ("listen", "127.0.0.1:9"),
            ("db_path", "/opt/metald/data/metald.db"),
            ("log_level", "debug"),
            ("tls_cert_file", "/c"),
            ("tls_key_file", "/k"),
        ] {
            assert_eq!(resolved.get(name), Some(value), "{name}");
        }
        let error = metald(&[("UNKEY_METALD_PROT", "9")]).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("did you mean UNKEY_METALD_PORT?"));
        assert!(metald(&[("UNKEY_METALD_OTEL_SAMPLING_RATE", "2")]).is_err());
        assert!(metald(&[("UNKEY_METALD_TLS_MODE", "spiffe")]).is_err(), "never without TLS once it was asked for");
    }

    #[test]
    fn a_flag_moves_the_vm_role_before_its_variable() {
        let place = |path: Option<&str>| Place { data_dir: path.map(PathBuf::from), config: None };
        let resolve = |place: &Place| {
            let data_dir = place.data_dir.as_ref().map(|path| path.display().to_string());
            let variables = BTreeMap::from([("UNKEY_METALD_DATA_DIR".to_owned(), "/variable".to_owned())]);
            let resolver = Resolver::new(TABLES).environment(&variables).unwrap();
            resolver.flag("data_dir", data_dir).unwrap().resolve()
        };
        let of = |role, place: &Place| data_dir_of(role, &resolve(place)).unwrap();
        assert_eq!(of(Role::Vm, &place(None)), Path::new("/variable"));
        assert_eq!(of(Role::Vm, &place(Some("/flag"))), Path::new("/flag"));
        assert_eq!(of(Role::Metal, &place(None)), Path::new("/var/lib/cairn"));
    }
}
