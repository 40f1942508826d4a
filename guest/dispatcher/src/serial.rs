//! The serial number that a machine gives itself.

use std::path::Path;

use host::{Command, Processes};

use crate::arguments::SerialSource;
use crate::failure::{Failure, code};

/// What vendors leave in the field when they did not fill it.
const PLACEHOLDERS: [&str; 8] = [
    "",
    "unknown",
    "none",
    "not specified",
    "not applicable",
    "default string",
    "system serial number",
    "to be filled by o.e.m.",
];

/// The serial number, or `unknown` when no source has one. A source that was asked for by name has to have it.
pub(crate) fn serial(
    processes: &dyn Processes,
    root: &Path,
    source: SerialSource,
    from_environment: Option<&str>,
) -> Result<String, Failure> {
    let environment = || usable(from_environment?);
    let dmi = || usable(&std::fs::read_to_string(root.join("sys/class/dmi/id/product_serial")).ok()?);
    let dmidecode = || {
        let output = processes.run(&Command::new("dmidecode").args(["-s", "system-serial-number"])).ok()?;
        usable(output.text().lines().rfind(|line| !line.starts_with('#'))?)
    };
    let found = match source {
        SerialSource::Auto => {
            return Ok(environment().or_else(dmi).or_else(dmidecode).unwrap_or_else(|| "unknown".to_owned()));
        }
        SerialSource::Env => environment(),
        SerialSource::Dmi => dmi(),
        SerialSource::Dmidecode => dmidecode(),
    };
    found.ok_or_else(|| Failure::new(code::SERIAL_UNKNOWN, format!("the source {source:?} has no serial number")))
}

fn usable(text: &str) -> Option<String> {
    let text = text.trim();
    (!PLACEHOLDERS.contains(&text.to_lowercase().as_str())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use host::{Fake, Reply};

    use super::*;

    #[test]
    fn the_first_source_that_has_one_counts() {
        let root = tempfile::tempdir().unwrap();
        let fake = Fake::new().on(&["dmidecode"], Reply::Stdout("# comment\nABC123\n".into()));
        let ask = |source, environment| serial(&fake, root.path(), source, environment);
        assert_eq!(ask(SerialSource::Auto, Some("E1")).unwrap(), "E1");
        assert_eq!(ask(SerialSource::Auto, Some(" To Be Filled By O.E.M. ")).unwrap(), "ABC123");
        assert_eq!(ask(SerialSource::Dmi, None).unwrap_err().code, code::SERIAL_UNKNOWN);
        std::fs::create_dir_all(root.path().join("sys/class/dmi/id")).unwrap();
        std::fs::write(root.path().join("sys/class/dmi/id/product_serial"), "SN-7\n").unwrap();
        assert_eq!(ask(SerialSource::Auto, None).unwrap(), "SN-7");
        let none = Fake::new().on(&["dmidecode"], Reply::Missing);
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(serial(&none, empty.path(), SerialSource::Auto, None).unwrap(), "unknown");
    }
}
