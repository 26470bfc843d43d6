//! Nodes, and the small cluster-wide kinds that go with them (kubernetes/kubernetes,
//! `pkg/apis/core/validation/validation.go`, `ValidateNode`; `pkg/apis/{coordination,node,scheduling}/validation`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_label, ensure_object, label_value, set_default};

use super::check::*;
use super::pod_spec::resources::amount;
use super::pod_spec::scheduling::{TAINT_EFFECTS, tolerations};
use super::pod_spec::{validate_overhead, warnings::deprecated_label};
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");

pub(super) struct Node;

impl Node {
    fn validate_taints(&self, spec: &Value, errors: &mut FieldErrors) {
        // Upstream looks for them below the metadata.
        let meta = Path::new("metadata");
        let path = meta.child("taints");
        for (i, taint) in list(spec, "taints").enumerate() {
            let path = path.index(i);
            qualified(text(taint, "key"), &path.child("key"), errors);
            let found = label_value(text(taint, "value"));
            if !found.is_empty() {
                errors.invalid(&path.child("value"), text(taint, "value"), &found.join(";"));
            }
            required_one_of(taint, "effect", &path, TAINT_EFFECTS, errors);
            let of = |t: &Value| (text(t, "key").to_owned(), text(t, "effect").to_owned());
            if list(spec, "taints").take(i).any(|other| of(other) == of(taint)) {
                let why = "taints must be unique by key and effect pair";
                errors.duplicate_of(&path, taint.clone(), why);
            }
        }
    }

    fn validate_amounts(&self, status: &Value, errors: &mut FieldErrors) {
        let root = Path::new("status");
        for field in ["capacity", "allocatable"] {
            let path = root.child(field);
            for (name, value) in entries(status, field) {
                amount(name, value, &path.child(name), errors);
            }
        }
    }
}

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        // The first of the ranges is also given by itself.
        let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
        let one = text(spec, "podCIDR").to_owned();
        let first = texts(spec, "podCIDRs").next().map(str::to_owned);
        match first {
            None if !one.is_empty() => spec["podCIDRs"] = Value::Array(vec![one.into()]),
            Some(first) if one.is_empty() => spec["podCIDR"] = first.into(),
            _ => {}
        }
    }

    /// A node registers itself with its status (`pkg/registry/core/node/strategy.go`).
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        self.validate_taints(spec, errors);
        self.validate_amounts(&object["status"], errors);
        let path = SPEC.child("podCIDRs");
        let mut ips = Vec::new();
        for (i, range) in texts(spec, "podCIDRs").enumerate() {
            ips.extend(cidr(range, &path.index(i), errors).map(|(ip, _)| ip));
        }
        let n = count(spec, "podCIDRs");
        if n > 1 && (n > 2 || !is_dual_stack(&ips)) {
            let why = "may specify no more than one CIDR for each IP family";
            errors.invalid(&path, spec["podCIDRs"].clone(), why);
        }
        for (i, range) in texts(spec, "podCIDRs").enumerate() {
            if repeats(texts(spec, "podCIDRs").take(i), range) {
                errors.duplicate(&path.index(i), range);
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let (spec, before) = (&new["spec"], &old["spec"]);
        self.validate_amounts(&new["status"], errors);
        let addresses: Vec<&Value> = list(&new["status"], "addresses").collect();
        let status = Path::new("status");
        for (i, address) in addresses.iter().enumerate() {
            if addresses[..i].contains(address) {
                errors.duplicate(&status.child("addresses").index(i), (*address).clone());
            }
        }
        if count(before, "podCIDRs") > 0 && !same_field(spec, before, "podCIDRs") {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&SPEC.child("podCIDRs"), why);
        }
        if !text(before, "providerID").is_empty() && text(before, "providerID") != text(spec, "providerID") {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&SPEC.child("providerID"), why);
        }
        self.validate_taints(spec, errors);
        if text(spec, "externalID") != text(before, "externalID") {
            errors.forbidden(&SPEC.child("externalID"), "may not be updated");
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_update(new, old, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let spec = &object["spec"];
        let mut found = Vec::new();
        if has(spec, "configSource") {
            found.push("spec.configSource: the feature is no longer supported".to_owned());
        }
        if !text(spec, "externalID").is_empty() {
            found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
        }
        // A node gives its labels under their old names too; only those it is tainted by are worth a word.
        found
            .extend(list(spec, "taints").filter_map(|t| deprecated_label(text(t, "key"))).map(str::to_owned));
        found
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }

    fn field(&self, object: &Value, _name: &str) -> String {
        (object["spec"]["unschedulable"] == true).to_string()
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::NODE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::node_cells(object, now)
    }
}

pub(super) struct Lease;

