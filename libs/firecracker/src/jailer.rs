//! The jailer: its command line and the paths that it makes (`docs/jailer.md` of Firecracker's repository).
//!
//! What has to be known besides: it copies the executable into the jail; the caller puts kernel, disks and FIFOs there
//! and owns them to the jail's user; it fails on what an earlier VM of the same id left behind, and removes neither the
//! jail nor its control group afterwards. Its process becomes Firecracker, unless `--daemonize` or `--new-pid-ns` is given:
//! then it ends at once, and the pid file names Firecracker's process, with `--daemonize` a moment later.

use std::ffi::OsString;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::model::LogLevel;

/// Longest id of a VM.
const ID_LIMIT: usize = 64;

/// Where Firecracker listens when it is told nothing else.
const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

/// A jail that the jailer would refuse, or make elsewhere than expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JailerError {
    /// The id of a VM.
    #[error("{id:?} is no id of a VM: 1 to {ID_LIMIT} letters, digits and hyphens")]
    Id {
        /// What was given.
        id: String,
    },
    /// A path that has to begin at the root and to have no `..`.
    #[error("{what} {} is no absolute path without ..", path.display())]
    Path {
        /// Which path.
        what: &'static str,
        /// What was given.
        path: PathBuf,
    },
    /// The parent control group is named below the root of its hierarchy.
    #[error("parent control group {} is no relative path without ..", path.display())]
    ParentCgroup {
        /// What was given.
        path: PathBuf,
    },
    /// A control group's file is `<controller>.<name>`, and its value one line.
    #[error("{file:?} = {value:?} is no setting of a control group")]
    CgroupSetting {
        /// File.
        file: String,
        /// Value.
        value: String,
    },
    /// Nobody is jailed as root.
    #[error("user {uid} and group {gid}: a jail's user and group are not root")]
    Root {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// Id of a VM: letters, digits and hyphens, 64 at most. It becomes a directory and a control group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(String);

impl VmId {
    /// Checks an id.
    ///
    /// # Errors
    /// When it is empty, too long or has another character.
    pub fn new(id: &str) -> Result<Self, JailerError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        // A hyphen in front would be taken for an option.
        if id.is_empty() || id.len() > ID_LIMIT || id.starts_with('-') || !id.chars().all(allowed) {
            return Err(JailerError::Id { id: id.to_owned() });
        }
        Ok(Self(id.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which hierarchy control groups are made in. The jailer's default is 1, so it is always said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy for each controller. The jailer makes a group for the VM even without settings.
    V1,
    /// The one hierarchy. Without settings the jailer makes no group; it moves the process into the parent group when
    /// that exists.
    V2,
}

/// Firecracker's own command line; paths are as it sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// Socket of the API (`--api-sock`).
    pub socket: PathBuf,
    /// Bytes of a request's body that are taken (`--http-api-max-payload-size`).
    pub payload_limit: Option<usize>,
    /// Bytes of metadata that are held (`--mmds-size-limit`).
    pub metadata_limit: Option<usize>,
    /// Least level of log lines (`--level`); they go to standard output until the API names another place.
    pub log_level: Option<LogLevel>,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { socket: DEFAULT_SOCKET.into(), payload_limit: None, metadata_limit: None, log_level: None }
    }
}

impl Arguments {
    /// The argument vector, without the program and without `--id`, which the jailer adds.
    pub fn vector(&self) -> Vec<OsString> {
        let mut out = vec!["--api-sock".into(), self.socket.clone().into()];
        let limits = [("--http-api-max-payload-size", self.payload_limit), ("--mmds-size-limit", self.metadata_limit)];
        for (name, limit) in limits {
            if let Some(limit) = limit {
                out.extend([name.into(), limit.to_string().into()]);
            }
        }
        if let Some(level) = self.log_level {
            out.extend(["--level".into(), format!("{level:?}").into()]);
        }
        out
    }
}

/// One jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jailer {
    /// The VM.
    pub id: VmId,
    /// Firecracker's executable on the host. Its file name names the directory of all jails and the parent group.
    pub executable: PathBuf,
    /// User of the jailed process.
    pub uid: u32,
    /// Group of the jailed process.
    pub gid: u32,
    /// Directory that holds the jails; it has to exist.
    pub base: PathBuf,
    /// Network namespace to join.
    pub network_namespace: Option<PathBuf>,
    /// Hierarchy of control groups.
    pub cgroup_version: CgroupVersion,
    /// Group below which the VM's is made; named after the executable when `None`.
    pub parent_cgroup: Option<PathBuf>,
    /// Files of the VM's group and what is written into them.
    pub cgroup_settings: Vec<(String, String)>,
    /// Largest file the process may write, bytes.
    pub file_size_limit: Option<u64>,
    /// Most files it may have open; 2048 when `None`.
    pub open_files_limit: Option<u64>,
    /// A process of its own with a new session and without standard streams: neither its end nor the serial console
    /// reach whoever started the jailer.
    pub daemonize: bool,
    /// A process of its own in a process id namespace of its own. As the first one there it takes no notice of SIGTERM;
    /// only SIGKILL ends it.
    pub new_pid_namespace: bool,
    /// Firecracker's own arguments.
    pub arguments: Arguments,
}

