//! Configurations: where they come from, what they are called, what is added, and how they are judged.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use super::text::{self, Wrong};
use super::{Finding, Findings, Weight};
use crate::resources::{
    AdditionalFile, BuildOn, DeletionPolicy, Delivery, FileSource, HealthCheck, NixosConfigurationSpec,
};

/// Whether a repository may be a directory of the machine that Cairn runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalRepositories {
    /// No: whoever writes the object is somebody else than whoever runs Cairn.
    Refused,
    /// `file:///…` is fine: the object is in a file of the same person.
    Allowed,
}

/// The name of a host in a flake's `nixosConfigurations`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlakeHost(String);

impl FlakeHost {
    /// The name, without anything around it. It has only letters, digits, `_`, `-` and `.`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FlakeHost {
    type Err = Finding;

    /// Takes `#host`, `.#host` and `host`.
    fn from_str(text: &str) -> Result<Self, Finding> {
        flake_host(text).map_err(|Wrong { reason, hint }| Finding {
            field: "spec.flake".to_owned(),
            reason,
            hint,
            weight: Weight::Error,
        })
    }
}

fn flake_host(text: &str) -> Result<FlakeHost, Wrong> {
    text::argument(text)?;
    let name = match text.split_once('#') {
        None => text,
        Some(("" | ".", name)) => name,
        Some((flake, name)) => {
            return Err(Wrong::new(format!("{flake:?} is a flake of its own; only the name of the host goes here"))
                .hint(format!("write {name:?} here; the flake comes from gitRepo, ref and configurationSubdir")));
        }
    };
    if let Some(host) = name.strip_prefix("nixosConfigurations.") {
        return Err(Wrong::new(format!("{text:?} is the path of an attribute")).hint(format!("write {host:?}")));
    }
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.');
    if name.is_empty() || name.starts_with(['-', '.']) || !name.chars().all(allowed) {
        return Err(Wrong::new(format!("{text:?} is not a name of a host: letters, digits, `_`, `-` and `.`")));
    }
    Ok(FlakeHost(name.to_owned()))
}

pub(super) fn check(spec: &NixosConfigurationSpec, local: LocalRepositories, findings: &mut Findings) {
    match &spec.git_repo {
        Some(address) => findings.text("spec.gitRepo", repository(address, local)),
        None => findings.error("spec.gitRepo", "is missing: there is nothing to build"),
    }
    findings.text("spec.ref", text::git_reference(&spec.reference));
    match &spec.flake {
        Some(flake) => findings.text("spec.flake", flake_host(flake).map(drop)),
        None => findings.error("spec.flake", "is missing: the name of the host in nixosConfigurations"),
    }
    if let Some(flake) = &spec.on_remove_flake {
        findings.text("spec.onRemoveFlake", flake_host(flake).map(drop));
    }
    if let Some(directory) = &spec.configuration_subdir {
        findings.text("spec.configurationSubdir", text::relative_path(directory));
    }
    match &spec.machine_ref {
        Some(machine) => findings.text("spec.machineRef.name", text::object_name(&machine.name)),
        None => findings.error("spec.machineRef", "is missing: the machine that is to run it"),
    }
    if let Some(secret) = &spec.credentials_ref {
        findings.text("spec.credentialsRef.name", text::object_name(&secret.name));
    }
    if let Some(builder) = &spec.builder_ref {
        findings.text("spec.builderRef.name", text::object_name(&builder.name));
    }
    contradictions(spec, findings);
    files(&spec.additional_files, findings);
    health_checks(&spec.health_checks, findings);
}

fn contradictions(spec: &NixosConfigurationSpec, findings: &mut Findings) {
    if spec.build_on == BuildOn::Builder && spec.builder_ref.is_none() {
        findings.error("spec.builderRef", "is missing, and buildOn is Builder");
    }
    if spec.deletion_policy == DeletionPolicy::Apply && spec.on_remove_flake.is_none() {
        findings.error("spec.onRemoveFlake", "is missing, and deletionPolicy is Apply");
    }
    let confirm = spec.confirm_timeout.get();
    if !(Duration::from_secs(10)..=Duration::from_secs(3600)).contains(&confirm) {
        findings.error("spec.confirmTimeout", format!("is {}; it is 10s to 1h", spec.confirm_timeout));
    }
    for (index, check) in spec.health_checks.iter().enumerate() {
        if check.timeout.get() >= confirm {
            findings.error_with(
                format!("spec.healthChecks[{index}].timeout"),
                format!("is {}: the machine goes back after {} already", check.timeout, spec.confirm_timeout),
                "make confirmTimeout longer",
            );
        }
    }
}

