//! Kernel modules, each after those that it needs (modules.dep(5)).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

/// Names that are loaded without being asked for on the command line, one on each line.
const LIST: &str = "/etc/cairn/modules";

/// `MODULE_INIT_COMPRESSED_FILE` of finit_module(2): the kernel unpacks the file.
const COMPRESSED: i32 = 4;

/// A module could not be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ModuleError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kernel {release} has no module {name}")]
    Unknown { release: String, name: String },
    #[error("load {}", path.display())]
    Load {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Loads what the list names, then `named`.
pub(crate) fn load(named: &[String]) -> Result<(), ModuleError> {
    let listed = read_if_present(Path::new(LIST))?;
    let names: Vec<&str> = listed.split_whitespace().chain(named.iter().map(String::as_str)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let tree = Path::new("/lib/modules").join(&release);
    let dependencies = read_if_present(&tree.join("modules.dep"))?;
    let builtin = read_if_present(&tree.join("modules.builtin"))?;
    let index = Index::parse(&dependencies, &builtin);
    let order = index.order(&names).map_err(|name| ModuleError::Unknown { release, name: name.to_owned() })?;
    for path in order {
        insert(&tree.join(path))?;
    }
    Ok(())
}

fn read_if_present(path: &Path) -> Result<String, ModuleError> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map_err(|source| ModuleError::Read { path: path.to_owned(), source }),
    }
}

fn insert(path: &Path) -> Result<(), ModuleError> {
    let failed = |source| ModuleError::Load { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let packed = path.extension().is_some_and(|extension| extension != "ko");
    match finit_module(&file, c"", if packed { COMPRESSED } else { 0 }) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(error.into())),
    }
}

/// What a kernel has.
struct Index<'a> {
    /// File and the files it needs, by name.
    files: BTreeMap<String, (&'a str, Vec<&'a str>)>,
    builtin: BTreeSet<String>,
}

impl<'a> Index<'a> {
    fn parse(dependencies: &'a str, builtin: &'a str) -> Self {
        let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let files = lines.map(|(path, needs)| (name(path), (path, needs.split_whitespace().collect()))).collect();
        Self { files, builtin: builtin.lines().map(name).collect() }
    }

    /// Files to load, in order. Err is a name that the kernel does not have.
    fn order<'n>(&self, names: &[&'n str]) -> Result<Vec<&'a str>, &'n str> {
        let mut order: Vec<&str> = Vec::new();
        for wanted in names {
            let Some((path, needs)) = self.files.get(&name(wanted)) else {
                if self.builtin.contains(&name(wanted)) {
                    continue;
                }
                return Err(wanted);
            };
            // The list holds all that is needed, the first to load at its end.
            for path in needs.iter().rev().chain([path]) {
                if !order.contains(path) {
                    order.push(path);
                }
            }
        }
        Ok(order)
    }
}

/// Name of a module: of its file without directory and endings, with `_` for `-`.
fn name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or_default();
    file.split('.').next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz \
                                kernel/drivers/virtio/virtio.ko.xz kernel/drivers/virtio/virtio_ring.ko.xz\n\
                                kernel/net/core/failover.ko.xz:\nkernel/drivers/virtio/virtio_ring.ko.xz:\n\
                                kernel/drivers/virtio/virtio.ko.xz: kernel/drivers/virtio/virtio_ring.ko.xz\n\
                                kernel/drivers/char/hw_random/virtio-rng.ko.xz: kernel/drivers/virtio/virtio.ko.xz\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let index = Index::parse(DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n");
        let order = index.order(&["virtio_net", "ext4", "virtio_rng"]).unwrap();
        let names: Vec<String> = order.into_iter().map(name).collect();
        assert_eq!(names, ["virtio_ring", "virtio", "failover", "virtio_net", "virtio_rng"]);
    }

    #[test]
    fn a_name_that_is_not_there_is_said() {
        assert_eq!(Index::parse(DEPENDENCIES, "").order(&["virtio", "e1000"]), Err("e1000"));
        assert_eq!(Index::parse("", "").order(&["virtio"]), Err("virtio"));
    }
}
