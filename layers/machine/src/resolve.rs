//! From the objects that users write to what the engine takes: every reference is followed, every text becomes what it
//! means. The same for a file's objects and a cluster's.

use std::path::Path;
use std::time::Duration;

use reach::git::{Credentials, Protocol, Repository};
use reach::ssh::{HostKey, HostKeys, Login, Target};
use secrecy::{ExposeSecret as _, SecretString};

use crate::inventory::{Inventory, Secret};
use crate::model::{Delivery, Desired, File, HealthCheck, Invalid, Limits, MachineName, Origin, Placement, Probe};
use crate::resources::check::may_use;
use crate::resources::{
    AdditionalFile, BuildOn, CheckFrom, Delivery as Where, FileSource, HealthCheck as Check, HostKeyPolicy,
    KeySecretRef, Machine, NixosConfiguration, PASSWORD, PasswordSecretRef, SSH_PASSPHRASE, SSH_PRIVATE_KEY, TOKEN,
};

/// How long connecting and logging in may take.
const CONNECT: Duration = Duration::from_secs(20);

/// A reference or a value of an object cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {reason}")]
pub struct Error {
    /// Which object: `Machine default/web`.
    pub object: String,
    /// Which field.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

/// Where Secrets are.
pub trait Secrets {
    /// The Secret of this name, if there is one.
    fn secret(&self, namespace: &str, name: &str) -> Option<&Secret>;
}

impl Secrets for Inventory {
    fn secret(&self, namespace: &str, name: &str) -> Option<&Secret> {
        Inventory::secret(self, namespace, name)
    }
}

/// What is known beside the objects.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// The host key that was trusted when the machine was first seen.
    pub host_key: Option<String>,
    /// A private key for machines that name none.
    pub key: Option<&'a SecretString>,
    /// Whether a host key that nobody named is refused.
    pub strict: bool,
}

/// One object that refers to others.
struct From<'a, S> {
    secrets: &'a S,
    object: String,
    namespace: &'a str,
}

impl<S: Secrets> From<'_, S> {
    fn error(&self, field: &str, reason: impl Into<String>) -> Error {
        Error { object: self.object.clone(), field: field.to_owned(), reason: reason.into() }
    }

    fn invalid(&self, field: &str) -> impl Fn(Invalid) -> Error + '_ {
        let field = field.to_owned();
        move |invalid| self.error(&field, invalid.to_string())
    }

    /// A Secret that may be used from here.
    fn secret(&self, field: &str, namespace: Option<&str>, name: Option<&str>) -> Result<&Secret, Error> {
        let namespace = namespace.unwrap_or(self.namespace);
        let name = name.ok_or_else(|| self.error(field, "names no Secret"))?;
        let missing = || self.error(field, format!("there is no Secret {name} in the namespace {namespace}"));
        let secret = self.secrets.secret(namespace, name).ok_or_else(missing)?;
        may_use(self.namespace, field, &secret.metadata).map_err(|finding| self.error(field, finding.reason))?;
        Ok(secret)
    }

    fn text(&self, field: &str, secret: &Secret, key: &str) -> Result<SecretString, Error> {
        let missing = || self.error(field, format!("the Secret {} has no text under {key}", secret.name()));
        secret.text(key).ok_or_else(missing)
    }

    fn key(&self, field: &str, reference: &KeySecretRef) -> Result<Login, Error> {
        let secret = self.secret(field, reference.namespace.as_deref(), reference.name.as_deref())?;
        Ok(Login::Key { pem: self.text(field, secret, SSH_PRIVATE_KEY)?, passphrase: secret.text(SSH_PASSPHRASE) })
    }

    fn password(&self, field: &str, reference: &PasswordSecretRef) -> Result<Login, Error> {
        let secret = self.secret(field, reference.namespace.as_deref(), reference.name.as_deref())?;
        Ok(Login::Password(self.text(field, secret, reference.key.as_deref().unwrap_or(PASSWORD))?))
    }

    fn host_keys(
        &self,
        field: &str,
        named: &[String],
        policy: Option<HostKeyPolicy>,
        known: &Known<'_>,
    ) -> Result<HostKeys, Error> {
        let named: Vec<&str> = if named.is_empty() {
            known.host_key.as_deref().into_iter().collect()
        } else {
            named.iter().map(String::as_str).collect()
        };
        if !named.is_empty() {
            let parsed = named.iter().map(|line| line.parse::<HostKey>());
            let keys: Result<Vec<_>, _> = parsed.collect();
            return keys.map(HostKeys::Pinned).map_err(|error| self.error(field, error.to_string()));
        }
        match policy {
            Some(HostKeyPolicy::Strict) => Err(self.error(field, "hostKeyPolicy Strict needs hostKeys")),
            _ if known.strict => Err(self.error(field, "no host key is known, and none is trusted on first use")),
            Some(HostKeyPolicy::TrustOnFirstUse) => Ok(HostKeys::TrustFirstWithPassword),
            None => Ok(HostKeys::TrustFirst),
        }
    }

    /// The Machine's key, then its password, then the key of whoever calls; never an agent, never a file of the user's.
    fn login(
        &self,
        prefix: &str,
        key: Option<&KeySecretRef>,
        password: Option<&PasswordSecretRef>,
        fallback: impl FnOnce() -> Option<Login>,
    ) -> Result<Login, Error> {
        match (key, password) {
            (Some(key), _) => self.key(&format!("{prefix}.sshKeySecretRef"), key),
            (None, Some(password)) => self.password(&format!("{prefix}.sshPasswordSecretRef"), password),
            (None, None) => fallback().ok_or_else(|| {
                self.error(&format!("{prefix}.sshKeySecretRef"), "is missing, and no other key is given")
            }),
        }
    }
}

