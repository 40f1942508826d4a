//! What can go wrong, for the writer and for the reader.

use std::io;

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The volume id cannot be recorded as it stands.
    #[error("volume id {volume_id:?}: {reason}")]
    VolumeId {
        /// The id as given.
        volume_id: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// The timestamp lies outside the years that a directory record can hold.
    #[error("timestamp {seconds}: outside the years 1900 to 2155 that a directory record can hold")]
    Timestamp {
        /// Seconds since 1970-01-01 00:00:00 UTC.
        seconds: i64,
    },
    /// A file name that one of the three trees cannot carry.
    #[error("file name {name:?}: {reason}")]
    Name {
        /// The name as given.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A file name longer than Joliet allows.
    #[error("file name {name:?}: {length} characters, Joliet takes {limit}")]
    NameTooLong {
        /// The name as given.
        name: String,
        /// Its length in UCS-2 characters.
        length: usize,
        /// The longest length in UCS-2 characters.
        limit: usize,
    },
    /// Two names that a reader which ignores case cannot tell apart.
    #[error("file name {name:?}: differs from {earlier:?} at most in case")]
    Duplicate {
        /// The name as given.
        name: String,
        /// The name that was there before.
        earlier: String,
    },
    /// The image would be larger than [`MAX_IMAGE_BYTES`](crate::MAX_IMAGE_BYTES).
    #[error("image of {size} bytes: the limit is {limit} bytes")]
    TooLarge {
        /// Size of the image in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
}

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source failed.
    #[error("reading {length} bytes at offset {offset}")]
    Io {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: usize,
        /// What the source said.
        #[source]
        source: io::Error,
    },
    /// The source could not tell its length.
    #[error("finding the length of the image")]
    Length {
        /// What the source said.
        #[source]
        source: io::Error,
    },
    /// There is no primary volume descriptor.
    #[error("not an ISO 9660 image: no primary volume descriptor")]
    NotIso9660,
    /// The logical block size is legal but not 2048.
    #[error("logical block size {size}: only 2048 is read")]
    BlockSize {
        /// Size of a logical block in bytes, as recorded.
        size: u16,
    },
    /// Something is said to lie behind the end of the image.
    #[error("{length} bytes at offset {offset}: the image ends at {end}")]
    PastEnd {
        /// Where, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: u64,
        /// Length of the image in bytes.
        end: u64,
    },
    /// A directory is larger than this reader is willing to hold in memory.
    #[error("directory of {length} bytes at offset {offset}: the limit is {limit} bytes")]
    DirectoryTooLarge {
        /// Where, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A directory record contradicts itself.
    #[error("directory record at offset {offset}: {reason}")]
    Record {
        /// Where, in bytes.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing has that path.
    #[error("{path}: not in the image")]
    NotFound {
        /// The path as given.
        path: String,
    },
    /// A part of the path that should be a directory is something else.
    #[error("{path}: not a directory")]
    NotADirectory {
        /// The path up to and including that part.
        path: String,
    },
    /// The path leads to a directory, a symbolic link or a special file.
    #[error("{path}: not a regular file")]
    NotAFile {
        /// The path as given.
        path: String,
    },
}
