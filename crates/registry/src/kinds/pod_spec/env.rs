//! Environment variables and what they are taken from (`ValidateEnv`, `ValidateEnvFrom`).

use serde_json::Value;
use types::{FieldErrors, Path, config_map_key, dns_label, dns_subdomain, env_var_name};

use super::super::check::*;

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn validate(container: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let vars = path.child("env");
    for (i, var) in list(container, "env").enumerate() {
        let path = vars.index(i);
        required_name(var, "name", env_var_name, &path, errors);
        if let Some(from) = get(var, "valueFrom") {
            value_from(from, text(var, "value"), &path.child("valueFrom"), errors);
        }
    }
    let sources = path.child("envFrom");
    for (i, source) in list(container, "envFrom").enumerate() {
        let path = sources.index(i);
        optional_name(source, "prefix", env_var_name, &path, errors);
        let mut kinds = 0;
        for kind in ["configMapRef", "secretRef"] {
            if let Some(given) = get(source, kind) {
                kinds += 1;
                required_name(given, "name", dns_subdomain, &path.child(kind), errors);
            }
        }
        match kinds {
            0 => errors.invalid(&sources, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&sources, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(from: &Value, value: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let mut kinds = 0;
    if let Some(field) = get(from, "fieldRef") {
        kinds += 1;
        field_ref(field, FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(resource) = get(from, "resourceFieldRef") {
        kinds += 1;
        resource_ref(resource, false, &path.child("resourceFieldRef"), errors);
    }
    for kind in ["configMapKeyRef", "secretKeyRef"] {
        let Some(given) = get(from, kind) else { continue };
        kinds += 1;
        let path = path.child(kind);
        name_is(text(given, "name"), dns_subdomain, &path.child("name"), errors);
        match text(given, "key") {
            "" => errors.required(&path.child("key"), ""),
            key => faults(config_map_key(key), key, &path.child("key"), errors),
        }
    }
    if let Some(file) = get(from, "fileKeyRef") {
        kinds += 1;
        let path = path.child("fileKeyRef");
        required_name(file, "volumeName", dns_label, &path, errors);
        match text(file, "path") {
            "" => errors.required(&path.child("path"), ""),
            place => local_path(place, &path.child("path"), errors),
        }
        required_name(file, "key", env_var_name, &path, errors);
    }
    if kinds == 0 {
        errors.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !value.is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if kinds > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

/// The field of the pod that an entry of the downward API names (`validateObjectFieldSelector`).
pub(super) fn field_ref(v: &Value, fields: &[&str], path: &Path<'_>, errors: &mut FieldErrors) {
    let (version, field) = (text(v, "apiVersion"), text(v, "fieldPath"));
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return errors.required(&path.child("fieldPath"), "");
    }
    let subscripted = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    let known = match field {
        _ if version != "v1" => Err(format!("unsupported pod version: {version}")),
        "spec.host" => Ok("spec.nodeName"),
        "metadata.annotations"
        | "metadata.labels"
        | "spec.restartPolicy"
        | "spec.schedulerName"
        | "status.phase" => Ok(field),
        _ if FIELDS.contains(&field) => Ok(field),
        _ if subscripted.is_some_and(|(of, _)| matches!(of, "metadata.annotations" | "metadata.labels")) => {
            Ok(field)
        }
        _ => Err(format!("field label not supported: {field}")),
    };
    match (known, subscripted) {
        (Err(why), _) => {
            errors.invalid(&path.child("fieldPath"), field, &format!("error converting fieldPath: {why}"));
        }
        (Ok(_), Some(("metadata.annotations", key))) => {
            let key = key.to_lowercase();
            qualified(&key, path, errors);
        }
        (Ok(_), Some((_, key))) => qualified(key, path, errors),
        (Ok(known), None) if !fields.contains(&known) => {
            errors.not_supported(&path.child("fieldPath"), known, fields);
        }
        _ => {}
    }
}

/// The resource of a container that an entry of the downward API names.
pub(super) fn resource_ref(v: &Value, volume: bool, path: &Path<'_>, errors: &mut FieldErrors) {
    const RESOURCES: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    const SIZES: &[&str] =
        &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let resource = text(v, "resource");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && text(v, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    }
    let divisor = text(v, "divisor");
    if divisor.is_empty() || divisor == "0" {
        return;
    }
    let of = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" => {
            if !["1m", "1"].contains(&divisor) {
                let why = "only divisor's values 1m and 1 are supported with the cpu resource";
                errors.invalid(&path.child("divisor"), resource, why);
            }
            return;
        }
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !SIZES.contains(&divisor) {
        let why = format!("only divisor's values {} are supported with the {of} resource", SIZES.join(", "));
        errors.invalid(&path.child("divisor"), resource, &why);
    }
}