/// The name of a machine's object.
///
/// # Errors
/// It has none that Kubernetes would take.
pub fn name(machine: &Machine) -> Result<MachineName, Error> {
    let (namespace, name) = (machine.metadata.namespace.as_deref(), machine.metadata.name.as_deref());
    MachineName::new(namespace.unwrap_or("default"), name.unwrap_or_default()).map_err(|error| Error {
        object: "Machine".to_owned(),
        field: "metadata.name".to_owned(),
        reason: error.to_string(),
    })
}

/// How a machine is reached.
///
/// # Errors
/// Which field cannot be used.
pub fn target(secrets: &impl Secrets, machine: &Machine, known: &Known<'_>) -> Result<Target, Error> {
    let name = name(machine)?;
    let from = From { secrets, object: format!("Machine {name}"), namespace: name.namespace() };
    let spec = &machine.spec;
    let host = spec.address().ok_or_else(|| from.error("spec.hostname", "is missing: there is no address"))?;
    let own = || known.key.map(|pem| Login::Key { pem: pem.clone(), passphrase: None });
    let login = from.login("spec", spec.ssh_key_secret_ref.as_ref(), spec.ssh_password_secret_ref.as_ref(), own)?;
    let jump = match &spec.jump_host {
        None => None,
        Some(jump) => {
            let login = from.login(
                "spec.jumpHost",
                jump.ssh_key_secret_ref.as_ref(),
                jump.ssh_password_secret_ref.as_ref(),
                || Some(login.clone()),
            )?;
            // What is known is the machine's key; a jump host has its own.
            let known = Known { strict: known.strict, ..Known::default() };
            let field = "spec.jumpHost.hostKeys";
            Some(Box::new(Target {
                name: format!("{name} (jump host {})", jump.hostname),
                host: jump.hostname.clone(),
                port: jump.ssh_port,
                user: jump.ssh_user.clone().unwrap_or_else(|| "root".to_owned()),
                login,
                host_keys: from.host_keys(field, &jump.host_keys, jump.host_key_policy, &known)?,
                jump: None,
                timeout: CONNECT,
            }))
        }
    };
    Ok(Target {
        name: name.to_string(),
        host: host.to_owned(),
        port: spec.ssh_port,
        user: spec.user().to_owned(),
        login,
        host_keys: from.host_keys("spec.hostKeys", &spec.host_keys, spec.host_key_policy, known)?,
        jump,
        timeout: CONNECT,
    })
}

