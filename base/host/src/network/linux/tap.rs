//! Taps are made by `/dev/net/tun`, not by netlink.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};

use super::super::error::Cause;
use super::numbers::EBUSY;
use crate::file::FileError;

/// Makes taps.
const TUN: &str = "/dev/net/tun";

// linux/if_tun.h. The calls with a number take it in place of the pointer, whatever their opcode says.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);
const TUNSETOWNER: Opcode = opcode::write::<i32>(b'T', 204);
const TUNSETGROUP: Opcode = opcode::write::<i32>(b'T', 206);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_TUN_EXCL: u16 = 0x8000;

/// `struct ifreq` with flags in it, in the kernel's layout.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a tap that stays, in the namespace of the calling thread. `name` has at most 15 bytes.
pub(super) fn create(name: &str, owner: u32, group: u32) -> Result<(), Cause> {
    let path = Path::new(TUN);
    let tun = OpenOptions::new().read(true).write(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Cause::Missing(TUN.to_owned()),
        _ => Cause::File(FileError::at("open", path)(error)),
    })?;
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL;
    let mut request = InterfaceRequest { name: [0; 16], flags, rest: [0; 22] };
    let length = name.len().min(request.name.len() - 1);
    request.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    match attach(&tun, &mut request) {
        Err(error) if error.raw_os_error() == Some(EBUSY) => return Err(Cause::AlreadyThere),
        attached => attached?,
    }
    // Until the last call the tap goes away with `tun`: a kill in between leaves none without its owner.
    number::<TUNSETOWNER>(&tun, owner)?;
    number::<TUNSETGROUP>(&tun, group)?;
    number::<TUNSETPERSIST>(&tun, 1)?;
    Ok(())
}

#[allow(unsafe_code)]
fn attach(tun: &File, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: TUNSETIFF reads a `struct ifreq` of 40 bytes and writes the name back into it; `InterfaceRequest` has
    // this size and layout, any bytes are valid in it, and the exclusive borrow lasts until the call returns.
    unsafe { ioctl(tun, Updater::<TUNSETIFF, InterfaceRequest>::new(request)) }?;
    Ok(())
}

#[allow(unsafe_code)]
fn number<const OPCODE: Opcode>(tun: &File, value: u32) -> io::Result<()> {
    // SAFETY: these calls take a number where others take a pointer, and touch no memory of this process.
    unsafe { ioctl(tun, IntegerSetter::<OPCODE>::new_usize(value as usize)) }?;
    Ok(())
}
