//! Which plugins stand against the pods that wait (kubernetes/kubernetes, `pkg/scheduler/metrics`,
//! `unschedulable_pods`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use base::metrics::Gauge;

use crate::metrics::unschedulable;
use crate::pod::PodInfo;
use crate::reason::Unschedulable;

/// By the UID of a pod that found no node, what counts it until its next turn.
#[derive(Default)]
pub(super) struct Blame(HashMap<Arc<str>, Vec<Arc<Gauge>>>);

impl Blame {
    /// A pod has found no node.
    pub(super) fn put(&mut self, pod: &PodInfo, why: &Unschedulable) {
        self.lift(&pod.uid);
        let plugins: BTreeSet<&str> = why.reasons.keys().filter_map(|r| Some(r.plugin()?.name())).collect();
        let gauges: Vec<_> = plugins.iter().map(|plugin| unschedulable(plugin, &pod.profile.name)).collect();
        gauges.iter().for_each(|gauge| gauge.add(1));
        self.0.insert(pod.uid.clone(), gauges);
    }

    /// A pod is tried again, or needs no node any more.
    pub(super) fn lift(&mut self, uid: &str) {
        self.0.remove(uid).into_iter().flatten().for_each(|gauge| gauge.add(-1));
    }
}

impl Drop for Blame {
    fn drop(&mut self) {
        self.0.drain().flat_map(|(_, gauges)| gauges).for_each(|gauge| gauge.add(-1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::reason::Reason;

    #[test]
    fn a_pod_counts_once_for_each_plugin_until_its_next_turn() {
        let pod = PodInfo::new(&testkit::object::<client::PodView>(
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "p"}, "spec": {"containers": []}}),
        ));
        let taints = unschedulable("TaintToleration", &pod.profile.name);
        let room = unschedulable("NodeResourcesFit", &pod.profile.name);
        let before = (taints.get(), room.get());
        let reasons = [Reason::Taint, Reason::TooManyPods, Reason::Insufficient("cpu".into())];
        let reasons: BTreeMap<_, _> = reasons.into_iter().map(|reason| (reason, 1)).collect();
        let why = Unschedulable { nodes: 3, reasons, ..Unschedulable::default() };
        let mut blame = Blame::default();
        blame.put(&pod, &why);
        blame.put(&pod, &why);
        assert_eq!((taints.get() - before.0, room.get() - before.1), (1, 1));
        blame.lift("p");
        assert_eq!((taints.get(), room.get()), before);
        blame.put(&pod, &why);
        drop(blame);
        assert_eq!((taints.get(), room.get()), before, "whoever schedules next counts anew");
    }
}
