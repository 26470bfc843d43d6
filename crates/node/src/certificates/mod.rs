//! Certificates that the cluster signs for the node, and others in their place before they end (kubernetes/kubernetes,
//! `staging/src/k8s.io/client-go/util/certificate/certificate_manager.go`, `pkg/kubelet/certificate`).
//!
//! ```text
//! none, or it has ended ─► asked for with the bootstrap identity ─┐
//! 70 to 90 % of its life have passed ─► asked for with itself ────┴─► kept in a file ─► shown from then on
//! ```

mod ask;
mod numbers;
mod plan;
mod store;
mod switch;

use std::sync::Arc;
use std::time::Duration;

use auth::{KeyPairPem, certificate_span};
use base::{Backoff, Clock, Drain, Timestamp};
use kube::Client;

pub use ask::CertificateError;
pub(crate) use numbers::metrics;
use plan::Need;
pub use store::CertificateStore;
pub use switch::Switch;

/// How long to wait before a certificate is asked for again.
const FIRST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(60);
/// Clocks are looked at this often while a certificate is good: a machine may have slept.
const LOOK: Duration = Duration::from_secs(3600);

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateUse {
    /// To show the API who asks.
    Client,
    /// To be shown by the agent's server.
    Serving,
}

impl CertificateUse {
    fn signer(self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving => "kubernetes.io/kubelet-serving",
        }
    }

    /// The keys are for signatures only.
    fn usages(self) -> [&'static str; 2] {
        match self {
            Self::Client => ["digital signature", "client auth"],
            Self::Serving => ["digital signature", "server auth"],
        }
    }
}

/// Has a certificate used from now on.
pub type Apply = dyn Fn(&KeyPairPem) -> Result<(), auth::TlsError> + Send + Sync;

/// One of the node's certificates, kept good.
pub struct Rotation {
    /// What it is for.
    pub usage: CertificateUse,
    /// Whose it is.
    pub node: String,
    /// The names and addresses that it is for; none for a client.
    pub names: Vec<String>,
    /// Where it is kept.
    pub store: CertificateStore,
    /// Asks with the certificate that is good.
    pub client: Client,
    /// Asks while there is none.
    pub bootstrap: Option<Client>,
    /// Whether others are asked for in time; if not, only when there is none.
    pub rotate: bool,
    /// Has a certificate used from now on.
    pub apply: Box<Apply>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Something between 0 and 1, another one each time: not all nodes shall ask at once.
    pub jitter: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl Rotation {
    /// Begins to keep the certificate good, until `drain` starts. One that is kept and good is applied before this returns.
    pub fn start(self, drain: &Drain) {
        let mut deadline = None;
        if let Some(pair) = self.store.current()
            && let Some(span) = certificate_span(&pair.certificate)
            && span.1 > self.clock.now()
        {
            match (self.apply)(&pair) {
                Ok(()) => {
                    self.usage.numbers().used(span.1);
                    deadline = Some((plan::deadline(span, (self.jitter)()), span.1));
                }
                Err(error) => tracing::warn!(%error, "the certificate that is kept cannot be used"),
            }
        }
        drain.spawn_until_started(self.keep(deadline));
    }

    /// `good` is when another is to be asked for, and when the one that is used ends.
    async fn keep(self, mut good: Option<(Timestamp, Timestamp)>) {
        let mut backoff = Backoff::new(FIRST, MOST);
        // When the one that is used began.
        let mut since =
            self.store.current().and_then(|pair| certificate_span(&pair.certificate)).map(|s| s.0);
        loop {
            let now = self.clock.now();
            let (client, what) = match plan::need(good, self.rotate, now) {
                Need::Nothing(wait) => {
                    tokio::time::sleep(wait.min(LOOK)).await;
                    continue;
                }
                Need::Another => (Some(&self.client), "rotating certificates"),
                Need::First if self.usage == CertificateUse::Serving => {
                    (Some(&self.client), "asking for a certificate")
                }
                Need::First => (self.bootstrap.as_ref(), "asking for a first certificate"),
            };
            let usage = self.usage;
            let asked = match client {
                Some(client) => {
                    tracing::info!(?usage, what);
                    self.ask(client).await
                }
                None => Err(CertificateError::NoBootstrap),
            };
            match asked {
                Ok(span) => {
                    backoff.reset();
                    let numbers = usage.numbers();
                    numbers.used(span.1);
                    if let Some(since) = since.replace(span.0)
                        && let Ok(age) = Duration::try_from(self.clock.now().duration_since(since))
                    {
                        numbers.replaced(age);
                    }
                    good = Some((plan::deadline(span, (self.jitter)()), span.1));
                    tracing::info!(?usage, until = %span.1, "another certificate is used from now on");
                }
                Err(error) => {
                    let wait = backoff.fail();
                    usage.numbers().failed();
                    tracing::error!(?usage, %error, ?wait, "Failed while requesting a signed certificate from the control plane");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn ask(&self, client: &Client) -> Result<(Timestamp, Timestamp), CertificateError> {
        let pair = ask::ask(client, self.usage, &self.node, &self.names).await?;
        let span = certificate_span(&pair.certificate).ok_or(CertificateError::Form)?;
        self.store.keep(&pair, self.clock.now())?;
        (self.apply)(&pair).map_err(CertificateError::Use)?;
        Ok(span)
    }
}

#[cfg(test)]
mod tests;
