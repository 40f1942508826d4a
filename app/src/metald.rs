//! Called as `metald`: metald's guide starts it without arguments, and everything comes from the environment.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};
use vm::settings::{KEYS, METALD, PREFIX};

/// Reads the arguments: there are none but those that ask.
///
/// # Errors
/// The call is wrong, or help or version are asked for.
pub fn parse(arguments: Vec<OsString>) -> Result<(), clap::Error> {
    command().try_get_matches_from(arguments.into_iter().map(two_hyphens)).map(drop)
}

/// The original takes one hyphen as well as two.
fn two_hyphens(word: OsString) -> OsString {
    match word.to_str() {
        Some("-help") => "--help".into(),
        Some("-version") => "--version".into(),
        _ => word,
    }
}

/// The command, for help and goldens.
pub fn command() -> Command {
    Command::new("metald")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Runs microVMs on this host; the same program as cairn serve --role vm")
        .override_usage("metald [--help | --version]")
        .disable_help_flag(true)
        .arg(Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print this; also -help"))
        .disable_version_flag(true)
        .arg(
            Arg::new("version")
                .short('V')
                .long("version")
                .action(ArgAction::Version)
                .help("Print version; also -version"),
        )
        .after_help(environment())
}

/// The table of variables, as the guide's original prints it.
fn environment() -> String {
    let mut text = String::from("Environment:\n");
    for key in KEYS {
        let Some(variable) = key.env.iter().find(|name| name.starts_with(PREFIX)).or(key.env.first()) else { continue };
        let preset = METALD.iter().find(|(name, _)| *name == key.name).map(|(_, value)| *value);
        let default = preset.or(key.default).map(|value| format!(" [default: {value}]")).unwrap_or_default();
        // The table is for both names; this is the help of one.
        let meaning = key.help.strip_prefix("As metald: ").unwrap_or(key.help);
        let meaning = match (preset, meaning.split_once(" (default: ")) {
            (Some(_), Some((meaning, _))) => meaning,
            _ => meaning,
        };
        text.push_str(&format!("  {variable}\n      {meaning}{default}\n"));
    }
    text.push_str("\nEvery setting with its value and origin: cairn config show --origin");
    text
}
