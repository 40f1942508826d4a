//! The door: one binary, a subcommand per layer and a role per daemon. It parses, resolves, runs, and says how it went.

mod arguments;
mod commands;
mod config;
mod explain;
#[cfg(test)]
mod goldens;
mod metald;
mod serve;
mod settings_table;
mod wiring;

use std::io::Write as _;
use std::process::ExitCode;

use web::Problem;

fn main() -> ExitCode {
    let commands = match commands::parse(std::env::args_os()) {
        Ok(commands) => commands,
        // Help and version end well; clap's own exit code for a wrong call is 2, as ours.
        Err(error) => error.exit(),
    };
    let json = commands.json;
    match commands::run(commands) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            report(&problem, json);
            ExitCode::from(problem.kind().exit_code())
        }
    }
}

/// Bad news: a sentence and a hint for people, the whole Problem for programs.
fn report(problem: &Problem, json: bool) {
    let mut text = if json {
        serde_json::to_string_pretty(problem).unwrap_or_default() + "\n"
    } else {
        format!("error: {} ({})\n", problem.detail, problem.code)
    };
    if !json {
        for detail in &problem.details {
            text.push_str(&format!("  {}: {} ({})\n", detail.field, detail.message, detail.code));
        }
        if let Some(hint) = &problem.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
    }
    let text = cli::for_a_terminal(&text);
    // Nobody is left to be told when standard error is closed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
