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
    /// The pod names other nodes.
    NotNamed,
    Ports,
    /// `Insufficient cpu` and the like.
    Insufficient(String),
    TooManyPods,
    /// There would be too many of its sort in the node's domain.
    Spread,
    /// The node belongs to no domain.
    SpreadLabel,
    /// Pods that must be near are not.
    Near,
    /// Pods that must not be near are.
    Apart,
    /// Pods that are near will not have it there.
    Barred,
    /// Nobody there is less important.
    NoVictims,
    /// No eviction would help.
    Hopeless,
}

impl Reason {
    /// Whether it would be the same if the node were empty.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Cordoned | Self::Taint | Self::Affinity | Self::NotNamed)
            || matches!(self, Self::SpreadLabel | Self::Near)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cordoned => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::Insufficient(what) => return write!(f, "Insufficient {what}"),
            Self::TooManyPods => "Too many pods",
            Self::Spread => "node(s) didn't match pod topology spread constraints",
            Self::SpreadLabel => {
                "node(s) didn't match pod topology spread constraints (missing required label)"
            }
            Self::Near => "node(s) didn't match pod affinity rules",
            Self::Apart => "node(s) didn't match pod anti-affinity rules",
            Self::Barred => "node(s) didn't satisfy existing pods anti-affinity rules",
            Self::NoVictims => "No preemption victims found for incoming pod",
            Self::Hopeless => "Preemption is not helpful for scheduling",
        })
    }
}

/// A pod that no node can take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes fail for each reason; one node can have several.
    pub reasons: BTreeMap<Reason, usize>,
    /// The rows of nodes that could take the pod if others left.
    pub(crate) helpable: Vec<usize>,
    /// What was said when others were to make room.
    pub(crate) preemption: Option<String>,
}

impl std::error::Error for Unschedulable {}

impl fmt::Display for Unschedulable {
    /// Kubernetes/kubernetes, `pkg/scheduler/framework/types.go`, `FitError.Error`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        let mut parts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        if !parts.is_empty() {
            write!(f, " {}.", parts.join(", "))?;
        }
        match &self.preemption {
            Some(said) => write!(f, " no new claims to deallocate, preemption: {said}"),
            None => Ok(()),
        }
    }
}
