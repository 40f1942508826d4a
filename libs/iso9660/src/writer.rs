//! The layout of an image, and its bytes.
//!
//! ```text
//! sector 0   system area, zero
//!       16   primary descriptor, Joliet descriptor, terminator
//!       19   path tables: primary L, M; Joliet L, M
//!       23   root directory, primary
//!        …   root directory, Joliet
//!        …   continuation area of Rock Ridge
//!        …   files, ordered by name, each from the start of a sector
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::date::Date;
use crate::descriptor::{FIRST_DESCRIPTOR, Tree, VolumeDescriptor, terminator};
use crate::name::Level1;
use crate::record::{
    DirectoryRecord, FLAG_DIRECTORY, PARENT_IDENTIFIER, SELF_IDENTIFIER, Span, pad_to_sector, root_path_tables, sectors,
};
use crate::rock_ridge::ContinuationArea;
use crate::{Error, SECTOR_BYTES, joliet, name, rock_ridge};

/// Largest image in bytes, 1 GiB: it is built in memory, and block numbers stay far from 32 bits.
pub const MAX_IMAGE_BYTES: u64 = 1 << 30;

const PRIMARY_PATH_TABLES: u32 = FIRST_DESCRIPTOR + 3;
const JOLIET_PATH_TABLES: u32 = PRIMARY_PATH_TABLES + 2;
const FIRST_DIRECTORY: u32 = JOLIET_PATH_TABLES + 2;

/// An image in the making: regular files at its root, mode 0444 under a root of 0555, owned by 0:0.
///
/// Three names lead to each file: its own by Rock Ridge and by Joliet, and a cut one of level 1
/// (`recipe.schema.json` is `RECIPE_S.JSO;1`) for readers that know neither.
#[derive(Clone)]
pub struct Image<'a> {
    volume_id: String,
    date: Date,
    files: BTreeMap<String, Cow<'a, [u8]>>,
    /// Names as they are added, under what they have in common with names of another case.
    without_case: BTreeMap<String, String>,
}

impl<'a> Image<'a> {
    /// Starts an image. All its dates are `timestamp_seconds`, counted from 1970-01-01 00:00:00 UTC
    /// as in `SOURCE_DATE_EPOCH`.
    ///
    /// The volume id is 1 to 32 characters of `A-Z`, `0-9`, space and `!"%&'()+,-.<=>_`. The Joliet
    /// descriptor has room for its first 16 only; readers that show a label take the longer one.
    ///
    /// # Errors
    /// [`Error::VolumeId`] and [`Error::Timestamp`] (years 1900 to 2155).
    pub fn builder(volume_id: &str, timestamp_seconds: i64) -> Result<Self, Error> {
        name::check_volume_id(volume_id)?;
        let date = Date::from_seconds(timestamp_seconds)?;
        Ok(Self { volume_id: volume_id.to_owned(), date, files: BTreeMap::new(), without_case: BTreeMap::new() })
    }

    /// Adds a file to the root.
    ///
    /// # Errors
    /// [`Error::Name`] and [`Error::NameTooLong`] (64 characters, those of Joliet), and
    /// [`Error::Duplicate`] where a reader that ignores case would see the same name twice.
    pub fn file(&mut self, name: &str, contents: impl Into<Cow<'a, [u8]>>) -> Result<&mut Self, Error> {
        name::check(name)?;
        let key = name::without_case(name);
        if let Some(earlier) = self.without_case.get(&key) {
            return Err(Error::Duplicate { name: name.to_owned(), earlier: earlier.clone() });
        }
        self.without_case.insert(key, name.to_owned());
        self.files.insert(name.to_owned(), contents.into());
        Ok(self)
    }

    /// Size of the image in bytes, always a multiple of [`SECTOR_BYTES`].
    pub fn size(&self) -> u64 {
        let entries = self.entries();
        let trees = self.trees(&entries, &Positions::unknown(entries.len()));
        let areas = [&trees.primary, &trees.joliet, &trees.continuation];
        let before_files =
            u64::from(FIRST_DIRECTORY) + areas.map(|area| sectors(area.len() as u64)).iter().sum::<u64>();
        let files = entries.iter().map(Entry::sectors).sum::<u64>();
        (before_files + files) * SECTOR_BYTES as u64
    }

    /// The bytes of the image: the same for the same volume id, timestamp and set of files.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`MAX_IMAGE_BYTES`].
    pub fn build(&self) -> Result<Vec<u8>, Error> {
        let size = self.size();
        if size > MAX_IMAGE_BYTES {
            return Err(Error::TooLarge { size, limit: MAX_IMAGE_BYTES });
        }
        let entries = self.entries();
        // Lengths do not depend on positions: measure with unknown ones, then write with true ones.
        let measured = self.trees(&entries, &Positions::unknown(entries.len()));
        let positions = Positions::behind_each_other(&measured, &entries);
        let trees = self.trees(&entries, &positions);

        let volume_blocks = sectors(size) as u32;
        let mut image = Vec::with_capacity(size as usize);
        image.resize(FIRST_DESCRIPTOR as usize * SECTOR_BYTES, 0);
        for (tree, path_tables, root) in [
            (Tree::Primary, PRIMARY_PATH_TABLES, positions.primary),
            (Tree::Joliet, JOLIET_PATH_TABLES, positions.joliet),
        ] {
            let volume_id = &self.volume_id;
            let descriptor = VolumeDescriptor { tree, volume_id, volume_blocks, path_tables, root, date: self.date };
            image.extend(descriptor.encode());
        }
        image.extend(terminator());
        image.extend(root_path_tables(positions.primary.block));
        image.extend(root_path_tables(positions.joliet.block));
        for area in [&trees.primary, &trees.joliet, &trees.continuation] {
            image.extend_from_slice(area);
            pad_to_sector(&mut image);
        }
        for entry in &entries {
            let end = image.len() + entry.sectors() as usize * SECTOR_BYTES;
            image.extend_from_slice(entry.contents);
            image.resize(end, 0);
        }
        debug_assert_eq!(image.len() as u64, size);
        Ok(image)
    }

