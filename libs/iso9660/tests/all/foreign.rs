//! What other programs see: xorriso through Rock Ridge, isoinfo through each of the three trees, blkid.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use iso9660::Image;
use tempfile::TempDir;

use crate::{TIMESTAMP, VOLUME_ID, build, files, have, run, text, xorriso};

/// The image that `files()` gives, as a file.
fn image_file() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("task.iso");
    fs::write(&path, build(&files())).unwrap();
    (directory, path)
}

/// Runs `isoinfo -i IMAGE` with arguments that need not be UTF-8.
fn isoinfo(image: &Path, arguments: &[OsString]) -> Vec<u8> {
    let output = Command::new("isoinfo").arg("-i").arg(image).args(arguments).output().unwrap();
    assert!(output.status.success(), "isoinfo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn latin_1(text: &str) -> OsString {
    OsString::from_vec(text.chars().map(|c| u8::try_from(c).unwrap()).collect())
}

#[test]
fn xorriso_reads_every_file_and_its_attributes() {
    if !have("xorriso_reads_every_file_and_its_attributes", &["xorriso"]) {
        return;
    }
    let (directory, image) = image_file();
    let out = directory.path().join("out");
    xorriso(&["-indev", text(&image), "-osirrox", "on", "-extract", "/", text(&out)]);
    for (name, contents) in files() {
        let path = out.join(&name);
        assert_eq!(fs::read(&path).unwrap(), contents, "{name}");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode(), 0o100_444, "{name}");
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&metadata), TIMESTAMP, "{name}");
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), files().len());
    // A directory that its owner may not write is not cleaned up either.
    fs::set_permissions(&out, fs::Permissions::from_mode(0o755)).unwrap();

    let listing = xorriso(&["-indev", text(&image), "-find", "/", "-exec", "lsdl", "--"]);
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    let of = |name: &str| lines.iter().find(|fields| fields.last() == Some(&name)).unwrap()[..4].join(" ");
    assert_eq!(of("'/'"), "dr-xr-xr-x 1 0 0");
    for (name, _) in files() {
        assert_eq!(of(&format!("'/{name}'")), "-r--r--r-- 1 0 0");
    }
}

#[test]
fn xorriso_finds_nothing_wrong_with_the_medium() {
    if !have("xorriso_finds_nothing_wrong_with_the_medium", &["xorriso"]) {
        return;
    }
    let (_directory, image) = image_file();
    let report = xorriso(&["-indev", text(&image), "-check_media", "--", "-toc", "-pvd_info"]);
    let blocks = fs::metadata(&image).unwrap().len() / 2048;
    let regions: Vec<_> = report.lines().filter(|line| line.starts_with("Media region :")).collect();
    assert_eq!(regions.len(), 1, "{report}");
    let numbers: Vec<_> = regions[0].trim_start_matches("Media region :").split(',').map(str::trim).collect();
    assert_eq!(numbers, ["0", &blocks.to_string(), "+ good"]);
    assert!(report.contains("ISO offers   : Rock_Ridge Joliet"), "{report}");
    assert!(report.contains(&format!("Volume Id    : {VOLUME_ID}\n")), "{report}");
    assert!(report.contains("Creation Time: 2025061512304500"), "{report}");
}

#[test]
fn isoinfo_reads_the_plain_tree() {
    if !have("isoinfo_reads_the_plain_tree", &["isoinfo"]) {
        return;
    }
    let (_directory, image) = image_file();
    let listing = String::from_utf8(isoinfo(&image, &["-l".into()])).unwrap();
    let long_name = files().last().unwrap().0.clone();
    for (name, short) in [
        ("callback.json", "CALLBACK.JSO;1"),
        ("empty", "EMPTY.;1"),
        ("ks.cfg", "KS.CFG;1"),
        ("recipe.json", "RECIPE.JSO;1"),
        ("recipe.schema.json", "RECIPE_S.JSO;1"),
        ("recipe.schema.json.bak", "RECIPE_S.BAK;1"),
        ("recipe.state.json", "RECIPE_1.JSO;1"),
        ("unattend.xml", "UNATTEND.XML;1"),
        ("user-data", "USER_DAT.;1"),
        (&long_name, "________.TXT;1"),
    ] {
        assert!(listing.contains(&format!(" {short} \n")), "{short} in\n{listing}");
        let contents = &files().into_iter().find(|(other, _)| other == name).unwrap().1;
        assert_eq!(&isoinfo(&image, &["-x".into(), format!("/{short}").into()]), contents, "{name}");
    }
}

#[test]
fn isoinfo_reads_the_joliet_tree() {
    if !have("isoinfo_reads_the_joliet_tree", &["isoinfo"]) {
        return;
    }
    let (_directory, image) = image_file();
    let joliet = ["-J".into(), "-j".into(), "iso8859-1".into()];
    let listing = isoinfo(&image, &[&joliet[..], &["-l".into()]].concat());
    let listing: String = listing.into_iter().map(char::from).collect();
    for (name, contents) in files() {
        assert!(listing.contains(&format!(" {name} \n")), "{name} in\n{listing}");
        let path = latin_1(&format!("/{name}"));
        assert_eq!(isoinfo(&image, &[&joliet[..], &["-x".into(), path]].concat()), contents, "{name}");
    }
    let descriptor = String::from_utf8(isoinfo(&image, &["-d".into()])).unwrap();
    assert!(descriptor.contains("Joliet with UCS level 3 found"), "{descriptor}");
    assert!(descriptor.contains("Rock Ridge signatures version 1 found"), "{descriptor}");
}

#[test]
fn isoinfo_reads_the_rock_ridge_tree() {
    if !have("isoinfo_reads_the_rock_ridge_tree", &["isoinfo"]) {
        return;
    }
    let (_directory, image) = image_file();
    let listing = String::from_utf8(isoinfo(&image, &["-R".into(), "-l".into()])).unwrap();
    for (name, contents) in files() {
        let line = listing.lines().find(|line| line.ends_with(&format!(" {name} "))).unwrap();
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[..5], ["-r--r--r--", "1", "0", "0", &contents.len().to_string()]);
        assert_eq!(isoinfo(&image, &["-R".into(), "-x".into(), format!("/{name}").into()]), contents, "{name}");
    }
}

#[test]
fn blkid_shows_the_whole_volume_id_as_the_label() {
    if !have("blkid_shows_the_whole_volume_id_as_the_label", &["blkid"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("image.iso");
    for volume_id in [VOLUME_ID, "CAIRN_MAINT", "TASK_0123456789A", "A", "CIDATA-2 (B)"] {
        let image = Image::builder(volume_id, TIMESTAMP).unwrap().file("ks.cfg", b"text\n").unwrap().build().unwrap();
        fs::write(&path, image).unwrap();
        let value = |tag| {
            let output = run("blkid", &["-p", "-s", tag, "-o", "value", text(&path)]);
            String::from_utf8(output).unwrap().trim_end().to_owned()
        };
        assert_eq!((value("TYPE"), value("LABEL")), ("iso9660".into(), volume_id.into()));
        assert_eq!(value("UUID"), "2025-06-15-12-30-45-00");
    }
}
