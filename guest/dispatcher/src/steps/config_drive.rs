//! `step config-drive`: user data for cloud-init's NoCloud data source, on a partition labelled cidata or, without
//! one, in the seed directory of the root file system.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use host::{Mount, sync_file_system, write_atomic};
use recipe::network::Network;
use recipe::roles;
use serde_json::{Value, json};

use super::Context;
use super::target::{MountedTarget, Others, clear, make_directory, prepared};
use crate::disks::partition_device;
use crate::failure::{Failure, code};

/// Where NoCloud looks without a drive (cloud-init, "NoCloud").
const SEED: &str = "var/lib/cloud/seed/nocloud";

pub(super) fn run(context: &Context<'_>) -> Result<String, Failure> {
    let Some(user_data) = context.workspace.read("user-data")? else {
        return Ok("the recipe has no user data".to_owned());
    };
    let disk = prepared(context)?;
    let serial = context.workspace.workflow()?.serial;
    let hostname = context.recipe.variable("HOSTNAME").unwrap_or(&serial);
    let network = context.workspace.network()?;
    let files = files(&context.callback.job_id.to_string(), hostname, network.as_ref(), user_data);
    let roles = roles(&disk.placements);
    match roles.cidata {
        Some(placement) => {
            let device = partition_device(&disk.device, placement.index);
            let directory = &context.paths.cidata;
            make_directory(directory)?;
            clear(context.host, directory)?;
            let mount = Mount::new(&device, directory, placement.format.as_str());
            context.host.mount(&mount).map_err(Failure::of(code::MOUNT_FAILED))?;
            let written = write_files(directory, &files);
            clear(context.host, directory)?;
            written?;
            Ok(format!("config drive on {device}"))
        }
        None => {
            let target = MountedTarget::mount(context, &disk, Others::ThatKeepOwners)?;
            let directory = target.root().join(SEED);
            make_directory(&directory)?;
            write_files(&directory, &files)?;
            let has_cloud_init = target.root().join("usr/bin/cloud-init").exists();
            target.unmount()?;
            let warning = if has_cloud_init { "" } else { "; the new system has no cloud-init to read it" };
            Ok(format!("user data in /{SEED}{warning}"))
        }
    }
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn files(job: &str, hostname: &str, network: Option<&Network>, user_data: Vec<u8>) -> Files {
    let meta_data = format!("instance-id: {job}\nlocal-hostname: {}\n", sanitised(hostname));
    let mut files = vec![("meta-data", meta_data.into_bytes()), ("user-data", user_data)];
    if let Some(network) = network.filter(|network| network.address.is_some()) {
        // JSON is YAML as well.
        let text = serde_json::to_vec_pretty(&network_config(network)).unwrap_or_default();
        files.push(("network-config", text));
    }
    files
}

/// The same connection for the installed system (cloud-init, "Networking config Version 2").
fn network_config(network: &Network) -> Value {
    let mut ethernets = serde_json::Map::new();
    let members: Vec<String> = (0..network.macs().len()).map(|index| format!("nic{index}")).collect();
    for (name, mac) in members.iter().zip(network.macs()) {
        ethernets.insert(name.clone(), json!({"match": {"macaddress": mac.to_lowercase()}}));
    }
    let mut own = json!({"addresses": [network.address]});
    if let Some(gateway) = network.gateway {
        let to = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        own["routes"] = json!([{"to": to, "via": gateway, "on-link": true}]);
    }
    if !network.dns.is_empty() {
        own["nameservers"] = json!({"addresses": network.dns});
    }
    if let Some(mtu) = network.mtu {
        own["mtu"] = json!(mtu);
    }
    let mut config = json!({"version": 2});
    let mut lower = "nic0";
    if let Some(bond) = &network.bond {
        lower = "bond0";
        let parameters = json!({"mode": bond.mode, "mii-monitor-interval": 100});
        config["bonds"] = json!({"bond0": {"interfaces": members, "parameters": parameters}});
    }
    match network.vlan {
        Some(id) => {
            own["id"] = json!(id);
            own["link"] = json!(lower);
            config["vlans"] = json!({format!("vlan{id}"): own});
        }
        None if network.bond.is_some() => merge(&mut config["bonds"]["bond0"], own),
        None => {
            let mut nic = ethernets.remove(lower).unwrap_or_default();
            merge(&mut nic, own);
            ethernets.insert(lower.to_owned(), nic);
        }
    }
    config["ethernets"] = Value::Object(ethernets);
    config
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// A name that may be a host name (RFC 1123): other letters become dashes.
fn sanitised(name: &str) -> String {
    let dashed: String = name
        .to_lowercase()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' })
        .take(63)
        .collect();
    let trimmed = dashed.trim_matches(['-', '.']);
    if trimmed.is_empty() { "localhost".to_owned() } else { trimmed.to_owned() }
}

fn write_files(directory: &Path, files: &Files) -> Result<(), Failure> {
    for (name, contents) in files {
        write_atomic(&directory.join(name), contents, 0o600).map_err(Failure::of(code::CONFIG_DRIVE_FAILED))?;
    }
    // FAT has no modes; there the mount decides.
    let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    sync_file_system(directory).map_err(Failure::of(code::CONFIG_DRIVE_FAILED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_host_names() {
        for (given, expected) in [
            ("Node_7", "node-7"),
            ("SN 123/45", "sn-123-45"),
            ("a.example", "a.example"),
            ("--", "localhost"),
            ("x\ny: z", "x-y--z"),
        ] {
            assert_eq!(sanitised(given), expected);
        }
        assert_eq!(sanitised(&"a".repeat(80)).len(), 63);
    }

    #[test]
    fn only_a_static_network_goes_along() {
        let network = |json: &str| serde_json::from_str::<Network>(json).unwrap();
        let names = |network: Option<&Network>| {
            files("j", "h", network, b"x".to_vec()).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["meta-data", "user-data"]);
        assert_eq!(names(Some(&network(r#"{"mac": "52:54:00:00:00:01", "dhcp": true}"#))), ["meta-data", "user-data"]);
        let fixed = network(
            r#"{"mac": "52:54:00:AA:00:01", "address": "192.0.2.10/24", "gateway": "192.0.2.1", "dns": ["192.0.2.53"], "vlan": 5}"#,
        );
        assert_eq!(names(Some(&fixed)), ["meta-data", "user-data", "network-config"]);
        let expected = json!({
            "version": 2,
            "vlans": {"vlan5": {
                "addresses": ["192.0.2.10/24"],
                "routes": [{"to": "0.0.0.0/0", "via": "192.0.2.1", "on-link": true}],
                "nameservers": {"addresses": ["192.0.2.53"]},
                "id": 5, "link": "nic0"
            }},
            "ethernets": {"nic0": {"match": {"macaddress": "52:54:00:aa:00:01"}}}
        });
        assert_eq!(network_config(&fixed), expected);
        let bond = network(
            r#"{"bond": {"mode": "802.3ad", "macs": ["52:54:00:00:00:01", "52:54:00:00:00:02"]}, "address": "192.0.2.10/24"}"#,
        );
        let config = network_config(&bond);
        assert_eq!(config["bonds"]["bond0"]["interfaces"], json!(["nic0", "nic1"]));
        assert_eq!(config["bonds"]["bond0"]["addresses"], json!(["192.0.2.10/24"]));
    }
}
