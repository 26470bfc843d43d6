//! Why a pod cannot be placed, in upstream's words.

use std::collections::BTreeMap;
use std::fmt;

/// What a node lacks for a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Reason {
    Cordoned,
    Taint,
    Affinity,
    Ports,
    /// `Insufficient cpu` and the like.
    Insufficient(String),
    TooManyPods,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cordoned => f.write_str("node(s) were unschedulable"),
            Self::Taint => f.write_str("node(s) had untolerated taint(s)"),
            Self::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::Insufficient(what) => write!(f, "Insufficient {what}"),
            Self::TooManyPods => f.write_str("Too many pods"),
        }
    }
}

/// A pod that no node can take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes fail for each reason; one node can have several.
    pub reasons: BTreeMap<Reason, usize>,
    /// How many nodes could not take the pod even if they were empty.
    pub hopeless: usize,
}

impl std::error::Error for Unschedulable {}

impl fmt::Display for Unschedulable {
    /// Kubernetes/kubernetes, `pkg/scheduler/framework/types.go`, `FitError.Error`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let list = |parts: Vec<(usize, String)>| {
            let mut parts: Vec<String> = parts
                .into_iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            parts.sort();
            parts.join(", ")
        };
        let reasons = list(self.reasons.iter().map(|(reason, count)| (*count, reason.to_string())).collect());
        let preemption = list(vec![
            (self.hopeless, "Preemption is not helpful for scheduling".into()),
            (self.nodes - self.hopeless, "No preemption victims found for incoming pod".into()),
        ]);
        write!(
            f,
            "0/{n} nodes are available: {reasons}. no new claims to deallocate, preemption: 0/{n} nodes are \
             available: {preemption}.",
            n = self.nodes
        )
    }
}
