//! Goldens of the whole program: `api/cli.txt`, `api/settings.txt` and `api/metrics.txt`. `cargo xtask goldens` writes them.

use std::path::Path;

use clap::CommandFactory as _;

fn check(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../api").join(name);
    if std::env::var_os("CAIRN_GOLDENS").is_some_and(|word| word == "write") {
        std::fs::write(&path, now).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == now,
        "api/{name} is not what the program says now; cargo xtask goldens writes it, then read the change"
    );
}

fn help(command: &mut clap::Command, path: &str, text: &mut String) {
    let path = if path.is_empty() { command.get_name().to_owned() } else { format!("{path} {}", command.get_name()) };
    text.push_str(&format!("# {path}\n\n{}\n", command.render_long_help()));
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        help(command, &path, text);
    }
}

#[test]
fn the_command_line() {
    let mut text = String::new();
    let mut command = crate::commands::Commands::command().term_width(100);
    command.build();
    help(&mut command, "", &mut text);
    help(&mut crate::metald::command().term_width(100), "", &mut text);
    let tidy: Vec<_> = text.lines().map(str::trim_end).collect();
    check("cli.txt", &(tidy.join("\n") + "\n"));
}

#[test]
fn the_settings() {
    let mut text = String::new();
    for key in crate::config::TABLES.iter().copied().flatten() {
        let default = match key.default {
            Some(default) => format!(" = {default}"),
            None if key.secret => " (secret)".to_owned(),
            None => String::new(),
        };
        text.push_str(&format!("{} {}{default}\n    {}\n", key.name, key.env.join(" "), key.help));
    }
    check("settings.txt", &text);
}

#[test]
fn the_metrics() {
    let mut registry = observe::metrics::Registry::new();
    metal::metrics::Metrics::register(&mut registry);
    registry::metrics::RegistryMetrics::register(&mut registry);
    vm::metrics::VmMetrics::register(&mut registry, false, &vm::api::table::names());
    web::HttpMetrics::register(&mut registry);
    observe::traces::SpanCounters::register(&mut registry);
    registry.process();
    let directory = std::path::PathBuf::from("/");
    registry.disks(vec![observe::metrics::Disk { path: "/var/lib/shoal/tasks".to_owned(), directory }]);
    let (_, text) = registry.render(None);
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    check("metrics.txt", &(families.join("\n") + "\n"));
}
