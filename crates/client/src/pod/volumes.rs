use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::{PodView, TEXTS};

/// A volume of a pod that is more than its node's own affair.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VolumeView {
    /// The claim of this name.
    Claim(Arc<str>),
    /// The pod's own claim, for the volume of this name; it is made for the pod, and goes with it.
    Ephemeral(Arc<str>),
    /// A disk that is named in the pod itself.
    Disk(Disk),
}

/// A disk on which not every two pods of a node may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Its sort and identity.
    pub id: Arc<str>,
    /// It can be shared with others that only read it.
    pub read_only: bool,
}

impl PodView {
    /// The names of the claims that the pod uses, and whether each is its own.
    pub fn claims(&self) -> impl Iterator<Item = (Cow<'_, str>, bool)> {
        self.volumes.iter().flatten().filter_map(|volume| match volume {
            VolumeView::Claim(name) => Some((Cow::Borrowed(&**name), false)),
            VolumeView::Ephemeral(volume) => Some((Cow::Owned(self.own_claim(volume)), true)),
            VolumeView::Disk(_) => None,
        })
    }

    /// The name of the claim that is made for a volume of the pod (kubernetes/kubernetes,
    /// `component-helpers/storage/ephemeral/ephemeral.go`, `VolumeClaimName`).
    pub fn own_claim(&self, volume: &str) -> String {
        format!("{}-{volume}", self.metadata.name.as_deref().unwrap_or_default())
    }

    /// Why a claim that is there is not the pod's own, although it has the name; nothing if it is (`VolumeIsForPod`).
    pub fn disowns(&self, claim: &PersistentVolumeClaim) -> Option<String> {
        let uid = self.metadata.uid.as_deref().unwrap_or_default();
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let (theirs, ours) = (&claim.metadata, &self.metadata);
        (!crate::is_controlled_by(theirs, uid)).then(|| {
            format!(
                "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
                name(&theirs.namespace),
                name(&theirs.name),
                name(&ours.namespace),
                name(&ours.name),
            )
        })
    }
}

/// The sources that count; all others are skipped.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeText {
    name: String,
    persistent_volume_claim: Option<ClaimText>,
    ephemeral: Option<IgnoredAny>,
    gce_persistent_disk: Option<DiskText>,
    aws_elastic_block_store: Option<DiskText>,
    iscsi: Option<DiskText>,
    rbd: Option<DiskText>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimText {
    claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DiskText {
    read_only: bool,
    #[serde(alias = "volumeID", alias = "iqn", alias = "image")]
    pd_name: String,
    pool: String,
    monitors: Vec<String>,
}

pub(super) fn kept<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<[VolumeView]>>, D::Error> {
    let all = Option::<Vec<VolumeText>>::deserialize(from)?;
    let kept: Vec<VolumeView> = all.into_iter().flatten().flat_map(views).collect();
    Ok((!kept.is_empty()).then(|| kept.into()))
}

fn views(volume: VolumeText) -> Vec<VolumeView> {
    if let Some(claim) = volume.persistent_volume_claim {
        return vec![VolumeView::Claim(TEXTS.text(&claim.claim_name))];
    }
    if volume.ephemeral.is_some() {
        return vec![VolumeView::Ephemeral(TEXTS.text(&volume.name))];
    }
    // Upstream: `pkg/scheduler/framework/plugins/volumerestrictions`, `isVolumeConflict`.
    let disk = |sort: &str, disk: &DiskText, at: &str, sharable: bool| {
        let id = format!("{sort}/{at}{}/{}", disk.pool, disk.pd_name);
        VolumeView::Disk(Disk { id: TEXTS.text(&id), read_only: sharable && disk.read_only })
    };
    if let Some(gce) = &volume.gce_persistent_disk {
        return vec![disk("gce", gce, "", true)];
    }
    if let Some(aws) = &volume.aws_elastic_block_store {
        return vec![disk("aws", aws, "", false)];
    }
    if let Some(iscsi) = &volume.iscsi {
        return vec![disk("iscsi", iscsi, "", true)];
    }
    let rbd = volume.rbd.iter().flat_map(|rbd| rbd.monitors.iter().map(move |at| (rbd, at)));
    rbd.map(|(rbd, monitor)| disk("rbd", rbd, &format!("{monitor}/"), true)).collect()
}