/// The address of a repository, by what Git may be handed.
fn repository(address: &str, local: LocalRepositories) -> Result<(), Wrong> {
    text::argument(address)?;
    let allowed = "https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH";
    if address.contains("://") {
        let url =
            Url::parse(address).map_err(|error| Wrong::new(format!("is not an address: {error}")).hint(allowed))?;
        return match url.scheme() {
            "https" | "http" if !url.username().is_empty() || url.password().is_some() => {
                Err(Wrong::new("has credentials in it, which would be seen in logs and in Git's own files")
                    .hint("put them into a Secret, and its name into credentialsRef"))
            }
            "ssh" if url.password().is_some() => Err(Wrong::new("has a password in it")
                .hint("put an SSH key into a Secret, and its name into credentialsRef")),
            "https" | "http" | "ssh" => hosted(&url),
            "file" if local == LocalRepositories::Allowed => Ok(()),
            scheme => Err(Wrong::new(format!("begins with {scheme}://, which is not taken")).hint(allowed)),
        };
    }
    match address.split_once(':') {
        // `ext::sh -c …` would have Git run a program.
        Some((_, path)) if path.starts_with(':') => Err(Wrong::new("names a remote helper of Git").hint(allowed)),
        Some((login, path)) if !login.contains('/') && !path.is_empty() => {
            let (user, host) = login.split_once('@').map_or((None, login), |(user, host)| (Some(user), host));
            user.map_or(Ok(()), text::account)?;
            text::host(host)?;
            text::argument(path)
        }
        _ => Err(Wrong::new(format!("{address:?} is a path, not an address")).hint(allowed)),
    }
}

fn hosted(url: &Url) -> Result<(), Wrong> {
    let host = url.host_str().unwrap_or_default();
    text::host(host.trim_start_matches('[').trim_end_matches(']'))?;
    if !url.username().is_empty() {
        text::account(url.username())?;
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Wrong::new("has `?` or `#`").hint("a branch goes into ref, the name of the host into flake"));
    }
    Ok(())
}

fn files(files: &[AdditionalFile], findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, file) in files.iter().enumerate() {
        let field = |name: &str| format!("spec.additionalFiles[{index}].{name}");
        let path = text::file_path(&file.path);
        if path.is_ok() && !seen.insert((file.delivery() == Delivery::Store, normal(&file.path))) {
            findings.error(field("path"), format!("{:?} is there twice", file.path));
        }
        findings.text(field("path"), path);
        match file.value_type {
            FileSource::Inline if file.inline.is_none() => findings.error(field("inline"), "is missing"),
            FileSource::SecretRef => match &file.secret_ref {
                None => findings.error(field("secretRef"), "is missing"),
                Some(secret) => {
                    findings.text(field("secretRef.name"), text::object_name(&secret.name));
                    if let Some(key) = &secret.key {
                        findings.text(field("secretRef.key"), text::secret_key(key));
                    }
                }
            },
            FileSource::Inline | FileSource::NixosFacter => {}
        }
        ownership(file, &field, findings);
    }
}

fn ownership(file: &AdditionalFile, field: &impl Fn(&str) -> String, findings: &mut Findings) {
    for (name, value) in [("owner", &file.owner), ("group", &file.group)] {
        if let Some(value) = value {
            findings.text(field(name), text::account(value));
        }
    }
    if let Some(mode) = &file.mode
        && !(matches!(mode.len(), 3 | 4) && u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o777))
    {
        findings.error(field("mode"), format!("{mode:?} is not 0000 to 0777"));
    }
    if file.delivery() == Delivery::Store {
        let given = [("owner", &file.owner), ("group", &file.group), ("mode", &file.mode)];
        for (name, _) in given.iter().filter(|(_, value)| value.is_some()) {
            findings.error_with(
                field(name),
                "has no meaning in a Nix store, where everything is root's and readable",
                "set delivery: Machine",
            );
        }
        if file.value_type == FileSource::SecretRef {
            findings.warning(
                field("delivery"),
                "puts a Secret into Nix stores, where everybody on those hosts can read it, for good",
                "leave delivery out: the file is then below /run/cairn/files on the machine",
            );
        }
    }
}

