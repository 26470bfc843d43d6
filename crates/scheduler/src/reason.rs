//! Why a pod cannot be placed, in upstream's words.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::Plugin;

/// What a node lacks for a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Reason {
    Cordoned,
    Taint,
    Affinity,
    /// The scheduler's configuration asks for other nodes.
    Enforced,
    /// An extender has said so.
    Extender(String),
    /// The pod names other nodes.
    NotNamed,
    Ports,
    /// `Insufficient cpu` and the like.
    Insufficient(String),
    TooManyPods,
    /// Another pod has the disk.
    DiskTaken,
    /// Another pod has a claim that only one may have.
    ClaimTaken,
    TooManyVolumes,
    /// A bound volume cannot be reached from there.
    VolumeElsewhere,
    /// A claim finds no volume there, and none can be made.
    NothingToBind,
    NoSpace,
    /// A claim's volume is gone.
    NoVolume,
    /// A bound volume is in another zone.
    Zone,
    /// The devices of a claim cannot be used from there.
    ClaimElsewhere,
    /// There are no devices for a claim.
    Claims,
    /// Nobody can tell whether there are devices for a claim.
    Devices(String),
    /// The node does not say that it can do what the pod needs.
    Features,
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
        matches!(self, Self::Cordoned | Self::Taint | Self::Affinity | Self::Enforced | Self::NotNamed)
            || matches!(self, Self::SpreadLabel | Self::Near | Self::Features)
            || matches!(self, Self::VolumeElsewhere | Self::NothingToBind | Self::NoSpace)
            || matches!(self, Self::NoVolume | Self::Zone)
            || self.is_of_devices()
    }

    /// Whether it is about claims of devices. Nobody is evicted for their sake, as upstream has it.
    pub(crate) fn is_of_devices(&self) -> bool {
        matches!(self, Self::ClaimElsewhere | Self::Claims | Self::Devices(_))
    }

    /// Whose word it is.
    pub(crate) fn plugin(&self) -> Option<Plugin> {
        Some(match self {
            Self::Cordoned => Plugin::NodeUnschedulable,
            Self::Taint => Plugin::TaintToleration,
            Self::Affinity | Self::Enforced | Self::NotNamed => Plugin::NodeAffinity,
            Self::Ports => Plugin::NodePorts,
            Self::Insufficient(_) | Self::TooManyPods => Plugin::NodeResourcesFit,
            Self::DiskTaken | Self::ClaimTaken => Plugin::VolumeRestrictions,
            Self::TooManyVolumes => Plugin::NodeVolumeLimits,
            Self::VolumeElsewhere | Self::NothingToBind | Self::NoSpace | Self::NoVolume => {
                Plugin::VolumeBinding
            }
            Self::Zone => Plugin::VolumeZone,
            Self::ClaimElsewhere | Self::Claims | Self::Devices(_) => Plugin::DynamicResources,
            Self::Features => Plugin::NodeDeclaredFeatures,
            Self::Spread | Self::SpreadLabel => Plugin::PodTopologySpread,
            Self::Near | Self::Apart | Self::Barred => Plugin::InterPodAffinity,
            Self::Extender(_) | Self::NoVictims | Self::Hopeless => return None,
        })
    }

    /// Whether it is about volumes.
    pub(crate) fn is_of_volumes(&self) -> bool {
        matches!(self, Self::VolumeElsewhere | Self::NothingToBind | Self::NoSpace | Self::NoVolume)
            || matches!(self, Self::Zone | Self::DiskTaken | Self::ClaimTaken | Self::TooManyVolumes)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cordoned => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::Enforced => "node(s) didn't match scheduler-enforced node affinity",
            Self::Extender(why) => why,
            Self::NotNamed => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::Insufficient(what) => return write!(f, "Insufficient {what}"),
            Self::TooManyPods => "Too many pods",
            Self::DiskTaken => "node(s) had no available disk",
            Self::ClaimTaken => {
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
            }
            Self::TooManyVolumes => "node(s) exceed max volume count",
            Self::VolumeElsewhere => "node(s) had volume node affinity conflict",
            Self::NothingToBind => "node(s) didn't find available persistent volumes to bind",
            Self::NoSpace => "node(s) did not have enough free storage",
            Self::NoVolume => "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
            Self::Zone => "node(s) had no available volume zone",
            Self::ClaimElsewhere => "resourceclaim not available on the node",
            Self::Claims => "cannot allocate all claims",
            Self::Devices(why) => why,
            Self::Features => "node(s) didn't match Pod's required features",
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
    /// What stands against it wherever it goes.
    pub everywhere: Option<String>,
    /// How many nodes fail for each reason; one node can have several.
    pub reasons: BTreeMap<Reason, usize>,
    /// The rows of nodes that could take the pod if others left.
    pub(crate) helpable: Vec<usize>,
    /// What was said when idle claims were to be freed.
    pub(crate) claims: Option<&'static str>,
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
        if let Some(why) = &self.everywhere {
            write!(f, " {why}.")?;
        }
        let mut parts: Vec<String> =
            self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        if !parts.is_empty() {
            write!(f, " {}.", parts.join(", "))?;
        }
        match (self.claims, &self.preemption) {
            (Some(claims), Some(said)) => write!(f, " {claims}, preemption: {said}"),
            (Some(claims), None) => write!(f, " {claims}"),
            (None, Some(said)) => write!(f, " preemption: {said}"),
            (None, None) => Ok(()),
        }
    }
}
