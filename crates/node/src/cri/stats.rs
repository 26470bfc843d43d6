//! What sandboxes and containers use. Their cgroups are known, for the agent made their parents: they are read as those
//! of the built-in runtime are. Only what lies elsewhere the runtime is asked for (`pkg/kubelet/stats/cri_stats_provider.go`).

use cri::runtime as calls;
use runtime::{ContainerState, ContainerUsage, SandboxState, SandboxUsage};
use sys::cgroup::Usage;

use super::sandbox::blocking;
use super::{Cri, CriError};
use crate::engine::{EngineError, Told};
use crate::stats::{Extent, Link};

impl Cri {
    pub(crate) async fn usage(&self, details: bool) -> Result<Vec<SandboxUsage>, EngineError> {
        let (own, world) = (self.clone(), self.0.world.lock().clone());
        let all = blocking(move || {
            let mut all = Vec::new();
            for place in world.sandboxes.values().filter(|p| p.status.state == SandboxState::Ready) {
                let group = own.group(&place.status.spec.cgroup_path);
                let Some(usage) = group.usage() else { continue };
                let mut containers = Vec::new();
                for container in world.containers_of(&place.status.spec.id) {
                    if !matches!(container.state, ContainerState::Running { .. }) {
                        continue;
                    }
                    let group = group.child(&container.id);
                    if let Some(usage) = group.usage() {
                        let details = details.then(|| group.details());
                        containers.push(ContainerUsage { container, usage, details });
                    }
                }
                all.push(SandboxUsage {
                    sandbox: place.status.clone(),
                    cgroup: group.path().to_owned(),
                    usage,
                    details: details.then(|| group.details()),
                    containers,
                });
            }
            Ok::<_, CriError>(all)
        });
        Ok(all.await?)
    }

    /// What keeps the pods is the runtime's own affair.
    pub(crate) async fn usage_together(&self) -> Result<(Usage, Usage), EngineError> {
        let parent = self.0.parent.clone();
        let usage = blocking(move || Ok(parent.usage().unwrap_or_default())).await?;
        Ok((usage, Usage::default()))
    }

    /// What a runtime does not tell is left out.
    pub(crate) async fn told_usage(&self) -> Told {
        let (layers, links) = tokio::join!(
            self.ask(&calls::LIST_CONTAINER_STATS, cri::ListContainerStatsRequest::default()),
            self.ask(&calls::LIST_POD_SANDBOX_STATS, cri::ListPodSandboxStatsRequest::default()),
        );
        let number = |n: Option<cri::UInt64Value>| n.map_or(0, |n| n.value);
        let mut told = Told::default();
        for stats in layers.map(|l| l.stats).unwrap_or_default() {
            if let (Some(who), Some(layer)) = (stats.attributes, stats.writable_layer) {
                let extent = Extent { bytes: number(layer.used_bytes), inodes: number(layer.inodes_used) };
                told.layers.insert(who.id, extent);
            }
        }
        for stats in links.map(|l| l.stats).unwrap_or_default() {
            let uid = stats.attributes.and_then(|a| a.metadata).map(|m| m.uid);
            let link = stats.linux.and_then(|l| l.network).and_then(|n| n.default_interface);
            if let (Some(uid), Some(link)) = (uid, link) {
                let link = Link {
                    rx_bytes: number(link.rx_bytes),
                    rx_errors: number(link.rx_errors),
                    tx_bytes: number(link.tx_bytes),
                    tx_errors: number(link.tx_errors),
                    ..Link::default()
                };
                told.links.insert(uid, link);
            }
        }
        told
    }
}
