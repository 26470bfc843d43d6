//! Requests, limits and claims (`validateResourceRequirements`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain, qualified_name};

use super::super::check::*;

/// Whose resources they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Scope {
    Container,
    Pod,
}

const WHOLE: &[&str] = &[
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Whether the name has no domain, or one of the project's own.
pub(in super::super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is a device or the like that someone outside the project has named.
pub(in super::super) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && name.split_once('/').is_some_and(|(domain, rest)| {
            // What a quota for it would be called must be a name too.
            qualified_name(&format!("requests.{domain}/{rest}")).is_empty()
        })
}

pub(in super::super) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether more of it may be promised than there is.
pub(in super::super) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A resource's name as such (`validateResourceName`); whether it is good.
pub(in super::super) fn resource_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) -> bool {
    let found = qualified_name(name);
    let mut good = found.is_empty();
    faults(found, name, path, errors);
    if good && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
        good = false;
    }
    good
}

/// `pkg/apis/core/helper/helpers.go`, `IsStandardResourceName`.
fn is_standard(name: &str) -> bool {
    is_standard_quota(name) || matches!(name, "storage" | "pods") || is_huge_page(name)
}

/// `IsStandardQuotaResourceName`.
pub(in super::super) fn is_standard_quota(name: &str) -> bool {
    WHOLE.contains(&name)
        || matches!(name, "cpu" | "memory" | "ephemeral-storage")
        || matches!(name, "limits.cpu" | "limits.memory" | "limits.ephemeral-storage")
        || matches!(
            name,
            "requests.cpu" | "requests.memory" | "requests.storage" | "requests.ephemeral-storage"
        )
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// A resource that a container can have.
pub(in super::super) fn container_resource(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    // The common ones need no look at their letters.
    if matches!(name, "cpu" | "memory" | "ephemeral-storage") {
        return;
    }
    resource_name(name, path, errors);
    if !name.contains('/') {
        if !is_huge_page(name) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn pod_resource(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if matches!(name, "cpu" | "memory") || is_huge_page(name) {
        return;
    }
    if resource_name(name, path, errors) {
        errors.not_supported(path, name, &["cpu", "memory"]);
    }
}

/// An amount is not negative, and whole if there are no parts of the thing (`ValidateResourceQuantityValue`).
pub(in super::super) fn amount(name: &str, value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let n = quantity(value);
    if n.is_negative() {
        errors.invalid(path, value.clone(), NEGATIVE);
    }
    if (WHOLE.contains(&name) || is_extended(name)) && n.millis() % 1000 != 0 {
        errors.invalid(path, value.clone(), "must be an integer");
    }
}

fn huge_page(name: &str, value: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let size = name.strip_prefix("hugepages-").and_then(|s| s.parse::<types::Quantity>().ok());
    let (size, n) = (size.map_or(0, types::Quantity::units), quantity(value).units());
    if size <= 0 || n % size != 0 {
        let shown = text_of(value);
        let why = format!("{shown} is not positive integer multiple of {name}");
        errors.invalid(path, shown, &why);
    }
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Checks what a container or pod asks for.
pub(in super::super) fn validate(
    given: &Value,
    scope: Scope,
    pod: &Value,
    path: &Path<'_>,
    errors: &mut FieldErrors,
) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let (mut computes, mut huge) = (false, false);
    let name_rule = if scope == Scope::Pod { pod_resource } else { container_resource };
    let mut look = |name: &str, value: &Value, path: &Path<'_>, errors: &mut FieldErrors| {
        name_rule(name, path, errors);
        amount(name, value, path, errors);
        computes |= matches!(name, "cpu" | "memory");
        if is_huge_page(name) {
            huge = true;
            huge_page(name, value, path, errors);
        }
    };
    for (name, value) in entries(given, "limits") {
        look(name, value, &limits.key(name), errors);
    }
    for (name, value) in entries(given, "requests") {
        let path = requests.key(name);
        look(name, value, &path, errors);
        match given.get("limits").and_then(|l| l.get(name)) {
            Some(limit) => {
                let (n, most) = (quantity(value), quantity(limit));
                let limit = text_of(limit);
                if n != most && !may_overcommit(name) {
                    let why = format!("must be equal to {name} limit of {limit}");
                    errors.invalid(&requests, value.clone(), &why);
                } else if n > most {
                    let why = format!("must be less than or equal to {name} limit of {limit}");
                    errors.invalid(&requests, value.clone(), &why);
                }
            }
            None if !may_overcommit(name) => {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            None => {}
        }
    }
    if huge && !computes {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    claims(given, pod, &path.child("claims"), errors);
}

fn claims(given: &Value, pod: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    for (i, claim) in list(given, "claims").enumerate() {
        let path = path.index(i);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let before = || list(given, "claims").take(i).filter(|c| text(c, "name") == name);
        if before().any(|c| text(c, "request").is_empty()) || (request.is_empty() && before().count() > 0) {
            errors.duplicate(&path, name);
        } else if !request.is_empty() {
            name_is(request, dns_label, &path.child("request"), errors);
            if before().any(|c| text(c, "request") == request) {
                errors.duplicate(&path, format!("{name}/{request}"));
            }
        }
        if !list(pod, "resourceClaims").any(|c| text(c, "name") == name) {
            let mut known: Vec<&str> =
                list(pod, "resourceClaims").map(|c| text(c, "name")).filter(|n| !n.is_empty()).collect();
            known.sort_unstable();
            known.dedup();
            let mut why = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if known.is_empty() {
                why.push_str(" which is empty");
            } else {
                why = format!("{why}: {}", known.join(", "));
            }
            errors.not_found_among(&path, name, &why);
        }
    }
}

/// The claims that a pod brings for its containers (`validatePodResourceClaims`).
pub(super) fn pod_claims(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let path = path.child("resourceClaims");
    for (i, claim) in list(spec, "resourceClaims").enumerate() {
        let path = path.index(i);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if repeats(list(spec, "resourceClaims").take(i).map(|c| text(c, "name")), name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            name_is(name, dns_label, &path.child("name"), errors);
        }
        match (has(claim, "resourceClaimName"), has(claim, "resourceClaimTemplateName")) {
            (true, true) => errors.invalid(
                &path,
                claim.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => errors.invalid(
                &path,
                claim.clone(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = claim.get(field).and_then(Value::as_str) {
                name_is(name, dns_subdomain, &path.child(field), errors);
            }
        }
    }
}

/// What the pod as a whole asks for (`validatePodResources`).
pub(super) fn pod_level(spec: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(given) = get(spec, "resources") else { return };
    let path = path.child("resources");
    if has(given, "claims") {
        errors.forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    validate(given, Scope::Pod, spec, &path, errors);
    let requests = path.child("requests");
    for (name, sum) in super::super::pod::container_resources(spec, "requests") {
        let whole = given.get("requests").and_then(|r| r.get(&name));
        // What the pod does not name is not held against it.
        if let Some(whole) = whole.filter(|w| sum > quantity(w)) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests.key(&name), whole.clone(), &why);
        }
    }
    let containers = path.child("containers");
    for (i, container) in list(spec, "containers").enumerate() {
        let limits = container.get("resources").map(|r| entries(r, "limits")).into_iter().flatten();
        for (name, limit) in limits {
            let Some(most) = given.get("limits").and_then(|l| l.get(name)) else { continue };
            if quantity(limit) > quantity(most) {
                let why = format!("must be less than or equal to pod limits of {}", text_of(most));
                errors.invalid(&containers.index(i).key(name).child("limits"), limit.clone(), &why);
            }
        }
    }
}
