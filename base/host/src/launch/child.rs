//! What the child does between fork(2) and execve(2): system calls alone, on what its parent has prepared. Another
//! thread of the parent may have held any lock, so nothing here allocates.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, LinkNameSpaceType, Uid};

use super::{Credentials, Launch, LaunchError, path_word, word};

/// Exit status of a child that does not become its program.
const NOT_BEGUN: i32 = 126;
/// Numbers of the descriptors that the child keeps beside 0, 1 and 2 until it executes.
const FIRST_FREE: i32 = 3;

/// In order of time; the number goes through the pipe.
const STEPS: [&str; 9] = [
    "set the signals for",
    "make a session for",
    "pass descriptors to",
    "join the network namespace for",
    "limit the open files of",
    "limit the core files of",
    "change to the working directory of",
    "change the user for",
    "execute",
];

/// Words in the form of execve(2).
pub(super) struct Words {
    argv: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
}

impl Words {
    pub(super) fn of(launch: &Launch<'_>) -> Result<Self, LaunchError> {
        if launch.argv.is_empty() {
            return Err(LaunchError::Word { what: "an empty command".to_owned() });
        }
        let argv = launch.argv.iter().map(|text| word(text.as_bytes(), "an argument")).collect::<Result<_, _>>()?;
        let pair = |(name, value): (&String, &String)| word(format!("{name}={value}").as_bytes(), name);
        let environment = launch.environment.iter().map(pair).collect::<Result<_, _>>()?;
        Ok(Self { argv, environment, directory: path_word(launch.directory)? })
    }
}

/// Everything that the child needs.
pub(super) struct Plan<'a> {
    pub(super) words: &'a Words,
    pub(super) user: Option<Credentials>,
    pub(super) open_files: Option<u64>,
    pub(super) standard: [BorrowedFd<'a>; 3],
    pub(super) wait: BorrowedFd<'a>,
    pub(super) tell: BorrowedFd<'a>,
    pub(super) namespace: Option<BorrowedFd<'a>>,
}

/// What a child has told before it ended; nothing when it became its program.
pub(super) fn understand(told: &[u8]) -> Option<(&'static str, io::Error)> {
    let (step, errno) = told.split_first()?;
    let errno = errno.try_into().map_or(0, i32::from_le_bytes);
    Some((STEPS.get(usize::from(*step)).unwrap_or(&"begin"), io::Error::from_raw_os_error(errno)))
}

/// Makes the child and gives back its id.
#[allow(unsafe_code)]
pub(super) fn fork(plan: &Plan<'_>) -> io::Result<u32> {
    let pointers = |words: &[CString]| -> Vec<*const libc::c_char> {
        words.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, environment) = (pointers(&plan.words.argv), pointers(&plan.words.environment));
    // SAFETY: the child calls `become_program` alone, which makes system calls on memory that is there already,
    // allocates nothing, takes no lock, and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => become_program(plan, &argv, &environment),
        pid => Ok(pid.unsigned_abs()),
    }
}

fn become_program(plan: &Plan<'_>, argv: &[*const libc::c_char], environment: &[*const libc::c_char]) -> ! {
    // Until the descriptors are in place the pipe has the parent's number.
    let mut tell = plan.tell.as_raw_fd();
    let (step, errno) = match prepare(plan, &mut tell) {
        Ok(()) => (8, execute(argv, environment)),
        Err(failed) => failed,
    };
    let mut message = [0; 5];
    message[0] = step;
    message[1..].copy_from_slice(&errno.raw_os_error().to_le_bytes());
    write_raw(tell, &message);
    exit_now()
}

fn prepare(plan: &Plan<'_>, tell: &mut i32) -> Result<(), (u8, Errno)> {
    reset_signals().map_err(|errno| (0, errno))?;
    rustix::process::setsid().map_err(|errno| (1, errno))?;
    let kept = pass_descriptors(plan).map_err(|errno| (2, errno))?;
    *tell = kept.tell;
    wait_for_parent(kept.wait);
    if let Some(namespace) = kept.namespace {
        join(namespace).map_err(|errno| (3, errno))?;
    }
    if let Some(files) = plan.open_files {
        limit_files(files).map_err(|errno| (4, errno))?;
    }
    // What is in a guest's memory has no place in a file.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(|errno| (5, errno))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::chdir(plan.words.directory.as_c_str()).map_err(|errno| (6, errno))?;
    if let Some(user) = plan.user {
        become_user(user).map_err(|errno| (7, errno))?;
    }
    Ok(())
}

/// Without other groups and capabilities, and without a way to any.
fn become_user(user: Credentials) -> Result<(), Errno> {
    if user.uid == 0 || user.gid == 0 {
        return Err(Errno::INVAL);
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..63 {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno),
        }
    }
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true)
}

