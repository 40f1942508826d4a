//! Small ISO 9660 images with Rock Ridge and Joliet, written the same way everywhere, and a reader
//! that finds where a file lies inside an image.
//!
//! [`Image`] lays out regular files at the root of a new image. The bytes depend on the volume id,
//! the timestamp and the set of files, on nothing else: not on the host, the clock, the user or the
//! order in which files were added. [`Reader`] takes any image, also a hostile one, and answers with
//! names and byte extents.
//!
//! Where to look: `writer` the layout of an image; `descriptor`, `record`, `date` the fields of
//! ECMA-119; `rock_ridge` and `joliet` the two extensions on the writing side; `name` which names are
//! taken and how they become 8.3; `reader` and `system_use` the way back.
//!
//! ```
//! use std::io::Cursor;
//!
//! let image = iso9660::Image::builder("EXAMPLE", 1_700_000_000)?
//!     .file("recipe.schema.json", b"{}")?
//!     .file("user-data", b"#cloud-config\n")?
//!     .build()?;
//!
//! let mut reader = iso9660::Reader::open(Cursor::new(&image))?;
//! assert_eq!(reader.volume_id(), "EXAMPLE");
//! let found = reader.find("/user-data")?;
//! assert_eq!(&image[found.offset as usize..][..found.length as usize], b"#cloud-config\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod date;
mod descriptor;
mod error;
mod joliet;
mod name;
mod reader;
mod record;
mod rock_ridge;
mod system_use;
mod writer;

pub use error::{Error, ReadError};
pub use reader::{Entry, EntryKind, Extent, Reader};
pub use writer::{Image, MAX_IMAGE_BYTES};

/// Bytes in a logical sector, and in the logical block of every image that is read or written here
/// (ECMA-119 6.1.2 and 6.2.2).
pub const SECTOR_BYTES: usize = 2048;
