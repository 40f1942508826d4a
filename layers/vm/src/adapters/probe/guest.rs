//! The guest of the probe: an ELF program that does what a kernel does in its first moments, step by step, and says on the
//! first serial port how far it got: `#1` to `#6`. Then it resets the machine.
//!
//! It is entered as a kernel with a PVH note is, in 32-bit mode without paging (Xen's `docs/misc/pvh.pandoc`), which
//! QEMU's microvm and Firecracker from 1.12 on do alike.

/// What a kernel needs, in the order in which the guest does it.
pub(super) const STAGES: [&str; 6] = [
    "run its first instruction",
    "enter long mode",
    "switch its page table",
    "write and read a model-specific register",
    "receive a timer interrupt",
    "execute LOCK CMPXCHG16B",
];

/// Where the file is loaded.
const ADDRESS: u32 = 0x10_0000;

/// Where in the file the instructions begin.
const ENTRY: u32 = 0x100;

/// Bytes of the ELF header and its two program headers.
const HEADERS: u32 = 64 + 2 * 56;

/// `XEN_ELFNOTE_PHYS32_ENTRY`: an address to be entered at in 32-bit mode.
const PHYS32_ENTRY: u32 = 18;

/// Global descriptors: none, 64-bit code, data. Then the operands of LGDT and LIDT; gates begin at 0x1e0000.
#[rustfmt::skip]
const TABLES: &[u8] = &[
    0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 0xff, 0, 0, 0, 0x9a, 0xaf, 0,
    0xff, 0xff, 0, 0, 0, 0x92, 0xcf, 0,
    0x17, 0, 0xab, 0x02, 0x10, 0,
    0x0f, 0x02, 0, 0, 0x1e, 0, 0, 0, 0, 0,
];

