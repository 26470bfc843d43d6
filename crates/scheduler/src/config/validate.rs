//! Whether a file can be used (kubernetes/kubernetes, `pkg/scheduler/apis/config/validation`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{NodeSelectorTerm, TopologySpreadConstraint};
use serde_json::{Value, json};
use types::{FieldErrors, Path};

use super::args::{AllArgs, ResourceSpec, ShapePoint};
use super::plugins::Plugin;
use super::profile::is_extended;
use super::text::{ConfigText, ExtenderText, ProfileText, duration};

/// Plugins of the past.
const GONE: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];
const VERSION: &str = "kubescheduler.config.k8s.io/v1";

pub(super) fn validate(config: &ConfigText, args: &[AllArgs], errors: &mut FieldErrors) {
    leader_election(config, errors);
    if config.client_connection.burst < 0 {
        let path = Path::new("clientConnection");
        errors.invalid(&path.child("burst"), config.client_connection.burst, "must be non-negative");
    }
    if config.parallelism <= 0 {
        let detail = "should be an integer value greater than zero";
        errors.invalid(&Path::new("parallelism"), config.parallelism, detail);
    }
    let path = Path::new("profiles");
    let mut names: BTreeMap<&str, usize> = BTreeMap::new();
    for (n, (profile, args)) in config.profiles.iter().zip(args).enumerate() {
        let path = path.index(n);
        let name = profile.scheduler_name.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.required(&path.child("schedulerName"), "");
        }
        percentage(&path.child("percentageOfNodesToScore"), profile.percentage_of_nodes_to_score, errors);
        plugins(&path, profile, errors);
        all_args(&path, profile, args, errors);
        if let Some(first) = names.insert(name, n) {
            let first = format!("profiles[{first}].schedulerName");
            errors.duplicate(&path.child("schedulerName"), first);
        }
    }
    common_sort(&path, &config.profiles, errors);
    percentage(&Path::new("percentageOfNodesToScore"), config.percentage_of_nodes_to_score, errors);
    let (first, most) = (config.pod_initial_backoff_seconds, config.pod_max_backoff_seconds);
    if first <= 0 {
        errors.invalid(&Path::new("podInitialBackoffSeconds"), first, "must be greater than 0");
    }
    if most < first {
        let detail = "must be greater than or equal to PodInitialBackoffSeconds";
        errors.invalid(&Path::new("podMaxBackoffSeconds"), most, detail);
    }
    extenders(&Path::new("extenders"), &config.extenders, errors);
}

/// Kubernetes/kubernetes, `component-base/config/validation/validation.go`, `ValidateLeaderElectionConfiguration`.
fn leader_election(config: &ConfigText, errors: &mut FieldErrors) {
    let (path, election) = (Path::new("leaderElection"), &config.leader_election);
    if !election.leader_elect {
        return;
    }
    let mut read = |field: &str, text: &str| {
        let seconds = duration(text);
        if seconds.is_none_or(|d| d.is_zero()) {
            errors.invalid(&path.child(field), text, "must be greater than zero");
        }
        seconds.unwrap_or_default()
    };
    let lease = read("leaseDuration", &election.lease_duration);
    let renew = read("renewDeadline", &election.renew_deadline);
    let retry = read("retryPeriod", &election.retry_period);
    if lease < renew {
        let detail = "LeaseDuration must be greater than RenewDeadline";
        errors.invalid(&path.child("leaseDuration"), election.renew_deadline.as_str(), detail);
    }
    if renew <= retry {
        let detail = "RenewDeadline must be greater than RetryPeriod";
        errors.invalid(&path.child("renewDeadline"), election.retry_period.as_str(), detail);
    }
    if election.resource_lock != "leases" {
        let detail = "resourceLock value must be \"leases\"";
        errors.invalid(&path.child("resourceLock"), election.resource_lock.as_str(), detail);
    }
}

fn percentage(path: &Path<'_>, value: Option<i64>, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|value| !(0..=100).contains(value)) {
        errors.invalid(path, value, "not in valid range [0-100]");
    }
}

fn plugins(path: &Path<'_>, profile: &ProfileText, errors: &mut FieldErrors) {
    let gone =
        format!("was invalid in version {VERSION:?} (KubeSchedulerConfiguration is version {VERSION:?})");
    let path = &path.child("plugins");
    for (point, set) in profile.plugins.sets() {
        for (n, plugin) in set.enabled.iter().enumerate().filter(|(_, p)| GONE.contains(&p.name.as_str())) {
            errors.invalid(&path.child(point).child("enabled").index(n), plugin.name.as_str(), &gone);
        }
    }
}

