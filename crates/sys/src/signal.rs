//! Signals as names and as readable events.

use std::os::fd::{AsFd, BorrowedFd};
use std::str::FromStr;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd as NixSignalFd};

use crate::error::{Attempt, Error, Result};

/// The number of a signal given as `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
pub fn parse_signal(name: &str) -> Result<i32> {
    let unknown = || Error::Invalid { what: "signal", text: name.to_owned() };
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number).ok_or_else(unknown);
    }
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = if let Some(more) = short.strip_prefix("RTMIN") {
        libc::SIGRTMIN() + offset(more).ok_or_else(unknown)?
    } else if let Some(less) = short.strip_prefix("RTMAX") {
        libc::SIGRTMAX() + offset(less).ok_or_else(unknown)?
    } else {
        return Signal::from_str(&format!("SIG{short}")).map(|signal| signal as i32).map_err(|_| unknown());
    };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number).ok_or_else(unknown)
}

fn offset(text: &str) -> Option<i32> {
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|n: &i32| n.abs() < 64) }
}

/// Signals that arrive as readable data instead of interrupting.
#[derive(Debug)]
pub struct SignalFd(NixSignalFd);

impl SignalFd {
    /// Blocks `SIGCHLD` and `SIGTERM` and makes them readable here.
    pub fn children_and_term() -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.add(Signal::SIGTERM);
        set.thread_block().attempt("block", || "signals".into())?;
        NixSignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .attempt("make", || "a signalfd".into())
            .map(Self)
    }

    /// The next signal that waits.
    pub fn next(&self) -> Result<Option<i32>> {
        let info = self.0.read_signal().attempt("read", || "a signalfd".into())?;
        Ok(info.map(|info| info.ssi_signo as i32))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_all_spellings() {
        for (name, number) in
            [("SIGTERM", 15), ("term", 15), ("9", 9), ("HUP", 1), ("SIGRTMIN+3", 37), ("RTMAX", 64)]
        {
            assert_eq!(parse_signal(name).unwrap(), number, "{name}");
        }
        for name in ["", "0", "SIG", "NOPE", "65", "-1", "RTMIN+99", "RTMIN-1"] {
            assert!(parse_signal(name).is_err(), "{name}");
        }
    }
}
