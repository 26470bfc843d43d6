//! How the devices of containers are, in their status (kubernetes/kubernetes, `pkg/kubelet/cm/devicemanager/manager.go` and
//! `pkg/kubelet/cm/dra/manager.go`, `UpdateAllocatedResourcesStatus`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::Key;
use k8s_openapi::api::core::v1::{Pod, ResourceStatus};

use crate::worker::{Agent, uid_of};

impl Agent {
    /// What is said of the devices of a pod's containers, by their names.
    pub(crate) fn device_health(&self, pod: &Pod) -> BTreeMap<String, Vec<ResourceStatus>> {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let of = |container: &k8s_openapi::api::core::v1::Container| {
            let mut all = self.managers.devices.health(uid_of(pod), &container.name);
            all.extend(self.dra.health(pod, container));
            (!all.is_empty()).then(|| (container.name.clone(), all))
        };
        containers.filter_map(of).collect()
    }

    /// Looks again at pods with devices whenever one may have become well or unwell.
    pub(crate) async fn follow_device_health(self: Arc<Self>) {
        let (mut plugins, mut drivers) = (self.managers.devices.changes(), self.dra.health_changes());
        loop {
            let expiry = self.dra.next_expiry();
            let expired = async {
                match expiry {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // The senders live as long as `self`.
                Ok(()) = plugins.changed() => {}
                Ok(()) = drivers.changed() => {}
                () = expired => {}
            }
            let mut users: BTreeSet<String> = self.managers.devices.holders().into_iter().collect();
            users.extend(self.dra.users());
            for pod in self.pods.list().iter().filter(|pod| users.contains(uid_of(pod))) {
                self.queue.add(Key::of(&**pod));
            }
        }
    }
}
