//! Machines: addresses, users, secrets, host keys.

use super::{Findings, text};
use crate::resources::{HostKeyPolicy, KeySecretRef, Machine, MachineSpec, PasswordSecretRef};

/// Kinds of host keys that an SSH client of today takes.
const KEY_KINDS: [&str; 8] = [
    "ssh-ed25519",
    "ssh-rsa",
    "rsa-sha2-256",
    "rsa-sha2-512",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
];

/// What the machine and the host before it have in common.
struct Login<'a> {
    at: &'a str,
    namespace: Option<&'a str>,
    user: Option<&'a str>,
    port: u16,
    key: Option<&'a KeySecretRef>,
    password: Option<&'a PasswordSecretRef>,
    host_keys: &'a [String],
    policy: Option<HostKeyPolicy>,
}

pub(super) fn check(machine: &Machine, findings: &mut Findings) {
    let spec = &machine.spec;
    let namespace = machine.metadata.namespace.as_deref();
    addresses(spec, findings);
    let login = Login {
        at: "spec",
        namespace,
        user: spec.ssh_user.as_deref(),
        port: spec.ssh_port,
        key: spec.ssh_key_secret_ref.as_ref(),
        password: spec.ssh_password_secret_ref.as_ref(),
        host_keys: &spec.host_keys,
        policy: spec.host_key_policy,
    };
    login.check(findings);
    if let Some(jump) = &spec.jump_host {
        findings.text("spec.jumpHost.hostname", text::host(&jump.hostname));
        let login = Login {
            at: "spec.jumpHost",
            namespace,
            user: jump.ssh_user.as_deref(),
            port: jump.ssh_port,
            key: jump.ssh_key_secret_ref.as_ref(),
            password: jump.ssh_password_secret_ref.as_ref(),
            host_keys: &jump.host_keys,
            policy: jump.host_key_policy,
        };
        login.check(findings);
    }
}

fn addresses(spec: &MachineSpec, findings: &mut Findings) {
    if spec.hostname.is_none() && spec.ip_address.is_none() {
        findings.error("spec", "has neither hostname nor ipAddress: there is no address to connect to");
    }
    for (field, value) in [("spec.hostname", &spec.hostname), ("spec.ipAddress", &spec.ip_address)] {
        if let Some(value) = value {
            findings.text(field, text::host(value));
        }
    }
}

impl Login<'_> {
    fn check(&self, findings: &mut Findings) {
        if let Some(user) = self.user {
            findings.text(self.field("sshUser"), text::account(user));
        }
        if self.port == 0 {
            findings.error(self.field("sshPort"), "is 0; a port is 1 to 65535");
        }
        if let Some(key) = self.key {
            self.secret("sshKeySecretRef", key.name.as_deref(), key.namespace.as_deref(), findings);
        }
        if let Some(password) = self.password {
            self.secret("sshPasswordSecretRef", password.name.as_deref(), password.namespace.as_deref(), findings);
            if let Some(key) = &password.key {
                findings.text(self.field("sshPasswordSecretRef.key"), text::secret_key(key));
            }
        }
        for (index, key) in self.host_keys.iter().enumerate() {
            if let Some(reason) = host_key(key) {
                findings.error_with(
                    self.field(&format!("hostKeys[{index}]")),
                    reason,
                    "`ssh-keyscan -t ed25519 HOST` prints NAME KIND KEY: write the last two, after comparing them on the host",
                );
            }
        }
        self.trust(findings);
    }

    /// A password is shown to whoever answers, so it must be known who that is.
    fn trust(&self, findings: &mut Findings) {
        let pinned = !self.host_keys.is_empty();
        if self.policy == Some(HostKeyPolicy::Strict) && !pinned {
            findings.error(self.field("hostKeyPolicy"), "is Strict, but hostKeys is empty");
        }
        // Beside a key it may do later: a first login with the key pins the host.
        let alone = self.password.is_some() && self.key.is_none();
        if alone && !pinned && self.policy != Some(HostKeyPolicy::TrustOnFirstUse) {
            findings.error_with(
                self.field("sshPasswordSecretRef"),
                "a password is only sent to a host whose key is known",
                "add the key to hostKeys, or set hostKeyPolicy: TrustOnFirstUse",
            );
        }
    }

    fn secret(&self, field: &str, name: Option<&str>, namespace: Option<&str>, findings: &mut Findings) {
        match name {
            Some(name) => findings.text(self.field(&format!("{field}.name")), text::object_name(name)),
            None => findings.error(self.field(&format!("{field}.name")), "is missing"),
        }
        let Some(namespace) = namespace else { return };
        let field = self.field(&format!("{field}.namespace"));
        let checked = text::namespace(namespace);
        let foreign = checked.is_ok() && self.namespace.is_some_and(|own| own != namespace);
        findings.text(field.clone(), checked);
        if foreign {
            findings.warning(
                field,
                format!("is {namespace}, not the Machine's own namespace"),
                "it is refused unless the Secret has the annotation nio.homystack.com/allowed-namespaces with the Machine's namespace",
            );
        }
    }

    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }
}