/// What a machine should run. `facts` is the text of files that are made of what is known of the machine.
///
/// # Errors
/// Which field cannot be used.
pub fn desired(
    secrets: &impl Secrets,
    machine: &MachineName,
    configuration: &NixosConfiguration,
    facts: Option<&str>,
) -> Result<Desired, Error> {
    let from = of(secrets, machine, configuration);
    let spec = &configuration.spec;
    let flake = spec.flake.as_deref().unwrap_or_default();
    let placement = match (spec.build_on, &spec.builder_ref) {
        (BuildOn::Local, _) => Placement::Controller,
        (BuildOn::Target, _) => Placement::Machine,
        (BuildOn::Builder, Some(builder)) => Placement::Builder(
            MachineName::new(machine.namespace(), &builder.name).map_err(from.invalid("spec.builderRef.name"))?,
        ),
        (BuildOn::Builder, None) => return Err(from.error("spec.builderRef", "is missing")),
    };
    let files = spec.additional_files.iter().enumerate();
    let files = files.map(|(index, file)| from.file(&format!("spec.additionalFiles[{index}]"), file, facts));
    let confirm = Duration::from(spec.confirm_timeout);
    Ok(Desired {
        machine: machine.clone(),
        configuration: configuration.metadata.name.clone().unwrap_or_default(),
        reference: spec.reference.clone(),
        subdirectory: spec.configuration_subdir.clone().unwrap_or_default(),
        system: flake.parse().map_err(from.invalid("spec.flake"))?,
        placement,
        health: spec.health_checks.iter().filter_map(check).collect(),
        files: files.collect::<Result<_, _>>()?,
        limits: Limits { confirm: confirm.max(Duration::from_secs(5)), ..Limits::default() },
    })
}

fn of<'a, S: Secrets>(secrets: &'a S, machine: &'a MachineName, configuration: &NixosConfiguration) -> From<'a, S> {
    let name = configuration.metadata.name.as_deref().unwrap_or_default();
    let object = format!("NixosConfiguration {}/{name}", machine.namespace());
    From { secrets, object, namespace: machine.namespace() }
}

/// Whether a file of the configuration is made of what is known of the machine.
pub fn needs_facts(configuration: &NixosConfiguration) -> bool {
    configuration.spec.additional_files.iter().any(|file| file.value_type == FileSource::NixosFacter)
}

/// Where a configuration's repository is. `local` also takes `file://` and plain HTTP, as tests need it.
///
/// # Errors
/// Which field cannot be used.
pub fn repository(
    secrets: &impl Secrets,
    machine: &MachineName,
    configuration: &NixosConfiguration,
    local: bool,
) -> Result<Repository, Error> {
    let from = of(secrets, machine, configuration);
    let spec = &configuration.spec;
    let url = spec.git_repo.as_deref().ok_or_else(|| from.error("spec.gitRepo", "is missing"))?;
    let credentials = match &spec.credentials_ref {
        None => Credentials::None,
        Some(reference) => {
            let field = "spec.credentialsRef";
            let secret = from.secret(field, None, Some(&reference.name))?;
            match (secret.text(SSH_PRIVATE_KEY), secret.text(TOKEN)) {
                (Some(pem), _) => Credentials::Key { pem, passphrase: secret.text(SSH_PASSPHRASE) },
                (None, Some(token)) => Credentials::Token(token),
                (None, None) => {
                    let reason = format!("the Secret has neither {SSH_PRIVATE_KEY} nor {TOKEN}");
                    return Err(from.error(field, reason));
                }
            }
        }
    };
    let mut repository = Repository { credentials, tenant: machine.namespace().to_owned(), ..Repository::new(url) };
    if local {
        repository.protocols.extend([Protocol::Http, Protocol::File]);
    }
    Ok(repository)
}