/// A path without what does not matter in it.
fn normal(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

fn health_checks(checks: &[HealthCheck], findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, check) in checks.iter().enumerate() {
        let field = |name: &str| format!("spec.healthChecks[{index}].{name}");
        let name = text::argument(&check.name);
        if name.is_ok() && !seen.insert(&check.name) {
            findings.error(field("name"), format!("{:?} is there twice", check.name));
        }
        findings.text(field("name"), name);
        let given = [check.units.is_some(), check.command.is_some(), check.http.is_some(), check.tcp.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            findings
                .error(format!("spec.healthChecks[{index}]"), "exactly one of units, command, http and tcp is needed");
        }
        for (number, unit) in check.units.iter().flatten().enumerate() {
            findings.text(field(&format!("units[{number}]")), text::unit(unit));
        }
        if let Some(command) = &check.command {
            findings.text(field("command"), text::argument(command.first().map_or("", String::as_str)));
            for (number, word) in command.iter().enumerate().filter(|(_, word)| word.contains('\0')) {
                findings.error(field(&format!("command[{number}]")), format!("{word:?} has a NUL"));
            }
        }
        if let Some(http) = &check.http {
            findings.text(field("http.url"), web_address(&http.url));
        }
        if let Some(tcp) = &check.tcp {
            if let Some(host) = &tcp.host {
                findings.text(field("tcp.host"), text::host(host));
            }
            if tcp.port == 0 {
                findings.error(field("tcp.port"), "is 0; a port is 1 to 65535");
            }
        }
    }
}

