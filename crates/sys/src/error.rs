use std::io;

/// A system call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel said no.
    #[error("{call} {operand}: {source}")]
    Call {
        /// What was tried.
        call: &'static str,
        /// On what.
        operand: String,
        /// Why not.
        source: io::Error,
    },
    /// Text of the kernel or of a caller that makes no sense.
    #[error("{what} {text:?} is not valid")]
    Invalid {
        /// What it should have been.
        what: &'static str,
        /// The text.
        text: String,
    },
}

impl Error {
    /// The failed call's error number.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } => source.raw_os_error(),
            Self::Invalid { .. } => None,
        }
    }

    /// Whether something is in use, or must not be used as it is.
    pub fn is_busy(&self) -> bool {
        self.errno() == Some(libc::EBUSY)
    }

    /// Whether the caller lacks the right.
    pub fn is_refused(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }

    /// The last failure of this thread.
    pub(crate) fn last(call: &'static str, operand: impl Into<String>) -> Self {
        Self::Call { call, operand: operand.into(), source: io::Error::last_os_error() }
    }
}

/// Names the attempt of an I/O or system call result.
pub(crate) trait Attempt<T> {
    fn attempt(self, call: &'static str, operand: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, call: &'static str, operand: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Call { call, operand: operand(), source: source.into() })
    }
}

/// The usual result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
