//! The medium itself: plain El Torito, no partition table, so that the same bytes can be served with a task laid over.

use std::collections::BTreeMap;
use std::path::Path;

use super::tool::Tool;
use super::{Extent, ImageError, TASK_IMAGE_SIZE, VOLUME_ID};

const SECTOR: u64 = 2048;

/// Writes the tree `medium` as an ISO to `output`, dated `epoch`.
pub(super) fn write(medium: &Path, output: &Path, epoch: u64) -> Result<(), ImageError> {
    let (_, said) = Tool::new("xorriso")
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .args(["-as", "mkisofs", "-V", VOLUME_ID, "-r", "--set_all_file_dates", &format!("={epoch}"), "-o"])
        .arg(output)
        .args([
            "-c",
            "boot/boot.cat",
            "-b",
            "boot/bios.img",
            "-no-emul-boot",
            "-boot-load-size",
            "4",
            "-boot-info-table",
        ])
        .args(["-eltorito-alt-boot", "-e", "boot/efi.img", "-no-emul-boot"])
        .arg(medium)
        .run_both()?;
    // It has been seen to leave a truncated file with exit status 0.
    if said.contains("completed successfully") {
        Ok(())
    } else {
        Err(ImageError::Check { reason: "xorriso did not report success".to_owned() })
    }
}

/// Reads the finished ISO back: every file of `medium` is there with its size and in one piece. Returns where the
/// reserved file lies.
pub(super) fn check(iso: &Path, medium: &Path) -> Result<Extent, ImageError> {
    let report = Tool::new("xorriso")
        .args(["-indev"])
        .arg(iso)
        .args(["-find", "/", "-type", "f", "-exec", "report_lba", "--"])
        .run()?;
    let files = parse_report(&report);
    for relative in super::tree::walk(medium)? {
        let path = medium.join(&relative);
        let metadata = path.metadata().map_err(ImageError::file("read", &path))?;
        let name = format!("/{}", relative.display());
        let found = files.get(&name);
        if metadata.is_file() && found.is_none_or(|extents| extents.len() != 1 || extents[0].length != metadata.len()) {
            return Err(ImageError::Check {
                reason: format!("{name} is {found:?}, not {} bytes in one piece", metadata.len()),
            });
        }
    }
    let task = files.get("/TASK.IMG").and_then(|extents| extents.first()).copied();
    task.filter(|extent| extent.length == TASK_IMAGE_SIZE)
        .ok_or_else(|| ImageError::Check { reason: "the reserved file /TASK.IMG is missing".to_owned() })
}

/// Reads lines `File data lba: EXTENT , START , SECTORS , BYTES , 'PATH'`.
fn parse_report(report: &str) -> BTreeMap<String, Vec<Extent>> {
    let mut files = BTreeMap::<_, Vec<_>>::new();
    for line in report.lines() {
        let Some(rest) = line.strip_prefix("File data lba:") else { continue };
        let fields: Vec<_> = rest.splitn(5, ',').map(str::trim).collect();
        if let [_, start, _, length, path] = fields[..]
            && let (Ok(start), Ok(length)) = (start.parse::<u64>(), length.parse())
        {
            let path = path.trim_matches('\'').to_owned();
            files.entry(path).or_default().push(Extent { offset: start * SECTOR, length });
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_gives_places_in_bytes() {
        let report = "Report layout: xt , Startlba ,   Blocks , Filesize , ISO image path\n\
                      File data lba:  0 ,       42 ,     5120 , 10485760 , '/TASK.IMG'\n\
                      File data lba:  0 ,     6000 ,        1 ,       33 , '/cairn/build-id'\n";
        let files = parse_report(report);
        assert_eq!(files["/TASK.IMG"], [Extent { offset: 86_016, length: 10_485_760 }]);
        assert_eq!(files.len(), 2);
    }
}
