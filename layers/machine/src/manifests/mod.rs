//! Everything that a cluster needs of the operator: definitions, roles, the pod, alerts, the dashboard.
//!
//! The files are those of `deploy/nio`, where they are also edited and read; the program makes the definitions and puts
//! `deployment.yaml` together. What can be chosen is put into the text: the namespace and the image.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use host::{FileError, write_atomic};

use crate::resources::{check, definitions, to_yaml};

/// Namespace of the operator, by its guide.
pub const NAMESPACE: &str = "nixos-operator-system";
/// Image of the operator, as `deploy/nio/container/Containerfile` makes it.
pub const IMAGE: &str = concat!("nio-operator:", env!("CARGO_PKG_VERSION"));

/// What every image in the files begins with.
const IMAGE_LINE: &str = "image: nio-operator:";

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../deploy/nio/", $path)))),*]
    };
}

/// Files that are written as they are but for namespace and image.
const FILES: &[(&str, &str)] = files![
    "kustomization.yaml",
    "operator/kustomization.yaml",
    "operator/namespace.yaml",
    "operator/operator.yaml",
    "operator/network-policy.yaml",
    "operator/pod-disruption-budget.yaml",
    "rbac/cluster.yaml",
    "rbac/tenant.yaml",
    "overlays/namespaces/kustomization.yaml",
    "overlays/namespaces/watched-namespaces.yaml",
    "overlays/namespaces/tenant/kustomization.yaml",
    "overlays/namespaces/tenant/role.yaml",
    "monitoring/service-monitor.yaml",
    "monitoring/probes.yaml",
    "monitoring/prometheus-rules.yaml",
    "monitoring/grafana/nio-operator-dashboard.json",
    "container/Containerfile",
    "container/nix.conf",
];

/// The one file by which the guide deploys: these after each other. Kustomize wants them apart.
const DEPLOYMENT: (&str, [&str; 2]) = ("deployment.yaml", ["operator/operator.yaml", "rbac/cluster.yaml"]);

/// What stands above them.
const DEPLOYMENT_HEAD: &str = "\
# The operator: who it is, what it may do, its pod, and how its metrics and its health are reached.
#
#   kubectl create namespace nixos-operator-system
#   kubectl apply --filename crds/
#   kubectl apply --filename deployment.yaml
#
# It reads Secrets of its own namespace, and of every namespace where rbac/tenant.yaml was applied; of no other.
# Made of operator/operator.yaml and rbac/cluster.yaml by `cairn machine manifests`.
";

/// What is applied where no directory is written, in this order.
const STREAM: [&str; 6] = [
    "operator/namespace.yaml",
    "crds/machines.yaml",
    "crds/nixosconfigurations.yaml",
    "deployment.yaml",
    "operator/network-policy.yaml",
    "operator/pod-disruption-budget.yaml",
];

/// What can be chosen about the manifests.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Write all files into this directory instead of printing what is to be applied
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Namespace of the operator
    #[arg(long, default_value = NAMESPACE)]
    pub namespace: String,
    /// Image of the operator
    #[arg(long, default_value = IMAGE)]
    pub image: String,
}

/// A file below the directory of the manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its path, with `/` between directories.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Why there are no manifests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace is not a name of one.
    #[error("namespace: {0}")]
    Namespace(String),
    /// The image is not a reference to one.
    #[error("image: {0:?} is not a reference to an image")]
    Image(String),
    /// A definition cannot be made.
    #[error("a CustomResourceDefinition cannot be made")]
    Definition(#[source] serde_json::Error),
    /// A definition has no form in YAML.
    #[error("a CustomResourceDefinition cannot be written as YAML")]
    Yaml(#[source] serde_saphyr::ser::Error),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Arguments {
    /// All files.
    ///
    /// # Errors
    /// If namespace or image cannot be what they should.
    pub fn render(&self) -> Result<Vec<Manifest>, Error> {
        check::namespace(&self.namespace).map_err(|finding| Error::Namespace(finding.reason))?;
        let allowed = |character: char| character.is_ascii_alphanumeric() || "._-/:@".contains(character);
        if !self.image.starts_with(|c: char| c.is_ascii_alphanumeric()) || !self.image.chars().all(allowed) {
            return Err(Error::Image(self.image.clone()));
        }
        let mut manifests = Vec::new();
        for (name, definition) in definitions().map_err(Error::Definition)? {
            let text = to_yaml(&definition).map_err(Error::Yaml)?;
            manifests.push(Manifest { path: format!("crds/{name}"), text });
        }
        let (path, parts) = DEPLOYMENT;
        let part = |wanted: &&str| FILES.iter().find(|(path, _)| path == wanted).map(|(_, text)| *text);
        let parts: Vec<&str> = parts.iter().filter_map(part).collect();
        let text = self.filled(&format!("{DEPLOYMENT_HEAD}{}", parts.join("---\n")));
        manifests.push(Manifest { path: path.to_owned(), text });
        for (path, text) in FILES {
            manifests.push(Manifest { path: (*path).to_owned(), text: self.filled(text) });
        }
        Ok(manifests)
    }

    /// Writes all files into a directory, or gives back what is to be applied; either way, the text to print.
    ///
    /// # Errors
    /// If namespace or image cannot be what they should, or a file cannot be written.
    pub fn run(&self) -> Result<String, Error> {
        let manifests = self.render()?;
        match &self.output {
            Some(directory) => {
                write(directory, &manifests)?;
                let paths = manifests.iter().map(|manifest| directory.join(&manifest.path).display().to_string());
                Ok(paths.map(|path| path + "\n").collect())
            }
            None => {
                let text = |path: &&str| manifests.iter().find(|manifest| manifest.path == **path);
                let texts: Vec<&str> = STREAM.iter().filter_map(text).map(|manifest| manifest.text.as_str()).collect();
                Ok(texts.join("---\n"))
            }
        }
    }

    fn filled(&self, text: &str) -> String {
        let line = |line: &str| match line.split_once(IMAGE_LINE) {
            Some((before, _)) if before.trim().is_empty() => format!("{before}image: {}\n", self.image),
            _ => line.replace(NAMESPACE, &self.namespace) + "\n",
        };
        text.lines().map(line).collect()
    }
}

fn write(directory: &Path, manifests: &[Manifest]) -> Result<(), Error> {
    for manifest in manifests {
        let path = directory.join(&manifest.path);
        let parent = path.parent().unwrap_or(directory);
        fs::create_dir_all(parent).map_err(FileError::at("create", parent))?;
        write_atomic(&path, manifest.text.as_bytes(), 0o644)?;
    }
    Ok(())
}
