use grpc::RpcError;

use crate::checkpoint::CheckpointError;

/// Why a pod's claims cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DraError {
    /// The API did not give a claim.
    #[error("fetch ResourceClaim {claim}: {}", client::message(.source))]
    Fetch {
        /// The claim.
        claim: String,
        /// Why not.
        source: kube::Error,
    },
    /// A claim that is not there yet, not the pod's, or not what it was.
    #[error("{0}")]
    Claim(String),
    /// Nobody speaks for the driver here.
    #[error("DRA driver {0} is not registered")]
    NoDriver(String),
    /// The driver did not answer, or not as it must.
    #[error("{method}: {source}")]
    Call {
        /// What it was asked to do.
        method: &'static str,
        /// How that failed.
        source: RpcError,
    },
    /// The driver answered, and said no.
    #[error("{0}")]
    Refused(String),
    /// What a driver has prepared is described nowhere, or cannot be used.
    #[error("{0}")]
    Cdi(String),
    /// What has to be remembered cannot be.
    #[error("checkpoint ResourceClaim state: {0}")]
    Checkpoint(#[from] CheckpointError),
}
