//! Plain descriptors: pipes, waiting, partial reads and writes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::error::{Attempt, Error, Result};

/// A pipe: the end to read and the end to write, neither inherited by programs.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).attempt("make", || "a pipe".into())
}

/// One more descriptor of the same thing.
pub fn copy_fd(fd: impl AsFd) -> Result<OwnedFd> {
    fd.as_fd().try_clone_to_owned().attempt("copy", || "a descriptor".into())
}

/// Reads and writes return at once instead of waiting.
pub fn set_nonblocking(fd: impl AsFd) -> Result<()> {
    let flags = fcntl(&fd, FcntlArg::F_GETFL).attempt("look at", || "a descriptor".into())?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).attempt("mark", || "a descriptor".into()).map(drop)
}

/// Lets a pipe hold up to `bytes`.
pub fn set_pipe_size(fd: impl AsFd, bytes: i32) -> Result<()> {
    fcntl(&fd, FcntlArg::F_SETPIPE_SZ(bytes)).attempt("enlarge", || "a pipe".into()).map(drop)
}

/// Reads what is there; 0 is the end. A terminal whose other side is closed is at its end.
pub fn read_some(fd: impl AsFd, buffer: &mut [u8]) -> std::io::Result<usize> {
    match nix::unistd::read(fd, buffer) {
        Err(nix::Error::EIO) => Ok(0),
        result => Ok(result?),
    }
}

/// Writes what fits.
pub fn write_some(fd: impl AsFd, bytes: &[u8]) -> std::io::Result<usize> {
    Ok(nix::unistd::write(fd, bytes)?)
}

/// Waits for several descriptors.
#[derive(Default)]
pub struct Poller(Vec<libc::pollfd>);

impl Poller {
    /// Forgets all descriptors.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Waits for `fd` too; gives its place.
    pub fn add(&mut self, fd: BorrowedFd<'_>, read: bool, write: bool) -> usize {
        let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        self.0.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        self.0.len() - 1
    }

    /// Waits until one is ready, or the time is over.
    pub fn wait(&mut self, limit: Option<Duration>) -> Result<()> {
        let limit =
            limit.map_or(-1, |limit| i32::try_from(limit.as_millis().saturating_add(1)).unwrap_or(i32::MAX));
        // SAFETY: the pointer and length are those of a vector of `struct pollfd`. A descriptor closed since
        // `add` only yields POLLNVAL.
        let count = unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, limit) };
        if count < 0 && std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return Err(Error::last("poll", "descriptors"));
        }
        Ok(())
    }

    /// Whether reading at `place` would find data, an end or an error.
    pub fn readable(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|at| at.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0)
    }

    /// Whether writing at `place` would succeed or fail at once.
    pub fn writable(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|at| at.revents & (libc::POLLOUT | libc::POLLERR | libc::POLLHUP) != 0)
    }
}
