//! What the node cannot do without is taken even if there is no room for it: others go (kubernetes/kubernetes,
//! `pkg/kubelet/preemption/preemption.go`).
//!
//! ```text
//! a critical pod lacks resources and nothing else ─► the fewest others that have as much ─► they end ─► it is taken
//! ```

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use client::{Amounts, Key};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::admit::{Denied, Lack, Refusal};
use crate::eviction::{Eviction, is_critical};
use crate::plan::{grace_of, is_over};
use crate::requests::requests;
use crate::worker::{Agent, uid_of};

const REASON: &str = "Preempting";
const MESSAGE: &str = "Preempted in order to admit critical pod";
/// What a pod is refused for that something went wrong with.
const UNEXPECTED: &str = "UnexpectedAdmissionError";

/// How much is needed of what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Needs(Vec<(String, i64)>);

/// No set of pods has as much.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TooFew(Needs);

impl fmt::Display for TooFew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no set of running pods found to reclaim resources: [")?;
        self.0.0.iter().try_for_each(|(name, amount)| write!(f, "(res: {name}, q: {amount}), "))?;
        f.write_str("]")
    }
}

/// What a pod has of a resource.
fn amount(amounts: &Amounts, name: &str) -> i64 {
    match name {
        "cpu" => amounts.cpu,
        "memory" => amounts.memory,
        "ephemeral-storage" => amounts.storage,
        "pods" => 1,
        other => amounts.others.get(other).copied().unwrap_or(0),
    }
}

impl Needs {
    fn of(lacks: &[Lack]) -> Self {
        Self(lacks.iter().map(|lack| (lack.resource.clone(), lack.amount())).collect())
    }

    /// What is needed once these are gone.
    fn without<'a>(&self, gone: impl Iterator<Item = &'a Amounts> + Clone) -> Self {
        let left = |(name, needed): &(String, i64)| {
            let freed = gone.clone().map(|amounts| amount(amounts, name)).fold(0, i64::saturating_add);
            Some((name.clone(), needed - freed)).filter(|(_, left)| *left > 0)
        };
        Self(self.0.iter().filter_map(left).collect())
    }

    /// How far a pod is from having all of it: the sum of the squares of the parts that it has not.
    fn distance(&self, amounts: &Amounts) -> f64 {
        let missing = |(name, needed): &(String, i64)| {
            let left = (needed - amount(amounts, name)).max(0);
            // Exact enough to compare.
            (left as f64 / *needed as f64).powi(2)
        };
        self.0.iter().map(missing).sum()
    }
}

/// Takes pods out of `pods` until all that is needed is free, each time the one that leaves least to be wished for; of equal
/// ones that which has less (`getPodsToPreemptByDistance`).
fn nearest(mut pods: Vec<usize>, all: &[Amounts], needs: Needs) -> Result<Vec<usize>, TooFew> {
    let (mut needs, mut taken) = (needs, Vec::new());
    while !needs.0.is_empty() {
        let order = |place: &usize| {
            let has = &all[*place];
            (needs.distance(has), has.memory, has.cpu)
        };
        let best = (0..pods.len()).min_by(|a, b| {
            let (a, b) = (order(&pods[*a]), order(&pods[*b]));
            a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2))
        });
        let Some(best) = best else { return Err(TooFew(needs)) };
        let place = pods.swap_remove(best);
        needs = needs.without(std::iter::once(&all[place]));
        taken.push(place);
    }
    Ok(taken)
}

/// Whom to send away of `pods`, by their places: first of all as few as possible that have what they ask for to themselves,
/// then of those that ask for something, then of the others (`getPodsToPreempt`). `class` is each one's QoS class.
fn victims(all: &[Amounts], class: &[&str], needs: &Needs) -> Result<Vec<usize>, TooFew> {
    let of = |name: &str| -> Vec<usize> { (0..all.len()).filter(|place| class[*place] == name).collect() };
    let (best_effort, burstable, guaranteed) = (of("BestEffort"), of("Burstable"), of("Guaranteed"));
    let left = |gone: &[&[usize]]| {
        let gone: Vec<&Amounts> = gone.iter().copied().flatten().map(|place| &all[*place]).collect();
        needs.without(gone.into_iter())
    };
    let never = left(&[&best_effort, &burstable, &guaranteed]);
    if !never.0.is_empty() {
        return Err(TooFew(never));
    }
    let guaranteed = nearest(guaranteed, all, left(&[&best_effort, &burstable]))?;
    let burstable = nearest(burstable, all, left(&[&best_effort, &guaranteed]))?;
    let best_effort = nearest(best_effort, all, left(&[&burstable, &guaranteed]))?;
    Ok([best_effort, burstable, guaranteed].concat())
}

/// Whether one may send the other away (`pkg/kubelet/types/pod_update.go`, `Preemptable`).
fn outranks(pod: &Pod, other: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority);
    (is_critical(pod) && !is_critical(other))
        || priority(pod).zip(priority(other)).is_some_and(|(own, theirs)| own > theirs)
}

fn class(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.qos_class.as_deref()).unwrap_or("BestEffort")
}

