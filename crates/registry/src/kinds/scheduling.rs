//! Groups of pods that are placed together, and the workloads that have them (kubernetes/kubernetes,
//! `pkg/apis/scheduling/validation/validation.go`).

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_label, dns_subdomain, path_segment, qualified_name};

use super::check::*;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
/// `WorkloadMaxPodGroupTemplates`.
const MOST_TEMPLATES: usize = 8;

/// One way of placing pods, and no more.
fn policy(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let policy = &of["schedulingPolicy"];
    let path = &path.child("schedulingPolicy");
    match (has(policy, "basic"), has(policy, "gang")) {
        (false, false) => {
            errors.invalid(path, policy.clone(), "must specify one of: `basic`, `gang`");
        }
        (true, true) => {
            errors.invalid(path, "{basic, gang}", "must specify exactly one of: `basic`, `gang`");
        }
        (false, true) => {
            let least = int(&policy["gang"], "minCount");
            if least < 1 {
                let path = path.child("gang");
                errors.invalid(&path.child("minCount"), least, "must be greater than or equal to 1");
            }
        }
        (true, false) => {}
    }
}

/// One constraint at most, by a label of nodes; and who goes with whom.
fn constraints(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let constraints = path.child("schedulingConstraints");
    let path_of_all = constraints.child("topology");
    let topology = || list(&of["schedulingConstraints"], "topology");
    if topology().count() > 1 {
        errors.too_many(&path_of_all, topology().count(), 1);
    }
    for (n, constraint) in topology().enumerate() {
        let one = path_of_all.index(n);
        let (key, path) = (text(constraint, "key"), one.child("key"));
        if key.is_empty() {
            errors.required(&path, "");
        }
        for fault in qualified_name(key).into_iter().filter(|_| !key.is_empty()) {
            errors.invalid(&path, key, &fault);
        }
    }
    let mode = text(of, "disruptionMode");
    if has(of, "disruptionMode") && !["Pod", "PodGroup"].contains(&mode) {
        errors.not_supported(&path.child("disruptionMode"), mode, &["Pod", "PodGroup"]);
    }
}

/// Drops what is behind the gate `WorkloadAwarePreemption`, which is alpha and off in 1.36: what is not kept cannot be taken
/// for something that works (upstream: `dropDisabledWorkloadFields`).
fn drop_preemption(of: &mut Value) {
    let Some(fields) = of.as_object_mut() else { return };
    for gated in ["disruptionMode", "priority", "priorityClassName"] {
        fields.remove(gated);
    }
}

/// A new object has no status yet.
fn prepare(object: &mut Value, spec: impl FnOnce(&mut Value)) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        fields.get_mut("spec").map(spec);
    }
}

pub(super) struct PodGroup;

