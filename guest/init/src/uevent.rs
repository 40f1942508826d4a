//! Waiting for a device that a driver is about to make.

use std::io;
use std::time::{Duration, Instant};

use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// How long a device is waited for.
const LIMIT: Duration = Duration::from_secs(10);

/// The group to which the kernel sends its events.
const KERNEL_GROUP: u32 = 1;

/// Looks at once, and again at each event of the kernel.
pub(crate) fn wait_for<T>(look: impl Fn() -> Option<T>) -> io::Result<T> {
    if let Some(found) = look() {
        return Ok(found);
    }
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(KOBJECT_UEVENT))?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
    let end = Instant::now() + LIMIT;
    let mut event = [0; 8 << 10];
    loop {
        // After the bind, so that what came in between is seen.
        if let Some(found) = look() {
            return Ok(found);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "it did not appear"));
        }
        set_socket_timeout(&socket, Timeout::Recv, Some(left))?;
        match recv(&socket, &mut event[..], RecvFlags::empty()) {
            // An event, the end of the time, or more events than fit: look again.
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