fn all_args(path: &Path<'_>, profile: &ProfileText, args: &AllArgs, errors: &mut FieldErrors) {
    let list = path.child("pluginConfig");
    let mut seen = BTreeSet::new();
    for (n, config) in profile.plugin_config.iter().enumerate() {
        let path = &list.index(n);
        let name = config.name.as_str();
        if !seen.insert(name) {
            errors.duplicate(path, name);
        }
        let gone = GONE.contains(&name);
        match Plugin::of(name) {
            None if gone => {
                let version = format!(
                    "was invalid in version {VERSION:?} (KubeSchedulerConfiguration is version {VERSION:?})"
                );
                errors.invalid(path, name, &version);
            }
            None => errors.not_found(&path.child("name"), name),
            Some(plugin) => one(plugin, &path.child("args"), args, errors),
        }
    }
}

fn one(plugin: Plugin, path: &Path<'_>, args: &AllArgs, errors: &mut FieldErrors) {
    match plugin {
        Plugin::DefaultPreemption => preemption(path, args, errors),
        Plugin::InterPodAffinity => {
            let weight = args.others.hard_pod_affinity_weight;
            if !(0..=100).contains(&weight) {
                errors.invalid(&path.child("hardPodAffinityWeight"), weight, "not in valid range [0, 100]");
            }
        }
        Plugin::NodeAffinity => nodes(path, args, errors),
        Plugin::NodeResourcesBalancedAllocation => {
            let (path, mut seen) = (path.child("resources"), BTreeSet::new());
            for (n, spec) in args.balanced.resources.iter().enumerate() {
                if !seen.insert(&spec.name) {
                    errors.duplicate(&path.index(n).child("name"), spec.name.as_str());
                }
                if !matches!(spec.weight, 0 | 1) {
                    errors.invalid(&path.index(n).child("weight"), spec.weight, "must be 1");
                }
            }
        }
        Plugin::NodeResourcesFit => fit(path, args, errors),
        Plugin::PodTopologySpread => spread(path, args, errors),
        Plugin::VolumeBinding => {
            let seconds = args.volumes.bind_timeout_seconds;
            if seconds < 0 {
                let detail = "invalid BindTimeoutSeconds, should not be a negative value";
                errors.invalid(&path.child("bindTimeoutSeconds"), seconds, detail);
            }
            if let Some(shape) = &args.volumes.shape {
                let shown: Vec<Value> =
                    shape.iter().map(|p| json!({"utilization": p.utilization, "score": p.score})).collect();
                let detail =
                    "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
                errors.invalid(&path.child("shape"), shown, detail);
            }
        }
        Plugin::DynamicResources => {
            for (field, text) in [
                ("filterTimeout", &args.devices.filter_timeout),
                ("bindingTimeout", &args.devices.binding_timeout),
            ] {
                if let Some(text) = text.as_ref().filter(|text| duration(text).is_none()) {
                    errors.invalid(&path.child(field), text.as_str(), "must be zero or positive");
                }
            }
        }
        _ => {}
    }
}

fn preemption(path: &Path<'_>, args: &AllArgs, errors: &mut FieldErrors) {
    let (share, number) =
        (args.preemption.min_candidate_nodes_percentage, args.preemption.min_candidate_nodes_absolute);
    let (percent, absolute) =
        (path.child("minCandidateNodesPercentage"), path.child("minCandidateNodesAbsolute"));
    if !(0..=100).contains(&share) {
        errors.invalid(&percent, share, "not in valid range [0, 100]");
    }
    if number < 0 {
        errors.invalid(&absolute, number, "not in valid range [0, inf)");
    }
    if share == 0 && number == 0 {
        errors.invalid(&percent, 0, "cannot be zero at the same time as minCandidateNodesAbsolute");
        errors.invalid(&absolute, 0, "cannot be zero at the same time as minCandidateNodesPercentage");
    }
}

fn nodes(path: &Path<'_>, args: &AllArgs, errors: &mut FieldErrors) {
    let Some(added) = &args.nodes.added_affinity else { return };
    let path = path.child("addedAffinity");
    if let Some(required) = &added.required_during_scheduling_ignored_during_execution {
        let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        let path = path.child("nodeSelectorTerms");
        for (n, term) in required.node_selector_terms.iter().enumerate() {
            node_term(&path.index(n), term, errors);
        }
    }
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    let preferred = added.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (n, term) in preferred.enumerate() {
        node_term(&path.index(n), &term.preference, errors);
    }
}

