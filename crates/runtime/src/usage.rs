//! What sandboxes and containers use.

use std::path::PathBuf;

use sys::cgroup::{Details, Usage};

use crate::error::Result;
use crate::runtime::{Runtime, SHIMS, blocking};
use crate::status::{ContainerState, ContainerStatus, SandboxStatus};

/// What a sandbox uses, and each of its containers that runs.
#[derive(Clone, Debug)]
pub struct SandboxUsage {
    /// The sandbox.
    pub sandbox: SandboxStatus,
    /// Its cgroup, below the roots of the hierarchies.
    pub cgroup: String,
    /// All containers together.
    pub usage: Usage,
    /// Absent unless asked for.
    pub details: Option<Details>,
    /// Those that run.
    pub containers: Vec<ContainerUsage>,
}

/// What a container that runs uses.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// The container.
    pub container: ContainerStatus,
    /// What it uses.
    pub usage: Usage,
    /// Absent unless asked for.
    pub details: Option<Details>,
}

impl Runtime {
    /// What all sandboxes use now, read in one pass; those that have stopped are left out. What is read for
    /// `details` takes half as long again.
    pub async fn usage(&self, details: bool) -> Result<Vec<SandboxUsage>> {
        let inner = self.inner.clone();
        blocking(move || {
            let mut all = Vec::new();
            for sandbox in inner.all() {
                let group = inner.groups.group(&sandbox.file.cgroup);
                let Some(usage) = group.usage() else { continue };
                let mut containers = Vec::new();
                for container in sandbox.containers() {
                    if !matches!(container.state, ContainerState::Running { .. }) {
                        continue;
                    }
                    let own = group.child(&container.id);
                    if let Some(usage) = own.usage() {
                        let details = details.then(|| own.details());
                        containers.push(ContainerUsage { container, usage, details });
                    }
                }
                all.push(SandboxUsage {
                    sandbox: sandbox.status(),
                    cgroup: sandbox.file.cgroup.clone(),
                    usage,
                    details: details.then(|| group.details()),
                    containers,
                });
            }
            Ok(all)
        })
        .await
    }

    /// What all sandboxes, and all that keeps them, use together.
    pub async fn usage_together(&self) -> Result<(Usage, Usage)> {
        let inner = self.inner.clone();
        blocking(move || {
            let usage = inner.parent.usage().unwrap_or_default();
            Ok((usage, inner.parent.child(SHIMS).usage().unwrap_or_default()))
        })
        .await
    }

    /// Where what a container writes to its root lies; it need not be there.
    pub fn writable_layer(&self, id: &str) -> PathBuf {
        self.inner.places.container(id).join("upper")
    }
}
