//! What is next for the volumes of a node: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{PodView, is_deleting, storage};
use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, Node, PersistentVolume};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::names::{attachment_of, node_name_of};
use crate::common::pods::is_finished;

/// On a node: its volumes are attached by the controller, not by the node itself.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// On a node: pods that have ended keep their volumes there.
const KEEPS_ENDED: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";
/// The taint of a node that is down, and will not come back with its volumes mounted.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// So long an ill node may take to let go of a volume that nobody there needs (upstream: `maxWaitForUnmountDuration`).
pub(super) const UNMOUNT: Duration = Duration::from_secs(360);

/// A volume that pods of a node need, and those pods.
pub(super) struct Want {
    pub(super) volume: Arc<PersistentVolume>,
    pub(super) pods: Vec<Arc<PodView>>,
}

/// An attachment of the node.
pub(super) struct Here {
    pub(super) attachment: Arc<VolumeAttachment>,
    /// It is being deleted, though the cache may not show it yet.
    pub(super) going: bool,
}

/// What is known of a node.
pub(super) struct View<'a> {
    pub(super) name: &'a str,
    /// None if it is gone.
    pub(super) node: Option<&'a Node>,
    /// What its pods need, by the name of the attachment.
    pub(super) wants: &'a BTreeMap<String, Want>,
    pub(super) here: &'a [Here],
    /// How long an attachment has been needed by nobody.
    pub(super) unwanted: &'a dyn Fn(&str) -> Duration,
    /// Whether an ill node is waited for only so long.
    pub(super) force: bool,
}

/// An attachment that is to go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Detach {
    pub(super) attachment: String,
    /// Why the node is not asked whether it still uses the volume.
    pub(super) forced: Option<&'static str>,
}

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// What the node is to be told that it has; none if nothing is to be told.
    pub(super) report: Option<BTreeSet<String>>,
    pub(super) detach: Vec<Detach>,
    /// The attachments to be made.
    pub(super) attach: Vec<String>,
    /// When waiting may have an end.
    pub(super) again: Option<Duration>,
}

/// Decides (`pkg/controller/volume/attachdetach/reconciler/reconciler.go`, `reconcile`).
pub(super) fn plan(view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    if view.node.is_some_and(|node| !is_managed(node)) {
        return plan;
    }
    let mut report = BTreeSet::new();
    for Here { attachment, going } in view.here {
        let name = attachment.metadata.name.as_deref().unwrap_or_default();
        if *going {
            continue;
        }
        if let Some(csi) = view.wants.get(name).and_then(|want| csi(&want.volume)) {
            if is_attached(attachment) {
                report.insert(node_name_of(&csi.driver, &csi.volume_handle));
            }
            continue;
        }
        let waited = (view.unwanted)(name);
        let forced = view.node.and_then(|node| forced(node, waited, view.force));
        match view.node.and_then(|node| in_use(node, view.name, name)) {
            Some(used) if forced.is_none() => {
                if is_attached(attachment) {
                    report.insert(used.to_owned());
                }
                let left = UNMOUNT.saturating_sub(waited);
                if view.force && !left.is_zero() {
                    plan.again = Some(plan.again.map_or(left, |again| again.min(left)));
                }
            }
            _ => plan.detach.push(Detach { attachment: name.to_owned(), forced }),
        }
    }
    if view.node.is_some() {
        plan.report = Some(report);
        let is_here =
            |name: &str| view.here.iter().any(|h| h.attachment.metadata.name.as_deref() == Some(name));
        plan.attach = view.wants.keys().filter(|name| !is_here(name)).cloned().collect();
    }
    plan
}

/// Why a node is not waited for any longer, if it is not.
fn forced(node: &Node, waited: Duration, in_time: bool) -> Option<&'static str> {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    if in_time && !ready && waited >= UNMOUNT {
        return Some("timeout");
    }
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| taint.key == OUT_OF_SERVICE).then_some("out-of-service")
}

/// What a node calls the volume of an attachment, if it says that it uses it.
fn in_use<'a>(node: &'a Node, node_name: &str, attachment: &str) -> Option<&'a str> {
    let mut used = node.status.iter().flat_map(|status| status.volumes_in_use.iter().flatten());
    used.find(|used| attachment_of(used, node_name).as_deref() == Some(attachment)).map(String::as_str)
}

/// What a node has been told that it has.
pub(super) fn reported(node: &Node) -> BTreeSet<String> {
    let attached = node.status.iter().flat_map(|status| status.volumes_attached.iter().flatten());
    attached.map(|volume| volume.name.clone()).collect()
}

/// Whether a node's volumes are the controller's affair.
pub(super) fn is_managed(node: &Node) -> bool {
    storage::annotation(&node.metadata, MANAGED).is_some()
}

/// Whether pods that have ended keep their volumes on a node.
pub(super) fn keeps_ended(node: &Node) -> bool {
    storage::annotation(&node.metadata, KEEPS_ENDED) == Some("true")
}

/// Whether nothing of a pod runs any longer (`pkg/volume/util/util.go`, `IsPodTerminated`). One that goes while a
/// container waits still counts as running here: views of pods do not tell that from running.
pub(super) fn has_ended(pod: &PodView) -> bool {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    is_finished(pod)
        || (is_deleting(&pod.metadata) && statuses.into_iter().all(|status| status.terminated.is_some()))
}

/// Whether the driver has said that a volume is attached.
pub(super) fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// The driver of a volume and its word for it.
pub(super) fn csi(volume: &PersistentVolume) -> Option<&CSIPersistentVolumeSource> {
    volume.spec.as_ref()?.csi.as_ref()
}

