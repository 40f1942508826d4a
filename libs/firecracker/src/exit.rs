//! How a Firecracker process ended. The codes are `FcExitCode` in `src/vmm/src/lib.rs`.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How a Firecracker process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// 0: the guest shut down or rebooted, which ends the process too. A guest whose processor could not go on within its
    /// first moments was seen to end so as well (1.17-dev).
    Ok,
    /// 1: a failure that has no code of its own: a processor of the guest could not go on, a snapshot did not load, the
    /// socket was in use. Its last words on standard error name it.
    Generic,
    /// 2: a fault in Firecracker itself.
    Unexpected,
    /// 148: the seccomp filter caught a system call that Firecracker never makes.
    BadSyscall,
    /// 149: SIGBUS; a file that is mapped as memory got shorter, or hugetlbfs ran out of pages.
    Sigbus,
    /// 150: SIGSEGV.
    Sigsegv,
    /// 151: SIGXFSZ; a file grew over the limit `fsize`.
    Sigxfsz,
    /// 152: the configuration file was refused, or the log level.
    BadConfiguration,
    /// 153: the command line was refused.
    Arguments,
    /// 154: SIGXCPU; the limit of processor time was used up.
    Sigxcpu,
    /// 155: SIGPIPE.
    Sigpipe,
    /// 156: SIGHUP.
    Sighup,
    /// 157: SIGILL.
    Sigill,
    /// Another code; the jailer's own failures are 1 as well.
    Other(i32),
    /// Ended by a signal that it does not catch: 9 by whoever ends it by force or by the kernel for want of memory, 15
    /// when asked to end.
    Signal(i32),
}

impl Exit {
    /// Reads what waiting for the process said.
    pub fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::of_code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }

    /// Reads an exit code.
    pub fn of_code(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::Generic,
            2 => Self::Unexpected,
            148 => Self::BadSyscall,
            149 => Self::Sigbus,
            150 => Self::Sigsegv,
            151 => Self::Sigxfsz,
            152 => Self::BadConfiguration,
            153 => Self::Arguments,
            154 => Self::Sigxcpu,
            155 => Self::Sigpipe,
            156 => Self::Sighup,
            157 => Self::Sigill,
            other => Self::Other(other),
        }
    }

    /// Whether the guest ended by itself and nothing is wrong.
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentence = match self {
            Self::Ok => "the guest shut down or rebooted",
            Self::Generic => "Firecracker ended with its general failure (exit code 1)",
            Self::Unexpected => "Firecracker met a fault of its own (exit code 2)",
            Self::BadSyscall => "the seccomp filter caught a forbidden system call (exit code 148)",
            Self::Sigbus => "Firecracker lost memory that it had mapped: SIGBUS (exit code 149)",
            Self::Sigsegv => "Firecracker accessed memory it does not have: SIGSEGV (exit code 150)",
            Self::Sigxfsz => "a file of Firecracker outgrew its size limit: SIGXFSZ (exit code 151)",
            Self::BadConfiguration => "Firecracker refused its configuration file or log level (exit code 152)",
            Self::Arguments => "Firecracker refused its command line (exit code 153)",
            Self::Sigxcpu => "Firecracker used up its processor time: SIGXCPU (exit code 154)",
            Self::Sigpipe => "Firecracker wrote to a closed pipe: SIGPIPE (exit code 155)",
            Self::Sighup => "Firecracker lost its terminal: SIGHUP (exit code 156)",
            Self::Sigill => "Firecracker met an illegal instruction: SIGILL (exit code 157)",
            Self::Other(code) => return write!(formatter, "Firecracker ended with exit code {code}"),
            Self::Signal(9) => "Firecracker was killed, by force or for want of memory (signal 9)",
            Self::Signal(15) => "Firecracker was asked to end (signal 15)",
            Self::Signal(signal) => return write!(formatter, "Firecracker was ended by signal {signal}"),
        };
        formatter.write_str(sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_sentence() {
        for code in [1, 2].into_iter().chain(148..=157) {
            let exit = Exit::of_code(code);
            assert!(!matches!(exit, Exit::Other(_)), "{code}");
            assert!(exit.to_string().ends_with(&format!("(exit code {code})")), "{exit}");
        }
        assert_eq!(Exit::of_code(3), Exit::Other(3));
        assert!(Exit::of_code(0).is_ok());
    }

    #[test]
    fn a_signal_is_no_exit_code() {
        assert_eq!(Exit::of(ExitStatus::from_raw(15)), Exit::Signal(15));
        assert_eq!(Exit::of(ExitStatus::from_raw(148 << 8)), Exit::BadSyscall);
    }
}
