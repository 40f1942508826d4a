//! `cairn vm token …`

use clap::{ArgGroup, Subcommand};
use cli::{Daemon, Output, segment};
use reqwest::Method;
use serde_json::{Value, json};
use web::Problem;

use super::view::{list, text, time};
use crate::model::CustomerId;

/// Commands about tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; it is shown this once, and only its hash is kept
    #[command(
        group = ArgGroup::new("role").required(true).args(["customer", "operator"]),
        after_help = "Examples:
  cairn vm token create --customer acme --name ci
  export CAIRN_TOKEN=$(cairn vm token create --operator --name backup)

A customer sees and changes its own VMs. An operator sees all of them, and assets, tokens and the host. The first operator's
token is in the daemon's data directory, in operator.token."
    )]
    Create {
        /// For this customer
        #[arg(long, value_name = "NAME")]
        customer: Option<CustomerId>,
        /// For somebody who works on this host
        #[arg(long)]
        operator: bool,
        /// What it is for [default: the customer's name, or operator]
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
    },
    /// List tokens; none is shown
    #[command(after_help = "Example:
  cairn vm token list")]
    List,
    /// Take a token back, at once
    #[command(after_help = "Example:
  cairn vm token revoke 3f2a9c51")]
    Revoke {
        /// Its id, as lists show it
        id: String,
    },
}

pub(super) async fn run(command: TokenCommand, daemon: &Daemon, output: &Output) -> Result<(), Problem> {
    match command {
        TokenCommand::Create { customer, operator, name } => {
            let role = if operator { "operator" } else { "customer" };
            let name = name.unwrap_or_else(|| customer.as_ref().map_or(role, CustomerId::as_str).to_owned());
            let body = json!({ "customer_id": customer, "name": name, "role": role });
            let made: Value = daemon.write(Method::POST, "/v1/tokens", &body).await?;
            if output.json {
                output.json(&made);
            } else {
                // Alone on its line: it is read by scripts.
                output.line(text(&made["token"]));
                output.note(format_args!("token {}: it is not shown again", text(&made["id"])));
            }
        }
        TokenCommand::List => {
            let answer: Value = daemon.get("/v1/tokens").await?;
            let tokens = list(&answer, "tokens");
            if output.json {
                output.json(&tokens);
                return Ok(());
            }
            let rows: Vec<_> = tokens
                .iter()
                .map(|token| {
                    let word = |name: &str| text(&token[name]);
                    let at = |name: &str| time(&token[name]);
                    [word("id"), word("role"), word("customer_id"), word("name"), at("created_at"), at("last_used_at")]
                })
                .collect();
            output.table(["ID", "ROLE", "CUSTOMER", "NAME", "CREATED", "LAST USED"], &rows);
        }
        TokenCommand::Revoke { id } => {
            daemon.send(daemon.request(Method::DELETE, &format!("/v1/tokens/{}", segment(&id)))).await?;
            if output.json {
                output.json(&json!({ "id": id, "revoked": true }));
            } else {
                output.line(format_args!("token {id} is revoked"));
            }
        }
    }
    Ok(())
}
