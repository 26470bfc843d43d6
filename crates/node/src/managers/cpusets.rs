//! Containers follow the CPUs that they may use: those that share give way when another gets CPUs of its own
//! (kubernetes/kubernetes, `pkg/kubelet/cm/cpumanager/cpu_manager.go`, `reconcileState`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use runtime::{ContainerState, Resources};

use crate::worker::Agent;

/// A container that could not be told is told again.
const RETRY: Duration = Duration::from_secs(5);

impl Agent {
    /// Keeps containers on their CPUs for as long as the agent lives. Does nothing where nobody is bound to any.
    pub(crate) async fn follow_cpus(self: Arc<Self>) {
        if !self.managers.binds_cpus() {
            return;
        }
        // What each container was told, by its id.
        let mut told: HashMap<String, String> = HashMap::new();
        loop {
            let failed = self.spread_cpus(&mut told).await;
            let again =
                async { if failed { tokio::time::sleep(RETRY).await } else { std::future::pending().await } };
            tokio::select! {
                () = self.managers.cpus_changed.notified() => {}
                () = again => {}
            }
        }
    }

    /// Tells every container that does not know. True if one could not be told.
    async fn spread_cpus(&self, told: &mut HashMap<String, String>) -> bool {
        let (mut failed, mut seen) = (false, HashMap::new());
        for sandbox in self.runtime.sandboxes() {
            let uid = &sandbox.spec.id;
            for run in self.runtime.containers(uid) {
                let running = matches!(run.state, ContainerState::Running { .. });
                let Some(cpus) = self.managers.cpus_of(uid, &run.name).filter(|_| running) else { continue };
                let cpus = cpus.to_string();
                if told.get(&run.id) != Some(&cpus) {
                    let resources = Resources { cpuset_cpus: Some(cpus.clone()), ..Resources::default() };
                    if let Err(error) = self.runtime.update_resources(&run.id, resources).await {
                        tracing::warn!(container = run.id, cpus, %error, "cannot bind a container to its CPUs");
                        failed = true;
                        continue;
                    }
                }
                seen.insert(run.id, cpus);
            }
        }
        *told = seen;
        failed
    }
}
