//! Images as volumes (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`, `getImageVolumes`): they are pulled like the
//! images of containers, and the runtime mounts their files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::engine::Engine;
use crate::error::NodeError;
use crate::worker::{Agent, uid_of};

/// The files of an image that is a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageFiles {
    /// Unpacked layers, the topmost first.
    pub(crate) layers: Vec<PathBuf>,
}

impl Agent {
    /// The images that a container mounts, by the names of their volumes.
    ///
    /// # Errors
    /// At the first that cannot be had.
    pub(crate) async fn image_volumes(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<BTreeMap<String, ImageFiles>, NodeError> {
        let mut all = BTreeMap::new();
        let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).filter(|v| mounted(&v.name)) {
            let Some(source) = &volume.image else { continue };
            if matches!(self.runtime, Engine::Cri(_)) {
                return Err(NodeError::Config(format!(
                    "volume {:?} is an image, which only the built-in container runtime can mount",
                    volume.name
                )));
            }
            let reference = source.reference.clone().unwrap_or_default();
            let policy = source.pull_policy.as_deref().unwrap_or("IfNotPresent");
            let found = self.get_image(pod, container, &reference, policy).await?;
            let layers = self.layers(uid_of(pod), &found.image, &reference).await?;
            let id = found.image.digests.first().cloned().unwrap_or_else(|| found.image.id.to_string());
            self.note(uid_of(pod), |known| drop(known.image_volumes.insert(volume.name.clone(), id)));
            all.insert(volume.name.clone(), ImageFiles { layers });
        }
        Ok(all)
    }
}