fn web_address(address: &str) -> Result<(), Wrong> {
    let url = Url::parse(address).map_err(|error| Wrong::new(format!("is not an address: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Wrong::new(format!("begins with {}:, not http:// or https://", url.scheme())));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Wrong::new("has credentials in it, which everybody who sees this object can read"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{FlakeHost, LocalRepositories, repository};
    use crate::resources::check::{Finding, Weight, configuration};

    const SECRET: &str = "SecretRef";

    fn object(change: impl FnOnce(&mut Value)) -> Vec<Finding> {
        let mut object = json!({
            "apiVersion": "nio.homystack.com/v1alpha1", "kind": "NixosConfiguration",
            "metadata": {"name": "web", "namespace": "team-a"},
            "spec": {"gitRepo": "https://git.example.org/infra.git", "flake": "#web", "machineRef": {"name": "web"}},
        });
        change(&mut object["spec"]);
        configuration(&serde_json::from_value(object).unwrap(), LocalRepositories::Refused)
    }

    #[track_caller]
    fn names(field: &str, weight: Weight, change: impl FnOnce(&mut Value)) {
        let found = object(change);
        assert!(found.iter().any(|finding| finding.field == field && finding.weight == weight), "{field}: {found:?}");
    }

    #[test]
    fn hosts_of_a_flake_have_three_forms() {
        for text in ["#web", ".#web", "web"] {
            assert_eq!(text.parse::<FlakeHost>().unwrap().as_str(), "web");
        }
        assert_eq!("#web-1.example.org".parse::<FlakeHost>().unwrap().as_str(), "web-1.example.org");
        let remote = "github:o/r#web".parse::<FlakeHost>().unwrap_err();
        assert!(remote.reason.contains("github:o/r") && remote.hint.unwrap().contains("\"web\""));
        let path = "#nixosConfigurations.web".parse::<FlakeHost>().unwrap_err();
        assert!(path.hint.unwrap().contains("\"web\""));
        for text in ["", "#", ".#", "#a b", "#x; touch F; true", "#$(x)", "#\"a\"", "-x", "#-x", "a/b", "#${x}", "..#a"]
        {
            assert!(text.parse::<FlakeHost>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn repositories_are_elsewhere_and_keep_no_secrets() {
        let refused = |text: &str| repository(text, LocalRepositories::Refused).is_err();
        for text in [
            "https://github.com/o/r",
            "http://127.0.0.1:3000/r.git",
            "ssh://git@git.example.org:2222/o/r.git",
            "git@github.com:o/r.git",
            "https://[2001:db8::1]/r",
        ] {
            assert!(!refused(text), "{text}");
        }
        for text in [
            "",
            "/etc",
            "../r",
            "-x",
            "--upload-pack=x",
            "ext::sh -c x",
            "file:///etc",
            "git://github.com/o/r",
            "https://token@github.com/o/r",
            "https://u:p@github.com/o/r",
            "ssh://u:p@host/r",
            "https://github.com/o/r?ref=x",
            "ssh://-oProxyCommand=x/r",
            "-oProxyCommand=x:r",
            "git@-x:r",
            "git@host:-x",
            "https://a b/r",
        ] {
            assert!(refused(text), "{text}");
        }
        assert!(repository("file:///srv/r", LocalRepositories::Allowed).is_ok());
        assert!(repository("ext::sh -c x", LocalRepositories::Allowed).is_err());
        // What is wrong with a token in an address must not repeat the token.
        let wrong = repository("https://SECRET@github.com/o/r", LocalRepositories::Refused).unwrap_err();
        assert!(!format!("{wrong:?}").contains("SECRET"));
    }

    #[test]
    fn each_field_is_named() {
        assert_eq!(object(|_| {}), []);
        for field in ["gitRepo", "flake", "machineRef"] {
            names(&format!("spec.{field}"), Weight::Error, |spec| {
                spec.as_object_mut().unwrap().remove(field);
            });
        }
        for (field, value) in [
            ("ref", "--upload-pack=x"),
            ("flake", "#x; true"),
            ("onRemoveFlake", "github:o/r#h"),
            ("configurationSubdir", "../x"),
            ("confirmTimeout", "1s"),
        ] {
            names(&format!("spec.{field}"), Weight::Error, |spec| spec[field] = value.into());
        }
        for field in ["machineRef", "credentialsRef", "builderRef"] {
            names(&format!("spec.{field}.name"), Weight::Error, |spec| spec[field] = json!({"name": "a/b"}));
        }
        names("spec.builderRef", Weight::Error, |spec| spec["buildOn"] = "Builder".into());
        names("spec.onRemoveFlake", Weight::Error, |spec| spec["deletionPolicy"] = "Apply".into());
    }

    #[test]
    fn files_stay_where_they_belong() {
        let file = |field: &'static str, weight, file: Value| {
            names(&format!("spec.additionalFiles[0].{field}"), weight, |spec| spec["additionalFiles"] = json!([file]));
        };
        for path in ["/etc/shadow", "../../x", "a/../../x", ".git/hooks/post-checkout"] {
            file("path", Weight::Error, json!({"path": path, "valueType": "Inline", "inline": ""}));
        }
        file("inline", Weight::Error, json!({"path": "a", "valueType": "Inline"}));
        file("secretRef", Weight::Error, json!({"path": "a", "valueType": SECRET}));
        let secret = json!({"name": "s", "key": "../k"});
        file("secretRef.key", Weight::Error, json!({"path": "a", "valueType": SECRET, "secretRef": secret}));
        let secret = json!({"name": "s"});
        let stored = json!({"path": "a", "valueType": SECRET, "secretRef": secret, "delivery": "Store"});
        file("delivery", Weight::Warning, stored);
        file("mode", Weight::Error, json!({"path": "a", "valueType": SECRET, "secretRef": secret, "mode": "0999"}));
        file("owner", Weight::Error, json!({"path": "a", "valueType": "Inline", "inline": "", "owner": "nginx"}));
        names("spec.additionalFiles[1].path", Weight::Error, |spec| {
            let file = |path: &str| json!({"path": path, "valueType": "NixosFacter"});
            spec["additionalFiles"] = json!([file("a/b"), file("./a//b")]);
        });
    }

    #[test]
    fn health_checks_are_one_thing_each() {
        let check = |field: &'static str, check: Value| {
            names(&format!("spec.healthChecks[0]{field}"), Weight::Error, |spec| spec["healthChecks"] = json!([check]));
        };
        check("", json!({"name": "a"}));
        check("", json!({"name": "a", "units": ["a.service"], "command": ["true"]}));
        check(".units[0]", json!({"name": "a", "units": ["nginx"]}));
        check(".command", json!({"name": "a", "command": ["-x"]}));
        check(".http.url", json!({"name": "a", "http": {"url": "file:///etc/passwd"}}));
        check(".http.url", json!({"name": "a", "http": {"url": "http://u:p@localhost/"}}));
        check(".tcp.host", json!({"name": "a", "tcp": {"host": "a;b", "port": 1}}));
        check(".timeout", json!({"name": "a", "tcp": {"port": 1}, "timeout": "3m"}));
        let good = json!([{"name": "a", "http": {"url": "http://127.0.0.1:8080/health", "status": 204}},
            {"name": "b", "command": ["systemctl", "is-system-running", "--quiet"], "timeout": "10s"}]);
        assert_eq!(object(|spec| spec["healthChecks"] = good), []);
    }
}
