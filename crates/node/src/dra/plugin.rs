use std::path::PathBuf;
use std::time::Duration;

use grpc::{Channel, Connection, RpcError, Stream, Target, WireError};

use super::error::DraError;
use super::messages::{Answers, ClaimRef, answers, claims_request};

/// How long a driver may take (upstream: `defaultClientCallTimeout`).
const PATIENCE: Duration = Duration::from_secs(45);
/// The services that are understood, the best first: as plugins name them, and where they are asked.
const SERVICES: [(&str, &str); 2] = [
    ("v1.DRAPlugin", "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"),
    ("v1beta1.DRAPlugin", "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin"),
];
const PREPARE: &str = "NodePrepareResources";
const UNPREPARE: &str = "NodeUnprepareResources";

/// One who speaks for a driver.
pub(super) struct Plugin {
    pub(super) driver: String,
    pub(super) endpoint: PathBuf,
    service: &'static str,
    channel: Channel,
}

impl Plugin {
    /// Nothing, if no service that it has is understood.
    pub(super) fn new(driver: &str, endpoint: PathBuf, versions: &[String]) -> Option<Self> {
        let (_, service) = SERVICES.iter().find(|(name, _)| versions.iter().any(|v| v == name))?;
        let channel = Channel::new(Target::Unix(endpoint.clone()));
        Some(Self { driver: driver.to_owned(), endpoint, service, channel })
    }

    /// A connection that carries nothing, by which it is known whether the plugin is there.
    pub(super) async fn connect(&self) -> Result<Connection, RpcError> {
        self.channel.open().await
    }

    /// Hears what it tells.
    pub(super) async fn listen(&self, method: &str) -> Result<Stream, RpcError> {
        self.channel.listen(method, &[]).await
    }

    pub(super) async fn prepare(&self, claims: &[ClaimRef]) -> Result<Answers, DraError> {
        self.ask(PREPARE, claims, 2).await
    }

    pub(super) async fn unprepare(&self, claims: &[ClaimRef]) -> Result<Answers, DraError> {
        self.ask(UNPREPARE, claims, 1).await
    }

    /// Every claim must be in the answer, and no other.
    async fn ask(&self, method: &'static str, claims: &[ClaimRef], error: u32) -> Result<Answers, DraError> {
        let path = format!("{}/{method}", self.service);
        let message = self.channel.unary(&path, &claims_request(claims), PATIENCE).await;
        let message = message.map_err(|source| DraError::Call { method, source })?;
        let malformed = |error: WireError| {
            DraError::Refused(format!("{method}: the answer of {} is malformed: {error}", self.driver))
        };
        let answers = answers(&message, error).map_err(malformed)?;
        for (uid, answer) in &answers {
            let Some(claim) = claims.iter().find(|claim| claim.uid == *uid) else {
                return Err(DraError::Refused(format!(
                    "{method} returned result for unknown claim UID {uid}"
                )));
            };
            if !answer.error.is_empty() {
                let (name, why) = (&claim.name, &answer.error);
                return Err(DraError::Refused(format!("{method} failed for ResourceClaim {name}: {why}")));
            }
        }
        match claims.len().saturating_sub(answers.len()) {
            0 => Ok(answers),
            skipped => Err(DraError::Refused(format!("{method} skipped {skipped} ResourceClaims"))),
        }
    }
}
