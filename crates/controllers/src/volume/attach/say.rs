//! What people are told, each pod once (kubernetes/kubernetes, `pkg/controller/volume/attachdetach/reconciler`,
//! `reportMultiAttachError`; `pkg/volume/util/operationexecutor`, `GenerateAttachVolumeFunc`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{PodView, storage};
use kube::ResourceExt;

use super::State;
use super::names::node_name_of;
use super::plan::{Here, Want, csi, has_ended, is_attached};

const FAILED: &str = "FailedAttachVolume";

/// So long a driver may take before people are told, and again each time (upstream: `csiTimeout`).
const SLOW: Duration = Duration::from_secs(120);

impl State {
    /// The node has been told of these volumes: those that are new to it are attached now.
    pub(super) fn say_attached(
        &self,
        wants: &BTreeMap<String, Want>,
        before: &BTreeSet<String>,
        now: &BTreeSet<String>,
    ) {
        for want in wants.values() {
            let Some(csi) = csi(&want.volume) else { continue };
            let named = node_name_of(&csi.driver, &csi.volume_handle);
            if !now.contains(&named) || before.contains(&named) {
                continue;
            }
            for pod in &want.pods {
                // The end is upstream's.
                let said = format!("AttachVolume.Attach succeeded for volume {:?} ", want.volume.name_any());
                self.recorder.normal(&**pod, "SuccessfulAttachVolume", said);
            }
        }
    }

    /// Tells of drivers that fail or are slow; returns when to look again.
    pub(super) fn say_waiting(
        &self,
        node: &str,
        wants: &BTreeMap<String, Want>,
        here: &[Here],
    ) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        for Here { attachment, .. } in here.iter().filter(|h| !h.going && !is_attached(&h.attachment)) {
            let name = attachment.name_any();
            let Some(want) = wants.get(&name) else { continue };
            let error = attachment.status.as_ref().and_then(|status| status.attach_error.as_ref());
            if let Some(error) = error {
                self.say_failed(node, &name, want, error.message.as_deref().unwrap_or_default());
                continue;
            }
            let waited = self.memory.attaching(node, &name);
            let times = waited.as_secs() / SLOW.as_secs();
            if let (1.., Some(csi)) = (times, csi(&want.volume)) {
                let (driver, handle) = (&csi.driver, &csi.volume_handle);
                let why = format!(
                    "timed out waiting for external-attacher of {driver} CSI driver to attach volume {handle}"
                );
                self.say_of_each(node, &name, want, &times.to_string(), |_| failure(want, &why));
            }
            let left = Duration::from_secs((times + 1) * SLOW.as_secs()).saturating_sub(waited);
            again = Some(again.map_or(left, |again| again.min(left)));
        }
        again
    }

    /// A volume cannot be attached; a reason is told once.
    pub(super) fn say_failed(&self, node: &str, attachment: &str, want: &Want, why: &str) {
        self.say_of_each(node, attachment, want, why, |_| failure(want, why));
    }

    /// Another node has the volume. Who has it is told only of pods in the same namespace.
    pub(super) fn say_refused(&self, node: &str, attachment: &str, want: &Want) {
        let volume = want.volume.name_any();
        let mut others: BTreeSet<String> =
            self.of_volume.get(&volume).iter().map(|other| other.spec.node_name.clone()).collect();
        others.extend(self.memory.reserved_by(&volume));
        others.remove(node);
        let users: Vec<Arc<PodView>> = storage::claim_of(&want.volume)
            .map(|claim| self.users.get(super::key_of(claim).as_str()))
            .unwrap_or_default()
            .into_iter()
            .filter(|pod| !has_ended(pod) && pod.node_name.as_deref().is_some_and(|on| others.contains(on)))
            .collect();
        self.say_of_each(node, attachment, want, "Multi-Attach", |pod| {
            let why = refusal(pod, &users);
            format!("Multi-Attach error for volume {volume:?} {why}")
        });
    }

    fn say_of_each(
        &self,
        node: &str,
        attachment: &str,
        want: &Want,
        mark: &str,
        said: impl Fn(&PodView) -> String,
    ) {
        for pod in &want.pods {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            if self.memory.first(node, attachment, format!("{uid} {mark}")) {
                self.recorder.warning(&**pod, FAILED, said(pod));
            }
        }
    }
}

fn failure(want: &Want, why: &str) -> String {
    format!("AttachVolume.Attach failed for volume {:?} : {why}", want.volume.name_any())
}

/// Why a pod does not get a volume that these have.
fn refusal(pod: &PodView, users: &[Arc<PodView>]) -> String {
    let (near, far): (Vec<_>, Vec<_>) =
        users.iter().partition(|user| user.metadata.namespace == pod.metadata.namespace);
    let names: Vec<String> = near.iter().map(|user| user.name_any()).collect();
    match (names.join(", "), far.len()) {
        (names, 0) if names.is_empty() => {
            "Volume is already exclusively attached to one node and can't be attached to another".into()
        }
        (names, 0) => format!("Volume is already used by pod(s) {names}"),
        (names, far) if names.is_empty() => {
            format!("Volume is already used by {far} pod(s) in different namespaces")
        }
        (names, far) => {
            format!("Volume is already used by pod(s) {names} and {far} pod(s) in different namespaces")
        }
    }
}
