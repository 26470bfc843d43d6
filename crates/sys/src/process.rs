//! Processes: birth, identity and end.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use crate::error::{Attempt, Error, Result};
use crate::namespace::Namespaces;

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child's number.
        pid: u32,
        /// A handle to the child that is never reused.
        pidfd: OwnedFd,
    },
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waited {
    /// Who.
    pub pid: u32,
    /// What it returned, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Copies this process, with new namespaces for the child, straight into the v2 cgroup `cgroup` if one is given.
///
/// Refused in a process with more than one thread, whose locks could be copied in a locked state.
pub fn fork(new: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    clone(new, cgroup, false)
}

/// The same, but the new process is a sister: a child of this process's parent.
pub fn fork_beside(new: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> Result<Forked> {
    clone(new, cgroup, true)
}

fn clone(new: Namespaces, cgroup: Option<BorrowedFd<'_>>, beside: bool) -> Result<Forked> {
    let threads = thread_count()?;
    if threads != 1 {
        return Err(Error::Invalid { what: "number of threads for a fork", text: threads.to_string() });
    }
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: libc::CLONE_PIDFD as u64 | new.bits() as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if beside {
        // Its end is told by the same signal as this process's own.
        (args.flags, args.exit_signal) = (args.flags | libc::CLONE_PARENT as u64, 0);
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid `struct clone_args` of the length given, without a new stack or shared memory, so
    // the child continues here on its own copy; there is one thread, so no lock is held by a thread that the
    // child lacks.
    let mut pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if pid == -1 && cgroup.is_none() && std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) {
        // A container's filter of system calls hides this one, whose arguments it cannot look into.
        let flags = args.flags | args.exit_signal;
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: the same as above: no new stack, no shared memory; the descriptor is put where `pidfd` is.
        pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) };
    }
    match pid {
        -1 => Err(Error::last("clone3", "a child process")),
        0 => Ok(Forked::Child),
        // SAFETY: the kernel has just put a new descriptor there.
        pid => Ok(Forked::Parent { pid: pid as u32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Not in the `libc` crate for all targets.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of `linux/sched.h`, version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// How many threads this process has.
pub fn thread_count() -> Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task").attempt("list", || "/proc/self/task".into())?.count())
}

/// A child that has ended, if there is one.
pub fn wait_any() -> Result<Option<Waited>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(None),
            Ok(status) => {
                if let Some(waited) = ended(status) {
                    return Ok(Some(waited));
                }
            }
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno).attempt("wait for", || "any child".into()),
        }
    }
}

/// Waits for children, and for more of them, without end.
pub fn reap_for_ever() -> Result<Infallible> {
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    // Blocked, so that one that comes between looking and waiting is not lost.
    child.thread_block().attempt("block", || "SIGCHLD".into())?;
    loop {
        while wait_any()?.is_some() {}
        child.wait().attempt("wait for", || "SIGCHLD".into())?;
    }
}

/// Waits until the child `pid` has ended.
pub fn wait_for(pid: u32) -> Result<Waited> {
    loop {
        match waitpid(Pid::from_raw(pid as i32), Some(WaitPidFlag::__WALL)) {
            Ok(status) => {
                if let Some(waited) = ended(status) {
                    return Ok(waited);
                }
            }
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno).attempt("wait for process", || pid.to_string()),
        }
    }
}

fn ended(status: WaitStatus) -> Option<Waited> {
    match status {
        WaitStatus::Exited(pid, code) => Some(Waited { pid: pid.as_raw() as u32, code, signal: None }),
        WaitStatus::Signaled(pid, signal, _) => {
            let signal = signal as i32;
            Some(Waited { pid: pid.as_raw() as u32, code: 128 + signal, signal: Some(signal) })
        }
        _ => None,
    }
}

/// This process's number.
pub fn pid() -> u32 {
    std::process::id()
}

