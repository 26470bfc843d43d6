//! Who may look at devices that others have: only where the namespace says so (kubernetes/kubernetes,
//! `pkg/registry/resource/utils.go`, `AuthorizedForAdmin`).

use admission::Objects;
use registry::ResourceDef;
use serde_json::Value;
use types::{FieldErrors, Path};

use crate::state::Inner;

/// On a namespace: access for administrators may be asked for in it.
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Notes where an object asks for, or is given, what its namespace does not allow.
pub(crate) fn check(
    server: &Inner,
    def: &ResourceDef,
    namespace: &str,
    new: &Value,
    old: Option<&Value>,
    errors: &mut FieldErrors,
) {
    if &*def.gvk.group != "resource.k8s.io" {
        return;
    }
    let Some((list, place)) = wanted(new) else { return };
    // What was granted once stays so.
    if old.and_then(wanted).is_some_and(|(had, _)| had == list) {
        return;
    }
    let labels = server.get("namespaces", "", namespace);
    let labels = labels.as_ref().and_then(|n| types::at(n, &["metadata", "labels", LABEL]));
    if labels.and_then(Value::as_str) == Some("true") {
        return;
    }
    let why =
        format!("admin access to devices requires the `{LABEL}: true` label on the containing namespace");
    let field =
        if list == "requests" { "spec.devices.requests" } else { "status.allocation.devices.results" };
    errors.forbidden(&Path::new(field).index(place).child("adminAccess"), &why);
}

/// The first request that asks for it, or result that has it.
fn wanted(object: &Value) -> Option<(&'static str, usize)> {
    let is = |value: &Value| value["adminAccess"] == true || value["exactly"]["adminAccess"] == true;
    let first = |path: &[&str]| types::at(object, path)?.as_array()?.iter().position(is);
    if let Some(place) = first(&["status", "allocation", "devices", "results"]) {
        return Some(("results", place));
    }
    let spec =
        first(&["spec", "devices", "requests"]).or_else(|| first(&["spec", "spec", "devices", "requests"]));
    spec.map(|place| ("requests", place))
}
