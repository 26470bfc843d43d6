//! When pods' failures count, and when some successes are enough (kubernetes/kubernetes,
//! `pkg/controller/job/pod_failure_policy.go`, `success_policy.go`).

use client::{ContainerStatusView, PodView};
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicy,
};
use kube::ResourceExt;

use super::indexes::Indexes;

/// What a failed pod means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It counts towards the limits.
    Counts,
    /// It never happened.
    Ignored,
    /// Its index is lost.
    Index,
    /// The job is lost, for this reason.
    Job(String),
}

/// What the first rule that fits says; without one a failure counts.
pub(super) fn failure(spec: &JobSpec, pod: &PodView) -> Failure {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (at, rule) in rules.enumerate() {
        let Some(what) = fits(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Failure::Ignored,
            "FailIndex" => Failure::Index,
            "FailJob" => Failure::Job(format!("{what} matching FailJob rule at index {at}")),
            "Count" => Failure::Counts,
            // An action of a version to come.
            _ => continue,
        };
    }
    Failure::Counts
}

/// The action of the first rule that fits.
pub(super) fn action<'a>(spec: &'a JobSpec, pod: &PodView) -> Option<&'a str> {
    let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    let mut known = rules.filter(|r| matches!(&*r.action, "Ignore" | "FailIndex" | "FailJob" | "Count"));
    known.find(|rule| fits(rule, pod).is_some()).map(|rule| &*rule.action)
}

/// Whether the failed pod counts towards the job's limit.
pub(super) fn counts(spec: &JobSpec, pod: &PodView) -> bool {
    failure(spec, pod) != Failure::Ignored
}

fn fits(rule: &PodFailurePolicyRule, pod: &PodView) -> Option<String> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let status = pod.status.as_ref()?;
    if let Some(codes) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        let (container, code) = all.into_iter().find_map(|c| ended_so(codes, c))?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code}"
        ));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let met = conditions.into_iter().find(|c| {
        let mut patterns = patterns.iter();
        patterns.any(|p| {
            c.type_.as_deref() == Some(&p.type_)
                && c.status.as_deref() == Some(p.status.as_deref().unwrap_or("True"))
        })
    })?;
    Some(format!("Pod {namespace}/{name} has condition {}", met.type_.as_deref().unwrap_or_default()))
}

fn ended_so<'a>(
    codes: &PodFailurePolicyOnExitCodesRequirement,
    container: &'a ContainerStatusView,
) -> Option<(&'a str, i32)> {
    let name = container.name.as_deref().unwrap_or_default();
    let code = container.terminated.as_ref().map(|t| t.exit_code).filter(|code| *code != 0)?;
    let named = codes.container_name.as_deref().is_none_or(|wanted| wanted == name);
    let listed = codes.values.contains(&code);
    let fits = match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    };
    (named && fits).then_some((name, code))
}

/// Why these successes are enough, if they are.
pub(super) fn success(policy: &SuccessPolicy, completions: u32, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let met = policy.rules.iter().position(|rule| {
        let enough = rule.succeeded_count.map(|n| n.max(0).unsigned_abs());
        match &rule.succeeded_indexes {
            Some(text) => {
                let wanted = Indexes::parse(text, completions);
                let there = wanted.in_common(succeeded);
                !wanted.is_empty() && (there == wanted.total() || enough.is_some_and(|n| there >= n))
            }
            None => enough.is_some_and(|n| succeeded.total() >= n),
        }
    });
    met.map(|at| format!("Matched rules at index {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(rules: Value) -> JobSpec {
        testkit::object(json!({"template": {}, "podFailurePolicy": {"rules": rules}}))
    }

    fn pod(code: i32, condition: &str) -> PodView {
        testkit::object(json!({"metadata": {"namespace": "n", "name": "p"}, "status": {"phase": "Failed",
            "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": code}}}, {"name": "other", "state": {"running": {}}}],
            "conditions": [{"type": condition, "status": "True"}]}}))
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let spec = spec(json!([
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
            {"action": "FailJob", "onExitCodes": {"containerName": "other", "operator": "In", "values": [7]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [1, 2]}},
            {"action": "FailJob", "onPodConditions": [{"type": "Bad", "status": "True"}]},
        ]));
        let lost = |why: &str| Failure::Job(why.into());
        for (pod, want) in [
            (pod(42, "DisruptionTarget"), Failure::Ignored),
            (
                pod(42, "Ready"),
                lost("Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1"),
            ),
            (pod(7, "Ready"), Failure::Index),
            (pod(1, "Ready"), Failure::Counts),
            (pod(0, "Ready"), Failure::Counts),
            (pod(2, "Bad"), lost("Pod n/p has condition Bad matching FailJob rule at index 4")),
        ] {
            assert_eq!(failure(&spec, &pod), want, "{pod:?}");
        }
    }

    #[test]
    fn some_successes_may_be_enough() {
        for (rule, succeeded, met) in [
            (json!({"succeededCount": 3}), "0,5,9", true),
            (json!({"succeededCount": 3}), "0,5", false),
            (json!({"succeededIndexes": "0-2"}), "0-2", true),
            (json!({"succeededIndexes": "0-2"}), "0-1,3-9", false),
            (json!({"succeededIndexes": "0-4", "succeededCount": 2}), "1,4", true),
            (json!({"succeededIndexes": "0-4", "succeededCount": 2}), "1,5-9", false),
            (json!({"succeededIndexes": "20"}), "1", false),
            (json!({"succeededCount": 0}), "", false),
        ] {
            let policy = testkit::object(json!({"rules": [{"succeededCount": 11}, rule]}));
            let why = met.then(|| "Matched rules at index 1".to_owned());
            assert_eq!(success(&policy, 10, &Indexes::parse(succeeded, 10)), why, "{rule} {succeeded}");
        }
    }
}