/// What is wrong with a public key of a host.
fn host_key(line: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (Some(kind), Some(key)) = (words.next(), words.next()) else {
        return Some("is not a kind and a key".to_owned());
    };
    if !KEY_KINDS.contains(&kind) {
        return Some(format!("{kind:?} is not a kind of host key"));
    }
    let encoded = key.trim_end_matches('=');
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if encoded.len() < 32 || key.len() - encoded.len() > 2 || !encoded.bytes().all(base64) || !key.starts_with("AAAA") {
        return Some("the key is not base64 of a public key".to_owned());
    }
    line.chars().any(char::is_control).then(|| "has a control character".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::resources::check::{Finding, Weight, machine};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl web";

    #[expect(clippy::needless_pass_by_value, reason = "json! is written in place")]
    fn findings(spec: Value) -> Vec<Finding> {
        let object = json!({
            "apiVersion": "nio.homystack.com/v1alpha1", "kind": "Machine",
            "metadata": {"name": "web", "namespace": "team-a"}, "spec": spec,
        });
        machine(&serde_json::from_value(object).unwrap())
    }

    #[expect(clippy::needless_pass_by_value, reason = "json! is written in place")]
    #[track_caller]
    fn names(spec: Value, field: &str, weight: Weight) {
        let found = findings(spec.clone());
        assert!(found.iter().any(|finding| finding.field == field && finding.weight == weight), "{spec}: {found:?}");
    }

    #[test]
    fn a_machine_of_either_age_is_fine() {
        assert_eq!(
            findings(json!({"hostname": "web.example.org", "sshUser": "root",
            "sshKeySecretRef": {"name": "key", "namespace": "team-a"}})),
            []
        );
        assert_eq!(
            findings(json!({"ipAddress": "2001:db8::1", "sshPort": 2222, "hostKeys": [KEY],
            "hostKeyPolicy": "Strict", "sshPasswordSecretRef": {"name": "password", "key": "root"},
            "jumpHost": {"hostname": "gate", "sshUser": "jump"}})),
            []
        );
    }

    #[test]
    fn each_field_is_named() {
        names(json!({}), "spec", Weight::Error);
        for (field, value) in [("hostname", "a;reboot"), ("ipAddress", "-oProxyCommand=x"), ("sshUser", "root; true")] {
            let mut spec = json!({"hostname": "web"});
            spec[field] = value.into();
            names(spec, &format!("spec.{field}"), Weight::Error);
        }
        let jump = json!({"hostname": "web", "jumpHost": {"hostname": "$(x)", "sshUser": "-l", "sshPort": 0, "hostKeys": ["x"]}});
        for field in ["hostname", "sshUser", "sshPort", "hostKeys[0]"] {
            names(jump.clone(), &format!("spec.jumpHost.{field}"), Weight::Error);
        }
        names(json!({"hostname": "web", "sshKeySecretRef": {}}), "spec.sshKeySecretRef.name", Weight::Error);
        names(
            json!({"hostname": "web", "sshKeySecretRef": {"name": "../x"}}),
            "spec.sshKeySecretRef.name",
            Weight::Error,
        );
        names(
            json!({"hostname": "web", "sshKeySecretRef": {"name": "key", "namespace": "kube-system"}}),
            "spec.sshKeySecretRef.namespace",
            Weight::Warning,
        );
    }

    #[test]
    fn a_password_wants_a_known_host() {
        let password = json!({"name": "password"});
        names(json!({"hostname": "web", "sshPasswordSecretRef": password}), "spec.sshPasswordSecretRef", Weight::Error);
        names(json!({"hostname": "web", "hostKeyPolicy": "Strict"}), "spec.hostKeyPolicy", Weight::Error);
        let trusted = json!({"hostname": "web", "sshPasswordSecretRef": password, "hostKeyPolicy": "TrustOnFirstUse"});
        assert_eq!(findings(trusted), []);
    }

    #[test]
    fn host_keys_are_keys() {
        for key in [
            "",
            "ssh-ed25519",
            "ssh-dss AAAAB3NzaC1kc3MAAACBAAAAAAAAAAAAAAAAAAAA",
            "web ssh-ed25519 AAAA",
            "ssh-ed25519 x",
        ] {
            names(json!({"hostname": "web", "hostKeys": [key]}), "spec.hostKeys[0]", Weight::Error);
        }
    }
}
