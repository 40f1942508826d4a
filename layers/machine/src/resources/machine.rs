//! `Machine`: a host, and how it is reached.

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Condition, HostKeyPolicy, KeySecretRef, PasswordSecretRef};

/// How a host is reached. Nothing here says what it runs: that is a `NixosConfiguration`.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "nio.homystack.com",
    version = "v1alpha1",
    kind = "Machine",
    namespaced,
    status = "MachineStatus",
    shortname = "mach",
    derive = "PartialEq",
    doc = "A NixOS host that is reached by SSH.",
    printcolumn = r#"{"name":"Hostname","type":"string","jsonPath":".spec.hostname"}"#,
    printcolumn = r#"{"name":"IP Address","type":"string","jsonPath":".spec.ipAddress"}"#,
    printcolumn = r#"{"name":"Discoverable","type":"boolean","jsonPath":".status.discoverable"}"#,
    printcolumn = r#"{"name":"Has Config","type":"boolean","jsonPath":".status.hasConfiguration"}"#,
    printcolumn = r#"{"name":"Applied Config","type":"string","jsonPath":".status.appliedConfiguration"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.hostname) || has(self.ipAddress)",
     "message": "hostname or ipAddress is needed: there is no address to connect to"},
    {"rule": "!has(self.hostKeyPolicy) || self.hostKeyPolicy != 'Strict' || (has(self.hostKeys) && size(self.hostKeys) > 0)",
     "message": "hostKeyPolicy Strict needs hostKeys"},
]))]
pub struct MachineSpec {
    /// Name or address of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,
    /// Address of the host; goes before `hostname` for everything that is done with the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub ip_address: Option<String>,
    /// Who logs in; `root` without it. Anybody else needs sudo without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub ssh_user: Option<String>,
    /// Port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub ssh_port: u16,
    /// The private key to log in with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key_secret_ref: Option<KeySecretRef>,
    /// The password to log in with where there is no usable key. It is only sent to a host whose key is in `hostKeys`,
    /// or was trusted on first use because `hostKeyPolicy` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_password_secret_ref: Option<PasswordSecretRef>,
    /// Public keys of the host, as in a known_hosts file without the name: `ssh-ed25519 AAAA…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 4096)))]
    pub host_keys: Vec<String>,
    /// Which host keys are believed. Without it: those in `hostKeys`, or the first one seen where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key_policy: Option<HostKeyPolicy>,
    /// A host that the connection goes through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jump_host: Option<JumpHost>,
    /// Nothing is done with the machine while this is set: no probe, no scan, no change.
    #[serde(default)]
    pub suspend: bool,
}

/// A host that the connection goes through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.hostKeyPolicy) || self.hostKeyPolicy != 'Strict' || (has(self.hostKeys) && size(self.hostKeys) > 0)",
     "message": "hostKeyPolicy Strict needs hostKeys"},
]))]
pub struct JumpHost {
    /// Name or address of the host.
    #[schemars(length(min = 1, max = 253))]
    pub hostname: String,
    /// Who logs in; `root` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub ssh_user: Option<String>,
    /// Port of the SSH server.
    #[serde(default = "ssh_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub ssh_port: u16,
    /// The private key to log in with; the machine's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_key_secret_ref: Option<KeySecretRef>,
    /// The password to log in with, as for the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_password_secret_ref: Option<PasswordSecretRef>,
    /// Public keys of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 4096)))]
    pub host_keys: Vec<String>,
    /// Which host keys are believed, as for the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key_policy: Option<HostKeyPolicy>,
}

