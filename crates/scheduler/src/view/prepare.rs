use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::pod::{Matcher, PodInfo, Spread};

use super::{ClusterView, Question};

/// The labels that pods are spread over which say nothing of it.
static ZONE: LazyLock<Arc<str>> = LazyLock::new(|| "topology.kubernetes.io/zone".into());
pub(crate) static HOSTNAME: LazyLock<Arc<str>> = LazyLock::new(|| "kubernetes.io/hostname".into());

impl ClusterView {
    /// Makes the columns that are needed to place a pod; those that are there already are kept up to date.
    pub(crate) fn prepare(&mut self, pod: &PodInfo) {
        if self.order.len() != self.names.len() {
            let mut rows: Vec<usize> = (0..self.names.len()).collect();
            rows.sort_by_key(|row| &self.names[*row]);
            self.order = vec![0; rows.len()];
            rows.into_iter().enumerate().for_each(|(place, row)| self.order[row] = place);
        }
        let wants = &pod.kind.wants;
        // A pod that names its node asks nothing of the others.
        if wants.pinned.is_none() {
            self.suits.prepare(wants, &self.labels, &self.names);
        }
        let namespaces = &self.namespaces;
        self.said.prepare(&pod.kind, |matcher, kind| super::means(namespaces, matcher, kind));

        let rules = &pod.kind.rules;
        if let Some((matcher, places)) = &rules.near {
            self.ask(matcher, false);
            places.iter().for_each(|key| self.column(key));
        }
        for term in rules.apart.iter().chain(rules.preferred.iter().map(|(term, _)| term)) {
            self.ask(&term.matcher, false);
            self.column(&term.topology);
        }
        for spread in rules.hard.iter().chain(&rules.soft) {
            self.ask(&spread.matcher, true);
            self.column(&spread.topology);
        }
        if rules.hard.is_empty() && rules.soft.is_empty() {
            self.owners.prepare(&pod.kind);
            if let Some(peers) = self.owners.peers(&pod.kind).cloned() {
                self.ask(&peers, true);
                match &pod.profile.spread {
                    None => [&ZONE, &HOSTNAME].into_iter().for_each(|key| self.column(key)),
                    Some(all) => all.iter().for_each(|c| self.column(&c.topology_key.as_str().into())),
                }
            }
        }
    }

    fn column(&mut self, key: &Arc<str>) {
        self.topologies.ensure(key, self.labels.iter().map(|l| l.get(&**key)));
    }

    fn ask(&mut self, matcher: &Arc<Matcher>, staying: bool) {
        let question = Question { matcher: matcher.clone(), staying };
        if self.counts.ask(&question) {
            return;
        }
        let mut on = vec![0; self.names.len()];
        // Alike pods are compared once.
        let mut known: HashMap<usize, bool> = HashMap::new();
        for (node, pods) in &self.placed {
            let Some(row) = self.row(node) else { continue };
            for pod in pods.values().filter(|pod| !(staying && pod.deleting)) {
                let meant = known
                    .entry(Arc::as_ptr(&pod.kind) as usize)
                    .or_insert_with(|| self.meant(matcher, &pod.kind));
                on[row] += u32::from(*meant);
            }
        }
        self.counts.learn(question, on);
    }

    /// The constraints that are wishes: the pod's own, or what upstream's scheduler has by default
    /// (kubernetes/kubernetes, `pkg/scheduler/framework/plugins/podtopologyspread/plugin.go`, `systemDefaultConstraints`).
    /// Whether they are the pod's own is said, too.
    pub(crate) fn wishes(&self, pod: &PodInfo) -> (Vec<Spread>, bool) {
        let rules = &pod.kind.rules;
        if !(rules.hard.is_empty() && rules.soft.is_empty()) {
            return (rules.soft.clone(), true);
        }
        let Some(peers) = self.owners.peers(&pod.kind) else { return (Vec::new(), false) };
        if let Some(all) = &pod.profile.spread {
            // Nodes that lack a label are left out, as if it were the pod's own wish.
            let wishes = all.iter().filter(|c| c.when_unsatisfiable == "ScheduleAnyway");
            return (wishes.map(|c| by_default(c, peers)).collect(), true);
        }
        let spread = |topology: &Arc<str>, max_skew| Spread {
            matcher: peers.clone(),
            topology: topology.clone(),
            max_skew,
            min_domains: 1,
            honors_affinity: true,
            honors_taints: false,
        };
        (vec![spread(&HOSTNAME, 3), spread(&ZONE, 5)], false)
    }

    /// The constraints that are no wishes: the pod's own, or, if it has none at all, those of its profile.
    pub(crate) fn musts<'a>(&'a self, pod: &'a PodInfo) -> Cow<'a, [Spread]> {
        let rules = &pod.kind.rules;
        if let (true, Some(all)) = (rules.hard.is_empty() && rules.soft.is_empty(), &pod.profile.spread)
            && let Some(peers) = self.owners.peers(&pod.kind)
        {
            let musts = all.iter().filter(|c| c.when_unsatisfiable == "DoNotSchedule");
            return Cow::Owned(musts.map(|c| by_default(c, peers)).collect());
        }
        Cow::Borrowed(&rules.hard)
    }
}

/// A constraint of the configuration, about those that a pod belongs to.
fn by_default(constraint: &TopologySpreadConstraint, peers: &Arc<Matcher>) -> Spread {
    Spread {
        matcher: peers.clone(),
        topology: constraint.topology_key.as_str().into(),
        max_skew: constraint.max_skew.into(),
        min_domains: constraint.min_domains.unwrap_or(1).into(),
        honors_affinity: constraint.node_affinity_policy.as_deref().is_none_or(|p| p == "Honor"),
        honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}