    /// The files with all their names, ordered by their own.
    fn entries(&self) -> Vec<Entry<'_>> {
        let names: Vec<&str> = self.files.keys().map(String::as_str).collect();
        let shorts = name::level_1(&names);
        let files = self.files.iter().zip(shorts);
        files.map(|((name, contents), short)| Entry { name, short, contents }).collect()
    }

    /// Both directories and what Rock Ridge keeps outside them.
    fn trees(&self, entries: &[Entry<'_>], positions: &Positions) -> Trees {
        let mut area = ContinuationArea::at(positions.continuation);
        let mut primary = Directory::new(self.date);
        primary.add(SELF_IDENTIFIER, positions.primary, FLAG_DIRECTORY, &rock_ridge::root(self.date, &mut area));
        primary.add(PARENT_IDENTIFIER, positions.primary, FLAG_DIRECTORY, &rock_ridge::parent(self.date));
        let mut by_short: Vec<_> = entries.iter().zip(&positions.files).collect();
        by_short.sort_by(|(left, _), (right, _)| left.short.cmp(&right.short));
        for (entry, span) in by_short {
            let identifier = entry.short.identifier();
            let system_use = rock_ridge::file(entry.name, self.date, identifier.len(), &mut area);
            primary.add(identifier.as_bytes(), *span, 0, &system_use);
        }

        let mut wide = Directory::new(self.date);
        wide.add(SELF_IDENTIFIER, positions.joliet, FLAG_DIRECTORY, &[]);
        wide.add(PARENT_IDENTIFIER, positions.joliet, FLAG_DIRECTORY, &[]);
        let mut by_wide: Vec<_> = entries.iter().zip(&positions.files).collect();
        by_wide.sort_by_cached_key(|(entry, _)| joliet::order(entry.name));
        for (entry, span) in by_wide {
            wide.add(&joliet::encode(entry.name), *span, 0, &[]);
        }
        Trees { primary: primary.finish(), joliet: wide.finish(), continuation: area.into_bytes() }
    }
}

/// Names and sizes only: contents may be secret.
impl fmt::Debug for Image<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: BTreeMap<_, _> = self.files.iter().map(|(name, contents)| (name, contents.len())).collect();
        formatter
            .debug_struct("Image")
            .field("volume_id", &self.volume_id)
            .field("date", &self.date)
            .field("files", &sizes)
            .finish_non_exhaustive()
    }
}

/// A file under all its names.
struct Entry<'a> {
    name: &'a str,
    short: Level1,
    contents: &'a [u8],
}

impl Entry<'_> {
    /// An empty file has a sector too, so that its record points into the volume and at nothing else.
    fn sectors(&self) -> u64 {
        sectors(self.contents.len() as u64).max(1)
    }
}

/// A directory's extent under construction.
struct Directory {
    date: Date,
    bytes: Vec<u8>,
}

impl Directory {
    fn new(date: Date) -> Self {
        Self { date, bytes: Vec::new() }
    }

    fn add(&mut self, identifier: &[u8], span: Span, flags: u8, system_use: &[u8]) {
        DirectoryRecord { identifier, span, flags, date: self.date, system_use }.append_to(&mut self.bytes);
    }

    /// The length of a directory is a number of whole sectors (ECMA-119 6.8.1.3).
    fn finish(mut self) -> Vec<u8> {
        pad_to_sector(&mut self.bytes);
        self.bytes
    }
}

struct Trees {
    primary: Vec<u8>,
    joliet: Vec<u8>,
    continuation: Vec<u8>,
}

/// Where everything lies whose place depends on the files.
struct Positions {
    primary: Span,
    joliet: Span,
    continuation: u32,
    files: Vec<Span>,
}

impl Positions {
    fn unknown(files: usize) -> Self {
        Self { primary: Span::default(), joliet: Span::default(), continuation: 0, files: vec![Span::default(); files] }
    }

    /// The caller has made sure that the whole is at most [`MAX_IMAGE_BYTES`], so nothing is cut here.
    fn behind_each_other(trees: &Trees, entries: &[Entry<'_>]) -> Self {
        let mut next = FIRST_DIRECTORY;
        let mut place = |length: usize, sectors: u64| {
            let span = Span { block: next, length: length as u32 };
            next += sectors as u32;
            span
        };
        let mut area = |bytes: &[u8]| place(bytes.len(), sectors(bytes.len() as u64));
        let (primary, joliet, continuation) = (area(&trees.primary), area(&trees.joliet), area(&trees.continuation));
        let files = entries.iter().map(|entry| place(entry.contents.len(), entry.sectors())).collect();
        Self { primary, joliet, continuation: continuation.block, files }
    }
}
