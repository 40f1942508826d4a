//! What objects of an inventory say about each other.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::ObjectMeta;

use super::schema::did_you_mean;
use super::{Entry, Inventory, Place, Problem, Secret};
use crate::resources::check::may_use;
use crate::resources::{
    KeySecretRef, Machine, NixosConfiguration, PASSWORD, PasswordSecretRef, SSH_PRIVATE_KEY, TOKEN,
};

/// What can be referred to, by namespace and name.
struct Index<'a> {
    machines: BTreeSet<(&'a str, &'a str)>,
    secrets: BTreeMap<(&'a str, &'a str), &'a Secret>,
}

impl<'a> Index<'a> {
    fn new(inventory: &'a Inventory) -> Self {
        Self {
            machines: inventory.machines.iter().map(|entry| key_of(&entry.object.metadata)).collect(),
            secrets: inventory.secrets.iter().map(|entry| (key_of(&entry.object.metadata), &entry.object)).collect(),
        }
    }
}

fn key_of(metadata: &ObjectMeta) -> (&str, &str) {
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

/// An object that refers to others.
struct From<'a> {
    index: &'a Index<'a>,
    place: &'a Place,
    title: String,
    namespace: &'a str,
}

/// Finds references that lead nowhere, and machines that two configurations want.
pub(super) fn check(inventory: &Inventory, problems: &mut Vec<Problem>) {
    let index = &Index::new(inventory);
    for entry in &inventory.machines {
        machine(index, entry, problems);
    }
    let mut taken: BTreeMap<(&str, &str), &Entry<NixosConfiguration>> = BTreeMap::new();
    for entry in &inventory.configurations {
        let from = From::new(index, &entry.place, "NixosConfiguration", &entry.object.metadata);
        configuration(&from, &entry.object, problems);
        let Some(machine) = &entry.object.spec.machine_ref else { continue };
        if let Some(other) = taken.insert((from.namespace, &machine.name), entry) {
            let name = other.object.metadata.name.as_deref().unwrap_or_default();
            let reason = format!("is the machine of {name} at {} already", other.place);
            from.problem(problems, "spec.machineRef.name", reason, Some("a machine has one configuration".to_owned()));
        }
    }
}

fn machine(index: &Index<'_>, entry: &Entry<Machine>, problems: &mut Vec<Problem>) {
    let from = From::new(index, &entry.place, "Machine", &entry.object.metadata);
    let spec = &entry.object.spec;
    from.key(problems, "spec.sshKeySecretRef", spec.ssh_key_secret_ref.as_ref());
    from.password(problems, "spec.sshPasswordSecretRef", spec.ssh_password_secret_ref.as_ref());
    if let Some(jump) = &spec.jump_host {
        from.key(problems, "spec.jumpHost.sshKeySecretRef", jump.ssh_key_secret_ref.as_ref());
        from.password(problems, "spec.jumpHost.sshPasswordSecretRef", jump.ssh_password_secret_ref.as_ref());
    }
}

fn configuration(from: &From<'_>, object: &NixosConfiguration, problems: &mut Vec<Problem>) {
    let spec = &object.spec;
    for (field, reference) in [("spec.machineRef.name", &spec.machine_ref), ("spec.builderRef.name", &spec.builder_ref)]
    {
        let Some(reference) = reference else { continue };
        if !from.index.machines.contains(&(from.namespace, reference.name.as_str())) {
            let here = from.index.machines.iter().filter(|(namespace, _)| *namespace == from.namespace);
            let names = here.map(|(_, name)| *name);
            let hint = did_you_mean(&reference.name, names);
            let reason = format!("there is no Machine {} in the namespace {}", reference.name, from.namespace);
            from.problem(problems, field, reason, hint);
        }
    }
    if let Some(reference) = &spec.credentials_ref
        && let Some(secret) = from.secret(problems, "spec.credentialsRef", Some(&reference.name), None)
        && [SSH_PRIVATE_KEY, TOKEN].iter().all(|key| secret.bytes(key).is_none())
    {
        let reason = format!("the Secret {} has neither {SSH_PRIVATE_KEY} nor {TOKEN}", reference.name);
        from.problem(problems, "spec.credentialsRef", reason, None);
    }
    for (index, file) in spec.additional_files.iter().enumerate() {
        let field = format!("spec.additionalFiles[{index}].secretRef");
        let Some(reference) = &file.secret_ref else { continue };
        let Some(secret) = from.secret(problems, &field, Some(&reference.name), None) else { continue };
        match &reference.key {
            Some(key) => from.has(problems, &field, secret, key),
            None if secret.keys().count() == 1 => {}
            None => {
                let keys = secret.keys().collect::<Vec<_>>().join(", ");
                let reason = format!("the Secret {} has the keys {keys}; key has to say which", reference.name);
                from.problem(problems, &field, reason, None);
            }
        }
    }
}

impl<'a> From<'a> {
    fn new(index: &'a Index<'a>, place: &'a Place, kind: &str, metadata: &'a ObjectMeta) -> Self {
        let (namespace, name) = key_of(metadata);
        Self { index, place, title: format!("{kind} {name}"), namespace }
    }

    fn problem(&self, problems: &mut Vec<Problem>, field: &str, reason: String, hint: Option<String>) {
        let (place, object) = (self.place.clone(), self.title.clone());
        problems.push(Problem { place, object, field: field.to_owned(), reason, hint });
    }

    fn key(&self, problems: &mut Vec<Problem>, field: &str, reference: Option<&KeySecretRef>) {
        let Some(KeySecretRef { name, namespace }) = reference else { return };
        if let Some(secret) = self.secret(problems, field, name.as_deref(), namespace.as_deref()) {
            self.has(problems, field, secret, SSH_PRIVATE_KEY);
        }
    }

    fn password(&self, problems: &mut Vec<Problem>, field: &str, reference: Option<&PasswordSecretRef>) {
        let Some(PasswordSecretRef { name, namespace, key }) = reference else { return };
        if let Some(secret) = self.secret(problems, field, name.as_deref(), namespace.as_deref()) {
            self.has(problems, field, secret, key.as_deref().unwrap_or(PASSWORD));
        }
    }

    /// The Secret of a reference, if it is there and may be used from here.
    fn secret(
        &self,
        problems: &mut Vec<Problem>,
        field: &str,
        name: Option<&str>,
        namespace: Option<&str>,
    ) -> Option<&'a Secret> {
        let (name, namespace) = (name?, namespace.unwrap_or(self.namespace));
        let Some(secret) = self.index.secrets.get(&(namespace, name)).copied() else {
            self.problem(problems, field, format!("there is no Secret {name} in the namespace {namespace}"), None);
            return None;
        };
        if let Err(finding) = may_use(self.namespace, field, &secret.metadata) {
            self.problem(problems, field, finding.reason, finding.hint);
            return None;
        }
        Some(secret)
    }

    fn has(&self, problems: &mut Vec<Problem>, field: &str, secret: &Secret, key: &str) {
        if secret.bytes(key).is_none() {
            let hint = did_you_mean(key, secret.keys());
            self.problem(problems, field, format!("the Secret {} has no {key}", secret.name()), hint);
        }
    }
}
