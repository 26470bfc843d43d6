//! What may change in a pod, and where (kubernetes/kubernetes, `pkg/apis/core/validation/validation.go`,
//! `ValidatePodUpdate`, `ValidatePodStatusUpdate`, `ValidatePodEphemeralContainersUpdate`, `ValidatePodResize`).

use serde_json::Value;
use types::{FieldErrors, Path, at, dns_subdomain};

use super::check::*;
use super::pod::qos_class;
use super::pod_spec::{self, is_mirror, scheduling, validate_annotations_update};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

/// A change to the pod itself.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    pod_spec::validate_pod(new, errors);
    validate_annotations_update(new, old, errors);
    let (spec, before) = (&new["spec"], &old["spec"]);
    for field in ["containers", "initContainers"] {
        let path = SPEC.child(field);
        if count(spec, field) != count(before, field) {
            return errors.forbidden(&path, "pod updates may not add or remove containers");
        }
        for (i, container) in list(spec, field).enumerate() {
            let path = path.index(i);
            required(container, "image", &path, errors);
            let image = text(container, "image");
            if image.trim() != image {
                errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
            }
        }
    }
    if !validate_deadline(spec, before, errors) {
        return;
    }
    validate_tolerations(spec, before, errors);
    validate_gates(spec, before, errors);
    let gated = count(before, "schedulingGates") > 0;
    if gated {
        validate_gated(spec, before, errors);
    }
    if spec != before && changes_fixed(spec, before, gated) {
        let why = format!(
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
             previously negative)\n{}",
            diff(before, &with_free_fields(spec, before, gated)),
        );
        errors.forbidden(&SPEC, &why);
    }
}

/// Sooner is always possible. Tells whether to go on.
fn validate_deadline(spec: &Value, before: &Value, errors: &mut FieldErrors) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    let field = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (field(spec), field(before)) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            errors.invalid(&path, n, "must be between 0 and 2147483647, inclusive");
            return false;
        }
        (Some(n), Some(old)) if old < n => {
            errors.invalid(&path, n, "must be less than or equal to previous value");
            return false;
        }
        (None, Some(_)) => {
            errors.invalid(&path, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    true
}

fn validate_tolerations(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    let alike = |a: &Value, b: &Value| {
        ["key", "operator", "value", "effect"].iter().all(|f| text(a, f) == text(b, f))
    };
    let kept = |old: &Value| list(spec, "tolerations").any(|new| alike(new, old));
    if !list(before, "tolerations").all(kept) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        return errors.forbidden(&SPEC.child("tolerations"), why);
    }
    if spec.get("tolerations") != before.get("tolerations") {
        scheduling::tolerations(spec, &SPEC, errors);
    }
}

fn validate_gates(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    let path = SPEC.child("schedulingGates");
    for (i, gate) in list(spec, "schedulingGates").enumerate() {
        let name = text(gate, "name");
        if !list(before, "schedulingGates").any(|g| text(g, "name") == name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.index(i).child("name"), &why);
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// A pod that is held back may still be narrowed.
fn validate_gated(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    if entries(before, "nodeSelector")
        .any(|(k, v)| spec.get("nodeSelector").and_then(|s| s.get(k)) != Some(v))
    {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&SPEC.child("nodeSelector"), spec["nodeSelector"].clone(), why);
    }
    let terms = |spec: &Value| -> Vec<Value> {
        let found = at(spec, &["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"]);
        found.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let (new, old) = (terms(spec), terms(before));
    let path = SPEC.child("affinity");
    let path = path.child("nodeAffinity");
    let path = path.child(REQUIRED);
    let path = path.child("nodeSelectorTerms");
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&path, new, why);
    }
    let extends = |new: &Value, old: &Value, field: &str| {
        count(new, field) >= count(old, field)
            && list(old, field).zip(list(new, field)).all(|(a, b)| same(Some(a), Some(b)))
    };
    for (i, (new, old)) in new.iter().zip(&old).enumerate() {
        let nothing = |v: &Value| count(v, "matchExpressions") + count(v, "matchFields") == 0;
        let fine = extends(new, old, "matchExpressions")
            && extends(new, old, "matchFields")
            && (!nothing(old) || nothing(new));
        if !fine {
            let why = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(i), new.clone(), why);
        }
    }
}