/// The instructions (Intel SDM volume 2).
#[rustfmt::skip]
const CODE: &[u8] = &[
    // Stage 1: the first instructions, in 32-bit mode without paging.
    0xfa,                                                    // start: cli
    0xfc,                                                    // cld
    0xbc, 0x00, 0x00, 0x1f, 0x00,                            // mov esp, 0x1f0000
    0xba, 0xf8, 0x03, 0x00, 0x00,                            // mov edx, 0x3f8
    0xb0, 0x23,                                              // mov al, 0x23
    0xee,                                                    // out dx, al
    0xb0, 0x31,                                              // mov al, 0x31
    0xee,                                                    // out dx, al
    // Two top page tables for the same 4 GiB, mapped one to one in pages of 2 MiB.
    0x31, 0xc0,                                              // xor eax, eax
    0xbf, 0x00, 0x00, 0x20, 0x00,                            // mov edi, 0x200000
    0xb9, 0x00, 0x20, 0x00, 0x00,                            // mov ecx, 0x2000
    0xf3, 0xab,                                              // rep stos es:[edi], eax
    0xc7, 0x05, 0x00, 0x00, 0x20, 0x00, 0x03, 0x10, 0x20, 0x00, // mov 0x200000, 0x201003
    0xc7, 0x05, 0x00, 0x30, 0x20, 0x00, 0x03, 0x10, 0x20, 0x00, // mov 0x203000, 0x201003
    0xc7, 0x05, 0x00, 0x10, 0x20, 0x00, 0x03, 0x40, 0x20, 0x00, // mov 0x201000, 0x204003
    0xc7, 0x05, 0x08, 0x10, 0x20, 0x00, 0x03, 0x50, 0x20, 0x00, // mov 0x201008, 0x205003
    0xc7, 0x05, 0x10, 0x10, 0x20, 0x00, 0x03, 0x60, 0x20, 0x00, // mov 0x201010, 0x206003
    0xc7, 0x05, 0x18, 0x10, 0x20, 0x00, 0x03, 0x70, 0x20, 0x00, // mov 0x201018, 0x207003
    0xbf, 0x00, 0x40, 0x20, 0x00,                            // mov edi, 0x204000
    0xb8, 0x83, 0x00, 0x00, 0x00,                            // mov eax, 0x83
    0xb9, 0x00, 0x08, 0x00, 0x00,                            // mov ecx, 0x800
    0x89, 0x07,                                              // mov [edi], eax
    0x83, 0xc7, 0x08,                                        // add edi, 0x8
    0x05, 0x00, 0x00, 0x20, 0x00,                            // add eax, 0x200000
    0xe2, 0xf4,                                              // loop 10016b
    // Long mode: CR4.PAE, CR3, EFER.LME by the MSR, CR0.PG.
    0xb8, 0x20, 0x00, 0x00, 0x00,                            // mov eax, 0x20
    0x0f, 0x22, 0xe0,                                        // mov cr4, eax
    0xb8, 0x00, 0x00, 0x20, 0x00,                            // mov eax, 0x200000
    0x0f, 0x22, 0xd8,                                        // mov cr3, eax
    0xb9, 0x80, 0x00, 0x00, 0xc0,                            // mov ecx, 0xc0000080
    0x0f, 0x32,                                              // rdmsr
    0x0d, 0x00, 0x01, 0x00, 0x00,                            // or eax, 0x100
    0x0f, 0x30,                                              // wrmsr
    0xb8, 0x01, 0x00, 0x00, 0x80,                            // mov eax, 0x80000001
    0x0f, 0x22, 0xc0,                                        // mov cr0, eax
    0x0f, 0x01, 0x15, 0xc3, 0x02, 0x10, 0x00,                // lgdt 0x1002c3
    0xea, 0xab, 0x01, 0x10, 0x00, 0x08, 0x00,                // jmp 0x8:0x1001ab
    // Stage 2: 64-bit mode.
    0xb8, 0x10, 0x00, 0x00, 0x00,                            // long: mov eax, 0x10
    0x8e, 0xd8,                                              // mov ds, eax
    0x8e, 0xc0,                                              // mov es, eax
    0x8e, 0xd0,                                              // mov ss, eax
    0xb3, 0x32,                                              // mov bl, 0x32
    0xe8, 0xe2, 0x00, 0x00, 0x00,                            // call say
    // Stage 3: the other page table.
    0xb8, 0x00, 0x30, 0x20, 0x00,                            // mov eax, 0x203000
    0x0f, 0x22, 0xd8,                                        // mov cr3, rax
    0xb3, 0x33,                                              // mov bl, 0x33
    0xe8, 0xd3, 0x00, 0x00, 0x00,                            // call say
    // Stage 4: an MSR keeps what is written to it (GS base).
    0xb9, 0x01, 0x01, 0x00, 0xc0,                            // mov ecx, 0xc0000101
    0xb8, 0x00, 0x40, 0x23, 0x01,                            // mov eax, 0x1234000
    0x31, 0xd2,                                              // xor edx, edx
    0x0f, 0x30,                                              // wrmsr
    0x31, 0xc0,                                              // xor eax, eax
    0x0f, 0x32,                                              // rdmsr
    0x3d, 0x00, 0x40, 0x23, 0x01,                            // cmp eax, 0x1234000
    0x0f, 0x85, 0xae, 0x00, 0x00, 0x00,                      // jne fail
    0xb3, 0x34,                                              // mov bl, 0x34
    0xe8, 0xaf, 0x00, 0x00, 0x00,                            // call say
    // Stage 5: interrupt 32, by the timer of the local APIC, ends a halt.
    0xb8, 0x5b, 0x02, 0x10, 0x00,                            // mov eax, 0x10025b
    0x66, 0x89, 0x04, 0x25, 0x00, 0x02, 0x1e, 0x00,          // mov 0x1e0200, ax
    0x66, 0xc7, 0x04, 0x25, 0x02, 0x02, 0x1e, 0x00, 0x08, 0x00, // mov 0x1e0202, 0x8
    0x66, 0xc7, 0x04, 0x25, 0x04, 0x02, 0x1e, 0x00, 0x00, 0x8e, // mov 0x1e0204, 0x8e00
    0xc1, 0xe8, 0x10,                                        // shr eax, 0x10
    0x66, 0x89, 0x04, 0x25, 0x06, 0x02, 0x1e, 0x00,          // mov 0x1e0206, ax
    0x0f, 0x01, 0x1c, 0x25, 0xc9, 0x02, 0x10, 0x00,          // lidt 0x1002c9
    0xb0, 0xff,                                              // mov al, 0xff
    0xe6, 0x21,                                              // out 0x21, al
    0xe6, 0xa1,                                              // out 0xa1, al
    0xbf, 0x00, 0x00, 0xe0, 0xfe,                            // mov edi, 0xfee00000
    0xc7, 0x87, 0xf0, 0x00, 0x00, 0x00, 0xff, 0x01, 0x00, 0x00, // mov [rdi+0xf0], 0x1ff
    0xc7, 0x87, 0x20, 0x03, 0x00, 0x00, 0x20, 0x00, 0x00, 0x00, // mov [rdi+0x320], 0x20
    0xc7, 0x87, 0xe0, 0x03, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00, // mov [rdi+0x3e0], 0xb
    0xc7, 0x87, 0x80, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, // mov [rdi+0x380], 0x10000
    0xfb,                                                    // sti
    0xf4,                                                    // hlt
    0xeb, 0xfd,                                              // jmp 100258
    0xb3, 0x35,                                              // timer: mov bl, 0x35
    0xe8, 0x3d, 0x00, 0x00, 0x00,                            // call say
    // Stage 6: LOCK CMPXCHG16B.
    0xbf, 0x00, 0x00, 0x1d, 0x00,                            // mov edi, 0x1d0000
    0x31, 0xc0,                                              // xor eax, eax
    0x48, 0x89, 0x07,                                        // mov [rdi], rax
    0x48, 0x89, 0x47, 0x08,                                  // mov [rdi+0x8], rax
    0x31, 0xd2,                                              // xor edx, edx
    0xbb, 0x07, 0x00, 0x00, 0x00,                            // mov ebx, 0x7
    0xb9, 0x09, 0x00, 0x00, 0x00,                            // mov ecx, 0x9
    0xf0, 0x48, 0x0f, 0xc7, 0x0f,                            // lock cmpxchg16b O[rdi]
    0x75, 0x14,                                              // jne fail
    0x48, 0x83, 0x3f, 0x07,                                  // cmp [rdi], 0x7
    0x75, 0x0e,                                              // jne fail
    0x48, 0x83, 0x7f, 0x08, 0x09,                            // cmp [rdi+0x8], 0x9
    0x75, 0x07,                                              // jne fail
    0xb3, 0x36,                                              // mov bl, 0x36
    0xe8, 0x08, 0x00, 0x00, 0x00,                            // call say
    // The end: a reset by the keyboard controller.
    0xb0, 0xfe,                                              // fail: mov al, 0xfe
    0xe6, 0x64,                                              // out 0x64, al
    0xfa,                                                    // cli
    0xf4,                                                    // hlt
    0xeb, 0xfd,                                              // jmp 10029c
    // Says a stage: # and the digit in BL.
    0xba, 0xf8, 0x03, 0x00, 0x00,                            // say: mov edx, 0x3f8
    0xb0, 0x23,                                              // mov al, 0x23
    0xee,                                                    // out dx, al
    0x88, 0xd8,                                              // mov al, bl
    0xee,                                                    // out dx, al
    0xc3,                                                    // ret
];

