//! Finds files in an image: the primary tree, with the names of Rock Ridge where they are recorded.
//!
//! An image comes from anywhere. Every length is checked against the image and against a limit before
//! anything is allocated; no loop depends on the image alone for its end.

use std::io::{Read, Seek, SeekFrom};

use crate::descriptor::{FIRST_DESCRIPTOR, STANDARD_IDENTIFIER, TYPE_PRIMARY, TYPE_TERMINATOR};
use crate::record::{
    FLAG_DIRECTORY, FLAG_MULTI_EXTENT, PARENT_IDENTIFIER, RECORD_HEADER_BYTES, SELF_IDENTIFIER, system_use_offset,
};
use crate::system_use::{self, Attributes};
use crate::{ReadError, SECTOR_BYTES};

/// More descriptors than any known image has.
const MAX_DESCRIPTORS: u32 = 64;
/// Largest directory that is read, in bytes.
const MAX_DIRECTORY_BYTES: u64 = 4 << 20;
/// Most continuation areas that are followed for one record.
const MAX_CONTINUATIONS: usize = 8;

/// A run of bytes in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it starts, in bytes from the start of the image.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link or a special file of Rock Ridge.
    Other,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of Rock Ridge, otherwise the identifier without version and trailing full stop.
    /// Bytes that are not UTF-8 are replaced. Never empty, `.` or `..`, and without `/` and NUL.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Where its bytes lie. Not yet checked against the length of the image: [`Reader::find`] does.
    pub extent: Extent,
}