fn origin(from: CheckFrom) -> Origin {
    match from {
        CheckFrom::Machine => Origin::Machine,
        CheckFrom::Controller => Origin::Controller,
    }
}

/// A check with nothing to ask was refused when the object was read.
fn check(check: &Check) -> Option<HealthCheck> {
    let probe = if let Some(units) = &check.units {
        Probe::Units(units.clone())
    } else if let Some(argv) = &check.command {
        Probe::Command(argv.clone())
    } else if let Some(http) = &check.http {
        Probe::Http { url: http.url.clone(), status: http.status, from: origin(http.from) }
    } else {
        let tcp = check.tcp.as_ref()?;
        Probe::Tcp { host: tcp.host.clone(), port: tcp.port, from: origin(tcp.from) }
    };
    Some(HealthCheck { name: check.name.clone(), probe, timeout: Duration::from(check.timeout) })
}

impl<S: Secrets> From<'_, S> {
    fn file(&self, field: &str, file: &AdditionalFile, facts: Option<&str>) -> Result<File, Error> {
        let content = match file.value_type {
            FileSource::Inline => file.inline.clone().unwrap_or_default().into(),
            FileSource::NixosFacter => {
                facts.ok_or_else(|| self.error(field, "the machine's facts are not known"))?.into()
            }
            FileSource::SecretRef => {
                let field = format!("{field}.secretRef");
                let reference = file.secret_ref.as_ref().ok_or_else(|| self.error(&field, "is missing"))?;
                let secret = self.secret(&field, None, Some(&reference.name))?;
                let mut keys = secret.keys();
                let key = match (&reference.key, keys.next(), keys.next()) {
                    (Some(key), ..) => key.as_str(),
                    (None, Some(only), None) => only,
                    _ => return Err(self.error(&field, "key has to say which value of the Secret")),
                };
                self.exact(&field, secret, key)?
            }
        };
        let to_host = match file.delivery {
            Some(delivery) => delivery == Where::Machine,
            None => file.value_type == FileSource::SecretRef,
        };
        if !is_below(&file.path) {
            return Err(self.error(&format!("{field}.path"), format!("{:?} leads out of its directory", file.path)));
        }
        let delivery = if to_host {
            let mode = file.mode.as_deref().unwrap_or("0400");
            let or_root = |name: &Option<String>| name.clone().unwrap_or_else(|| "root".to_owned());
            Delivery::Host {
                owner: or_root(&file.owner),
                group: or_root(&file.group),
                mode: u32::from_str_radix(mode, 8)
                    .map_err(|_| self.error(&format!("{field}.mode"), format!("{mode:?} is no mode")))?,
            }
        } else {
            Delivery::Tree
        };
        Ok(File { path: file.path.clone(), content, delivery })
    }

    /// A value as it is, with a newline at its end.
    fn exact(&self, field: &str, secret: &Secret, key: &str) -> Result<SecretString, Error> {
        let missing = || self.error(field, format!("the Secret {} has no text under {key}", secret.name()));
        let bytes = secret.bytes(key).ok_or_else(missing)?;
        std::str::from_utf8(bytes.expose_secret()).map(SecretString::from).map_err(|_| missing())
    }
}

/// Whether a path is one below another: plain words between slashes.
fn is_below(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)))
        && !path.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out() {
        for path in ["a", "a/b.json", ".hidden"] {
            assert!(is_below(path), "{path}");
        }
        for path in ["", "/etc/x", "../x", "a/../../x", "a/..", "./a", "a/"] {
            assert!(!is_below(path), "{path}");
        }
    }
}
