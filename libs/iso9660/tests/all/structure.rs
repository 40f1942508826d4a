//! The fields of an image against ECMA-119, SUSP, RRIP and Joliet, read here without the library's
//! own reader.

use std::collections::BTreeMap;

use crate::{VOLUME_ID, build, files};

const SECTOR: usize = 2048;

fn both_16(bytes: &[u8]) -> usize {
    let little = u16::from_le_bytes([bytes[0], bytes[1]]);
    assert_eq!(little, u16::from_be_bytes([bytes[2], bytes[3]]), "both byte orders agree");
    little.into()
}

fn both_32(bytes: &[u8]) -> usize {
    let little = u32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(little, u32::from_be_bytes(bytes[4..8].try_into().unwrap()), "both byte orders agree");
    little as usize
}

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

struct Record<'a> {
    identifier: &'a [u8],
    block: usize,
    length: usize,
    flags: u8,
    system_use: &'a [u8],
}

fn record(bytes: &[u8]) -> Record<'_> {
    let length = usize::from(bytes[0]);
    assert_eq!(length % 2, 0, "records are even");
    let bytes = &bytes[..length];
    let identifier_length = usize::from(bytes[32]);
    assert_eq!(bytes[1], 0, "no extended attributes");
    assert_eq!(bytes[18..25], [125, 6, 15, 12, 30, 45, 0], "the one date");
    assert_eq!(bytes[26..28], [0, 0], "not interleaved");
    assert_eq!(both_16(&bytes[28..32]), 1, "volume 1");
    let system_use = (33 + identifier_length).next_multiple_of(2);
    assert!(bytes[33 + identifier_length..system_use].iter().all(|&byte| byte == 0));
    Record {
        identifier: &bytes[33..33 + identifier_length],
        block: both_32(&bytes[2..10]),
        length: both_32(&bytes[10..18]),
        flags: bytes[25],
        system_use: &bytes[system_use..],
    }
}

fn directory(bytes: &[u8]) -> Vec<Record<'_>> {
    assert_eq!(bytes.len() % SECTOR, 0);
    let mut records = Vec::new();
    for sector in bytes.chunks(SECTOR) {
        let mut at = 0;
        while at < SECTOR && sector[at] != 0 {
            records.push(record(&sector[at..]));
            at += usize::from(sector[at]);
            assert!(at <= SECTOR, "no record crosses a sector");
        }
        assert!(at > 0, "no empty sector");
        assert!(sector[at..].iter().all(|&byte| byte == 0), "nothing behind the last record");
    }
    records
}

/// Checks a descriptor and answers with the records of its root directory.
fn tree(image: &[u8], number: usize) -> Vec<Record<'_>> {
    let descriptor = &image[number * SECTOR..][..SECTOR];
    assert_eq!(&descriptor[1..7], b"CD001\x01");
    assert_eq!(both_32(&descriptor[80..88]) * SECTOR, image.len(), "the volume is the whole image");
    assert_eq!(both_16(&descriptor[120..124]), 1);
    assert_eq!(both_16(&descriptor[124..128]), 1);
    assert_eq!(both_16(&descriptor[128..132]), SECTOR);
    assert_eq!(&descriptor[813..830], b"2025061512304500\0");
    assert_eq!(&descriptor[830..847], b"2025061512304500\0");
    assert_eq!(&descriptor[847..864], b"0000000000000000\0");
    assert_eq!(&descriptor[864..881], b"0000000000000000\0");
    assert_eq!(descriptor[881..883], [1, 0]);
    assert!(descriptor[883..].iter().all(|&byte| byte == 0));
    assert_eq!(descriptor[156], 34);
    let root = record(&descriptor[156..190]);
    assert_eq!((root.identifier, root.flags), (&[0][..], 2));

    assert_eq!(both_32(&descriptor[132..140]), 10, "length of a path table");
    let little = u32::from_le_bytes(descriptor[140..144].try_into().unwrap()) as usize;
    let big = u32::from_be_bytes(descriptor[148..152].try_into().unwrap()) as usize;
    assert_eq!((&descriptor[144..148], &descriptor[152..156]), (&[0; 4][..], &[0; 4][..]), "no optional tables");
    let block = root.block as u32;
    let expected = [&[1, 0][..], &block.to_le_bytes(), &[1, 0, 0, 0]].concat();
    assert_eq!(&image[little * SECTOR..][..10], expected);
    let expected = [&[1, 0][..], &block.to_be_bytes(), &[0, 1, 0, 0]].concat();
    assert_eq!(&image[big * SECTOR..][..10], expected);

    let records = directory(&image[root.block * SECTOR..][..root.length]);
    for (record, identifier) in records.iter().zip([&[0][..], &[1]]) {
        assert_eq!((record.identifier, record.flags), (identifier, 2));
        assert_eq!((record.block, record.length), (root.block, root.length), "the root is its own parent");
    }
    assert!(records[2..].iter().all(|record| record.flags == 0));
    records
}

