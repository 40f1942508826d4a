//! Where control groups are on this host: version 2, version 1 with a tree for each controller, or both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::group::{Group, write};
use super::{CgroupError, GroupLimits};
use crate::FileError;
use crate::mount::unescaped;

/// Controllers that set limits.
const LIMITING: [&str; 3] = ["memory", "cpu", "pids"];
/// A new group of this controller of version 1 takes no process before it has processors and memory nodes.
const CPUSET: &str = "cpuset";
/// Period over which processor time is counted, in microseconds; the kernel's own default.
const PERIOD: u64 = 100_000;
/// Least processor time in a period that the kernel takes, in microseconds.
const LEAST_QUOTA: u64 = 1000;

/// The trees of control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hierarchies {
    unified: Option<PathBuf>,
    /// Of version 1, by controller; `name=systemd` is one without a controller. Several names may share one tree.
    first: BTreeMap<String, PathBuf>,
}

impl Hierarchies {
    /// Those of this host, as the caller sees them.
    pub fn of_host() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let text = std::fs::read(path).map_err(FileError::at("read", path))?;
        Ok(Self::parse(&text))
    }

    /// Reads mountinfo (proc_pid_mountinfo(5)). The first mount of a tree counts.
    fn parse(mountinfo: &[u8]) -> Self {
        let mut found = Self::default();
        for line in mountinfo.split(|byte| *byte == b'\n') {
            let mut words = line.split(|byte| *byte == b' ');
            let Some(target) = words.nth(4).map(unescaped) else { continue };
            let words: Vec<_> = words.skip_while(|word| *word != b"-").skip(1).collect();
            match words.as_slice() {
                [b"cgroup2", ..] => drop(found.unified.get_or_insert(target)),
                [b"cgroup", _, options, ..] => {
                    let options = String::from_utf8_lossy(options);
                    for name in options.split(',').filter(|name| !["rw", "ro", "xattr"].contains(name)) {
                        found.first.entry(name.to_owned()).or_insert_with(|| target.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Makes a group, or finds it, and sets its limits. Gives back also which limits this host cannot set.
    pub fn make(&self, name: &str, limits: &GroupLimits) -> Result<(Group, Vec<&'static str>), CgroupError> {
        check(name)?;
        let group = self.group_in(name);
        for directory in group.directories() {
            make_directory(directory)?;
        }
        let mut refused = Vec::new();
        for (controller, files) in settings(limits) {
            if !self.set(name, controller, &files) {
                refused.push(controller);
            }
        }
        Ok((group, refused))
    }

    /// Moves a process to a group without limits in every tree that lets it, so that it shares none with who started it.
    /// An error when no tree does.
    pub fn move_apart(&self, name: &str, pid: u32) -> Result<(), CgroupError> {
        check(name)?;
        let cpuset = self.first.get(CPUSET);
        let all = self.unified.iter().chain(self.first.values()).filter(|tree| Some(*tree) != cpuset);
        let trees: BTreeSet<&PathBuf> = all.collect();
        let (mut moved, mut refused) = (trees.is_empty(), None);
        for tree in trees {
            let directory = tree.join(name);
            match make_directory(&directory).and_then(|()| Group::of([directory]).add(pid)) {
                Ok(()) => moved = true,
                Err(error) => refused = Some(error),
            }
        }
        refused.filter(|_| !moved).map_or(Ok(()), Err)
    }

    /// Every directory of a group that `move_apart` has made.
    pub fn apart(&self, name: &str) -> Result<Group, CgroupError> {
        check(name)?;
        let trees: BTreeSet<&PathBuf> = self.unified.iter().chain(self.first.values()).collect();
        Ok(Group::of(trees.into_iter().map(|tree| tree.join(name))))
    }

    /// Makes a group below the caller's own, without limits: in one tree, which is enough to find all processes of it.
    pub fn make_within_own(&self, name: &str) -> Result<Group, CgroupError> {
        check(name)?;
        let path = Path::new("/proc/self/cgroup");
        let text = std::fs::read_to_string(path).map_err(FileError::at("read", path))?;
        let Some(own) = self.own(&text) else { return Ok(Group::default()) };
        let group = Group::of([own.join(name)]);
        for directory in group.directories() {
            make_directory(directory)?;
        }
        Ok(group)
    }

    /// Names of the groups directly below a group.
    pub fn children(&self, name: &str) -> Result<BTreeSet<String>, CgroupError> {
        check(name)?;
        let mut found = BTreeSet::new();
        for directory in self.group_in(name).directories() {
            let entries = match std::fs::read_dir(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries.map_err(FileError::at("list", directory))?,
            };
            for entry in entries {
                let entry = entry.map_err(FileError::at("list", directory))?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    found.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        Ok(found)
    }

    /// A group by its name, whether it is there or not.
    pub fn group(&self, name: &str) -> Result<Group, CgroupError> {
        check(name)?;
        Ok(self.group_in(name))
    }

    fn group_in(&self, name: &str) -> Group {
        Group::of(self.limiting_trees().into_iter().map(|tree| tree.join(name)))
    }

    /// The trees in which a group with limits has a directory; any one where there is no other.
    fn limiting_trees(&self) -> BTreeSet<&Path> {
        let mut trees: BTreeSet<&Path> = self.unified.iter().map(|tree| &**tree).collect();
        trees.extend(LIMITING.iter().filter_map(|name| self.first.get(*name)).map(|tree| &**tree));
        if trees.is_empty() {
            trees.extend(self.first.iter().filter(|(name, _)| *name != CPUSET).map(|(_, tree)| &**tree).next());
        }
        trees
    }

    /// Sets files of one controller, in the version that has it; `false` when neither takes them.
    fn set(&self, name: &str, controller: &str, files: &Files) -> bool {
        if let Some(tree) = self.first.get(controller) {
            return files.first.iter().all(|(file, value)| write(&tree.join(name).join(file), value).is_ok());
        }
        let Some(tree) = &self.unified else { return false };
        // A controller reaches a group when every group above passes it on. Where one cannot, the file below is missing.
        let mut above = tree.clone();
        let names: Vec<_> = name.split('/').collect();
        for part in std::iter::once(&"").chain(&names[..names.len() - 1]) {
            above.push(part);
            let _ = write(&above.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
        files.second.iter().all(|(file, value)| write(&tree.join(name).join(file), value).is_ok())
    }

    /// The caller's own group, in the tree in which processes are found (proc(5), /proc/PID/cgroup).
    fn own(&self, text: &str) -> Option<PathBuf> {
        let of = |wanted: &str| {
            text.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                names.split(',').any(|name| name == wanted).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        let unified = self.unified.as_ref().and_then(|tree| Some(tree.join(of("")?)));
        unified.or_else(|| {
            self.first.iter().filter(|(name, _)| *name != CPUSET).find_map(|(name, tree)| Some(tree.join(of(name)?)))
        })
    }
}

/// Files and values of a limit, by version.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    first: Vec<(&'static str, String)>,
    second: Vec<(&'static str, String)>,
}

fn settings(limits: &GroupLimits) -> Vec<(&'static str, Files)> {
    let mut all = Vec::new();
    if let Some(bytes) = limits.memory_bytes {
        let value = bytes.to_string();
        let first = vec![("memory.limit_in_bytes", value.clone())];
        all.push(("memory", Files { first, second: vec![("memory.max", value)] }));
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = (millis.saturating_mul(PERIOD) / 1000).max(LEAST_QUOTA);
        let first = vec![("cpu.cfs_period_us", PERIOD.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
        all.push(("cpu", Files { first, second: vec![("cpu.max", format!("{quota} {PERIOD}"))] }));
    }
    if let Some(tasks) = limits.tasks {
        let value = vec![("pids.max", tasks.to_string())];
        all.push(("pids", Files { first: value.clone(), second: value }));
    }
    all
}

fn check(name: &str) -> Result<(), CgroupError> {
    let fits = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains('\0');
    if name.split('/').all(fits) { Ok(()) } else { Err(CgroupError::Name { name: name.to_owned() }) }
}

fn make_directory(path: &Path) -> Result<(), CgroupError> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(FileError::at("make", path))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"30 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
        32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd\n\
        33 30 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 - cgroup cgroup rw,cpu,cpuacct\n\
        34 30 0:31 / /sys/fs/cgroup/memory rw shared:16 - cgroup cgroup rw,memory\n\
        35 30 0:32 / /sys/fs/cgroup/cpuset rw shared:17 - cgroup cgroup rw,cpuset\n";

    #[test]
    fn hosts_of_all_kinds_are_understood() {
        let hybrid = Hierarchies::parse(HYBRID);
        assert_eq!(hybrid.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(hybrid.first.keys().collect::<Vec<_>>(), ["cpu", "cpuacct", "cpuset", "memory", "name=systemd"]);
        let group = hybrid.group("a/b").unwrap();
        let expected =
            ["cpu,cpuacct", "memory", "unified"].map(|tree| Path::new("/sys/fs/cgroup").join(tree).join("a/b"));
        assert_eq!(group.directories(), expected);

        let pure = Hierarchies::parse(b"31 30 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(pure.group("a").unwrap().directories(), [PathBuf::from("/sys/fs/cgroup/a")]);
        let none = Hierarchies::parse(b"");
        assert_eq!(none.group("a").unwrap().directories().len(), 0);
    }

    #[test]
    fn the_callers_own_group_is_found() {
        let own = "9:name=systemd:/system.slice/x.service\n4:memory:/m\n0::/system.slice/x.service\n";
        let place = Hierarchies::parse(HYBRID).own(own).unwrap();
        assert_eq!(place, Path::new("/sys/fs/cgroup/unified/system.slice/x.service"));
        let legacy = Hierarchies::parse(b"32 30 0:28 / /c/systemd rw - cgroup cgroup rw,name=systemd\n");
        assert_eq!(legacy.own(own).unwrap(), Path::new("/c/systemd/system.slice/x.service"));
        assert_eq!(Hierarchies::default().own(own), None);
    }

    #[test]
    fn limits_are_files_in_both_versions() {
        let limits = GroupLimits { memory_bytes: Some(4096), cpu_millis: Some(1500), tasks: Some(3) };
        let files = settings(&limits);
        assert_eq!(files[0].1.second, [("memory.max", "4096".to_owned())]);
        assert_eq!(files[1].1.second, [("cpu.max", "150000 100000".to_owned())]);
        assert_eq!(files[1].1.first[1], ("cpu.cfs_quota_us", "150000".to_owned()));
        assert_eq!(files[2].1.first, [("pids.max", "3".to_owned())]);
        assert_eq!(
            settings(&GroupLimits { cpu_millis: Some(1), ..GroupLimits::default() })[0].1.second[0].1,
            "1000 100000"
        );
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden"] {
            assert!(matches!(Hierarchies::default().group(bad), Err(CgroupError::Name { .. })), "{bad}");
        }
    }
}
