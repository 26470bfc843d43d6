//! Descriptors that the asynchronous runtime watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;

use crate::fd::{read_some, set_nonblocking, write_some};

/// A pipe's end or a terminal, read and written without waiting.
#[derive(Debug)]
pub struct WatchedFd(AsyncFd<OwnedFd>);

impl WatchedFd {
    /// Starts watching; within a Tokio runtime.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&fd).map_err(io::Error::other)?;
        // SAFETY: an `OwnedFd` is open and stays the same; it is private here and never replaced, so it outlives
        // the registration.
        let registered = unsafe { AsyncFd::register(fd) };
        registered.map(Self).map_err(Into::into)
    }

    /// Reads what is there; 0 is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| read_some(fd.get_ref(), buffer)) {
                return Poll::Ready(result);
            }
        }
    }

    /// Writes what fits.
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| write_some(fd.get_ref(), data)) {
                return Poll::Ready(result);
            }
        }
    }
}

impl AsFd for WatchedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
