//! Asking the nodes (kubernetes-sigs/metrics-server, `pkg/scraper`).

use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Drain};
use futures::StreamExt;
use http::Request;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client};
use parking_lot::RwLock;

use crate::exposition::{Scrape, parse};
use crate::samples::{Progress, Samples};

/// How often nodes are asked.
const PERIOD: Duration = Duration::from_secs(15);
/// How soon for the second time.
const SOON: Duration = Duration::from_secs(5);
/// How long a node may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many are asked at once.
const AT_ONCE: usize = 32;

/// What is known of nodes and pods. Clones share it.
#[derive(Clone)]
pub struct Metrics {
    pub(crate) client: Client,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) samples: Arc<RwLock<Samples>>,
}

/// A node that cannot be asked.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("it has not answered in {PATIENCE:?}")]
    Silent,
    #[error("its name makes no path: {0}")]
    Path(#[from] http::Error),
}

impl Metrics {
    /// `client` may list nodes and pods, and reach nodes through the API server.
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock, samples: Arc::default() }
    }

    /// Asks all nodes again and again, until `drain` starts.
    pub async fn run(self, drain: Drain) {
        loop {
            tokio::select! {
                () = self.ask_all() => {}
                () = drain.started() => return,
            }
            // Rates take two looks: of a node that has just come, the second one follows soon after the first.
            let pause = match self.samples.read().progress() {
                Progress::Nothing => SOON / 5,
                Progress::Half => SOON,
                Progress::Whole => PERIOD,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = drain.started() => return,
            }
        }
    }

    /// Asks every node once.
    pub async fn ask_all(&self) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        // Whatever the server has in memory will do.
        let listed = nodes.list_metadata(&ListParams::default().match_any()).await;
        let names: Vec<String> = match listed {
            Ok(list) => {
                list.items.into_iter().filter_map(|n: PartialObjectMeta<Node>| n.metadata.name).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "cannot list the nodes to measure");
                return;
            }
        };
        self.samples.write().keep(&names);
        futures::stream::iter(names)
            .for_each_concurrent(AT_ONCE, |name| async move {
                match self.ask(&name).await {
                    Ok(scrape) => self.samples.write().note(&name, scrape),
                    Err(error) => {
                        tracing::debug!(node = name, %error, "cannot ask a node what it uses");
                        self.samples.write().forget(&name);
                    }
                }
            })
            .await;
    }

    async fn ask(&self, node: &str) -> Result<Scrape, ScrapeError> {
        let path = format!("/api/v1/nodes/{node}/proxy/metrics/resource");
        let request = Request::get(path).body(Vec::new())?;
        let answer = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        Ok(parse(&answer.map_err(|_| ScrapeError::Silent)??))
    }
}
