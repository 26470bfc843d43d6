//! Annotations that once were fields (`ValidatePodSpecificAnnotations`,
//! `validateSeccompAnnotationsAndFields`, `validateAppArmorAnnotationsAndFieldsMatchOnCreate`).

use serde_json::Value;
use types::{FieldErrors, Path, at};

use super::super::check::*;
use super::containers::each_container;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn of(owner: &Value) -> impl Iterator<Item = (&str, &str)> {
    let map = at(owner, &["metadata", "annotations"]).and_then(Value::as_object);
    map.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default()))
}

/// Whether it is a pod that the node runs by itself.
pub(in super::super) fn is_mirror(pod: &Value) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Checks the annotations of a pod or template by themselves.
pub(super) fn validate(owner: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let spec = &owner["spec"];
    for (key, value) in of(owner) {
        match key {
            MIRROR if text(spec, "nodeName").is_empty() => {
                let why = "must set spec.nodeName if mirror pod annotation is set";
                errors.invalid(&path.key(key), value, why);
            }
            DELETION_COST if !is_cost(value) => {
                errors.invalid(&path.key(key), value, "must be a 32bit integer");
            }
            SECCOMP_POD => seccomp_profile(value, &path.child(key), errors),
            _ => {}
        }
        if key.starts_with(SECCOMP) {
            seccomp_profile(value, &path.child(key), errors);
        }
        if let Some(container) = key.strip_prefix(APP_ARMOR) {
            let mut found = false;
            each_container(spec, path, |c, _| found |= text(c, "name") == container);
            if !found {
                errors.invalid(&path.key(key), container, "container not found");
            }
            if !value.is_empty()
                && !matches!(value, "runtime/default" | "unconfined")
                && !value.starts_with("localhost/")
            {
                let why = format!("invalid AppArmor profile name: {value:?}");
                errors.invalid(&path.key(key), value, &why);
            }
        }
    }
}

fn is_cost(value: &str) -> bool {
    // No plus sign and no leading zeros, as upstream has it.
    let digits = value.strip_prefix('-').unwrap_or(value);
    value.parse::<i32>().is_ok()
        && !digits.starts_with('+')
        && !value.starts_with('+')
        && (digits == "0" || !digits.starts_with('0'))
        && value != "-0"
}

fn seccomp_profile(value: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    match value {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match value.strip_prefix("localhost/") {
            Some(place) => descending_path(place, path, errors),
            None => errors.invalid(path, value, "must be a valid seccomp profile"),
        },
    }
}

/// Where annotation and field both say something, they must say the same.
pub(super) fn validate_match(owner: &Value, spec_path: &Path<'_>, errors: &mut FieldErrors) {
    if at(owner, &["metadata", "annotations"]).is_none() {
        return;
    }
    let spec = &owner["spec"];
    if let (Some(profile), Some(given)) =
        (at(spec, &["securityContext", "seccompProfile"]), annotation(owner, SECCOMP_POD))
    {
        agree("seccomp", given, profile, &spec_path.child("securityContext").child("seccompProfile"), errors);
    }
    each_container(spec, spec_path, |container, path| {
        let key = format!("{SECCOMP}{}", text(container, "name"));
        if let (Some(profile), Some(given)) =
            (at(container, &["securityContext", "seccompProfile"]), annotation(owner, &key))
        {
            agree("seccomp", given, profile, &path.child("securityContext").child("seccompProfile"), errors);
        }
    });
    if at(spec, &["os", "name"]) == Some(&Value::from("windows")) {
        return;
    }
    each_container(spec, spec_path, |container, path| {
        let profile = at(container, &["securityContext", "appArmorProfile"])
            .or(at(spec, &["securityContext", "appArmorProfile"]));
        let key = format!("{APP_ARMOR}{}", text(container, "name"));
        if let (Some(profile), Some(given)) = (profile, annotation(owner, &key)) {
            let path = path.child("securityContext");
            agree("apparmor", given, profile, &path.child("appArmorProfile"), errors);
        }
    });
}

fn agree(what: &str, given: &str, profile: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let type_differs = || format!("{what} type in annotation and field must match");
    match text(profile, "type") {
        "Unconfined" if given != "unconfined" => errors.forbidden(&path.child("type"), &type_differs()),
        "RuntimeDefault"
            if given != "runtime/default" && !(what == "seccomp" && given == "docker/default") =>
        {
            errors.forbidden(&path.child("type"), &type_differs());
        }
        "Localhost" => match given.strip_prefix("localhost/") {
            None => errors.forbidden(&path.child("type"), &type_differs()),
            Some(place) if place != text(profile, "localhostProfile") => {
                let why = format!("{what} profile in annotation and field must match");
                errors.forbidden(&path.child("localhostProfile"), &why);
            }
            Some(_) => {}
        },
        _ => {}
    }
}

/// Which annotations of a pod may not change.
pub(in super::super) fn validate_update(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let meta = Path::new("metadata");
    let path = meta.child("annotations");
    for (key, value) in of(old) {
        if annotation(new, key) == Some(value) {
            continue;
        }
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for (key, _) in of(new).filter(|(key, _)| annotation(old, key).is_none()) {
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
}
