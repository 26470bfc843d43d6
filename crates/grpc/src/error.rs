use std::fmt;
use std::time::Duration;

/// A status code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// It went well.
    pub const OK: Code = Code(0);
    /// Nobody can say what went wrong.
    pub const UNKNOWN: Code = Code(2);
    /// The request makes no sense.
    pub const INVALID_ARGUMENT: Code = Code(3);
    /// It took too long.
    pub const DEADLINE_EXCEEDED: Code = Code(4);
    /// There is no such thing.
    pub const NOT_FOUND: Code = Code(5);
    /// There is such a thing already.
    pub const ALREADY_EXISTS: Code = Code(6);
    /// Too much of something.
    pub const RESOURCE_EXHAUSTED: Code = Code(8);
    /// The state does not allow it.
    pub const FAILED_PRECONDITION: Code = Code(9);
    /// Past the valid range.
    pub const OUT_OF_RANGE: Code = Code(11);
    /// No such method.
    pub const UNIMPLEMENTED: Code = Code(12);
    /// Not now.
    pub const UNAVAILABLE: Code = Code(14);
}

const NAMES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid argument",
    "deadline exceeded",
    "not found",
    "already exists",
    "permission denied",
    "resource exhausted",
    "failed precondition",
    "aborted",
    "out of range",
    "unimplemented",
    "internal",
    "unavailable",
    "data loss",
    "unauthenticated",
];

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// Nothing was sent.
    #[error("cannot reach {target}: {why}")]
    Unreachable {
        /// Whom.
        target: String,
        /// What the system said.
        why: String,
    },
    /// Sent, and nobody knows what came of it.
    #[error("{target} did not answer within {limit:?}")]
    Timeout {
        /// Who.
        target: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Sent, and nobody knows what came of it.
    #[error("the connection to {target} broke: {why}")]
    Broken {
        /// Whose.
        target: String,
        /// What the connection said.
        why: String,
    },
    /// The other side says no.
    #[error("{target} says {code}: {message}")]
    Status {
        /// Who.
        target: String,
        /// What kind of no.
        code: Code,
        /// In its words.
        message: String,
    },
    /// The answer cannot be understood.
    #[error("the answer of {target} makes no sense: {why}")]
    Malformed {
        /// Whose.
        target: String,
        /// What is wrong with it.
        why: String,
    },
}

impl RpcError {
    /// Whether the request never left.
    pub fn is_unsent(&self) -> bool {
        matches!(self, RpcError::Unreachable { .. })
    }

    /// The code that the other side gave, if it did.
    pub fn code(&self) -> Option<Code> {
        match self {
            RpcError::Status { code, .. } => Some(*code),
            _ => None,
        }
    }
}
