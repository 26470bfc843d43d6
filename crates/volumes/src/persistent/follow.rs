//! The volumes of the built-in storage whose data is on this node: their data goes before they do, grows with them, and
//! begins as a copy if it is to.

use base::Drain;
use client::{Controller, Informer, Informers, Key, Next, Selection};
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use types::local_volumes;

use super::Persistent;
use super::source::{Origin, wanted};
use crate::error::Fault;
use crate::volumes::blocking;

/// What is to be done about a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// It may be waiting for its data, or have been given more room.
    Grow,
    /// Its object may go, once the data has, if `delete`.
    LetGo {
        delete: bool,
    },
}

fn step(pv: &PersistentVolume) -> Step {
    let held = pv.metadata.finalizers.iter().flatten().any(|f| f == local_volumes::FINALIZER);
    let bound = pv.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let policy = pv.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    match (&pv.metadata.deletion_timestamp, held) {
        (None, _) => Step::Grow,
        // Its claim still counts on it.
        (Some(_), true) if !bound => Step::LetGo { delete: policy == Some("Delete") },
        (Some(_), _) => Step::Nothing,
    }
}

impl Persistent {
    /// Begins to follow this node's volumes, until `drain` starts.
    pub(crate) fn follow(&self, informers: &Informers, drain: &Drain) {
        self.0.store.end_with(drain.clone());
        let selection = Selection::labels(format!("{}={}", local_volumes::NODE_LABEL, self.0.node));
        let volumes = informers.select::<PersistentVolume>(selection);
        let controller =
            Controller::new("local-volumes").watches(&volumes, |pv: &PersistentVolume| [Key::of(pv)]);
        let (snapshots, contents) = self.snapshots(informers, &volumes);
        // Followed once in a process.
        let _ = self.0.queue.set(controller.queue());
        let (this, until) = (self.clone(), drain.clone());
        drain.spawn(async move {
            let swept = this.clone();
            if let Err(error) = blocking(move || swept.0.store.sweep()).await {
                tracing::warn!(%error, "cannot clear away what an earlier agent left of volumes");
            }
            let look_at_content = {
                let (this, volumes) = (this.clone(), volumes.clone());
                move |key| {
                    let (this, contents, volumes) = (this.clone(), contents.clone(), volumes.clone());
                    async move { this.look_at_content(&contents, &volumes, &key).await }
                }
            };
            let look = move |key| {
                let (this, volumes) = (this.clone(), volumes.clone());
                async move { this.look(&volumes, &key).await }
            };
            tokio::join!(controller.run(until.clone(), look), snapshots.run(until, look_at_content));
        });
    }

    async fn look(&self, volumes: &Informer<PersistentVolume>, key: &Key) -> Result<Next, Fault> {
        let Some(pv) = volumes.get(key) else { return Ok(Next::Done) };
        // The label may say what the volume does not; and whatever is wrong with the source, the node is asked first.
        if let Err(Fault::OtherNode { .. } | Fault::Kind(_)) = wanted(&pv, &self.0.node) {
            return Ok(Next::Done);
        }
        match step(&pv) {
            Step::Nothing => {}
            Step::Grow => {
                self.begin(volumes, &pv).await?;
                self.grow(&pv).await?;
            }
            Step::LetGo { delete } => {
                if delete {
                    self.copy_out(&Origin::Volume(key.name().to_owned()), Some(&pv)).await?;
                    let (this, name) = (self.clone(), key.name().to_owned());
                    blocking(move || this.0.store.delete(&name)).await?;
                }
                self.let_go(&pv).await?;
            }
        }
        Ok(Next::Done)
    }

    async fn let_go(&self, pv: &PersistentVolume) -> Result<(), Fault> {
        let rest: Vec<_> =
            pv.metadata.finalizers.iter().flatten().filter(|f| *f != local_volumes::FINALIZER).collect();
        let patch = json!({"metadata": {
            "uid": pv.metadata.uid, "resourceVersion": pv.metadata.resource_version, "finalizers": rest,
        }});
        let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
        let name = pv.metadata.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn data_goes_only_when_nobody_counts_on_it() {
        let step = |deleted: bool, finalizer: &str, phase: &str, policy: &str| {
            let when = if deleted { json!("2026-01-01T00:00:00Z") } else { Value::Null };
            let pv = json!({"metadata": {"name": "v", "deletionTimestamp": when, "finalizers": [finalizer]},
                "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}});
            step(&serde_json::from_value(pv).unwrap())
        };
        let own = local_volumes::FINALIZER;
        assert_eq!(step(false, own, "Released", "Delete"), Step::Grow);
        assert_eq!(step(true, own, "Bound", "Delete"), Step::Nothing);
        assert_eq!(step(true, "kubernetes.io/pv-protection", "Released", "Delete"), Step::Nothing);
        assert_eq!(step(true, own, "Released", "Delete"), Step::LetGo { delete: true });
        assert_eq!(step(true, own, "Released", "Retain"), Step::LetGo { delete: false });
    }
}
