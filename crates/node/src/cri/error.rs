use grpc::{Code, RpcError};

/// Why another runtime could not do something, in the words that people know from kubelets.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// No runtime can be there.
    #[error(
        "container runtime endpoint {0:?} is not usable: give a socket, such as unix:///run/containerd/containerd.sock"
    )]
    Endpoint(String),
    /// Nobody answers there.
    #[error("validate CRI v1 runtime API for endpoint {endpoint:?}: {source}")]
    Connect {
        /// Where.
        endpoint: String,
        /// Why not.
        source: Box<CriError>,
    },
    /// It does not let the agent make the pods' cgroups.
    #[error(
        "the container runtime uses the systemd cgroup driver; this agent makes cgroups by itself: set SystemdCgroup = false (containerd) or cgroup_manager = \"cgroupfs\" (CRI-O)"
    )]
    CgroupDriver,
    /// A call failed.
    #[error("{}", said(.0))]
    Call(#[from] RpcError),
    /// There is no such sandbox.
    #[error("no sandbox of pod {0:?} in the container runtime")]
    NoSandbox(String),
    /// It cannot do that.
    #[error("{0}")]
    Refused(String),
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// A file operation failed.
    #[error("cannot {attempt} {path}: {source}")]
    File {
        /// What was tried.
        attempt: &'static str,
        /// On what.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

const NOT_FOUND: Code = Code(5);

impl CriError {
    /// Whether the sandbox, container or image is not known.
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::Call(error) => error.code() == Some(NOT_FOUND),
            Self::NoSandbox(_) => true,
            _ => false,
        }
    }

    /// Whether a command took longer than it may.
    pub(crate) fn is_timeout(&self) -> bool {
        match self {
            Self::Call(RpcError::Timeout { .. }) => true,
            Self::Call(RpcError::Status { code, message, .. }) => {
                // Some runtimes say so without the code.
                *code == Code::DEADLINE_EXCEEDED || message.contains("context deadline exceeded")
            }
            _ => false,
        }
    }

    /// Whether the runtime does not know the call.
    pub(super) fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Call(error) if error.code() == Some(Code::UNIMPLEMENTED))
    }
}

/// The codes' names in Go.
const NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn said(error: &RpcError) -> String {
    let (code, why) = match error {
        RpcError::Status { code, message, .. } => (*code, message.clone()),
        RpcError::Timeout { .. } => (Code::DEADLINE_EXCEEDED, error.to_string()),
        RpcError::Unreachable { .. } | RpcError::Broken { .. } => (Code::UNAVAILABLE, error.to_string()),
        RpcError::Malformed { .. } => (Code(13), error.to_string()),
    };
    format!("rpc error: code = {} desc = {why}", NAMES.get(code.0 as usize).unwrap_or(&"Unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_in_gos_words() {
        let told = |code, message: &str| {
            CriError::from(RpcError::Status { target: "t".into(), code, message: message.into() })
        };
        let missing = told(NOT_FOUND, "no such container");
        assert_eq!(missing.to_string(), "rpc error: code = NotFound desc = no such container");
        assert!(missing.is_not_found() && !missing.is_timeout());
        assert!(told(Code::UNKNOWN, "timeout 1s exceeded: context deadline exceeded").is_timeout());
        assert!(told(Code::UNIMPLEMENTED, "").is_unimplemented());
    }
}
