//! A volume's last step to a new size, on the node (kubernetes/kubernetes,
//! `pkg/volume/util/operationexecutor/node_expander.go` and `pkg/volume/util/resize_util.go`).

use client::{EventKind, reference};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Persistent;
use super::source::{bytes, capacity, wanted};
use crate::error::Fault;
use crate::volumes::blocking;

/// What the steps of a growth are called in a claim's conditions.
const RESIZES: [&str; 4] =
    ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

/// Whether the volume is larger than its claim says.
fn is_behind(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let said = claim.status.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
    said.is_some_and(|q| bytes(&q.0) < capacity(pv))
}

/// What a claim says when all is done.
fn grown(pv: &PersistentVolume, claim: &PersistentVolumeClaim) -> Value {
    let size = pv.spec.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
    let conditions = claim.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let rest: Vec<_> = conditions.filter(|c| !RESIZES.contains(&c.type_.as_str())).collect();
    json!({
        "metadata": {"resourceVersion": claim.metadata.resource_version},
        "status": {
            "capacity": {"storage": size},
            "allocatedResourceStatuses": {"storage": null},
            "conditions": if rest.is_empty() { Value::Null } else { json!(rest) },
        },
    })
}

impl Persistent {
    /// Lets the data on this node take what the volume has been given, and says so.
    pub(super) async fn grow(&self, pv: &PersistentVolume) -> Result<(), Fault> {
        let pods = self.pods_with(pv.metadata.name.as_deref().unwrap_or_default());
        let Some(of) = pv.spec.as_ref().and_then(|s| s.claim_ref.as_ref()).filter(|_| !pods.is_empty())
        else {
            // It is done when the next pod comes.
            return Ok(());
        };
        let claims: Api<PersistentVolumeClaim> =
            Api::namespaced(self.0.client.clone(), of.namespace.as_deref().unwrap_or_default());
        let Some(claim) = claims.get_opt(of.name.as_deref().unwrap_or_default()).await? else {
            return Ok(());
        };
        if claim.metadata.uid != of.uid || !is_behind(pv, &claim) {
            return Ok(());
        }
        let (this, wanted) = (self.clone(), wanted(pv, &self.0.node)?);
        match blocking(move || this.0.store.grow(&wanted)).await {
            Ok(true) => {}
            // The claim says already what has to be waited for.
            Ok(false) => return Ok(()),
            Err(error) => {
                let text = format!("MountVolume.NodeExpandVolume failed for volume {:?} : {error}", name(pv));
                self.tell(&claim, &pods, EventKind::Warning, "VolumeResizeFailed", &text);
                return Err(error);
            }
        }
        let patch = Patch::Merge(grown(pv, &claim));
        let named = claim.metadata.name.as_deref().unwrap_or_default();
        claims.patch_status(named, &PatchParams::default(), &patch).await?;
        let text =
            format!("MountVolume.NodeExpandVolume succeeded for volume {:?} {}", name(pv), self.0.node);
        self.tell(&claim, &pods, EventKind::Normal, "FileSystemResizeSuccessful", &text);
        Ok(())
    }

    fn tell(
        &self,
        claim: &PersistentVolumeClaim,
        pods: &[ObjectReference],
        kind: EventKind,
        why: &str,
        text: &str,
    ) {
        for about in pods.iter().cloned().chain([reference(claim)]) {
            self.0.recorder.say(about, kind, why, text);
        }
    }
}

fn name(pv: &PersistentVolume) -> &str {
    pv.metadata.name.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays() {
        let pv = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "2Gi"}}});
        let claim = |size: &str| {
            json!({"metadata": {"name": "c", "resourceVersion": "7"}, "status": {"capacity": {"storage": size},
                "conditions": [{"type": "FileSystemResizePending", "status": "True"}, {"type": "Own", "status": "True"}]}})
        };
        let pv: PersistentVolume = serde_json::from_value(pv).unwrap();
        let small = serde_json::from_value(claim("1Gi")).unwrap();
        assert!(is_behind(&pv, &small) && !is_behind(&pv, &serde_json::from_value(claim("2Gi")).unwrap()));
        let want = json!({"metadata": {"resourceVersion": "7"}, "status": {"capacity": {"storage": "2Gi"},
            "allocatedResourceStatuses": {"storage": null}, "conditions": [{"type": "Own", "status": "True"}]}});
        assert_eq!(grown(&pv, &small), want);
    }
}