/// Kubernetes/kubernetes, `component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go`.
fn node_term(path: &Path<'_>, term: &NodeSelectorTerm, errors: &mut FieldErrors) {
    let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    for (field, list) in [("matchExpressions", &term.match_expressions), ("matchFields", &term.match_fields)]
    {
        for (n, r) in list.iter().flatten().enumerate() {
            let (path, fields) = (path.child(field), field == "matchFields");
            let path = path.index(n);
            let values = r.values.as_deref().unwrap_or_default();
            let supported = if fields { &operators[..2] } else { &operators[..] };
            if !supported.contains(&r.operator.as_str()) {
                errors.not_supported(&path.child("operator"), r.operator.as_str(), supported);
                continue;
            }
            if fields && r.key != "metadata.name" {
                errors.not_supported(&path.child("key"), r.key.as_str(), &["metadata.name"]);
            }
            for fault in types::qualified_name(&r.key).iter().filter(|_| !fields) {
                errors.invalid(&path.child("key"), r.key.as_str(), fault);
            }
            let fault = match r.operator.as_str() {
                "In" | "NotIn" if fields && values.len() != 1 => Some("must have one element"),
                "In" | "NotIn" if values.is_empty() => {
                    Some("for 'in', 'notin' operators, values set can't be empty")
                }
                "Exists" | "DoesNotExist" if !values.is_empty() => {
                    Some("values set must be empty for exists and does not exist")
                }
                "Gt" | "Lt" if values.len() != 1 => {
                    Some("for 'Gt', 'Lt' operators, exactly one value is required")
                }
                "Gt" | "Lt" if values[0].parse::<i64>().is_err() => {
                    Some("for 'Gt', 'Lt' operators, the value must be an integer")
                }
                _ => None,
            };
            if let Some(fault) = fault {
                errors.invalid(&path.child("values"), json!(values), fault);
            }
        }
    }
}

fn fit(path: &Path<'_>, args: &AllArgs, errors: &mut FieldErrors) {
    let named = |path: &Path<'_>, name: &str, errors: &mut FieldErrors| {
        types::qualified_name(name).iter().for_each(|fault| errors.invalid(path, name, fault));
    };
    for (n, name) in args.fit.ignored_resources.iter().enumerate() {
        named(&path.child("ignoredResources").index(n), name, errors);
    }
    for (n, group) in args.fit.ignored_resource_groups.iter().enumerate() {
        let path = path.child("ignoredResourceGroups");
        if group.contains('/') {
            errors.invalid(&path.index(n), group.as_str(), "resource group name can't contain '/'");
        }
        named(&path.index(n), group, errors);
    }
    let Some(strategy) = &args.fit.scoring_strategy else { return };
    let path = path.child("scoringStrategy");
    let types = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !types.contains(&strategy.type_.as_str()) {
        errors.not_supported(&path.child("type"), strategy.type_.as_str(), &types);
    }
    weights(&path.child("resources"), &strategy.resources, errors);
    let ratio = path.child("requestedToCapacityRatio");
    match (&strategy.requested_to_capacity_ratio, strategy.type_ == types[2]) {
        (None, true) => errors.required(&ratio, "must be specified when type is RequestedToCapacityRatio"),
        (Some(_), false) => {
            errors.forbidden(&ratio, "must be nil when type is not RequestedToCapacityRatio");
        }
        (Some(param), true) => shape(&ratio.child("shape"), &param.shape, errors),
        (None, false) => {}
    }
}

fn weights(path: &Path<'_>, resources: &[ResourceSpec], errors: &mut FieldErrors) {
    // What is not said is one.
    for (n, spec) in resources.iter().enumerate().filter(|(_, spec)| !(0..=100).contains(&spec.weight)) {
        let detail = format!("resource weight of {} not in valid range (0, 100]", spec.name);
        errors.invalid(&path.index(n).child("weight"), spec.weight, &detail);
    }
}

fn shape(path: &Path<'_>, shape: &[ShapePoint], errors: &mut FieldErrors) {
    if shape.is_empty() {
        return errors.required(path, "at least one point must be specified");
    }
    let falls = (1..shape.len()).find(|n| shape[n - 1].utilization >= shape[*n].utilization);
    if let Some(n) = falls {
        let detail = "values must be sorted in increasing order";
        errors.invalid(&path.index(n).child("utilization"), shape[n].utilization, detail);
    }
    for (n, point) in shape.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            let detail = "not in valid range [0, 100]";
            errors.invalid(&path.index(n).child("utilization"), point.utilization, detail);
        }
        if !(0..=10).contains(&point.score) {
            errors.invalid(&path.index(n).child("score"), point.score, "not in valid range [0, 10]");
        }
    }
}