fn may_change(field: &str, spec: &Value, before: &Value, gated: bool) -> bool {
    match field {
        "activeDeadlineSeconds" | "tolerations" | "schedulingGates" => true,
        "terminationGracePeriodSeconds" => int(before, field) < 0 && int(spec, field) == 1,
        "nodeSelector" => gated,
        _ => false,
    }
}

/// Whether a field changes that may not.
fn changes_fixed(spec: &Value, before: &Value, gated: bool) -> bool {
    let names = spec.as_object().into_iter().chain(before.as_object()).flat_map(|m| m.keys());
    let mut changed = names.filter(|field| !may_change(field, spec, before, gated));
    changed.any(|field| match field.as_str() {
        "containers" | "initContainers" => {
            list(spec, field).zip(list(before, field)).any(|(new, old)| changes_beyond(new, old, "image"))
        }
        "affinity" if gated => {
            let empty = Value::Null;
            changes_beyond(
                spec.get("affinity").unwrap_or(&empty),
                before.get("affinity").unwrap_or(&empty),
                "nodeAffinity",
            )
        }
        field => !same_field(spec, before, field),
    })
}

fn changes_beyond(new: &Value, old: &Value, free: &str) -> bool {
    let names = new.as_object().into_iter().chain(old.as_object()).flat_map(|m| m.keys());
    names.filter(|field| *field != free).any(|field| !same_field(new, old, field))
}

/// The new spec with the old values of everything that may change; for saying what else does.
fn with_free_fields(spec: &Value, before: &Value, gated: bool) -> Value {
    let mut shown = spec.clone();
    let free: Vec<String> = shown
        .as_object()
        .into_iter()
        .chain(before.as_object())
        .flat_map(|m| m.keys())
        .filter(|field| may_change(field, spec, before, gated))
        .cloned()
        .collect();
    for field in free {
        match before.get(&field) {
            Some(value) => shown[&field] = value.clone(),
            None => drop(types::object(&mut shown).remove(&field)),
        }
    }
    for field in ["containers", "initContainers"] {
        let containers = shown.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, old) in containers.zip(list(before, field)) {
            container["image"] = old["image"].clone();
        }
    }
    shown
}

/// A change to a pod's status.
pub(super) fn validate_status(new: &Value, old: &Value, errors: &mut FieldErrors) {
    validate_annotations_update(new, old, errors);
    let (status, before) = (&new["status"], &old["status"]);
    // Upstream looks for the conditions below the metadata.
    let meta = Path::new("metadata");
    let conditions = meta.child("conditions");
    for (i, condition) in list(status, "conditions").enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            qualified(kind, &conditions.index(i).child("Type"), errors);
        }
    }
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(before, "nominatedNodeName") {
        name_is(nominated, dns_subdomain, &STATUS.child("nominatedNodeName"), errors);
    }
    if has(before, "qosClass") {
        immutable(status, before, "qosClass", &STATUS, errors);
    }
    for field in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        validate_states(status, before, field, &old["spec"], errors);
    }
    validate_claim_statuses(status, &new["spec"], errors);
    validate_ips(status, errors);
}

