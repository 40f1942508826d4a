//! Control groups of both versions. They stay behind, as with the real one.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Version 1: a group in the hierarchy of each controller that a setting names.
pub(crate) fn first(parent: &str, id: &str, settings: &[String]) -> Result<()> {
    for setting in settings {
        let (controller, file, value) = parts(setting)?;
        let carries =
            |mount: &Mount| mount.kind == "cgroup" && mount.options.split(',').any(|option| option == controller);
        let mount =
            mounts()?.into_iter().find(carries).with_context(|| format!("Controller {controller} is unavailable"))?;
        let group = mount.path.join(parent).join(id);
        make(&group)?;
        write(&group.join(file), value)?;
        write(&group.join("tasks"), &std::process::id().to_string())?;
    }
    Ok(())
}

/// Version 2: one group with all settings; without any, the parent group if it is there.
pub(crate) fn second(parent: &str, id: &str, settings: &[String]) -> Result<()> {
    let mount = mounts()?.into_iter().find(|mount| mount.kind == "cgroup2");
    let process = std::process::id().to_string();
    if settings.is_empty() {
        let group = mount.map(|mount| mount.path.join(parent));
        return match group.filter(|group| group.is_dir()) {
            Some(group) => write(&group.join("cgroup.procs"), &process),
            None => Ok(()),
        };
    }
    let mount = mount.context("cgroup version 2 is not mounted")?.path;
    let group = mount.join(parent).join(id);
    make(&group)?;
    for setting in settings {
        let (controller, file, value) = parts(setting)?;
        // Every group from the root down has to hand the controller on.
        for above in
            group.ancestors().skip(1).take_while(|above| above.starts_with(&mount)).collect::<Vec<_>>().iter().rev()
        {
            let available = std::fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
            ensure!(
                available.split_whitespace().any(|one| one == controller),
                "Controller {controller} is unavailable"
            );
            write(&above.join("cgroup.subtree_control"), &format!("+{controller}"))?;
        }
        write(&group.join(file), value)?;
    }
    write(&group.join("cgroup.procs"), &process)
}

/// Controller, file and value of `file=value`.
fn parts(setting: &str) -> Result<(&str, &str, &str)> {
    let (file, value) = setting.split_once('=').with_context(|| format!("Invalid format for cgroups: {setting}"))?;
    if file.contains('/') || file.contains("..") || value.is_empty() {
        bail!("{file} is not a valid cgroup file");
    }
    let controller = file.split_once('.').with_context(|| format!("{file} is not a valid cgroup file"))?.0;
    Ok((controller, file, value))
}

struct Mount {
    path: PathBuf,
    kind: String,
    options: String,
}

fn mounts() -> Result<Vec<Mount>> {
    let text = std::fs::read_to_string("/proc/mounts").context("Failed to read /proc/mounts")?;
    let read = |line: &str| {
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        Some(Mount { path: words.next()?.into(), kind: words.next()?, options: words.next()? })
    };
    Ok(text.lines().filter_map(read).collect())
}

fn make(group: &Path) -> Result<()> {
    std::fs::create_dir_all(group).with_context(|| format!("Failed to create directory {}", group.display()))
}

fn write(path: &Path, value: &str) -> Result<()> {
    std::fs::write(path, format!("{value}\n")).with_context(|| format!("Failed to write to {}", path.display()))
}
