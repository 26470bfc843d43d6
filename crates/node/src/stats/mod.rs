//! What the node, its pods and their containers use (kubernetes/kubernetes, `pkg/kubelet/stats`).
//!
//! Nothing is measured unless somebody asks. One pass over all cgroups serves whoever asks within a second; what a
//! folder takes is kept for longer ([`Folders`]).

mod disk;
mod host;
mod rates;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base::{Clock, Timestamp};
use runtime::{ContainerState, SandboxState};
use sys::cgroup::{Details, Usage};
use tokio::time::Instant;

pub(crate) use disk::{Extent, FileSystem, Folders};
pub(crate) use host::{Host, Link};
use rates::Rates;

use crate::engine::Engine;
use crate::error::NodeError;
use crate::worker::KEY;

/// How long a measurement serves whoever asks.
const FRESH: Duration = Duration::from_secs(1);

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Timestamp,
    pub(crate) host: Host,
    /// The host's CPU rate in nanoseconds for each second.
    pub(crate) rate: Option<u64>,
    /// All interfaces of the host that are no pod's, by name; the default one first.
    pub(crate) links: Vec<(String, Link)>,
    /// All pods, and what keeps them, together.
    pub(crate) together: (Usage, Usage),
    pub(crate) pods: Vec<PodSample>,
}

/// A pod that has a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct PodSample {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) cgroup: String,
    pub(crate) created: Timestamp,
    pub(crate) usage: Usage,
    pub(crate) details: Option<Details>,
    pub(crate) rate: Option<u64>,
    /// Its own `eth0`; absent with the host's network.
    pub(crate) link: Option<Link>,
    pub(crate) containers: Vec<ContainerSample>,
}

/// A container that runs.
#[derive(Clone, Debug)]
pub(crate) struct ContainerSample {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) started: Timestamp,
    pub(crate) usage: Usage,
    pub(crate) details: Option<Details>,
    pub(crate) rate: Option<u64>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) writable: PathBuf,
    /// What lies there, where the path does not say.
    pub(crate) layer: Option<Extent>,
}

/// Measures, and remembers what was measured a moment ago. Clones share everything.
#[derive(Clone)]
pub(crate) struct Stats(Arc<Inner>);

struct Inner {
    runtime: Engine,
    clock: Arc<dyn Clock>,
    folders: Folders,
    kept: tokio::sync::Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    rates: Rates,
    /// The last sample, and whether it has details.
    last: Option<(Instant, bool, Arc<Sample>)>,
}

impl Stats {
    pub(crate) fn new(runtime: Engine, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner {
            runtime,
            clock,
            folders: Folders::default(),
            kept: tokio::sync::Mutex::default(),
        }))
    }

    /// What folders take.
    pub(crate) fn folders(&self) -> &Folders {
        &self.0.folders
    }

    /// Everything as it is now, or was a moment ago.
    pub(crate) async fn sample(&self, details: bool) -> Result<Arc<Sample>, NodeError> {
        let mut kept = self.0.kept.lock().await;
        if let Some((at, detailed, sample)) = &kept.last
            && at.elapsed() < FRESH
            && (*detailed || !details)
        {
            return Ok(sample.clone());
        }
        let (sandboxes, together) =
            (self.0.runtime.usage(details).await?, self.0.runtime.usage_together().await?);
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (host, at) = (Host::read(), self.0.clock.now());
        let mut links = host::links(&read("/proc/net/dev"));
        let default = host::default_link(&read("/proc/net/route"));
        let pairs = self.0.runtime.host_interfaces().await;
        let mut told = self.0.runtime.told_usage().await;
        let mut pods = Vec::with_capacity(sandboxes.len());
        let mut used = HashMap::from([(String::new(), host.cpu_ns)]);
        for found in sandboxes {
            let spec = &found.sandbox.spec;
            let link = pairs.get(&spec.id).and_then(|name| links.remove(name)).map(Link::mirrored);
            let link = link.or_else(|| told.links.remove(&spec.id));
            let Some((namespace, name)) = spec.labels.get(KEY).and_then(|key| key.split_once('/')) else {
                continue;
            };
            if found.sandbox.state != SandboxState::Ready {
                continue;
            }
            let rate = |id: &str, usage: &Usage| kept.rates.of(id, at, usage.cpu_ns);
            used.insert(spec.id.clone(), found.usage.cpu_ns);
            let containers = found.containers.into_iter().filter_map(|c| {
                let ContainerState::Running { started_at, .. } = c.container.state else { return None };
                used.insert(c.container.id.clone(), c.usage.cpu_ns);
                Some(ContainerSample {
                    rate: rate(&c.container.id, &c.usage),
                    writable: self.0.runtime.writable_layer(&c.container.id),
                    layer: told.layers.get(&c.container.id).copied(),
                    id: c.container.id,
                    name: c.container.name,
                    image: c.container.image,
                    started: started_at,
                    usage: c.usage,
                    details: c.details,
                    log: c.container.log_path,
                })
            });
            pods.push(PodSample {
                containers: containers.collect(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                uid: spec.id.clone(),
                cgroup: found.cgroup,
                created: found.sandbox.created_at,
                rate: rate(&spec.id, &found.usage),
                usage: found.usage,
                details: found.details,
                link,
            });
        }
        let mut links: Vec<(String, Link)> = links.into_iter().collect();
        links.sort_by(|(a, _), (b, _)| {
            let other = |name: &String| Some(name) != default.as_ref();
            (other(a), a).cmp(&(other(b), b))
        });
        let rate = kept.rates.of("", at, host.cpu_ns);
        kept.rates.note(at, used);
        let sample = Arc::new(Sample { at, host, rate, links, together, pods });
        kept.last = Some((Instant::now(), details, sample.clone()));
        Ok(sample)
    }
}