impl Agent {
    /// Takes a pod that was denied a place, if others can go for it; when this returns they have ended.
    pub(crate) async fn preempt(
        &self,
        pod: &Pod,
        pods: &[Arc<Pod>],
        node: &Node,
        denied: Denied,
    ) -> Result<(), Refusal> {
        let critical = is_critical(pod);
        if !critical || denied.other.is_some() {
            return Err(denied.refusal(critical));
        }
        let others: Vec<&Arc<Pod>> = pods
            .iter()
            .filter(|other| uid_of(other) != uid_of(pod) && !is_over(other) && outranks(pod, other))
            .filter(|other| !self.is_past(uid_of(other)))
            .collect();
        let has: Vec<Amounts> = others.iter().map(|other| requests(other)).collect();
        let classes: Vec<&str> = others.iter().map(|other| class(other)).collect();
        let chosen = victims(&has, &classes, &Needs::of(&denied.lacks)).map_err(|why| Refusal {
            reason: UNEXPECTED.to_owned(),
            message: format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: {why}"
            ),
        })?;
        let signal = denied.lacks.first().map(|lack| lack.resource.clone()).unwrap_or_default();
        let mut gone = HashSet::new();
        for place in chosen {
            self.send_away(others[place], &signal);
            gone.insert(uid_of(others[place]));
        }
        let mut news = self.endings.subscribe();
        while !gone.iter().all(|uid| self.is_past(uid)) {
            // The sender lives as long as `self`.
            let _ = news.changed().await;
        }
        let rest: Vec<Arc<Pod>> =
            pods.iter().filter(|other| !gone.contains(uid_of(other))).cloned().collect();
        self.taken.take(pod, &rest, node).map_err(|denied| denied.refusal(true))
    }

    /// Whether the node has ended it for good, whatever the API knows of that yet; also if there is no such pod any more.
    fn is_past(&self, uid: &str) -> bool {
        let ended =
            self.known.lock().get(uid).is_some_and(|known| known.ending.as_ref().is_some_and(|e| e.failed));
        ended || !self.pods.list().iter().any(|pod| uid_of(pod) == uid)
    }

    fn send_away(&self, pod: &Pod, signal: &str) {
        let grace = pod.spec.as_ref().map_or(0, grace_of);
        let eviction = Eviction { reason: REASON, message: MESSAGE.to_owned(), grace };
        self.recorder.warning(pod, REASON, MESSAGE);
        self.evictions.lock().insert(uid_of(pod).to_owned(), eviction);
        self.meters.note(|counted| *counted.preemptions.entry(signal.to_owned()).or_default() += 1);
        // Whoever is busy with the pod hears of it.
        self.endings.send_modify(|count| *count += 1);
        self.queue.add(Key::of(pod));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn has(cpu: i64, memory: i64) -> Amounts {
        Amounts { cpu, memory, ..Amounts::default() }
    }

    fn needs(cpu: i64, memory: i64) -> Needs {
        let all = [("cpu", cpu), ("memory", memory)];
        Needs(all.into_iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)).collect())
    }

    #[test]
    fn the_fewest_go_and_those_with_promises_last() {
        let all = [has(0, 0), has(100, 50), has(300, 10), has(250, 500), has(500, 500)];
        let class = ["BestEffort", "Burstable", "Burstable", "Burstable", "Guaranteed"];
        let who = |cpu, memory| victims(&all, &class, &needs(cpu, memory)).unwrap();
        // Any of three would do; the one that has least memory goes.
        assert_eq!(who(50, 0), [2]);
        assert_eq!(who(200, 0), [2]);
        assert_eq!(who(200, 200), [3]);
        assert_eq!(who(550, 0), [2, 3]);
        // All Burstable ones together have 650.
        assert_eq!(who(700, 0), [2, 4]);
        let why = victims(&all, &class, &needs(2000, 10)).unwrap_err().to_string();
        assert_eq!(why, "no set of running pods found to reclaim resources: [(res: cpu, q: 850), ]");
        // A place is a place.
        let place = Needs(vec![("pods".into(), 1)]);
        assert_eq!(victims(&all, &class, &place).unwrap(), [0]);
    }

    #[test]
    fn who_outranks_whom() {
        let pod = |priority: i64| -> Pod {
            serde_json::from_value(json!({"spec": {"priority": priority, "containers": []}})).unwrap()
        };
        let (node, system, plain) = (pod(2_000_001_000), pod(2_000_000_000), pod(5));
        assert!(outranks(&system, &plain) && outranks(&node, &system) && outranks(&plain, &pod(4)));
        assert!(!outranks(&system, &system) && !outranks(&plain, &system));
        let mut own = plain.clone();
        own.metadata.annotations = Some([("kubernetes.io/config.source".into(), "file".into())].into());
        assert!(outranks(&own, &pod(9)) && !outranks(&own, &system));
    }

    proptest! {
        /// Who is sent away frees enough, and nobody without whom it would be enough among those of his class.
        #[test]
        fn enough_is_freed(pods in prop::collection::vec((0i64..9, 0i64..9, 0usize..3), 0..8), cpu in 0i64..20, memory in 0i64..20) {
            let all: Vec<Amounts> = pods.iter().map(|(cpu, memory, _)| has(*cpu, *memory)).collect();
            let class: Vec<&str> = pods.iter().map(|p| ["BestEffort", "Burstable", "Guaranteed"][p.2]).collect();
            let needs = needs(cpu, memory);
            match victims(&all, &class, &needs) {
                Ok(chosen) => {
                    prop_assert!(needs.without(chosen.iter().map(|place| &all[*place])).0.is_empty());
                    let distinct: HashSet<usize> = chosen.iter().copied().collect();
                    prop_assert_eq!(distinct.len(), chosen.len());
                }
                Err(_) => prop_assert!(!needs.without(all.iter()).0.is_empty()),
            }
        }
    }
}