/// System use entries, continuation areas followed.
fn entries(image: &[u8], area: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = area;
    while rest.len() >= 4 {
        let length = usize::from(rest[2]);
        assert_eq!(rest[3], 1, "version");
        found.push((String::from_utf8(rest[..2].to_vec()).unwrap(), rest[4..length].to_vec()));
        rest = &rest[length..];
    }
    assert!(rest.iter().all(|&byte| byte == 0) && rest.len() < 2, "one byte of padding at most");
    if let Some(at) = found.iter().position(|(signature, _)| signature == "CE") {
        let (_, pointer) = found.remove(at);
        let (block, offset, length) = (both_32(&pointer), both_32(&pointer[8..]), both_32(&pointer[16..]));
        assert!(offset + length <= SECTOR, "a continuation area stays in its sector");
        found.extend(entries(image, &image[block * SECTOR + offset..][..length]));
    }
    found
}

#[test]
fn both_trees_follow_the_standard() {
    let files: BTreeMap<_, _> = files().into_iter().collect();
    let image = build(&files.clone().into_iter().collect::<Vec<_>>());
    assert!(image[..16 * SECTOR].iter().all(|&byte| byte == 0), "the system area is empty");
    assert_eq!((image[16 * SECTOR], image[17 * SECTOR], image[18 * SECTOR]), (1, 2, 255));
    assert_eq!(&image[18 * SECTOR + 1..][..6], b"CD001\x01");
    assert!(image[18 * SECTOR + 7..19 * SECTOR].iter().all(|&byte| byte == 0));
    assert_eq!(&image[16 * SECTOR + 40..][..32], VOLUME_ID.as_bytes());
    assert_eq!(&image[17 * SECTOR + 40..][..32], wide(&VOLUME_ID[..16]));
    assert_eq!(&image[17 * SECTOR + 88..][..32], [&b"%/E"[..], &[0; 29]].concat());

    let primary = tree(&image, 16);
    let identifiers: Vec<_> = primary[2..].iter().map(|record| String::from_utf8_lossy(record.identifier)).collect();
    assert_eq!(
        identifiers,
        [
            "CALLBACK.JSO;1",
            "EMPTY.;1",
            "KS.CFG;1",
            "RECIPE.JSO;1",
            "RECIPE_1.JSO;1",
            "RECIPE_S.BAK;1",
            "RECIPE_S.JSO;1",
            "UNATTEND.XML;1",
            "USER_DAT.;1",
            "________.TXT;1",
        ]
    );
    let joliet = tree(&image, 17);
    let mut used = Vec::new();
    for (records, is_joliet) in [(&primary, false), (&joliet, true)] {
        assert_eq!(records.len(), files.len() + 2);
        for record in &records[2..] {
            let name = match is_joliet {
                true => files.keys().find(|name| wide(name) == record.identifier).unwrap().clone(),
                false => rock_ridge_name(&image, record),
            };
            assert_eq!(&image[record.block * SECTOR..][..record.length], files[&name], "{name}");
            if !is_joliet {
                used.push(record.block..record.block + record.length.div_ceil(SECTOR).max(1));
            }
        }
    }
    used.sort_by_key(|blocks| blocks.start);
    assert!(used.windows(2).all(|pair| pair[0].end == pair[1].start), "files lie behind each other");
    assert_eq!(used.last().unwrap().end * SECTOR, image.len());
}

fn rock_ridge_name(image: &[u8], record: &Record<'_>) -> String {
    let entries: BTreeMap<_, _> = entries(image, record.system_use).into_iter().collect();
    let fields = entries["PX"].chunks(8).map(both_32).collect::<Vec<_>>();
    assert_eq!(fields, [0o100_444, 1, 0, 0], "mode, links, user, group");
    assert_eq!(entries["TF"], [&[14][..], &[125, 6, 15, 12, 30, 45, 0].repeat(3)].concat());
    assert_eq!(entries["NM"][0], 0);
    String::from_utf8(entries["NM"][1..].to_vec()).unwrap()
}

#[test]
fn the_root_announces_rock_ridge() {
    let image = build(&files());
    let primary = tree(&image, 16);
    let of_root = entries(&image, primary[0].system_use);
    assert_eq!(of_root[0], ("SP".into(), vec![0xbe, 0xef, 0]), "the first entry, as SUSP wants it");
    let reference = &of_root.iter().find(|(signature, _)| signature == "ER").unwrap().1;
    assert_eq!(&reference[..4], [10, 84, 135, 1]);
    assert_eq!(&reference[4..14], b"RRIP_1991A");
    assert_eq!(reference.len(), 4 + 10 + 84 + 135);
    for record in &primary[..2] {
        let entries: BTreeMap<_, _> = entries(&image, record.system_use).into_iter().collect();
        assert_eq!(entries["PX"].chunks(8).map(both_32).collect::<Vec<_>>(), [0o040_555, 2, 0, 0]);
        assert!(entries.contains_key("TF"));
    }
}

#[test]
fn directories_of_several_sectors_keep_the_rules() {
    let many: Vec<_> =
        (0..300).map(|number| (format!("machine-{number}.configuration.json"), vec![7; number])).collect();
    let image = build(&many);
    for number in [16, 17] {
        let records = tree(&image, number);
        assert_eq!(records.len(), many.len() + 2);
        let mut identifiers: Vec<_> = records[2..].iter().map(|record| record.identifier).collect();
        assert!(identifiers.is_sorted());
        identifiers.dedup();
        assert_eq!(identifiers.len(), many.len());
    }
}

#[test]
fn an_image_without_files_is_an_image() {
    let image = build(&[]);
    assert_eq!(tree(&image, 16).len(), 2);
    assert_eq!(tree(&image, 17).len(), 2);
}
