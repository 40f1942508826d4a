//! Letting go of what the kernel allows this process beyond its user.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities};

/// Drops every capability of a process that is not root's: those of a file (capabilities(7)) and ambient ones. What is
/// started from now on has none either. Root keeps what it is.
///
/// Capabilities belong to a thread, so this is called before there is another one.
///
/// # Errors
/// The kernel refuses; it does not for a set that only shrinks.
pub fn drop_capabilities() -> io::Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { drop_all() }
}

fn drop_all() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

#[cfg(test)]
mod tests {
    use rustix::thread::{capabilities, capability_is_in_ambient_set};

    use super::*;

    #[test]
    fn nothing_is_left_of_them() {
        let before = capabilities(None).unwrap();
        std::thread::spawn(|| {
            drop_all().unwrap();
            let after = capabilities(None).unwrap();
            assert!(after.effective.is_empty() && after.permitted.is_empty() && after.inheritable.is_empty());
            assert!(!capability_is_in_ambient_set(CapabilitySet::SYS_ADMIN).unwrap());
        })
        .join()
        .unwrap();
        assert_eq!(capabilities(None).unwrap(), before, "a thread of its own");
    }

    #[test]
    fn root_keeps_what_it_is() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let before = capabilities(None).unwrap();
        drop_capabilities().unwrap();
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