/// Sends a signal; true if the process was there.
pub fn kill(pid: u32, signal: i32) -> Result<bool> {
    let Some(target) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else {
        return Err(Error::Invalid { what: "process number", text: pid.to_string() });
    };
    // SAFETY: takes numbers only.
    if unsafe { libc::kill(target, signal) } == 0 {
        return Ok(true);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ESRCH) => Ok(false),
        _ => Err(Error::last("send a signal to process", pid.to_string())),
    }
}

/// Sends a signal to a group of processes; true if there was one.
pub fn kill_group(group: u32, signal: i32) -> Result<bool> {
    let Some(target) = i32::try_from(group).ok().filter(|group| *group > 1) else {
        return Err(Error::Invalid { what: "process group", text: group.to_string() });
    };
    // SAFETY: takes numbers only.
    if unsafe { libc::kill(-target, signal) } == 0 {
        return Ok(true);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ESRCH) => Ok(false),
        _ => Err(Error::last("send a signal to process group", group.to_string())),
    }
}

/// Opens a handle to a process; `None` if there is none of that number.
pub fn pidfd_open(pid: u32) -> Result<Option<OwnedFd>> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if fd >= 0 {
        // SAFETY: the kernel has just made this descriptor for us.
        return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }));
    }
    match std::io::Error::last_os_error().raw_os_error() {
        // One that is just being reaped has a number and is no process any more: kernels differ in what they call that.
        Some(libc::ESRCH | libc::EINVAL | libc::ENOENT) => Ok(None),
        _ => Err(Error::last("open process", pid.to_string())),
    }
}

/// Sends a signal through a handle; true if the process was there.
pub fn kill_pidfd(pidfd: BorrowedFd<'_>, signal: i32) -> Result<bool> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a `siginfo_t` the kernel fills in its own.
    if unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) } == 0 {
        return Ok(true);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ESRCH) => Ok(false),
        _ => Err(Error::last("send a signal through", "a pidfd")),
    }
}

/// Waits until the process of a handle has ended, at most for `limit`. True if it has.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, limit: std::time::Duration) -> Result<bool> {
    let mut poller = crate::Poller::default();
    let place = poller.add(pidfd, true, false);
    poller.wait(Some(limit))?;
    Ok(poller.readable(place))
}

/// When a process began, in clock ticks since the machine did: with the number it names a process for ever.
/// `None` if there is none, or only its remains.
pub fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows its last parenthesis is numbers.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Makes this process the leader of a new session, away from its parent's terminal.
pub fn become_session_leader() -> Result<()> {
    nix::unistd::setsid().attempt("become", || "a session leader".into()).map(drop)
}

/// Makes orphans among this process's descendants its children.
pub fn set_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).attempt("become", || "a subreaper".into())
}

/// This process gets `SIGKILL` when its parent ends.
pub fn die_with_parent() -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL)).attempt("set", || "the parent death signal".into())
}

/// Whether others may look into this process's memory and `/proc` entries.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    nix::sys::prctl::set_dumpable(dumpable).attempt("set", || "dumpable".into())
}

/// Programs started from here on cannot gain privileges.
pub fn no_new_privileges() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().attempt("set", || "no new privileges".into())
}

/// The usual file mode mask.
pub fn set_umask(mask: u32) {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask));
}

/// Closes all descriptors from `first` on.
///
/// For a process that has just begun, or is about to run a program: whoever holds such a descriptor in a value
/// finds it closed.
pub fn close_from(first: u32) -> Result<()> {
    // SAFETY: takes numbers only. Descriptors are numbers to the kernel; using a closed one fails with EBADF, and
    // nothing maps memory through them here.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } == 0 {
        return Ok(());
    }
    Err(Error::last("close", format!("descriptors from {first}")))
}

/// Programs started from here on do not inherit descriptors from `first` on.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: takes numbers only, and closes nothing now.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } == 0 {
        return Ok(());
    }
    Err(Error::last("mark", format!("descriptors from {first}")))
}

/// Puts descriptors in the place of standard input, output and error.
pub fn replace_stdio(input: BorrowedFd<'_>, output: BorrowedFd<'_>, error: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::dup2_stdin(input).attempt("replace", || "standard input".into())?;
    nix::unistd::dup2_stdout(output).attempt("replace", || "standard output".into())?;
    nix::unistd::dup2_stderr(error).attempt("replace", || "standard error".into())
}

