//! Settings: resolved from the tables of all roles, shown with their origin.

use std::path::PathBuf;

use metal::cli::Output;
use serde_json::json;
use settings::{Resolved, Resolver, SettingsError, process_environment};
use web::Problem;

use crate::arguments::Place;
use crate::settings_table::KEYS;

/// Built-in < file < environment < flags.
pub fn resolve(place: &Place, listen: Option<&str>) -> Result<Resolved, Problem> {
    let mut resolver = Resolver::new(&[KEYS, metal::settings::KEYS]);
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

/// Prints every setting; secrets only say whether they are set.
pub fn show(place: &Place, origin: bool, output: &Output) -> Result<(), Problem> {
    let rows = resolve(place, None)?.show();
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