impl Jailer {
    /// A jail below `/srv/jailer` in control groups of version 2, with nothing that has to be asked for.
    pub fn new(id: VmId, executable: impl Into<PathBuf>, uid: u32, gid: u32) -> Self {
        Self {
            id,
            executable: executable.into(),
            uid,
            gid,
            base: "/srv/jailer".into(),
            network_namespace: None,
            cgroup_version: CgroupVersion::V2,
            parent_cgroup: None,
            cgroup_settings: Vec::new(),
            file_size_limit: None,
            open_files_limit: None,
            daemonize: false,
            new_pid_namespace: false,
            arguments: Arguments::default(),
        }
    }

    /// Finds what the jailer would refuse, or take otherwise than it is meant.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn check(&self) -> Result<(), JailerError> {
        if self.uid == 0 || self.gid == 0 {
            return Err(JailerError::Root { uid: self.uid, gid: self.gid });
        }
        let netns = self.network_namespace.iter().map(|path| ("network namespace", path));
        let paths = [("executable", &self.executable), ("jail base", &self.base), ("socket", &self.arguments.socket)];
        for (what, path) in paths.into_iter().chain(netns) {
            if !is_plain(path, true) || path.file_name().is_none() {
                return Err(JailerError::Path { what, path: path.clone() });
            }
        }
        if let Some(path) = &self.parent_cgroup
            && (!is_plain(path, false) || path.as_os_str().is_empty())
        {
            return Err(JailerError::ParentCgroup { path: path.clone() });
        }
        let setting = |(file, value): &&(String, String)| {
            let letters = file.chars().all(|letter| letter.is_ascii_alphanumeric() || "._".contains(letter));
            let dotted = file.split_once('.').is_some_and(|(before, after)| !before.is_empty() && !after.is_empty());
            letters && dotted && !value.is_empty() && !value.contains(['\n', '\0'])
        };
        match self.cgroup_settings.iter().find(|one| !setting(one)) {
            Some((file, value)) => Err(JailerError::CgroupSetting { file: file.clone(), value: value.clone() }),
            None => Ok(()),
        }
    }

    /// The argument vector for the jailer, without the program.
    ///
    /// # Errors
    /// What [`check`](Self::check) finds.
    pub fn vector(&self) -> Result<Vec<OsString>, JailerError> {
        self.check()?;
        let mut out: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: OsString| out.extend([name.into(), value]);
        add("--id", self.id.as_str().into());
        add("--exec-file", self.executable.clone().into());
        add("--uid", self.uid.to_string().into());
        add("--gid", self.gid.to_string().into());
        add("--chroot-base-dir", self.base.clone().into());
        let version = if self.cgroup_version == CgroupVersion::V1 { "1" } else { "2" };
        add("--cgroup-version", version.into());
        if let Some(parent) = &self.parent_cgroup {
            add("--parent-cgroup", parent.clone().into());
        }
        for (file, value) in &self.cgroup_settings {
            add("--cgroup", format!("{file}={value}").into());
        }
        if let Some(namespace) = &self.network_namespace {
            add("--netns", namespace.clone().into());
        }
        for (name, limit) in [("fsize", self.file_size_limit), ("no-file", self.open_files_limit)] {
            if let Some(limit) = limit {
                add("--resource-limit", format!("{name}={limit}").into());
            }
        }
        for (flag, wanted) in [("--daemonize", self.daemonize), ("--new-pid-ns", self.new_pid_namespace)] {
            if wanted {
                out.push(flag.into());
            }
        }
        out.push("--".into());
        out.extend(self.arguments.vector());
        Ok(out)
    }

    /// The jail's directory: everything of this VM is below it, and it is what has to be removed afterwards.
    pub fn directory(&self) -> PathBuf {
        self.base.join(self.name()).join(self.id.as_str())
    }

    /// The root that the jailed process sees as `/`.
    pub fn root(&self) -> PathBuf {
        self.directory().join("root")
    }

    /// Where on the host a path of the jailed process is.
    pub fn outside(&self, inside: &Path) -> PathBuf {
        let parts = inside.components().filter(|part| matches!(part, Component::Normal(_)));
        parts.fold(self.root(), |path, part| path.join(part))
    }

    /// The API's socket on the host.
    pub fn socket(&self) -> PathBuf {
        self.outside(&self.arguments.socket)
    }

    /// File with the process's id: its own in the host's namespace, also with a namespace of its own.
    pub fn pid_file(&self) -> PathBuf {
        let mut name = self.name().to_owned();
        name.push(".pid");
        self.root().join(name)
    }

    /// The VM's control group below the root of its hierarchy, when the jailer makes one.
    pub fn cgroup(&self) -> Option<PathBuf> {
        if self.cgroup_version == CgroupVersion::V2 && self.cgroup_settings.is_empty() {
            return None;
        }
        let parent = self.parent_cgroup.clone().unwrap_or_else(|| self.name().into());
        Some(parent.join(self.id.as_str()))
    }

    fn name(&self) -> &std::ffi::OsStr {
        self.executable.file_name().unwrap_or_default()
    }
}

