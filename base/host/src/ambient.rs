//! Handing on what the kernel allows this process beyond its user.

use std::io;

use rustix::thread::{CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities};

/// Lets what this process starts have the capabilities that it has itself. A program whose file carries capabilities loses
/// the ambient ones that its starter gave it (capabilities(7), "Transformation of capabilities during execve()"), so that
/// without this its own children have none, whatever its unit says. Nothing is changed for root, whose children have
/// all of them anyway.
///
/// Capabilities belong to a thread, so this is called before there is another one.
///
/// # Errors
/// The kernel refuses: it does where `SECBIT_NO_CAP_AMBIENT_RAISE` is set.
pub fn hand_on_capabilities() -> io::Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { raise_all() }
}

fn raise_all() -> io::Result<()> {
    let own = capabilities(None)?;
    // Ambient is what is both permitted and inheritable.
    set_capabilities(None, CapabilitySets { inheritable: own.inheritable | own.permitted, ..own })?;
    for capability in own.permitted.iter() {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySet, capability_is_in_ambient_set};

    use super::*;

    #[test]
    fn what_is_started_has_what_its_starter_has() {
        let few = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
        if !capabilities(None).unwrap().permitted.contains(few) {
            eprintln!("NOT RUN: what_is_started_has_what_its_starter_has: it needs root");
            return;
        }
        // A thread of its own: the other tests keep what they have.
        std::thread::spawn(move || {
            let none = CapabilitySet::empty();
            set_capabilities(None, CapabilitySets { effective: few, permitted: few, inheritable: none }).unwrap();
            raise_all().unwrap();
            assert!(capability_is_in_ambient_set(CapabilitySet::NET_ADMIN).unwrap());
            assert!(capability_is_in_ambient_set(CapabilitySet::SYS_ADMIN).unwrap());
            assert!(!capability_is_in_ambient_set(CapabilitySet::CHOWN).unwrap());
            assert_eq!(capabilities(None).unwrap().inheritable, few);
        })
        .join()
        .unwrap();
    }
}