/// What is known of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
pub struct MachineStatus {
    /// The generation of the object that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Whether the last login succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discoverable: Option<bool>,
    /// When the last login was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<Timestamp>,
    /// Whether a configuration has been applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_configuration: Option<bool>,
    /// Name of the NixosConfiguration that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub applied_configuration: Option<String>,
    /// The commit that was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub applied_commit: Option<String>,
    /// When it was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_applied_time: Option<Timestamp>,
    /// What the host runs now: the target of `/run/current-system`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub current_system: Option<String>,
    /// Whether what was booted differs from what runs in its kernel, initrd or modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_required: Option<bool>,
    /// What the hardware scan found, in the shape of the upstream operator: groups of strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub hardware_facts: Option<Map<String, Value>>,
    /// The same with numbers as numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<Hardware>,
    /// The report of nixos-facter where the host has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-preserve-unknown-fields" = true))]
    pub nix_facter_result: Option<Map<String, Value>>,
    /// When the hardware was last scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hardware_scan_time: Option<Timestamp>,
    /// The host key that is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_key: Option<SeenHostKey>,
    /// The value of the annotation `nio.homystack.com/requestedAt` that was last acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub last_handled_reconcile_at: Option<String>,
    /// Observations, one for each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,
}

/// A host key that is believed from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenHostKey {
    /// The public key: `ssh-ed25519 AAAA…`.
    #[schemars(length(max = 4096))]
    pub key: String,
    /// Its fingerprint: `SHA256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub fingerprint: Option<String>,
    /// Why it is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<HostKeySource>,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Timestamp>,
}

/// Why a host key is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HostKeySource {
    /// It is in `spec.hostKeys`.
    Pinned,
    /// It was the first one seen.
    FirstUse,
}

/// Hardware of a host. What could not be found out is not there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// Machine hardware name: `x86_64`, `aarch64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub architecture: Option<String>,
    /// Release of the running kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub kernel_version: Option<String>,
    /// `ID` of os-release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub os_id: Option<String>,
    /// `PRETTY_NAME` of os-release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub os_name: Option<String>,
    /// Version of Nix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub nix_version: Option<String>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What the host is virtualised by; `none` on bare metal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub virtualization: Option<String>,
    /// Serial number of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub serial: Option<String>,
    /// UUID of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub uuid: Option<String>,
    /// Disks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub disks: Vec<Disk>,
    /// Network interfaces that are up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub interfaces: Vec<Interface>,
}

/// Processors of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cpu {
    /// Name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// Processors that the kernel uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
}

/// A disk of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Name of the kernel: `nvme0n1`.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Size in bytes. The scan rounds down to whole units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
}

/// A network interface of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Name of the kernel: `eth0`.
    #[schemars(length(max = 64))]
    pub name: String,
    /// Its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 64)))]
    pub addresses: Vec<String>,
}

fn ssh_port() -> u16 {
    22
}

impl MachineSpec {
    /// The address that everything connects to: `ipAddress`, else `hostname`.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        self.ip_address.as_deref().or(self.hostname.as_deref()).filter(|address| !address.is_empty())
    }

    /// Who logs in.
    #[must_use]
    pub fn user(&self) -> &str {
        self.ssh_user.as_deref().unwrap_or("root")
    }
}

impl Machine {
    /// Whether the machine is meant by a tag: `KEY=VALUE` is a label with that value, `KEY` a label with any value but
    /// `false`. A leading `@` is allowed.
    #[must_use]
    pub fn has_tag(&self, tag: &str) -> bool {
        let tag = tag.strip_prefix('@').unwrap_or(tag);
        let labels = self.metadata.labels.iter().flatten();
        match tag.split_once('=') {
            Some((key, value)) => labels.into_iter().any(|label| (label.0.as_str(), label.1.as_str()) == (key, value)),
            None => labels.into_iter().any(|(key, value)| key == tag && value != "false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Machine;

    #[test]
    fn the_address_goes_before_the_name() {
        let machine: Machine = serde_json::from_value(json!({
            "apiVersion": "nio.homystack.com/v1alpha1", "kind": "Machine",
            "metadata": {"name": "web", "labels": {"role": "web", "edge": "", "old": "false"}},
            "spec": {"hostname": "web.example.org", "ipAddress": "2001:db8::1"},
        }))
        .unwrap();
        assert_eq!(machine.spec.address(), Some("2001:db8::1"));
        assert_eq!((machine.spec.user(), machine.spec.ssh_port), ("root", 22));
        for (tag, has) in
            [("@role=web", true), ("role", true), ("edge", true), ("@old", false), ("role=db", false), ("x", false)]
        {
            assert_eq!(machine.has_tag(tag), has, "{tag}");
        }
    }
}