/// An open image. Reads logical blocks of 2048 bytes and, in a multi-session image, the first session.
/// Directories that Rock Ridge relocated because of their depth are not followed.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    /// Length of the source in bytes.
    end: u64,
    volume_id: String,
    root: Extent,
    /// Bytes to skip in every system use field; none where SUSP is not announced.
    system_use_skip: Option<usize>,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the primary volume descriptor and the start of the root directory.
    ///
    /// # Errors
    /// [`ReadError::NotIso9660`], [`ReadError::BlockSize`], and what reading from the source can give.
    pub fn open(mut source: R) -> Result<Self, ReadError> {
        let end = source.seek(SeekFrom::End(0)).map_err(|source| ReadError::Length { source })?;
        let nowhere = Extent { offset: 0, length: 0 };
        let mut reader = Self { source, end, volume_id: String::new(), root: nowhere, system_use_skip: None };
        let descriptor = reader.primary_descriptor()?;
        let size = u16::from_le_bytes([descriptor[128], descriptor[129]]);
        if usize::from(size) != SECTOR_BYTES {
            return Err(ReadError::BlockSize { size });
        }
        reader.volume_id = String::from_utf8_lossy(&descriptor[40..72]).trim_end_matches([' ', '\0']).to_owned();
        let at = u64::from(FIRST_DESCRIPTOR) * SECTOR_BYTES as u64 + 156;
        reader.root = RawRecord::parse(&descriptor[156..190], at)?.extent;

        let first = reader.read(reader.root.offset, SECTOR_BYTES)?;
        let about_itself = RawRecord::parse(&first, reader.root.offset)?;
        reader.system_use_skip = system_use::announcement(about_itself.system_use);
        Ok(reader)
    }

    /// The volume id without its padding.
    pub fn volume_id(&self) -> &str {
        &self.volume_id
    }

    /// What the directory at `path` holds, in recorded order. `/` is the root.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::NotADirectory`], and what a damaged image can give.
    pub fn list(&mut self, path: &str) -> Result<Vec<Entry>, ReadError> {
        let directory = match self.walk(path)? {
            None => self.root,
            Some(Entry { kind: EntryKind::Directory, extent, .. }) => extent,
            Some(_) => return Err(ReadError::NotADirectory { path: path.to_owned() }),
        };
        self.entries(directory)
    }

    /// Where the contents of the regular file at `path` lie, all of them inside the image. Names are
    /// compared exactly; slashes at the start, at the end and in a row do not count.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::NotADirectory`], [`ReadError::NotAFile`],
    /// [`ReadError::PastEnd`], and what a damaged image can give.
    pub fn find(&mut self, path: &str) -> Result<Extent, ReadError> {
        match self.walk(path)? {
            Some(Entry { kind: EntryKind::File, extent, .. }) => {
                self.check_inside(extent.offset, extent.length)?;
                Ok(extent)
            }
            _ => Err(ReadError::NotAFile { path: path.to_owned() }),
        }
    }

    /// Gives the source back, at an unspecified position.
    pub fn into_inner(self) -> R {
        self.source
    }

    /// The entry at `path`; nothing for the root, which has none.
    fn walk(&mut self, path: &str) -> Result<Option<Entry>, ReadError> {
        let mut found: Option<Entry> = None;
        let mut walked = String::new();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let directory = match &found {
                None => self.root,
                Some(entry) if entry.kind == EntryKind::Directory => entry.extent,
                Some(_) => return Err(ReadError::NotADirectory { path: walked }),
            };
            let entry = self.entries(directory)?.into_iter().find(|entry| entry.name == part);
            found = Some(entry.ok_or_else(|| ReadError::NotFound { path: path.to_owned() })?);
            walked.push('/');
            walked.push_str(part);
        }
        Ok(found)
    }

    fn primary_descriptor(&mut self) -> Result<Vec<u8>, ReadError> {
        for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
            let sector = match self.read(u64::from(number) * SECTOR_BYTES as u64, SECTOR_BYTES) {
                Err(ReadError::PastEnd { .. }) => break,
                sector => sector?,
            };
            if &sector[1..6] != STANDARD_IDENTIFIER || sector[0] == TYPE_TERMINATOR {
                break;
            }
            if sector[0] == TYPE_PRIMARY {
                return Ok(sector);
            }
        }
        Err(ReadError::NotIso9660)
    }

    /// All records of a directory but those about itself and its parent.
    fn entries(&mut self, directory: Extent) -> Result<Vec<Entry>, ReadError> {
        let Extent { offset, length } = directory;
        if length > MAX_DIRECTORY_BYTES {
            return Err(ReadError::DirectoryTooLarge { offset, length, limit: MAX_DIRECTORY_BYTES });
        }
        let bytes = self.read(offset, length as usize)?;
        let mut entries = Vec::new();
        // A file of several sections has a record for each; all but the last say that more follow.
        let mut unfinished: Option<Entry> = None;
        for (sector, sector_offset) in bytes.chunks(SECTOR_BYTES).zip((offset..).step_by(SECTOR_BYTES)) {
            let mut at = 0;
            // The length of a record is its first byte; zero means that the rest of the sector is empty.
            while sector.get(at).is_some_and(|&length| length != 0) {
                let record_offset = sector_offset + at as u64;
                let record = RawRecord::parse(&sector[at..], record_offset)?;
                at += record.length;
                if [SELF_IDENTIFIER, PARENT_IDENTIFIER].contains(&record.identifier) {
                    continue;
                }
                let Some(mut entry) = self.entry(&record, record_offset)? else { continue };
                if let Some(earlier) = unfinished.take() {
                    entry = join(earlier, &entry, record_offset)?;
                }
                if record.flags & FLAG_MULTI_EXTENT == 0 {
                    entries.push(entry);
                } else {
                    unfinished = Some(entry);
                }
            }
        }
        match unfinished {
            None => Ok(entries),
            Some(_) => Err(ReadError::Record { offset, reason: "the last section of a file is missing" }),
        }
    }

    /// A record under its best name; nothing where it is only the true place of a relocated directory.
    fn entry(&mut self, record: &RawRecord<'_>, offset: u64) -> Result<Option<Entry>, ReadError> {
        let attributes = self.attributes(record)?;
        if attributes.relocated {
            return Ok(None);
        }
        let name = attributes.name().unwrap_or_else(|| plain_name(record.identifier));
        let name = String::from_utf8_lossy(name).into_owned();
        if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\0']) {
            return Err(ReadError::Record { offset, reason: "the name is not one of a file" });
        }
        let kind = match record.flags & FLAG_DIRECTORY != 0 {
            true => EntryKind::Directory,
            false if attributes.is_special() => EntryKind::Other,
            false => EntryKind::File,
        };
        Ok(Some(Entry { name, kind, extent: record.extent }))
    }

    fn attributes(&mut self, record: &RawRecord<'_>) -> Result<Attributes, ReadError> {
        let mut attributes = Attributes::default();
        let Some(area) = self.system_use_skip.and_then(|skip| record.system_use.get(skip..)) else {
            return Ok(attributes);
        };
        let mut next = attributes.absorb(area);
        for _ in 0..MAX_CONTINUATIONS {
            let Some(continuation) = next else { break };
            let offset = u64::from(continuation.block) * SECTOR_BYTES as u64 + u64::from(continuation.offset);
            // One continuation area fills a sector at most.
            let length = (continuation.length as usize).min(SECTOR_BYTES);
            next = attributes.absorb(&self.read(offset, length)?);
        }
        Ok(attributes)
    }

    /// `length` is within a limit that the caller has checked.
    fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        self.check_inside(offset, length as u64)?;
        let mut bytes = vec![0; length];
        self.source
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.source.read_exact(&mut bytes))
            .map_err(|source| ReadError::Io { offset, length, source })?;
        Ok(bytes)
    }

    fn check_inside(&self, offset: u64, length: u64) -> Result<(), ReadError> {
        match offset.checked_add(length) {
            Some(after) if after <= self.end => Ok(()),
            _ => Err(ReadError::PastEnd { offset, length, end: self.end }),
        }
    }
}

