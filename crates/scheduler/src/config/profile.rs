//! How the pods of one scheduler's name are placed.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use client::{NodeNeeds, NodeTerm};
use k8s_openapi::api::core::v1::{Affinity, TopologySpreadConstraint};

use super::args::{AllArgs, ResourceSpec, ShapePoint};
use super::plugins::{Parts, Plugin, PluginsText, Point};
use super::text::duration;
use crate::metrics::ProfileNumbers;

/// How long devices may take to get ready, unless the configuration says otherwise.
const DEVICES: Duration = Duration::from_secs(600);

/// One profile, ready for use.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Which pods it is for.
    pub(crate) name: Arc<str>,
    parts: Parts,
    /// How good a node is for what is free on it.
    pub(crate) strategy: Strategy,
    pub(crate) resources: Vec<ResourceSpec>,
    /// What is to be balanced.
    pub(crate) balanced: Vec<String>,
    ignored: Vec<String>,
    ignored_groups: Vec<String>,
    /// What is wished of pods that say nothing of their spread; without, upstream's own.
    pub(crate) spread: Option<Vec<TopologySpreadConstraint>>,
    /// How much it counts that other pods must be near.
    pub(crate) hard_affinity: i64,
    /// Pods that say nothing of others are not scored by what those would like.
    pub(crate) ignores_liking: bool,
    /// What every pod asks of its node besides what it says itself.
    pub(crate) added: Option<Added>,
    /// How long claims may take to be bound.
    pub(crate) bind_timeout: Duration,
    /// How long devices may take to get ready.
    pub(crate) device_timeout: Duration,
    /// So many candidates are looked at for preemption, at least: a share of the nodes in percent, and a number.
    pub(crate) candidates: (usize, usize),
    /// Of how many of a hundred nodes that fit are enough; zero: all are looked at.
    pub(crate) percentage: usize,
    pub(crate) numbers: ProfileNumbers,
}

/// How good it is that something is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    /// The more is free afterwards, the better.
    Least,
    /// The less is free, the better.
    Most,
    /// As a shape says; its scores are out of a hundred here.
    Ratio(Vec<ShapePoint>),
}

/// Node affinity that the profile adds.
#[derive(Debug)]
pub(crate) struct Added {
    pub(crate) needs: NodeNeeds,
    pub(crate) preferred: Vec<(i64, NodeTerm)>,
}

impl Profile {
    /// What a pod gets whose scheduler has no configuration.
    pub(crate) fn standard() -> &'static Arc<Self> {
        static STANDARD: LazyLock<Arc<Profile>> = LazyLock::new(|| {
            let parts = Parts::of(&PluginsText::default());
            let parts = parts.unwrap_or_else(|why| unreachable!("the default plugins: {why}"));
            Arc::new(Profile::new(crate::NAME, parts, AllArgs::default(), 0, &[]))
        });
        &STANDARD
    }

    pub(super) fn new(name: &str, parts: Parts, args: AllArgs, percentage: i64, managed: &[String]) -> Self {
        let strategy = args.fit.scoring_strategy.unwrap_or_default();
        let mut ignored = args.fit.ignored_resources;
        ignored.extend_from_slice(managed);
        let added = args.nodes.added_affinity.map(|affinity| {
            let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let preferred = preferred.map(|p| (i64::from(p.weight), NodeTerm::of(&p.preference))).collect();
            let whole = Affinity { node_affinity: Some(affinity.clone()), ..Affinity::default() };
            Added { needs: NodeNeeds::of(None, Some(&whole)), preferred }
        });
        let balanced = ResourceSpec::filled(args.balanced.resources);
        let size = |number: i64| usize::try_from(number).unwrap_or(0);
        Self {
            name: name.into(),
            parts,
            strategy: match strategy.requested_to_capacity_ratio {
                Some(ratio) => Strategy::Ratio(
                    // Ten is the most in the file.
                    ratio.shape.iter().map(|p| ShapePoint { score: p.score * 10, ..*p }).collect(),
                ),
                None if strategy.type_ == "MostAllocated" => Strategy::Most,
                None => Strategy::Least,
            },
            resources: ResourceSpec::filled(strategy.resources),
            balanced: balanced.into_iter().map(|spec| spec.name).collect(),
            ignored,
            ignored_groups: args.fit.ignored_resource_groups,
            spread: (args.spread.defaulting_type == "List").then_some(args.spread.default_constraints),
            hard_affinity: args.others.hard_pod_affinity_weight,
            ignores_liking: args.others.ignore_preferred_terms_of_existing_pods,
            added,
            bind_timeout: Duration::from_secs(size(args.volumes.bind_timeout_seconds) as u64),
            device_timeout: args.devices.binding_timeout.as_deref().and_then(duration).unwrap_or(DEVICES),
            candidates: (
                size(args.preemption.min_candidate_nodes_percentage),
                size(args.preemption.min_candidate_nodes_absolute),
            ),
            percentage: size(percentage),
            numbers: ProfileNumbers::of(name),
        }
    }

    /// Whether a filter is asked.
    pub(crate) fn filters(&self, plugin: Plugin) -> bool {
        self.parts.has(Point::Filter, plugin)
    }

    /// How much a plugin's score counts; nothing if it is not asked.
    pub(crate) fn weight(&self, plugin: Plugin) -> i64 {
        self.parts.weight(plugin)
    }

    /// Whether pods with scheduling gates wait.
    pub(crate) fn heeds_gates(&self) -> bool {
        self.parts.has(Point::PreEnqueue, Plugin::SchedulingGates)
    }

    /// Whether pods of groups are placed together.
    pub(crate) fn heeds_gangs(&self) -> bool {
        self.parts.has(Point::PreEnqueue, Plugin::GangScheduling)
    }

    /// Whether claims that nobody uses are freed for a pod that finds no node.
    pub(crate) fn deallocates(&self) -> bool {
        self.parts.has(Point::PostFilter, Plugin::DynamicResources)
    }

    /// Whether less important pods may have to leave.
    pub(crate) fn preempts(&self) -> bool {
        self.parts.has(Point::PostFilter, Plugin::DefaultPreemption)
    }

    /// Whether nobody looks at how much there is of a resource (`NodeResourcesFitArgs.ignoredResources`).
    pub(crate) fn ignores(&self, resource: &str) -> bool {
        if self.ignored.is_empty() && self.ignored_groups.is_empty() {
            return false;
        }
        let group = resource.split_once('/').map_or("", |(group, _)| group);
        is_extended(resource)
            && (self.ignored.iter().any(|name| name == resource)
                || self.ignored_groups.iter().any(|name| name == group))
    }

    /// Whether cores and memory count alike, as they do by default, and nothing else.
    pub(crate) fn is_usual(resources: &[ResourceSpec]) -> bool {
        let [cpu, memory] = resources else { return false };
        (cpu.name.as_str(), memory.name.as_str()) == ("cpu", "memory") && cpu.weight == memory.weight
    }
}

/// Kubernetes/kubernetes, `pkg/apis/core/v1/helper/helpers.go`, `IsExtendedResourceName`.
pub(super) fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && types::qualified_name(&format!("requests.{name}")).is_empty()
}