fn spread(path: &Path<'_>, args: &AllArgs, errors: &mut FieldErrors) {
    let (kind, constraints) = (args.spread.defaulting_type.as_str(), &args.spread.default_constraints);
    let defaulting = path.child("defaultingType");
    if !matches!(kind, "System" | "List") {
        errors.not_supported(&defaulting, kind, &["List", "System"]);
    } else if kind == "System" && !constraints.is_empty() {
        errors.invalid(&defaulting, kind, "when .defaultConstraints are not empty");
    }
    let path = path.child("defaultConstraints");
    for (n, constraint) in constraints.iter().enumerate() {
        one_spread(&path.index(n), constraint, errors);
        let (key, when) = (&constraint.topology_key, &constraint.when_unsatisfiable);
        let mut before = constraints[..n].iter();
        if before.any(|other| other.topology_key == *key && other.when_unsatisfiable == *when) {
            errors.duplicate(&path.index(n), format!("{{{key}, {when}}}"));
        }
    }
}

fn one_spread(path: &Path<'_>, constraint: &TopologySpreadConstraint, errors: &mut FieldErrors) {
    if constraint.max_skew <= 0 {
        errors.invalid(&path.child("maxSkew"), constraint.max_skew, "not in valid range (0, inf)");
    }
    let (key, when) = (constraint.topology_key.as_str(), constraint.when_unsatisfiable.as_str());
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    } else {
        let faults = types::qualified_name(key);
        faults.iter().for_each(|fault| errors.invalid(&path.child("topologyKey"), key, fault));
    }
    match when {
        "" => errors.required(&path.child("whenUnsatisfiable"), "can not be empty"),
        "DoNotSchedule" | "ScheduleAnyway" => {}
        other => {
            let supported = ["DoNotSchedule", "ScheduleAnyway"];
            errors.not_supported(&path.child("whenUnsatisfiable"), other, &supported);
        }
    }
    if constraint.label_selector.is_some() {
        let detail = "constraint must not define a selector, as they deduced for each pod";
        errors.forbidden(&path.child("labelSelector"), detail);
    }
}

/// All profiles share one queue.
fn common_sort(path: &Path<'_>, profiles: &[ProfileText], errors: &mut FieldErrors) {
    let Some(first) = profiles.first() else { return };
    let sort = &first.plugins.queue_sort;
    if sort.enabled.len() > 1 {
        let path = path.index(0);
        let path = path.child("plugins");
        let path = path.child("queueSort");
        errors.invalid(
            &path.child("Enabled"),
            sort.enabled.len(),
            "only one queue sort plugin can be enabled",
        );
    }
    for (n, profile) in profiles.iter().enumerate().skip(1) {
        if profile.plugins.queue_sort != *sort {
            let path = path.index(n);
            let path = path.child("plugins");
            errors.invalid_unshown(&path.child("queueSort"), "must be the same for all profiles");
        }
    }
}

fn extenders(path: &Path<'_>, extenders: &[ExtenderText], errors: &mut FieldErrors) {
    let mut managed = BTreeSet::new();
    for (n, extender) in extenders.iter().enumerate() {
        let path = path.index(n);
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let detail = "must have a positive weight applied to it";
            errors.invalid(&path.child("weight"), extender.weight, detail);
        }
        if duration(&extender.http_timeout).is_none() {
            errors.invalid(&path.child("httpTimeout"), extender.http_timeout.as_str(), "must be a duration");
        }
        for (n, resource) in extender.managed_resources.iter().enumerate() {
            let (path, name) = (path.child("managedResources"), resource.name.as_str());
            let path = path.index(n);
            let path = path.child("name");
            let faults = types::qualified_name(name);
            faults.iter().for_each(|fault| errors.invalid(&path, name, fault));
            if faults.is_empty() && !is_extended(name) {
                errors.invalid(&path, name, "is an invalid extended resource name");
            }
            if !managed.insert(name) {
                errors.invalid(&path, name, "duplicate extender managed resource name");
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        let value = format!("found {binders} extenders implementing bind");
        errors.invalid(path, value, "only one extender can implement bind");
    }
}
