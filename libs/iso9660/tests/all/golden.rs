//! The same input gives the same bytes, today, tomorrow and elsewhere.

use iso9660::{Error, Image, MAX_IMAGE_BYTES};
use sha2::{Digest, Sha256};

use crate::{TIMESTAMP, VOLUME_ID, build, files};

/// SHA-256 of the image that `files()` gives. A change here means that every image changes: do it on
/// purpose, and have an image mounted by a kernel before.
const GOLDEN: &str = "0f2bcaeefe69aec51a94ee31d15396119bd571e2139529d1c659e98c234429a1";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_are_the_recorded_ones() {
    assert_eq!(hex(&Sha256::digest(build(&files()))), GOLDEN);
}

#[test]
fn neither_a_second_build_nor_another_order_changes_a_byte() {
    let first = build(&files());
    assert!(first == build(&files()));
    let mut reversed = files();
    reversed.reverse();
    assert!(first == build(&reversed));
}

#[test]
fn volume_id_and_timestamp_change_the_bytes_but_not_the_size() {
    let other_id = Image::builder("OTHER", TIMESTAMP).unwrap().build().unwrap();
    let other_time = Image::builder(VOLUME_ID, TIMESTAMP + 1).unwrap().build().unwrap();
    let empty = build(&[]);
    assert_eq!((other_id.len(), other_time.len()), (empty.len(), empty.len()));
    assert!(other_id != empty && other_time != empty && other_id != other_time);
}

#[test]
fn names_that_differ_in_case_only_are_one_too_many() {
    let mut image = Image::builder(VOLUME_ID, TIMESTAMP).unwrap();
    image.file("Straße.json", b"1").unwrap();
    for name in ["Straße.json", "STRASSE.JSON", "straße.JSON"] {
        let refused = image.file(name, b"2");
        assert!(matches!(refused, Err(Error::Duplicate { earlier, .. }) if earlier == "Straße.json"), "{name}");
    }
    image.file("Strase.json", b"3").unwrap();
}

#[test]
fn an_image_above_the_limit_is_refused_before_it_is_made() {
    let half = vec![0; (MAX_IMAGE_BYTES / 2) as usize];
    let mut image = Image::builder(VOLUME_ID, TIMESTAMP).unwrap();
    image.file("a", &half).unwrap().file("b", &half).unwrap();
    assert!(image.size() > MAX_IMAGE_BYTES);
    assert!(matches!(image.build(), Err(Error::TooLarge { size, limit: MAX_IMAGE_BYTES }) if size == image.size()));
}

#[test]
fn contents_are_not_printed() {
    let mut image = Image::builder(VOLUME_ID, TIMESTAMP).unwrap();
    let printed = format!("{:?}", image.file("callback.json", b"planted").unwrap());
    assert!(printed.contains("\"callback.json\": 7"), "{printed}");
    assert!(!printed.contains("planted") && !printed.contains("112, 108"), "{printed}");
}
