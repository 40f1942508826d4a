//! Bytes that nobody has seen before and that come again from the same seed.

use std::io::Read;

/// What every page of [`Bytes`] shares with the next but one of another block.
const PAGE: usize = 4096;
const BLOCK: usize = 256 * PAGE;

/// A stream of `length` bytes. A block of random bytes is repeated with a new random number at the start of each page: no
/// two pages are the same, and making them costs next to nothing beside hashing them.
#[derive(Debug)]
pub(crate) struct Bytes {
    state: u64,
    block: Vec<u8>,
    at: usize,
    left: u64,
}

impl Bytes {
    pub(crate) fn new(seed: u64, length: u64) -> Self {
        let mut bytes = Self { state: seed | 1, block: vec![0; BLOCK], at: BLOCK, left: length };
        for place in (0..BLOCK).step_by(8) {
            let number = bytes.next();
            bytes.block[place..place + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// xorshift64* (Vigna).
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == BLOCK {
            for page in (0..BLOCK).step_by(PAGE) {
                let number = self.next();
                self.block[page..page + 8].copy_from_slice(&number.to_le_bytes());
            }
            self.at = 0;
        }
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let count = buffer.len().min(BLOCK - self.at).min(left);
        buffer[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        self.left -= count as u64;
        Ok(count)
    }
}

/// `length` bytes at once.
pub(crate) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    // Reading from memory does not fail.
    let _ = Bytes::new(seed, length as u64).read_to_end(&mut all);
    all
}
