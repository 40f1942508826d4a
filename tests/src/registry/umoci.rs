//! umoci: an image made from nothing in a layout, carried by skopeo, unpacked again on the other side.

use std::path::Path;

use anyhow::{Result, ensure};

use super::daemon::{Registry, with_each_access};
use super::image::Layout;
use super::{random, skopeo};

pub(crate) const NEEDS: &[&str] = &["htpasswd", "umoci", "skopeo"];

pub(crate) fn carries(work: &Path) -> Result<()> {
    with_each_access(work, there_and_back)
}

fn there_and_back(registry: &Registry) -> Result<()> {
    let work = registry.work();
    let file = random::bytes(11, 200_000);
    std::fs::write(work.join("file"), &file)?;
    let made = work.join("made");
    let image = format!("{}:1", made.display());
    registry.run("umoci", &["init", "--layout", &made.display().to_string()])?;
    registry.run("umoci", &["new", "--image", &image])?;
    registry.run("umoci", &["insert", "--image", &image, "file", "/srv/file"])?;
    registry.run("umoci", &["config", "--image", &image, "--config.env", "OF=umoci"])?;
    skopeo::log_in(registry)?;
    let (made, pulled) = (Layout::at(&made), Layout::at(&work.join("pulled")));
    let name = format!("docker://{}:1", registry.name("umoci/made"));
    skopeo::copy(registry, &made.name("1"), &name)?;
    made.check_in(registry, "umoci/made", "1")?;
    skopeo::copy(registry, &name, &pulled.name("1"))?;
    let bundle = work.join("bundle");
    let image = format!("{}:1", work.join("pulled").display());
    registry.run("umoci", &["unpack", "--image", &image, &bundle.display().to_string()])?;
    ensure!(std::fs::read(bundle.join("rootfs/srv/file"))? == file, "the file came back with other bytes");
    made.same("1", &pulled, "1")
}