/// A container that is over for good stays so.
fn validate_states(status: &Value, before: &Value, field: &str, spec: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child(field);
    let pod_policy = match field {
        "ephemeralContainerStatuses" => "Never",
        _ => text(spec, "restartPolicy"),
    };
    for (i, old) in list(before, field).enumerate() {
        let Some(ended) = at(old, &["state", "terminated"]) else { continue };
        let name = text(old, "name");
        let containers = list(spec, "containers").chain(list(spec, "initContainers"));
        let own = containers.into_iter().find(|c| text(c, "name") == name);
        let policy = own.and_then(|c| get(c, "restartPolicy")).and_then(Value::as_str).unwrap_or(pod_policy);
        let by_rule = own.is_some_and(|c| count(c, "restartPolicyRules") > 0);
        // One container's rule may have every other one started again.
        let by_others = list(spec, "containers")
            .chain(list(spec, "initContainers"))
            .flat_map(|c| list(c, "restartPolicyRules"))
            .any(|rule| text(rule, "action") == "RestartAllContainers");
        let may_restart = policy == "Always"
            || by_rule
            || by_others
            || (int(ended, "exitCode") != 0 && policy == "OnFailure");
        if may_restart {
            continue;
        }
        let revived = |new: &Value| text(new, "name") == name && at(new, &["state", "terminated"]).is_none();
        if list(status, field).any(revived) {
            let why = "may not be transitioned to non-terminated state";
            errors.forbidden(&path.index(i).child("state"), why);
        }
    }
}

fn validate_claim_statuses(status: &Value, spec: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child("resourceClaimStatuses");
    for (i, claim) in list(status, "resourceClaimStatuses").enumerate() {
        let path = path.index(i);
        let path = path.child("name");
        let name = text(claim, "name");
        if !list(spec, "resourceClaims").any(|c| text(c, "name") == name) {
            errors.invalid(&path, name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if repeats(list(status, "resourceClaimStatuses").take(i).map(|c| text(c, "name")), name) {
            errors.duplicate(&path, name);
        }
        if let Some(name) = claim.get("resourceClaimName").and_then(Value::as_str) {
            name_is(name, dns_subdomain, &path, errors);
        }
    }
}

fn validate_ips(status: &Value, errors: &mut FieldErrors) {
    for field in ["podIPs", "hostIPs"] {
        let path = STATUS.child(field);
        if count(status, field) == 0 {
            continue;
        }
        if field == "hostIPs" && text(&status[field][0], "ip") != text(status, "hostIP") {
            let path = path.index(0);
            errors.invalid(&path.child("ip"), text(&status[field][0], "ip"), "must be equal to `hostIP`");
        }
        let mut ips = Vec::new();
        for (i, entry) in list(status, field).enumerate() {
            ips.extend(ip(text(entry, "ip"), &path.index(i), errors));
        }
        if count(status, field) > 1 && ips.len() == count(status, field) {
            if !is_dual_stack(&ips) || ips.len() > 2 {
                let why = "may specify no more than one IP for each IP family";
                errors.invalid(&path, status[field].clone(), why);
            }
            for (i, entry) in list(status, field).enumerate() {
                if repeats(list(status, field).take(i).map(|e| text(e, "ip")), text(entry, "ip")) {
                    errors.duplicate(&path.index(i), entry.clone());
                }
            }
        }
    }
}

/// A change to a pod's ephemeral containers, which is all that differs between the two.
pub fn validate_ephemeral_containers_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    if is_mirror(old) {
        return errors.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
    }
    pod_spec::validate_pod(new, errors);
    let path = SPEC.child("ephemeralContainers");
    for before in list(&old["spec"], "ephemeralContainers") {
        let name = text(before, "name");
        match list(&new["spec"], "ephemeralContainers").find(|c| text(c, "name") == name) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.forbidden(&path, &why);
            }
            Some(after) if !same(Some(after), Some(before)) => {
                let why = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    diff(before, after)
                );
                errors.forbidden(&path, &why);
            }
            Some(_) => {}
        }
    }
}