/// A directory record, taken apart (ECMA-119 9.1).
struct RawRecord<'a> {
    length: usize,
    extent: Extent,
    flags: u8,
    identifier: &'a [u8],
    system_use: &'a [u8],
}

impl<'a> RawRecord<'a> {
    /// The record at the start of `bytes`, which end where its sector ends. `offset` is for errors.
    fn parse(bytes: &'a [u8], offset: u64) -> Result<Self, ReadError> {
        let wrong = |reason| Err(ReadError::Record { offset, reason });
        let length = bytes.first().map_or(0, |&length| usize::from(length));
        let Some(record) = bytes.get(..length).filter(|record| record.len() > RECORD_HEADER_BYTES) else {
            return wrong("its length does not fit");
        };
        let identifier_bytes = usize::from(record[32]);
        let Some(identifier) = record.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + identifier_bytes) else {
            return wrong("its identifier does not fit");
        };
        if record[26] != 0 || record[27] != 0 {
            return wrong("interleaved files are not read");
        }
        let number = |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]);
        // The extent starts with the extended attribute record, whose length is in blocks.
        let block = u64::from(number(2)) + u64::from(record[1]);
        let extent = Extent { offset: block * SECTOR_BYTES as u64, length: number(10).into() };
        let system_use = record.get(system_use_offset(identifier_bytes)..).unwrap_or_default();
        Ok(Self { length, extent, flags: record[25], identifier, system_use })
    }
}

/// One entry for two sections of a file, which have to lie behind each other.
fn join(earlier: Entry, later: &Entry, offset: u64) -> Result<Entry, ReadError> {
    let Extent { offset: start, length } = earlier.extent;
    if start + length != later.extent.offset {
        return Err(ReadError::Record { offset, reason: "the sections of a file do not lie behind each other" });
    }
    let extent = Extent { offset: start, length: length + later.extent.length };
    Ok(Entry { extent, ..earlier })
}

/// An identifier without version and without the full stop of an empty extension.
fn plain_name(identifier: &[u8]) -> &[u8] {
    let name = identifier.split(|&byte| byte == b';').next().unwrap_or_default();
    name.strip_suffix(b".").unwrap_or(name)
}