impl Strategy for PodGroup {
    fn prepare_create(&self, object: &mut Value) {
        prepare(object, drop_preemption);
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        policy(spec, &SPEC, errors);
        constraints(spec, &SPEC, errors);
        if let Some(template) = get(spec, "podGroupTemplateRef").and_then(|t| get(t, "workload")) {
            let path = SPEC.child("podGroupTemplateRef");
            let path = path.child("workload");
            required_name(template, "workloadName", dns_subdomain, &path, errors);
            required_name(template, "podGroupTemplateName", dns_label, &path, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if new["spec"] != old["spec"] {
            errors.immutable(&SPEC, &new["spec"]);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::POD_GROUP
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::pod_group_cells(object, now)
    }
}

pub(super) struct Workload;

impl Strategy for Workload {
    fn prepare_create(&self, object: &mut Value) {
        prepare(object, |spec| {
            let templates = spec.get_mut("podGroupTemplates").and_then(Value::as_array_mut);
            templates.into_iter().flatten().for_each(drop_preemption);
        });
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        if let Some(controller) = get(spec, "controllerRef") {
            let path = SPEC.child("controllerRef");
            required_name(controller, "kind", path_segment, &path, errors);
            required_name(controller, "name", path_segment, &path, errors);
            optional_name(controller, "apiGroup", dns_subdomain, &path, errors);
        }
        let path = SPEC.child("podGroupTemplates");
        let count = count(spec, "podGroupTemplates");
        if count == 0 {
            errors.required(&path, "must have at least one item");
        }
        if count > MOST_TEMPLATES {
            errors.too_many(&path, count, MOST_TEMPLATES);
        }
        let names: Vec<&str> =
            list(spec, "podGroupTemplates").map(|template| text(template, "name")).collect();
        for (n, template) in list(spec, "podGroupTemplates").enumerate() {
            let path = path.index(n);
            required_name(template, "name", dns_label, &path, errors);
            if names[..n].contains(&names[n]) {
                errors.duplicate(&path, json!({"name": names[n]}));
            }
            policy(template, &path, errors);
            constraints(template, &path, errors);
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if new["spec"] != old["spec"] {
            errors.immutable(&SPEC, &new["spec"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(strategy: &dyn Strategy, spec: Value) -> Vec<String> {
        let mut errors = FieldErrors::new();
        strategy.validate_create(&json!({"metadata": {"name": "g"}, "spec": spec}), &mut errors);
        errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn gangs_are_not_preempted_as_one_yet() {
        let gated =
            json!({"name": "a", "disruptionMode": "PodGroup", "priority": 7, "priorityClassName": "high"});
        let mut group = json!({"spec": gated});
        PodGroup.prepare_create(&mut group);
        assert_eq!(group, json!({"spec": {"name": "a"}}));
        let mut workload = json!({"spec": {"podGroupTemplates": [gated]}});
        Workload.prepare_create(&mut workload);
        assert_eq!(workload, json!({"spec": {"podGroupTemplates": [{"name": "a"}]}}));
    }

    #[test]
    fn a_group_has_one_policy_and_keeps_it() {
        let gang = |least: i64| json!({"schedulingPolicy": {"gang": {"minCount": least}}});
        assert!(faults(&PodGroup, gang(1)).is_empty());
        assert!(faults(&PodGroup, json!({"schedulingPolicy": {"basic": {}}})).is_empty());
        let few = "spec.schedulingPolicy.gang.minCount: Invalid value: 0: must be greater than or equal to 1";
        assert_eq!(faults(&PodGroup, gang(0)), [few]);
        let both = json!({"schedulingPolicy": {"basic": {}, "gang": {"minCount": 1}}});
        assert!(faults(&PodGroup, both)[0].contains("must specify exactly one of"));
        assert!(faults(&PodGroup, json!({"schedulingPolicy": {}}))[0].contains("must specify one of"));
        let in_racks = |constraints: Value| {
            let mut spec = gang(1);
            spec["schedulingConstraints"] = json!({"topology": constraints});
            faults(&PodGroup, spec)
        };
        assert!(in_racks(json!([{"key": "example.com/rack"}])).is_empty());
        let place = "spec.schedulingConstraints.topology";
        assert!(
            in_racks(json!([{"key": "a"}, {"key": "b"}]))[0].starts_with(&format!("{place}: Too many: 2"))
        );
        assert_eq!(in_racks(json!([{"key": ""}])), [format!("{place}[0].key: Required value")]);
        assert!(
            in_racks(json!([{"key": "-"}]))[0].starts_with(&format!("{place}[0].key: Invalid value: \"-\""))
        );
        let mut spec = gang(1);
        spec["disruptionMode"] = "Node".into();
        assert!(faults(&PodGroup, spec)[0].starts_with("spec.disruptionMode: Unsupported value: \"Node\""));
        let mut errors = FieldErrors::new();
        PodGroup.validate_update(&json!({"spec": gang(2)}), &json!({"spec": gang(1)}), &mut errors);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn a_workload_has_one_to_eight_templates_of_different_names() {
        let template = |name: &str| json!({"name": name, "schedulingPolicy": {"basic": {}}});
        let of = |names: &[&str]| json!({"podGroupTemplates": names.iter().map(|n| template(n)).collect::<Vec<_>>()});
        assert!(faults(&Workload, of(&["a", "b"])).is_empty());
        assert!(faults(&Workload, of(&[]))[0].starts_with("spec.podGroupTemplates: Required value"));
        assert!(
            faults(&Workload, of(&["a", "a"]))[0].starts_with("spec.podGroupTemplates[1]: Duplicate value")
        );
        assert!(faults(&Workload, of(&["a"; 9]))[0].starts_with("spec.podGroupTemplates: Too many"));
        assert!(
            faults(&Workload, of(&["A"]))[0].starts_with("spec.podGroupTemplates[0].name: Invalid value")
        );
    }
}
