//! The bytes that are pushed: as many as wanted, different for every number, out of one block that is made once.

use std::fmt::Write as _;
use std::io;

use sha2::{Digest as _, Sha256};

/// Bytes that are handed to the socket in one go.
const BLOCK: usize = 1 << 20;

/// Content that nobody has seen before.
pub struct Content {
    block: Vec<u8>,
    number: u64,
    pub length: u64,
}

impl Content {
    pub fn new(number: u64, length: u64) -> Self {
        // Any bytes that do not repeat within a block; nobody compresses them.
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        let size = usize::try_from(length).unwrap_or(BLOCK).min(BLOCK);
        let mut block: Vec<u8> = words.take(size.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
        block.truncate(size);
        Self { block, number, length }
    }

    /// Calls `take` with the bytes from `first` to `end`, a block at a time. `first` is at the begin of a block.
    pub fn each(&mut self, first: u64, end: u64, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut at = first;
        while at < end {
            let stamp = ((self.number << 32) | (at / BLOCK as u64)).to_le_bytes();
            let stamped = self.block.len().min(stamp.len());
            self.block[..stamped].copy_from_slice(&stamp[..stamped]);
            let size = usize::try_from(end - at).unwrap_or(BLOCK).min(self.block.len());
            take(&self.block[..size])?;
            at += size as u64;
        }
        Ok(())
    }

    /// `sha256:<hex>`.
    pub fn digest(&mut self) -> anyhow::Result<String> {
        let mut hasher = Sha256::new();
        self.each(0, self.length, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        let mut digest = "sha256:".to_owned();
        for byte in hasher.finalize() {
            write!(digest, "{byte:02x}")?;
        }
        Ok(digest)
    }
}
