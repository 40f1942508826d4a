//! `cairn metal server …`

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use cli::{Daemon, Output, read_secret, read_text, segment, usage};
use reqwest::Method;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;
use web::Problem;

use crate::api::view::{ServerList, ServerView};

#[derive(Debug, Subcommand)]
pub enum ServerCommand {
    /// Make a server's record, or change it
    #[command(after_help = "Examples:
  cairn metal server add ABC123 --bmc https://192.0.2.7 --bmc-user root --bmc-password-file pw
  cairn metal server add ABC123 --bmc https://192.0.2.7 --bmc-user root --bmc-password-file pw \\
      --bmc-pin 5f:3a:… --mac 52:54:00:12:34:56 --address 192.0.2.10/24 --gateway 192.0.2.1 --dns 192.0.2.53")]
    Add(Box<Add>),
    /// List servers
    List,
    /// Show a server
    Show {
        /// Serial number
        serial: String,
    },
    /// Remove a server's record; its jobs stay
    Remove {
        /// Serial number
        serial: String,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Args)]
pub struct Add {
    /// Serial number, as BMC and firmware report it
    serial: String,
    /// Address of the BMC: https://host[:port]; a bare host means https
    #[arg(long, value_name = "URL")]
    bmc: String,
    /// Account on the BMC
    #[arg(long, value_name = "USER")]
    bmc_user: String,
    /// File with its password, '-' for standard input; may be left out when the server is known
    #[arg(long, value_name = "FILE")]
    bmc_password_file: Option<PathBuf>,
    /// Check the BMC's certificate against the authorities in this file
    #[arg(long, value_name = "FILE", group = "judgement")]
    bmc_ca: Option<PathBuf>,
    /// Trust the certificate with this SHA-256 and no other
    #[arg(long, value_name = "SHA256", group = "judgement")]
    bmc_pin: Option<String>,
    /// Trust any certificate: whoever is on the way can read the password
    #[arg(long, group = "judgement")]
    bmc_insecure: bool,
    /// Id, UUID or serial of the system, for a BMC that manages several
    #[arg(long, value_name = "ID")]
    bmc_system: Option<String>,
    /// Quirk profile instead of the detected one
    #[arg(long)]
    vendor: Option<String>,
    #[command(flatten)]
    network: NetworkArgs,
    /// Where this server's BMC fetches media
    #[arg(long, value_name = "URL")]
    media_url: Option<Url>,
    /// Where its maintenance OS finds webhook and registry
    #[arg(long, value_name = "URL")]
    callback_url: Option<Url>,
    /// How many slots for virtual media a job uses
    #[arg(long, value_enum, default_value = "auto")]
    slots: SlotsArg,
    /// Boot mode to ask the BMC for
    #[arg(long, value_enum)]
    boot_mode: Option<BootModeArg>,
    /// Label, KEY=VALUE; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Network of the maintenance OS (DHCP on every interface when nothing is said)")]
struct NetworkArgs {
    /// JSON file with the whole network (bond, VLAN, MTU)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mac", "dhcp", "address"])]
    network_file: Option<PathBuf>,
    /// MAC address of the interface
    #[arg(long)]
    mac: Option<String>,
    /// Ask a DHCP server
    #[arg(long, conflicts_with = "address", requires = "mac")]
    dhcp: bool,
    /// Static address with prefix length
    #[arg(long, value_name = "ADDRESS/PREFIX", requires = "mac")]
    address: Option<String>,
    /// Default gateway
    #[arg(long, requires = "address")]
    gateway: Option<IpAddr>,
    /// Name server; may be given more than once
    #[arg(long, requires = "mac")]
    dns: Vec<IpAddr>,
    /// VLAN id
    #[arg(long, requires = "mac")]
    vlan: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SlotsArg {
    Auto,
    One,
    Two,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum BootModeArg {
    Uefi,
    Legacy,
}

pub(super) async fn run(command: ServerCommand, client: &Daemon, output: &Output) -> Result<(), Problem> {
    match command {
        ServerCommand::Add(add) => {
            let path = format!("/api/v1/servers/{}", segment(&add.serial));
            let view: ServerView = client.write(Method::PUT, &path, &body(&add)?).await?;
            if output.json {
                output.json(&view);
            } else {
                output.line(format_args!("server {} recorded (generation {})", view.serial, view.generation));
            }
        }
        ServerCommand::List => list(client, output).await?,
        ServerCommand::Show { serial } => {
            let view: ServerView = client.get(&format!("/api/v1/servers/{}", segment(&serial))).await?;
            if output.json { output.json(&view) } else { show(&view, output) }
        }
        ServerCommand::Remove { serial, dry_run } => {
            let path = format!("/api/v1/servers/{}", segment(&serial));
            if dry_run {
                let view: ServerView = client.get(&path).await?;
                output.line(format_args!("would remove server {} ({})", view.serial, view.spec.bmc.address));
            } else {
                client.send(client.request(Method::DELETE, &path)).await?;
                output.line(format_args!("server {serial} removed"));
            }
        }
    }
    Ok(())
}

async fn list(client: &Daemon, output: &Output) -> Result<(), Problem> {
    let mut servers = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: ServerList = client.get(&format!("/api/v1/servers?limit=1000{cursor}")).await?;
        servers.extend(page.servers);
        match page.next_cursor {
            Some(next) => cursor = format!("&cursor={}", segment(&next)),
            None => break,
        }
    }
    if output.json {
        output.json(&servers);
        return Ok(());
    }
    let rows: Vec<_> = servers
        .iter()
        .map(|server| {
            let status = &server.status;
            [
                server.serial.clone(),
                server.spec.bmc.address.clone(),
                status.vendor.clone().or_else(|| server.spec.vendor.clone()).unwrap_or_default(),
                status.power.clone().unwrap_or_default(),
                status.last_seen.map(|seen| format!("{seen:.0}")).unwrap_or_default(),
            ]
        })
        .collect();
    output.table(["SERIAL", "BMC", "VENDOR", "POWER", "LAST SEEN"], &rows);
    Ok(())
}

fn show(server: &ServerView, output: &Output) {
    let spec = &server.spec;
    output.line(format_args!("serial      {}", server.serial));
    output.line(format_args!("bmc         {} as {}", spec.bmc.address, spec.bmc.username));
    output.line(format_args!(
        "vendor      {}",
        server.status.vendor.as_deref().or(spec.vendor.as_deref()).unwrap_or("not seen yet")
    ));
    let network = match &spec.network {
        Some(network) => serde_json::to_string(network).unwrap_or_default(),
        None => "DHCP on every interface with a link".to_owned(),
    };
    output.line(format_args!("network     {network}"));
    if let (Some(power), Some(seen)) = (&server.status.power, server.status.last_seen) {
        output.line(format_args!("power       {power} (seen {seen:.0})"));
    }
    for (key, value) in &server.labels {
        output.line(format_args!("label       {key}={value}"));
    }
    output.line(format_args!("generation  {} (changed {:.0})", server.generation, server.updated_at));
}

fn body(add: &Add) -> Result<Value, Problem> {
    let mut bmc = json!({ "address": add.bmc, "username": add.bmc_user });
    if let Some(path) = &add.bmc_password_file {
        bmc["password"] = Value::from(read_secret(path)?.expose_secret());
    }
    if let Some(path) = &add.bmc_ca {
        bmc["tls"] = json!({ "mode": "ca", "pem": read_text(path)? });
    } else if let Some(pin) = &add.bmc_pin {
        bmc["tls"] = json!({ "mode": "pin", "sha256": pin });
    } else if add.bmc_insecure {
        bmc["tls"] = json!({ "mode": "insecure" });
    }
    if let Some(system) = &add.bmc_system {
        bmc["system"] = Value::from(system.as_str());
    }
    let mut labels = BTreeMap::new();
    for label in &add.labels {
        let (key, value) = label.split_once('=').ok_or_else(|| usage(format!("{label:?} is no KEY=VALUE")))?;
        labels.insert(key, value);
    }
    let slots = match add.slots {
        SlotsArg::Auto => "auto",
        SlotsArg::One => "one",
        SlotsArg::Two => "two",
    };
    let mut overrides = json!({ "slots": slots });
    if let Some(url) = &add.media_url {
        overrides["media_url"] = Value::from(url.as_str());
    }
    if let Some(url) = &add.callback_url {
        overrides["callback_url"] = Value::from(url.as_str());
    }
    if let Some(mode) = add.boot_mode {
        overrides["boot_mode"] = Value::from(match mode {
            BootModeArg::Uefi => "UEFI",
            BootModeArg::Legacy => "Legacy",
        });
    }
    let mut body = json!({ "bmc": bmc, "overrides": overrides, "labels": labels });
    if let Some(vendor) = &add.vendor {
        body["vendor"] = Value::from(vendor.as_str());
    }
    if let Some(network) = network(&add.network)? {
        body["network"] = network;
    }
    Ok(body)
}

fn network(args: &NetworkArgs) -> Result<Option<Value>, Problem> {
    if let Some(path) = &args.network_file {
        let value = serde_json::from_str(&read_text(path)?)
            .map_err(|error| usage(format!("{} is no JSON: {error}", path.display())))?;
        return Ok(Some(value));
    }
    let Some(mac) = &args.mac else { return Ok(None) };
    let mut network = json!({ "mac": mac });
    match &args.address {
        Some(address) => network["address"] = Value::from(address.as_str()),
        None => network["dhcp"] = Value::from(true),
    }
    if let Some(gateway) = args.gateway {
        network["gateway"] = Value::from(gateway.to_string());
    }
    if !args.dns.is_empty() {
        network["dns"] = args.dns.iter().map(ToString::to_string).collect();
    }
    if let Some(vlan) = args.vlan {
        network["vlan"] = Value::from(vlan);
    }
    Ok(Some(network))
}