fn is_plain(path: &Path, absolute: bool) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::RootDir);
    path.is_absolute() == absolute && path.components().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jailer() -> Jailer {
        Jailer::new(VmId::new("ud-0123456789abcdef").unwrap(), "/opt/firecracker", 20001, 20002)
    }

    #[test]
    fn the_least_jail() {
        let vector = jailer().vector().unwrap();
        let expected = [
            "--id",
            "ud-0123456789abcdef",
            "--exec-file",
            "/opt/firecracker",
            "--uid",
            "20001",
            "--gid",
            "20002",
            "--chroot-base-dir",
            "/srv/jailer",
            "--cgroup-version",
            "2",
            "--",
            "--api-sock",
            "/run/firecracker.socket",
        ];
        assert_eq!(vector, expected);
        assert_eq!(jailer().cgroup(), None);
    }

    #[test]
    fn everything_that_can_be_said() {
        let mut jailer = jailer();
        jailer.cgroup_version = CgroupVersion::V1;
        jailer.parent_cgroup = Some("cairn/vms".into());
        jailer.cgroup_settings = vec![("cpu.shares".into(), "512".into()), ("cpuset.cpus".into(), "0-1".into())];
        jailer.network_namespace = Some("/run/netns/ns_vm_01234567".into());
        jailer.file_size_limit = Some(1 << 30);
        jailer.open_files_limit = Some(1024);
        jailer.daemonize = true;
        jailer.new_pid_namespace = true;
        jailer.arguments = Arguments {
            socket: "/run/ns_vm_01234567.sock".into(),
            payload_limit: Some(100_000),
            metadata_limit: Some(60_000),
            log_level: Some(LogLevel::Warning),
        };
        let vector: Vec<_> = jailer.vector().unwrap().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(
            vector[10..].join(" "),
            "--cgroup-version 1 --parent-cgroup cairn/vms --cgroup cpu.shares=512 --cgroup cpuset.cpus=0-1 \
             --netns /run/netns/ns_vm_01234567 --resource-limit fsize=1073741824 --resource-limit no-file=1024 \
             --daemonize --new-pid-ns -- --api-sock /run/ns_vm_01234567.sock \
             --http-api-max-payload-size 100000 --mmds-size-limit 60000 --level Warning"
        );
        assert_eq!(jailer.cgroup(), Some("cairn/vms/ud-0123456789abcdef".into()));
    }

    #[test]
    fn paths_are_below_the_jail() {
        let jailer = jailer();
        let root = Path::new("/srv/jailer/firecracker/ud-0123456789abcdef/root");
        assert_eq!(jailer.root(), root);
        assert_eq!(jailer.socket(), root.join("run/firecracker.socket"));
        assert_eq!(jailer.pid_file(), root.join("firecracker.pid"));
        assert_eq!(jailer.outside(Path::new("/../../etc/shadow")), root.join("etc/shadow"));
    }

    #[test]
    fn what_would_leave_the_jail_is_refused() {
        for id in ["", "-a", "a/b", "..", "a_b", "a b", "ä", &"a".repeat(65)] {
            assert!(VmId::new(id).is_err(), "{id:?}");
        }
        let refused = |change: fn(&mut Jailer)| {
            let mut jailer = jailer();
            change(&mut jailer);
            jailer.vector().unwrap_err()
        };
        assert!(matches!(refused(|jailer| jailer.uid = 0), JailerError::Root { .. }));
        assert!(matches!(refused(|jailer| jailer.base = "srv".into()), JailerError::Path { what: "jail base", .. }));
        assert!(matches!(refused(|jailer| jailer.arguments.socket = "/a/../b".into()), JailerError::Path { .. }));
        assert!(matches!(refused(|jailer| jailer.executable = "/".into()), JailerError::Path { .. }));
        assert!(matches!(
            refused(|jailer| jailer.parent_cgroup = Some("/abs".into())),
            JailerError::ParentCgroup { .. }
        ));
        for (file, value) in [("tasks", "1"), ("../cpu.x", "1"), ("cpu.max", ""), ("cpu.max", "1\n2"), (".x", "1")] {
            let mut jailer = jailer();
            jailer.cgroup_settings = vec![(file.into(), value.into())];
            assert!(matches!(jailer.check(), Err(JailerError::CgroupSetting { .. })), "{file} {value:?}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_one_name_in_a_path(id in ".{0,70}") {
            if let Ok(id) = VmId::new(&id) {
                let jailer = Jailer::new(id, "/opt/firecracker", 1, 1);
                prop_assert_eq!(jailer.root().components().count(), 6);
            }
        }
    }
}