fn limit_files(files: u64) -> Result<(), Errno> {
    let limit = |files| setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) });
    match limit(files) {
        // More than the caller may have: its own limit is the most there is.
        Err(Errno::PERM) => {
            let most = getrlimit(Resource::Nofile).maximum.unwrap_or(files);
            limit(files.min(most))
        }
        result => result,
    }
}

/// Numbers of what the child keeps.
struct Kept {
    wait: i32,
    tell: i32,
    namespace: Option<i32>,
}

/// Puts the standard descriptors to 0, 1 and 2, the others behind them, and closes everything else, the caller's locks
/// among it.
#[allow(unsafe_code)]
fn pass_descriptors(plan: &Plan<'_>) -> Result<Kept, Errno> {
    let [input, output, error] = plan.standard.map(|fd| fd.as_raw_fd());
    let namespace = plan.namespace.map_or(-1, |fd| fd.as_raw_fd());
    let mut fds = [input, output, error, plan.wait.as_raw_fd(), plan.tell.as_raw_fd(), namespace];
    let count = if namespace < 0 { 5 } else { 6 };
    // Above all numbers that are given away below, so that none is overwritten before it is moved.
    for fd in &mut fds[..count] {
        // SAFETY: fcntl and dup3 take numbers and touch no memory; what they make is this child's alone.
        *fd = check(unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, FIRST_FREE + 8) })?;
    }
    for (number, fd) in fds[..count].iter().enumerate() {
        let number = number as i32;
        // Only the first three outlive execve(2).
        let flags = if number < FIRST_FREE { 0 } else { libc::O_CLOEXEC };
        // SAFETY: as above.
        check(unsafe { libc::dup3(*fd, number, flags) })?;
    }
    // SAFETY: closes numbers of this child that nothing uses any more.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, count as libc::c_uint, libc::c_uint::MAX, 0) };
    check(closed as i32)?;
    Ok(Kept { wait: FIRST_FREE, tell: FIRST_FREE + 1, namespace: (count == 6).then_some(FIRST_FREE + 2) })
}

/// A parent that is gone, or has thought better of it, closes the pipe: then this ends.
#[allow(unsafe_code)]
fn wait_for_parent(pipe: i32) {
    let mut byte = [0u8; 1];
    loop {
        // SAFETY: the pointer is to one writable byte.
        match unsafe { libc::read(pipe, byte.as_mut_ptr().cast(), 1) } {
            1 => return,
            -1 if Errno::from_io_error(&io::Error::last_os_error()) == Some(Errno::INTR) => {}
            _ => exit_now(),
        }
    }
}

#[allow(unsafe_code)]
fn join(namespace: i32) -> Result<(), Errno> {
    // SAFETY: `pass_descriptors` has put the namespace's file to this number, and nothing closes it before execve(2).
    let namespace = unsafe { BorrowedFd::borrow_raw(namespace) };
    rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

/// What the caller ignores or blocks is not for the program.
#[allow(unsafe_code)]
fn reset_signals() -> Result<(), Errno> {
    /// SIG_DFL with no flags and an empty mask, in the kernel's own form.
    const DEFAULT: [u64; 4] = [0; 4];
    for signal in 1..=64 {
        // SAFETY: the kernel reads the four words, in which is no handler that could be called. SIGKILL and SIGSTOP are
        // refused, which is fine. Not through the C library: it keeps some signals for itself.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), 0, 8) };
    }
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set that sigprocmask then reads.
    check(unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    })?;
    Ok(())
}

#[allow(unsafe_code)]
fn execute(argv: &[*const libc::c_char], environment: &[*const libc::c_char]) -> Errno {
    // SAFETY: both are arrays of NUL-terminated words that end with a null pointer; `argv` has at least one word.
    unsafe { libc::execve(argv[0], argv.as_ptr(), environment.as_ptr()) };
    last_errno()
}

#[allow(unsafe_code)]
fn write_raw(fd: i32, bytes: &[u8]) {
    // SAFETY: the pointer and the length are those of `bytes`. Nobody can be told that it failed.
    let _ = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
}

#[allow(unsafe_code)]
fn exit_now() -> ! {
    // SAFETY: ends the process without what the parent has registered for its own end.
    unsafe { libc::_exit(NOT_BEGUN) }
}

fn check(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Closes every descriptor from 3 on that the caller's parent left open.
///
/// Nothing may have been opened yet: whoever owns a descriptor would find it gone. So this is the first thing that a
/// program does.
#[allow(unsafe_code)]
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: the caller owns no descriptor, as said above.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST_FREE as libc::c_uint, libc::c_uint::MAX, 0) };
    if closed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
