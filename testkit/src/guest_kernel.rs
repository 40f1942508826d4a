//! The smallest guests a microVM can boot: 64-bit ELF programs of a few instructions, written byte by byte.
//!
//! Firecracker loads them like any kernel, at the address their program header names, and enters them in 64-bit mode
//! with the first gigabyte of memory mapped one to one. They talk to the first serial port and need no interrupts, no
//! page tables of their own and no instruction that an emulated or paravirtualised processor could lack, so they run
//! where an ordinary kernel does not. The fake Firecracker reads the same files and does what they would do.

use std::path::Path;

use anyhow::{Context, Result};

/// Where the program is loaded: above what Firecracker writes itself (boot parameters, command line, page tables).
const ADDRESS: u64 = 0x0100_0000;

/// Bytes of the ELF header and its one program header.
const HEADERS: usize = 64 + 56;

/// In front of the program, for [`Guest::read`].
const MARK: &[u8; 16] = b"cairn-test-guest";

/// Cycles of the time stamp counter between two texts, some 25 ms: a guest that writes forever fills no disk, and is as
/// fast on a slow processor. Below 2^31, because the difference of two 32-bit readings is compared.
const PAUSE: u32 = 1 << 26;

/// What a guest does after it has written its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Halts for good; the VM goes on running.
    Halt,
    /// Resets the machine through the keyboard controller: Firecracker ends with 0.
    Reset,
    /// Writes its text again and again, a moment apart.
    Repeat,
    /// Meets an invalid instruction without anything to handle it.
    Crash,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// What it writes to the serial port; ASCII without a zero byte.
    pub text: String,
    /// What it does then.
    pub end: End,
}

impl Guest {
    /// A guest that writes `text` and a line feed.
    pub fn line(text: &str, end: End) -> Self {
        Self { text: format!("{text}\n"), end }
    }

    /// Writes the ELF file.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.elf()).with_context(|| format!("write {}", path.display()))
    }

    /// The ELF file: headers, the mark with the kind of end, the program, the text with a zero byte.
    pub fn elf(&self) -> Vec<u8> {
        let mut code = self.program();
        code.extend_from_slice(self.text.as_bytes());
        code.push(0);
        let entry = HEADERS + MARK.len() + 1;
        let size = (entry + code.len()) as u64;
        let mut out = Vec::new();
        // ELF header (System V ABI): 64-bit, little-endian, executable, x86-64, one program header.
        out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        for half in [2_u16, 62] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        out.extend_from_slice(&1_u32.to_le_bytes());
        for word in [ADDRESS + entry as u64, 64, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 64, 0, 0] {
            out.extend_from_slice(&half.to_le_bytes());
        }
        // Program header: load the whole file, readable, writable, executable.
        for word in [1_u32, 7] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        for word in [0, ADDRESS, ADDRESS, size, size, 0x1000] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(MARK);
        out.push(self.end as u8);
        out.extend_from_slice(&code);
        out
    }

    /// The instructions (Intel SDM volume 2). Relative addresses are counted by hand below.
    fn program(&self) -> Vec<u8> {
        let mut code = vec![
            0x48, 0x8d, 0x35, 0, 0, 0, 0, // start: lea rsi, [rip + text]; filled in at the end
            0x66, 0xba, 0xf8, 0x03, //        mov dx, 0x3f8
            0xac, //                   next:  lodsb
            0x84, 0xc0, //                    test al, al
            0x74, 0x03, //                    jz done
            0xee, //                          out dx, al
            0xeb, 0xf8, //                    jmp next
        ]; //                          done:
        match self.end {
            End::Halt => code.extend([0xf4, 0xeb, 0xfd]), // hlt; jmp back to it
            End::Reset => code.extend([0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd]), // mov al, 0xfe; out 0x64, al
            End::Repeat => {
                code.extend([0x0f, 0x31, 0x89, 0xc3]); // rdtsc; mov ebx, eax
                code.extend([0x0f, 0x31, 0x29, 0xd8, 0x3d]); // again: rdtsc; sub eax, ebx; cmp eax, PAUSE
                code.extend(PAUSE.to_le_bytes());
                code.extend([0x72, 0xf5]); // jb again
                let back = -(code.len() as i32 + 2);
                code.extend([0xeb, back as u8]); // jmp start
            }
            End::Crash => code.extend([0x0f, 0x0b]), // ud2
        }
        let text = code.len() as i32 - 7;
        code[3..7].copy_from_slice(&text.to_le_bytes());
        code
    }

    /// Reads what [`elf`](Self::elf) wrote; `None` for another file.
    pub fn read(elf: &[u8]) -> Option<Self> {
        let rest = elf.get(HEADERS..)?.strip_prefix(MARK)?;
        let (kind, rest) = rest.split_first()?;
        let end = [End::Halt, End::Reset, End::Repeat, End::Crash].into_iter().find(|end| *end as u8 == *kind)?;
        let start = Self { text: String::new(), end }.program().len();
        let text = rest.get(start..)?.strip_suffix(b"\0")?;
        Some(Self { text: String::from_utf8(text.to_vec()).ok()?, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for end in [End::Halt, End::Reset, End::Repeat, End::Crash] {
            let guest = Guest::line("hello", end);
            assert_eq!(Guest::read(&guest.elf()), Some(guest));
        }
        assert_eq!(Guest::read(b"\x7fELF"), None);
    }

    #[test]
    fn the_text_stands_where_the_program_looks_for_it() {
        let guest = Guest::line("hello", End::Repeat);
        let elf = guest.elf();
        let entry = u64::from_le_bytes(elf[24..32].try_into().unwrap()) - ADDRESS;
        let program = &elf[entry as usize..];
        let text = i32::from_le_bytes(program[3..7].try_into().unwrap()) as usize + 7;
        assert_eq!(&program[text..], b"hello\n\0");
        // The last instruction before the text jumps to the first one.
        assert_eq!(text as i32 + i32::from(program[text - 1] as i8), 0);
    }
}
