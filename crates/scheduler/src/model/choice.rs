//! Random configurations of the scheduler.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::config::{Profile, Settings};

/// What a profile says, and the model goes by.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) strategy: &'static str,
    pub(super) resources: Vec<(&'static str, i64)>,
    pub(super) shape: Vec<(i64, i64)>,
    pub(super) balance: Vec<&'static str>,
    /// The weights of scores.
    pub(super) fit: i64,
    pub(super) balanced: i64,
    pub(super) spread: i64,
    pub(super) others: i64,
    /// The weight of what others require.
    pub(super) hard: i64,
    pub(super) ignores_liking: bool,
    pub(super) ignores_cards: bool,
    /// Filters that are left out.
    pub(super) off: Vec<&'static str>,
    /// The rack that all pods must be in.
    pub(super) rack: Option<&'static str>,
    /// Constraints for pods without any: label, skew, and what if they cannot be met.
    pub(super) defaults: Option<Vec<(&'static str, i32, &'static str)>>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            strategy: "LeastAllocated",
            resources: vec![("cpu", 1), ("memory", 1)],
            shape: Vec::new(),
            balance: vec!["cpu", "memory"],
            fit: 1,
            balanced: 1,
            spread: 2,
            others: 2,
            hard: 1,
            ignores_liking: false,
            ignores_cards: false,
            off: Vec::new(),
            rack: None,
            defaults: None,
        }
    }
}

impl Choice {
    /// The same as the scheduler reads it.
    pub(super) fn profile(&self) -> Arc<Profile> {
        let specs = |list: &[(&str, i64)]| -> Value {
            list.iter().map(|(name, weight)| json!({"name": name, "weight": weight})).collect()
        };
        let mut strategy = json!({"type": self.strategy, "resources": specs(&self.resources)});
        if self.strategy == "RequestedToCapacityRatio" {
            let point = |(u, s): &(i64, i64)| json!({"utilization": u, "score": s});
            strategy["requestedToCapacityRatio"] =
                json!({"shape": self.shape.iter().map(point).collect::<Vec<_>>()});
        }
        let balance: Vec<(&str, i64)> = self.balance.iter().map(|name| (*name, 1)).collect();
        let ignored = if self.ignores_cards { json!(["x.io/card"]) } else { json!([]) };
        let mut args = vec![
            ("NodeResourcesFit", json!({"scoringStrategy": strategy, "ignoredResources": ignored})),
            ("NodeResourcesBalancedAllocation", json!({"resources": specs(&balance)})),
            (
                "InterPodAffinity",
                json!({"hardPodAffinityWeight": self.hard,
                    "ignorePreferredTermsOfExistingPods": self.ignores_liking}),
            ),
        ];
        if let Some(rack) = self.rack {
            let term = json!({"matchExpressions": [{"key": "rack", "operator": "In", "values": [rack]}]});
            let required =
                json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}});
            args.push(("NodeAffinity", json!({"addedAffinity": required})));
        }
        if let Some(defaults) = &self.defaults {
            let one = |(key, skew, when): &(&str, i32, &str)| json!({"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when});
            let list: Vec<Value> = defaults.iter().map(one).collect();
            args.push(("PodTopologySpread", json!({"defaultingType": "List", "defaultConstraints": list})));
        }
        let weights = [
            ("NodeResourcesFit", self.fit),
            ("NodeResourcesBalancedAllocation", self.balanced),
            ("PodTopologySpread", self.spread),
            ("InterPodAffinity", self.others),
        ];
        let named = |on: bool| -> Value {
            let wanted = weights.iter().filter(|(_, weight)| (*weight != 0) == on);
            wanted.map(|(name, weight)| json!({"name": name, "weight": weight})).collect()
        };
        let off: Vec<Value> = self.off.iter().map(|name| json!({"name": name})).collect();
        let file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "profiles": [{"plugins": {"score": {"enabled": named(true), "disabled": named(false)}, "filter": {"disabled": off}},
                "pluginConfig": args.iter().map(|(name, args)| json!({"name": name, "args": args})).collect::<Vec<_>>()}]});
        Settings::read(&file).unwrap_or_else(|error| panic!("{error}: {file}")).profiles[0].clone()
    }
}

/// Half of them are the default, which most clusters have.
pub(super) fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![1 => Just(Choice::default()), 1 => any_choice()]
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let names = vec!["cpu", "memory", "x.io/card"];
    let resources = subsequence(names.clone(), 1..=3).prop_flat_map(|names| {
        let weights = vec(1..5i64, names.len());
        (Just(names), weights).prop_map(|(names, weights)| names.into_iter().zip(weights).collect::<Vec<_>>())
    });
    let shape = (subsequence(vec![0i64, 20, 50, 77, 100], 1..=5), vec(0..=10i64, 5))
        .prop_map(|(at, scores)| at.into_iter().zip(scores).collect::<Vec<_>>());
    let strategy = select(vec!["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]);
    let filters = vec![
        "TaintToleration",
        "NodeAffinity",
        "NodeResourcesFit",
        "PodTopologySpread",
        "InterPodAffinity",
        "NodeDeclaredFeatures",
    ];
    let off = prop_oneof![2 => Just(Vec::new()), 1 => subsequence(filters, 1..=3)];
    let key = subsequence(vec!["kubernetes.io/hostname", "topology.kubernetes.io/zone", "rack"], 1..=2);
    let constraints = (key, 1..3i32, select(vec!["DoNotSchedule", "ScheduleAnyway"]))
        .prop_map(|(keys, skew, when)| keys.into_iter().map(|key| (key, skew, when)).collect::<Vec<_>>());
    let weights = (0..4i64, 0..4i64, 0..4i64, 0..4i64, select(vec![0i64, 1, 7]));
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.3));
    let more = (off, option::weighted(0.2, select(vec!["r1", "r2"])), option::weighted(0.4, constraints));
    (strategy, resources, shape, subsequence(names, 1..=3), weights, flags, more).prop_map(
        |(strategy, resources, shape, balance, weights, flags, (off, rack, defaults))| {
            let (fit, balanced, spread, others, hard) = weights;
            let (ignores_liking, ignores_cards) = flags;
            let shape = if strategy == "RequestedToCapacityRatio" { shape } else { Vec::new() };
            Choice {
                strategy,
                resources,
                shape,
                balance,
                fit,
                balanced,
                spread,
                others,
                hard,
                ignores_liking,
                ignores_cards,
                off,
                rack,
                defaults,
            }
        },
    )
}