/// All signals unblocked, with their default effect.
pub fn reset_signals() -> Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        if matches!(number, libc::SIGKILL | libc::SIGSTOP) || (32..34).contains(&number) {
            continue;
        }
        // SAFETY: restores the default effect; no handler code is involved.
        if unsafe { libc::signal(number, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(Error::last("reset signal", number.to_string()));
        }
    }
    SigSet::empty().thread_set_mask().attempt("unblock", || "all signals".into())
}

/// Becomes another user; `groups` replace all that there are.
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    nix::unistd::setgroups(&groups).attempt("set", || format!("groups {groups:?}"))?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::setresgid(gid, gid, gid).attempt("become group", || gid.to_string())?;
    nix::unistd::setresuid(uid, uid, uid).attempt("become user", || uid.to_string())
}

/// What this thread makes from here on in file systems belongs to these; with another user than 0 it may do no more in
/// them than that user, and with 0 again what it could before.
pub fn set_fs_ids(uid: u32, gid: u32) {
    nix::unistd::setfsgid(Gid::from_raw(gid));
    nix::unistd::setfsuid(Uid::from_raw(uid));
}

/// Limits a resource by its name in lower case without `RLIMIT_`.
pub fn set_rlimit(name: &str, soft: u64, hard: u64) -> Result<()> {
    let resource = match name.trim_start_matches("RLIMIT_").to_ascii_lowercase().as_str() {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return Err(Error::Invalid { what: "resource limit", text: name.to_owned() }),
    };
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` is a valid `struct rlimit` that the kernel only reads.
    if unsafe { libc::setrlimit(resource, &limit) } == 0 {
        return Ok(());
    }
    Err(Error::last("limit", name))
}

/// Becomes the program at `path`; returns only on failure.
pub fn exec(path: &OsStr, argv: &[impl AsRef<OsStr>], env: &[impl AsRef<OsStr>]) -> Result<Infallible> {
    let text = |s: &OsStr| {
        CString::new(s.as_bytes()).map_err(|_| Error::Invalid {
            what: "argument (it holds a zero byte)",
            text: s.to_string_lossy().into(),
        })
    };
    let program = text(path)?;
    let argv = argv.iter().map(|s| text(s.as_ref())).collect::<Result<Vec<_>>>()?;
    let env = env.iter().map(|s| text(s.as_ref())).collect::<Result<Vec<_>>>()?;
    // The Rust runtime ignores it, and an ignored signal stays ignored in the program.
    // SAFETY: restores a default effect.
    let _ = unsafe { nix::sys::signal::signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    nix::unistd::execve(&program, &argv, &env).attempt("run", || path.to_string_lossy().into())
}

/// Ends this process without running anything more in it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Tells the allocator to keep little: one arena, small steps, returning what is free.
pub fn heap_small() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets parameters of the allocator, with numbers it documents.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TOP_PAD, 4096);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 16 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Gives free memory of the allocator back to the kernel.
pub fn heap_trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_args_are_as_the_kernel_has_them() {
        // `CLONE_ARGS_SIZE_VER2` of `linux/sched.h`.
        assert_eq!(size_of::<CloneArgs>(), 88);
    }

    #[test]
    fn forking_with_threads_is_refused() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || stopped.recv());
        assert!(matches!(fork(Namespaces::none(), None), Err(Error::Invalid { .. })));
        drop(stop);
        let _ = other.join();
    }

    #[test]
    fn a_number_without_a_process_opens_nothing() {
        assert!(pidfd_open(pid()).unwrap().is_some());
        // A thread's number is as good as that of a process whose main thread is gone.
        let thread =
            std::thread::spawn(|| pidfd_open(nix::unistd::gettid().as_raw() as u32).unwrap().is_none());
        assert!(thread.join().unwrap());
    }

    #[test]
    fn a_living_process_has_a_start() {
        assert!(process_start(pid()).is_some());
        assert!(process_start(u32::MAX / 2).is_none());
    }
}