impl Strategy for Lease {
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        if let Some(seconds) = spec.get("leaseDurationSeconds").and_then(Value::as_i64).filter(|s| *s <= 0) {
            errors.invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        if let Some(n) = spec.get("leaseTransitions").and_then(Value::as_i64).filter(|n| *n < 0) {
            let why = "must be greater than or equal to 0";
            errors.invalid(&SPEC.child("leaseTransitions"), n, why);
        }
        if let Some(strategy) = spec.get("strategy").and_then(Value::as_str) {
            coordinated(strategy, &SPEC.child("strategy"), errors);
        }
        if let Some(holder) = spec.get("preferredHolder").and_then(Value::as_str)
            && !holder.is_empty()
            && text(spec, "strategy").is_empty()
        {
            let why = "may only be specified if `strategy` is defined";
            errors.forbidden(&SPEC.child("preferredHolder"), why);
        }
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::LEASE
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::lease_cells(object, now)
    }
}

/// How a leader is chosen: in the project's own way, or in one with a domain in front.
fn coordinated(strategy: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if strategy.contains('/') {
        qualified(strategy, path, errors);
    } else if strategy != "OldestEmulationVersion" {
        errors.not_supported(path, strategy, &["OldestEmulationVersion"]);
    }
}

pub(super) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let handler = text(object, "handler");
        name_is(handler, dns_label, &Path::new("handler"), errors);
        if let Some(fixed) = get(object, "overhead").and_then(|o| get(o, "podFixed")) {
            let path = Path::new("overhead");
            validate_overhead(fixed, &path.child("podFixed"), errors);
        }
        if let Some(scheduling) = get(object, "scheduling") {
            let path = Path::new("scheduling");
            types::validate_labels(scheduling.get("nodeSelector"), &path.child("nodeSelector"), errors);
            tolerations(scheduling, &path, errors);
            let all: Vec<&Value> = list(scheduling, "tolerations").collect();
            let path = path.child("tolerations");
            for (i, t) in all.iter().enumerate().filter(|(i, t)| all[..*i].contains(t)) {
                errors.duplicate(&path.index(i), (*t).clone());
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if new["handler"] != old["handler"] {
            errors.immutable(&Path::new("handler"), &new["handler"]);
        }
        self.validate_create(new, errors);
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let selector = get(object, "scheduling").map(|s| entries(s, "nodeSelector"));
        let found = selector.into_iter().flatten().filter_map(|(key, _)| {
            let why = deprecated_label(key)?.split_once(" is ")?.1;
            Some(format!("scheduling.nodeSelector[{key}]: {why}"))
        });
        found.collect()
    }

    fn columns(&self) -> &'static [Column] {
        table::RUNTIME_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::runtime_class_cells(object, now)
    }

    fn has_generation(&self) -> bool {
        false
    }
}

pub(super) struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
        ensure_object(object, "metadata");
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        const HIGHEST: i64 = 1_000_000_000;
        let (name, value) = (text(&object["metadata"], "name"), int(object, "value"));
        let known = [("system-node-critical", 2 * HIGHEST + 1000), ("system-cluster-critical", 2 * HIGHEST)];
        if name.starts_with("system-") {
            let meta = Path::new("metadata");
            let path = meta.child("name");
            match known.iter().find(|(known, _)| *known == name) {
                Some((_, wanted)) if *wanted == value && !flag(object, "globalDefault") => {}
                Some((_, wanted)) if *wanted != value => {
                    let why = format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: value of {name} PriorityClass must be {wanted}"
                    );
                    errors.forbidden(&path, &why);
                }
                Some(_) => {
                    let why = format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: globalDefault of {name} PriorityClass must be false"
                    );
                    errors.forbidden(&path, &why);
                }
                None => {
                    let why = format!(
                        "priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"
                    );
                    errors.forbidden(&path, &why);
                }
            }
        } else if value > HIGHEST {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.forbidden(&Path::new("value"), &why);
        }
        if has(object, "preemptionPolicy") {
            match text(object, "preemptionPolicy") {
                "" => errors.required(&Path::new("preemptionPolicy"), ""),
                "PreemptLowerPriority" | "Never" => {}
                other => errors.not_supported(
                    &Path::new("preemptionPolicy"),
                    other,
                    &["PreemptLowerPriority", "Never"],
                ),
            }
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        if int(new, "value") != int(old, "value") {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        if new["preemptionPolicy"] != old["preemptionPolicy"] {
            errors.immutable(&Path::new("preemptionPolicy"), &new["preemptionPolicy"]);
        }
    }

    fn columns(&self) -> &'static [Column] {
        table::PRIORITY_CLASS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::priority_class_cells(object, now)
    }
}
