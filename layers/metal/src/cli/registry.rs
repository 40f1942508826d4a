//! `cairn metal registry …`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use cli::{Daemon, Output, read_secret, read_text, segment};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use web::Problem;

use crate::pull_registry::{PullRegistryList, PullRegistryView};

#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Record how to pull from a registry, or change it
    #[command(after_help = "Examples:
  cairn metal registry add registry.example:5000 --pull-user installer --pull-password-file pw
  cairn metal registry add registry.example --ca registry-ca.pem

The account goes to every machine that is installed from there: let it pull, and nothing else.")]
    Add(Add),
    /// List registries
    List,
    /// Show a registry
    Show {
        /// host[:port]
        host: String,
    },
    /// Remove a registry's record
    Remove {
        /// host[:port]
        host: String,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct Add {
    /// host[:port], as it stands in a recipe's oci_url
    host: String,
    /// Account that may pull
    #[arg(long, value_name = "USER", requires = "pull_password_file")]
    pull_user: Option<String>,
    /// File with its password or token, '-' for standard input
    #[arg(long, value_name = "FILE", requires = "pull_user")]
    pull_password_file: Option<PathBuf>,
    /// Check the registry's certificate against the authorities in this file instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

pub(super) async fn run(command: RegistryCommand, client: &Daemon, output: &Output) -> Result<(), Problem> {
    match command {
        RegistryCommand::Add(add) => {
            let view: PullRegistryView = client.write(Method::PUT, &path(&add.host), &body(&add)?).await?;
            if output.json {
                output.json(&view);
            } else {
                output.line(format_args!("registry {} recorded", view.host));
            }
        }
        RegistryCommand::List => {
            let list: PullRegistryList = client.get("/api/v1/registries").await?;
            if output.json {
                output.json(&list.registries);
            } else {
                let rows: Vec<_> = list.registries.into_iter().map(row).collect();
                output.table(["HOST", "ACCOUNT", "CERTIFICATE", "CHANGED"], &rows);
            }
        }
        RegistryCommand::Show { host } => {
            let view: PullRegistryView = client.get(&path(&host)).await?;
            if output.json { output.json(&view) } else { show(view, output) }
        }
        RegistryCommand::Remove { host, dry_run } => {
            if dry_run {
                let view: PullRegistryView = client.get(&path(&host)).await?;
                output.line(format_args!("would remove registry {}", view.host));
            } else {
                client.send(client.request(Method::DELETE, &path(&host))).await?;
                output.line(format_args!("registry {host} removed"));
            }
        }
    }
    Ok(())
}

fn path(host: &str) -> String {
    format!("/api/v1/registries/{}", segment(host))
}

fn body(add: &Add) -> Result<Value, Problem> {
    let mut body = json!({});
    if let (Some(user), Some(file)) = (&add.pull_user, &add.pull_password_file) {
        body["username"] = Value::from(user.as_str());
        body["password"] = Value::from(read_secret(file)?.expose_secret());
    }
    if let Some(file) = &add.ca {
        body["ca_pem"] = Value::from(read_text(file)?);
    }
    Ok(body)
}

fn row(view: PullRegistryView) -> [String; 4] {
    let judgement = if view.ca_pem.is_some() { "own authority" } else { "system's authorities" };
    let account = view.username.unwrap_or_else(|| "anonymous".to_owned());
    [view.host, account, judgement.to_owned(), format!("{:.0}", view.updated_at)]
}

fn show(view: PullRegistryView, output: &Output) {
    let [host, account, judgement, changed] = row(view);
    for (name, value) in [("host", host), ("account", account), ("certificate", judgement), ("changed", changed)] {
        output.line(format_args!("{name:<12}{value}"));
    }
}
