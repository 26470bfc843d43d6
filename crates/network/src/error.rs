//! What can go wrong with a node's network.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::Protocol;

/// A failed attempt on the node's network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The bridge's name cannot name an interface.
    #[error("bridge name {0:?} is not 1 to 15 letters, digits, '-', '_' or '.'")]
    BridgeName(String),
    /// The range leaves no addresses to give out.
    #[error("pod range {0} is smaller than a /29")]
    CidrTooSmall(Ipv4Net),
    /// An interface of that name exists and is no bridge.
    #[error("interface {0} exists and is not a bridge")]
    NotABridge(String),
    /// The id cannot be recorded.
    #[error("attachment id {0:?} is empty, longer than 255 bytes or holds a zero byte")]
    BadId(String),
    /// No address is free.
    #[error("no free address in {cidr} for {id}")]
    NoAddress {
        /// The range.
        cidr: Ipv4Net,
        /// Who asked.
        id: String,
    },
    /// The id is not attached.
    #[error("{0} is not attached to the network")]
    NotAttached(String),
    /// The host port belongs to somebody else.
    #[error("host port {port}/{protocol} is already published for {owner}")]
    PortTaken {
        /// The port asked for.
        port: u16,
        /// Its protocol.
        protocol: Protocol,
        /// The address that holds it.
        owner: Ipv4Addr,
    },
    /// The namespace could not be opened.
    #[error("cannot open network namespace {path}")]
    Namespace {
        /// The path given.
        path: PathBuf,
        /// The cause.
        source: nlink::Error,
    },
    /// The address records could not be read or written.
    #[error("cannot {attempt} {path}")]
    Records {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A kernel setting could not be written.
    #[error("cannot set {key} to {value}")]
    Setting {
        /// The setting.
        key: String,
        /// The value wanted.
        value: &'static str,
        /// The cause.
        source: nlink::Error,
    },
    /// The kernel refused a netlink request.
    #[error("cannot {attempt} {object}: {source}")]
    Netlink {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        object: String,
        /// The cause.
        source: nlink::Error,
    },
}

/// Names the attempt of a netlink request.
pub(crate) trait Attempt<T> {
    fn attempt(self, attempt: &'static str, object: impl Into<String>) -> Result<T, NetworkError>;
}

impl<T> Attempt<T> for nlink::Result<T> {
    fn attempt(self, attempt: &'static str, object: impl Into<String>) -> Result<T, NetworkError> {
        self.map_err(|source| NetworkError::Netlink { attempt, object: object.into(), source })
    }
}
