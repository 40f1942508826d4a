//! Stable codes of the layer. Each has a page in docs/errors/; `cairn explain CODE` prints it.

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal;)*) => {
        $($(#[$meta])* pub const $name: &str = $code;)*
        /// All of them.
        pub const ALL: &[&str] = &[$($code),*];
    };
}

codes! {
    /// There is no such VM, or it belongs to somebody else.
    VM_NOT_FOUND = "vm_not_found";
    /// A VM of this id is there already.
    VM_EXISTS = "vm_exists";
    /// Not possible in the state that the VM is in.
    VM_WRONG_STATE = "vm_wrong_state";
    /// Something else is being done with the VM.
    VM_BUSY = "vm_busy";
    /// A wish in the VM's configuration cannot be granted.
    VM_INVALID = "vm_invalid";
    /// The idempotency key was used for another request.
    IDEMPOTENCY_KEY = "idempotency_key";
    /// As many VMs as are allowed are there.
    VM_LIMIT = "vm_limit";
    /// No address is left.
    VM_ADDRESSES = "vm_addresses";
    /// A port of the host is taken.
    VM_PORT_TAKEN = "vm_port_taken";
    /// A change was asked for while maintenance is on.
    MAINTENANCE = "maintenance";
    /// No or no valid token.
    TOKEN = "token";
    /// The token may not do this.
    TOKEN_DENIED = "token_denied";
    /// A kernel, initial file system or disk is not there.
    ASSET_MISSING = "asset_missing";
    /// An asset of this name is there with other content.
    ASSET_EXISTS = "asset_exists";
    /// An asset is needed by a VM.
    ASSET_IN_USE = "asset_in_use";
    /// An asset's file is not what was added.
    ASSET_DAMAGED = "asset_damaged";
    /// The disks of a VM could not be made.
    VM_DISKS = "vm_disks";
    /// The network of a VM could not be made.
    VM_NETWORK = "vm_network";
    /// The jail of a VM could not be made.
    VM_JAIL = "vm_jail";
    /// The keeper of a VM could not be started or asked.
    VM_KEEPER = "vm_keeper";
    /// The hypervisor is missing, too old, or cannot run here.
    HYPERVISOR_MISSING = "hypervisor_missing";
    /// The hypervisor refused, or did not answer.
    HYPERVISOR = "hypervisor";
    /// The hypervisor ended while the VM was being started.
    HYPERVISOR_ENDED = "hypervisor_ended";
    /// The hypervisor ended with an error.
    VM_CRASHED = "vm_crashed";
    /// The guest panicked.
    VM_PANICKED = "vm_panicked";
    /// The guest's command ended with an error.
    VM_EXITED = "vm_exited";
    /// The guest gave no sign of life.
    VM_SILENT = "vm_silent";
    /// The VM's processes are gone and nobody saw how.
    VM_LOST = "vm_lost";
    /// Only this machine may ask for this.
    LOOPBACK_ONLY = "loopback_only";
    /// A signal ended a command that goes on until it is ended.
    INTERRUPTED = "interrupted";
}