/// Whether only one node at a time may have a volume (`pkg/volume/util`, `IsMultiAttachAllowed`): one that says nothing
/// is left to its driver.
pub(super) fn is_exclusive(volume: &PersistentVolume) -> bool {
    let modes = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    !modes.is_empty() && !modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use testkit::object;

    use super::super::names::attachment_name;
    use super::*;

    const USED: &str = "kubernetes.io/csi/d.io^h";

    fn node(ready: &str, in_use: bool, tainted: bool) -> Node {
        let taints =
            if tainted { json!([{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]) } else { Value::Null };
        object(json!({"metadata": {"annotations": {MANAGED: "true"}}, "spec": {"taints": taints},
            "status": {"conditions": [{"type": "Ready", "status": ready}],
                "volumesInUse": if in_use { json!([USED]) } else { Value::Null }}}))
    }

    fn next(node: Option<&Node>, wanted: bool, attachment: Option<(bool, bool)>, waited: u64) -> Plan {
        let name = attachment_name("d.io", "h", "n1");
        let volume = json!({"spec": {"csi": {"driver": "d.io", "volumeHandle": "h"}}});
        let want = Want { volume: Arc::new(object(volume)), pods: Vec::new() };
        let wants = wanted.then(|| (name.clone(), want)).into_iter().collect();
        let here = attachment.map(|(attached, going)| Here {
            attachment: Arc::new(object(json!({"metadata": {"name": name}, "spec": {"attacher": "d.io",
                "nodeName": "n1", "source": {}}, "status": {"attached": attached}}))),
            going,
        });
        let here: Vec<Here> = here.into_iter().collect();
        let unwanted = |_: &str| Duration::from_secs(waited);
        plan(&View { name: "n1", node, wants: &wants, here: &here, unwanted: &unwanted, force: true })
    }

    /// What is told the node, whether an attachment is made, and whether it is deleted and by what force.
    fn told(plan: &Plan) -> (Option<bool>, bool, Option<Option<&'static str>>) {
        let reported = plan.report.as_ref().map(|report| report.contains(USED));
        (reported, !plan.attach.is_empty(), plan.detach.first().map(|detach| detach.forced))
    }

    #[test]
    fn every_state_has_its_next_step() {
        let (well, using) = (node("True", false, false), node("True", true, false));
        let (ill, down) = (node("Unknown", true, false), node("Unknown", true, true));
        let foreign: Node = object(json!({"metadata": {}}));
        let (new, attached, going) = (Some((false, false)), Some((true, false)), Some((true, true)));
        let (no, yes) = (Some(false), Some(true));
        for (case, (node, wanted, attachment, waited), expected) in [
            ("it is needed", (Some(&well), true, None, 0), (no, true, None)),
            ("the driver works", (Some(&well), true, new, 0), (no, false, None)),
            ("it is attached", (Some(&well), true, attached, 0), (yes, false, None)),
            ("it goes and is needed", (Some(&well), true, going, 0), (no, false, None)),
            ("it is not needed", (Some(&well), false, attached, 0), (no, false, Some(None))),
            ("it is not needed yet used", (Some(&using), false, attached, 9999), (yes, false, None)),
            ("the node is ill", (Some(&ill), false, attached, 359), (yes, false, None)),
            (
                "the node is ill for long",
                (Some(&ill), false, attached, 360),
                (no, false, Some(Some("timeout"))),
            ),
            (
                "the node is down",
                (Some(&down), false, attached, 0),
                (no, false, Some(Some("out-of-service"))),
            ),
            ("it is needed on a node that is ill", (Some(&ill), true, attached, 9999), (yes, false, None)),
            ("the node is gone", (None, false, attached, 0), (None, false, Some(None))),
            ("the node is gone, its pods are not", (None, true, attached, 0), (None, false, None)),
            ("the node went before", (None, true, None, 0), (None, false, None)),
            ("the node does it", (Some(&foreign), false, attached, 9999), (None, false, None)),
            ("the node will do it", (Some(&foreign), true, None, 0), (None, false, None)),
        ] {
            assert_eq!(told(&next(node, wanted, attachment, waited)), expected, "{case}");
        }
        let waits = next(Some(&ill), false, attached, 300);
        assert_eq!(waits.again, Some(Duration::from_secs(60)));
    }

    #[test]
    fn an_ill_node_is_waited_for_as_long_as_people_wish() {
        let unwanted = |_: &str| 2 * UNMOUNT;
        let forces = |force, tainted| {
            let node = node("Unknown", true, tainted);
            let name = attachment_name("d.io", "h", "n1");
            let attachment = json!({"metadata": {"name": name}, "spec": {"attacher": "d.io", "nodeName": "n1",
                "source": {}}, "status": {"attached": true}});
            let here = [Here { attachment: Arc::new(object(attachment)), going: false }];
            let wants = BTreeMap::new();
            let view = View {
                name: "n1",
                node: Some(&node),
                wants: &wants,
                here: &here,
                unwanted: &unwanted,
                force,
            };
            plan(&view).detach.first().and_then(|detach| detach.forced)
        };
        assert_eq!((forces(true, false), forces(false, false)), (Some("timeout"), None));
        assert_eq!(forces(false, true), Some("out-of-service"), "somebody has said so");
    }

    #[test]
    fn what_more_nodes_may_have_says_so() {
        let exclusive = |modes: &[&str]| is_exclusive(&object(json!({"spec": {"accessModes": modes}})));
        assert!(exclusive(&["ReadWriteOnce"]) && exclusive(&["ReadWriteOncePod"]));
        assert!(
            !exclusive(&["ReadWriteOnce", "ReadOnlyMany"])
                && !exclusive(&["ReadWriteMany"])
                && !exclusive(&[])
        );
    }
}
