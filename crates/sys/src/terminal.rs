//! Pseudo-terminals.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::{Attempt, Error, Result};

/// A new terminal of 80 by 24 from the `devpts` file system whose multiplexer is `ptmx`: the side to read and
/// write, and the side for a program.
pub fn open_terminal(ptmx: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let master = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(ptmx)
        .attempt("open", || ptmx.display().to_string())?;
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an `int`.
    if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) } != 0 {
        return Err(Error::last("unlock the terminal of", ptmx.display().to_string()));
    }
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and gives a new descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if slave < 0 {
        return Err(Error::last("open the other side of", ptmx.display().to_string()));
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    set_size(&master, 80, 24)?;
    Ok((master.into(), slave))
}

/// The number of a terminal in its `devpts` file system, from its side to read and write.
pub fn terminal_number(master: impl AsFd) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes an `unsigned int`.
    if unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) } == 0 {
        return Ok(number);
    }
    Err(Error::last("number", "a terminal"))
}

/// Tells a terminal its size.
pub fn set_size(terminal: impl AsFd, width: u16, height: u16) -> Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a `struct winsize`.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } == 0 {
        return Ok(());
    }
    Err(Error::last("set the size of", "a terminal"))
}

/// Makes a terminal the controlling one of this session.
pub fn set_controlling(terminal: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    if unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) } == 0 {
        return Ok(());
    }
    Err(Error::last("control", "a terminal"))
}