/// A change to the resources of a pod's containers, which is all that differs between the two.
pub fn validate_pod_resize(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let root = Path::new("");
    if is_mirror(old) {
        return errors.forbidden(&root, "static pods cannot be resized");
    }
    if at(old, &["spec", "os", "name"]).is_some_and(|os| os == "windows") {
        return errors.forbidden(&root, "windows pods cannot be resized");
    }
    pod_spec::validate_pod(new, errors);
    let class = qos_class(&new["spec"]);
    if qos_class(&old["spec"]) != class {
        errors.invalid(&SPEC, class, "Pod QOS Class may not change as a result of resizing");
    }
    if has(&old["spec"], "resources") || has(&new["spec"], "resources") {
        // What is said for the pod as a whole.
        let (after, before) = (&new["spec"], &old["spec"]);
        no_less(after, before, &SPEC, errors);
        if changes_other_resources(after, before) {
            errors.forbidden(&SPEC, "only cpu and memory resources of the pod are mutable");
        }
    }
    for field in ["initContainers", "containers"] {
        let path = SPEC.child(field);
        for (i, (after, before)) in list(&new["spec"], field).zip(list(&old["spec"], field)).enumerate() {
            let sidecar = field == "initContainers";
            if sidecar && text(before, "restartPolicy") != "Always" {
                if !same_field(after, before, "resources") {
                    let why = "resources for non-sidecar init containers are immutable";
                    errors.forbidden(&SPEC, why);
                }
                continue;
            }
            no_less(after, before, &path.index(i), errors);
            if changes_other_resources(after, before) {
                let why = if sidecar {
                    "only cpu and memory resources for sidecar containers are mutable"
                } else {
                    "only cpu and memory resources are mutable"
                };
                errors.forbidden(&SPEC, why);
            }
        }
    }
}

/// What was asked for once may be asked for in other amounts only.
fn no_less(new: &Value, old: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for kind in ["requests", "limits"] {
        let of = |c: &Value| at(c, &["resources", kind]).cloned().unwrap_or_default();
        let (was, is) = (of(old), of(new));
        let kept = |name: &String| is.get(name).is_some();
        if !was.as_object().is_none_or(|m| m.keys().all(kept)) {
            let what = kind.trim_end_matches('s');
            let why = format!("resource {what}s cannot be removed");
            errors.forbidden(&path.child("resources").child(kind), &why);
        }
    }
}

fn changes_other_resources(new: &Value, old: &Value) -> bool {
    ["requests", "limits"].iter().any(|kind| {
        let of = |c: &Value| at(c, &["resources", kind]).cloned().unwrap_or_default();
        let (was, is) = (of(old), of(new));
        let names = was.as_object().into_iter().chain(is.as_object()).flat_map(|m| m.keys());
        names.filter(|n| !matches!(n.as_str(), "cpu" | "memory")).any(|n| is.get(n) != was.get(n))
    }) || at(new, &["resources", "claims"]) != at(old, &["resources", "claims"])
}

#[cfg(test)]
mod tests {
    use super::super::pod::Pod;
    use super::*;
    use crate::strategy::Strategy;
    use serde_json::json;