/// The ELF file.
pub(super) fn elf() -> Vec<u8> {
    let size = u64::from(ENTRY) + (CODE.len() + TABLES.len()) as u64;
    let (address, note) = (u64::from(ADDRESS), 24_u64);
    let mut out = Vec::new();
    // ELF header (System V ABI): 64-bit, little-endian, executable, x86-64, two program headers.
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    halves(&mut out, &[2, 62]);
    words(&mut out, &[1]);
    longs(&mut out, &[address + u64::from(ENTRY), 64, 0]);
    words(&mut out, &[0]);
    halves(&mut out, &[64, 56, 2, 64, 0, 0]);
    // Load the whole file, readable, writable, executable.
    words(&mut out, &[1, 7]);
    longs(&mut out, &[0, address, address, size, size, 0x1000]);
    // The note.
    words(&mut out, &[4, 4]);
    let at = u64::from(HEADERS);
    longs(&mut out, &[at, address + at, address + at, note, note, 4]);
    words(&mut out, &[4, 8, PHYS32_ENTRY]);
    out.extend_from_slice(b"Xen\0");
    longs(&mut out, &[address + u64::from(ENTRY)]);
    out.resize(ENTRY as usize, 0);
    out.extend_from_slice(CODE);
    out.extend_from_slice(TABLES);
    out
}

fn halves(out: &mut Vec<u8>, numbers: &[u16]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn words(out: &mut Vec<u8>, numbers: &[u32]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

fn longs(out: &mut Vec<u8>, numbers: &[u64]) {
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// How many stages a guest has said it passed. Other lines may stand between its own.
pub(super) fn passed(serial: &str) -> usize {
    (1..=STAGES.len()).take_while(|stage| serial.contains(&format!("#{stage}"))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(at: usize) -> u32 {
        u32::from_le_bytes(CODE[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn absolute_addresses_lead_to_what_they_mean() {
        let place = |offset: usize| ADDRESS + ENTRY + u32::try_from(offset).unwrap();
        let find = |bytes: &[u8]| CODE.windows(bytes.len()).position(|window| window == bytes).unwrap();
        // LGDT and LIDT name their operands, behind three descriptors; the operand of LGDT names those.
        let tables = place(CODE.len());
        assert_eq!(word(find(&[0x0f, 0x01, 0x15]) + 3), tables + 24);
        assert_eq!(word(find(&[0x0f, 0x01, 0x1c, 0x25]) + 4), tables + 30);
        assert_eq!(u32::from_le_bytes(TABLES[26..30].try_into().unwrap()), tables);
        // The far jump leads behind itself.
        let jump = find(&[0xea]);
        assert_eq!(word(jump + 1), place(jump + 7));
        // The gate of the interrupt leads behind the halt: to what says stage 5.
        let timer = find(&[0xb3, b'5']);
        assert_eq!(word(find(&[0xe8, 0xaf, 0, 0, 0, 0xb8]) + 6), place(timer));
    }

    #[test]
    fn stages_count_as_far_as_none_is_left_out() {
        assert_eq!(passed(""), 0);
        assert_eq!(passed("SeaBIOS\n#1#2#3"), 3);
        assert_eq!(passed("#1#3"), 1);
        assert_eq!(passed("#1 log line\n#2#3#4#5#6"), STAGES.len());
    }
}