    fn pod() -> Value {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
            "tolerations": [{"key": "a", "operator": "Exists"}], "nodeSelector": {"a": "b"},
            "containers": [{"name": "a", "image": "1", "resources": {"requests": {"cpu": "1"}}}]}});
        Pod.default(&mut pod);
        Pod.prepare_create(&mut pod);
        pod
    }

    fn refused(change: impl Fn(&mut Value)) -> String {
        let (old, mut new) = (pod(), pod());
        change(&mut new);
        let mut errors = FieldErrors::new();
        validate(&new, &old, &mut errors);
        if errors.is_empty() { String::new() } else { errors.to_string() }
    }

    #[test]
    fn little_of_a_pod_may_change() {
        assert_eq!(refused(|p| p["spec"]["containers"][0]["image"] = "2".into()), "");
        assert_eq!(refused(|p| p["spec"]["activeDeadlineSeconds"] = 5.into()), "");
        assert_eq!(refused(|p| p["metadata"]["labels"] = json!({"a": "b"})), "");
        // What a Go client drops on its way.
        assert_eq!(refused(|p| p["spec"]["hostNetwork"] = false.into()), "");
        let more = json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]);
        assert_eq!(refused(|p| p["spec"]["tolerations"] = more.clone()), "");
        let fewer = refused(|p| p["spec"]["tolerations"] = json!([]));
        assert!(fewer.contains("spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"), "{fewer}");
        let other = refused(|p| p["spec"]["containers"][0]["command"] = json!(["x"]));
        assert!(other.starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"), "{other}");
        assert!(other.ends_with("\n+ containers[0].command: [\"x\"]\n"), "{other}");
        assert!(refused(|p| p["spec"]["nodeSelector"]["c"] = "d".into()).starts_with("spec: Forbidden"));
        let two = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]);
        let added = refused(|p| p["spec"]["containers"] = two.clone());
        assert!(added.contains("pod updates may not add or remove containers"), "{added}");
    }

    #[test]
    fn a_pod_that_is_held_back_may_be_narrowed() {
        let gated = |selector: Value| {
            let mut pod = pod();
            pod["spec"]["schedulingGates"] = json!([{"name": "g"}]);
            pod["spec"]["nodeSelector"] = selector;
            pod
        };
        let mut errors = FieldErrors::new();
        validate(&gated(json!({"a": "b", "c": "d"})), &gated(json!({"a": "b"})), &mut errors);
        assert!(errors.is_empty(), "{errors}");
        validate(&gated(json!({"c": "d"})), &gated(json!({"a": "b"})), &mut errors);
        assert!(errors.to_string().contains("only additions to spec.nodeSelector are allowed"), "{errors}");
    }

    #[test]
    fn resizing_keeps_the_class_and_what_was_asked_for() {
        let resized = |requests: Value| {
            let (old, mut new) = (pod(), pod());
            new["spec"]["containers"][0]["resources"] = json!({"requests": requests});
            let mut errors = FieldErrors::new();
            validate_pod_resize(&new, &old, &mut errors);
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
        };
        assert!(resized(json!({"cpu": "2"})).is_empty());
        assert_eq!(
            resized(json!({})),
            [
                "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ]
        );
        assert_eq!(
            resized(json!({"cpu": "1", "ephemeral-storage": "1"})),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
    }

    #[test]
    fn a_pod_is_resized_as_a_whole() {
        let resized = |after: Value| {
            let of = |resources: Value| {
                let mut pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
                    "resources": resources, "containers": [{"name": "a", "image": "1"}]}});
                Pod.default(&mut pod);
                Pod.prepare_create(&mut pod);
                pod
            };
            let old = of(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}));
            let mut errors = FieldErrors::new();
            validate_pod_resize(&of(after), &old, &mut errors);
            errors.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>()
        };
        let limits = json!({"memory": "3Gi", "cpu": "2"});
        assert!(resized(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": limits})).is_empty());
        assert_eq!(
            resized(json!({"requests": {"cpu": "1", "memory": "1Gi"}})),
            ["spec.resources.limits: Forbidden: resource limits cannot be removed"]
        );
        let pages = json!({"memory": "2Gi", "hugepages-2Mi": "2Mi"});
        let said = resized(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": pages}));
        assert!(
            said.contains(
                &"spec: Forbidden: only cpu and memory resources of the pod are mutable".to_owned()
            ),
            "{said:?}"
        );
    }

    #[test]
    fn what_is_over_stays_so() {
        let status = |state: Value| json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a"}]}, "status": {"containerStatuses": [{"name": "a", "state": state}]}});
        let mut errors = FieldErrors::new();
        let (over, runs) = (
            status(json!({"terminated": {"exitCode": 1}})),
            status(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})),
        );
        validate_status(&over, &runs, &mut errors);
        assert!(errors.is_empty(), "{errors}");
        validate_status(&runs, &over, &mut errors);
        assert_eq!(
            errors.to_string(),
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
        );
    }
}
