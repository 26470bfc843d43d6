//! The addresses of Services and their families (kubernetes/kubernetes,
//! `pkg/apis/core/validation/validation.go`, `ValidateServiceClusterIPsRelatedFields`,
//! `validateUpgradeDowngradeClusterIPs`; `pkg/registry/core/service/strategy.go`).

use std::net::IpAddr;

use serde_json::{Value, json};
use types::{FieldErrors, Path};

use super::super::check::*;

const SPEC: Path<'static> = Path::new("spec");

/// Whether a service has no address on purpose.
pub(super) fn is_headless(spec: &Value) -> bool {
    match count(spec, "clusterIPs") {
        0 => text(spec, "clusterIP") == "None",
        1 => texts(spec, "clusterIPs").next() == Some("None"),
        _ => false,
    }
}

/// Who gives one of the two fields means the other too.
pub(super) fn align(spec: &mut Value) {
    let one = text(spec, "clusterIP").to_owned();
    if !one.is_empty() && count(spec, "clusterIPs") == 0 {
        spec["clusterIPs"] = json!([one]);
    }
}

/// Keeps the addresses and families of before where the user names none.
pub(super) fn keep(spec: &mut Value, old: &Value) {
    if text(old, "clusterIP").is_empty() {
        return;
    }
    let single = text(spec, "ipFamilyPolicy") == "SingleStack";
    let (one, many) = (!text(spec, "clusterIP").is_empty(), count(spec, "clusterIPs") > 0);
    let first = |list: &Value| list.as_array().and_then(|l| l.first()).cloned();
    match (one, many) {
        (false, false) => {
            spec["clusterIP"] = old["clusterIP"].clone();
            spec["clusterIPs"] = old["clusterIPs"].clone();
        }
        // An older client knows the first only; if it changes it, the rest goes.
        (true, false) if spec["clusterIP"] == old["clusterIP"] => {
            spec["clusterIPs"] = old["clusterIPs"].clone();
        }
        (false, true) => {
            if let Some(address) = first(&spec["clusterIPs"]) {
                spec["clusterIP"] = address;
            }
        }
        _ => {}
    }
    if single && count(spec, "clusterIPs") > 1 && spec["clusterIPs"] == old["clusterIPs"] {
        let address = first(&spec["clusterIPs"]);
        spec["clusterIPs"] = Value::Array(address.into_iter().collect());
    }
    if count(spec, "ipFamilies") == 0 && has(old, "ipFamilies") {
        spec["ipFamilies"] = old["ipFamilies"].clone();
        if single && count(spec, "ipFamilies") > 1 {
            let family = first(&spec["ipFamilies"]);
            spec["ipFamilies"] = Value::Array(family.into_iter().collect());
        }
    }
    if !has(spec, "ipFamilyPolicy") && has(old, "ipFamilyPolicy") {
        spec["ipFamilyPolicy"] = old["ipFamilyPolicy"].clone();
    }
}

pub(super) fn validate(spec: &Value, errors: &mut FieldErrors) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let all = || spec["clusterIPs"].clone();
    let one = text(spec, "clusterIP");
    let n = count(spec, "clusterIPs");
    match texts(spec, "clusterIPs").next() {
        Some(_) if one.is_empty() => {
            errors.invalid(&path, all(), "must be empty when `clusterIP` is not specified");
        }
        None if !one.is_empty() => errors.required(&path, ""),
        Some(first) if first != one => {
            errors.invalid(&path, all(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = SPEC.child("ipFamilies");
    for (i, family) in texts(spec, "ipFamilies").enumerate() {
        if !["IPv4", "IPv6"].contains(&family) {
            errors.not_supported(&families.index(i), family, &["IPv4", "IPv6"]);
        }
        if repeats(texts(spec, "ipFamilies").take(i), family) {
            errors.duplicate(&families.index(i), family);
        }
    }
    one_of(spec, "ipFamilyPolicy", &SPEC, &["PreferDualStack", "RequireDualStack", "SingleStack"], errors);
    let mut ips: Vec<IpAddr> = Vec::new();
    let mut odd = false;
    for (i, address) in texts(spec, "clusterIPs").enumerate() {
        if i == 0 && address == "None" {
            if n > 1 {
                odd = true;
                errors.invalid(&path, all(), "'None' must be the first and only value");
            }
            continue;
        }
        match ip(address, &path.index(i), errors) {
            Some(ip) => ips.push(ip),
            None => odd = true,
        }
    }
    if n > 2 {
        errors.invalid(&path, all(), "may only hold up to 2 values");
    }
    if odd {
        return;
    }
    if n > 1 && !is_dual_stack(&ips) {
        errors.invalid(&path, all(), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (i, (family, ip)) in texts(spec, "ipFamilies").zip(&ips).enumerate() {
        let wrong = match family {
            "IPv4" => ip.is_ipv6(),
            "IPv6" => ip.is_ipv4(),
            _ => false,
        };
        if wrong {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&path.index(i), texts(spec, "clusterIPs").nth(i).unwrap_or_default(), &why);
        }
    }
}

/// A second address or family may come and go; the first stays.
pub(super) fn validate_update(spec: &Value, before: &Value, errors: &mut FieldErrors) {
    if text(spec, "type") == "ExternalName" || text(before, "type") == "ExternalName" {
        return;
    }
    let (headless, was_headless) = (is_headless(spec), is_headless(before));
    if !(headless && was_headless) {
        let changed = |i: usize, path: &Path<'_>, errors: &mut FieldErrors| {
            errors.invalid(&path.index(i), spec["clusterIPs"].clone(), "may not change once set");
        };
        first_stays(spec, before, "clusterIPs", "clusterIP", changed, errors);
    }
    if !headless && !was_headless {
        let changed = |_: usize, path: &Path<'_>, errors: &mut FieldErrors| {
            errors.invalid(&path.index(0), spec["ipFamilies"].clone(), "may not change once set");
        };
        first_stays(spec, before, "ipFamilies", "ipFamily", changed, errors);
    }
}

fn first_stays(
    spec: &Value,
    before: &Value,
    field: &str,
    what: &str,
    changed: impl Fn(usize, &Path<'_>, &mut FieldErrors),
    errors: &mut FieldErrors,
) {
    let path = SPEC.child(field);
    let (new, old): (Vec<&str>, Vec<&str>) = (texts(spec, field).collect(), texts(before, field).collect());
    if new.len() == old.len() {
        for (i, _) in old.iter().zip(&new).enumerate().filter(|(_, (old, new))| old != new) {
            changed(i, &path, errors);
        }
        return;
    }
    if new.is_empty() {
        let why = format!("primary {what} can not be unset");
        errors.invalid(&path.index(0), spec.get(field).cloned().unwrap_or_default(), &why);
    }
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new != old
    {
        changed(0, &path, errors);
    }
    if new.len() == 1 && old.len() > 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        let policy = spec.get("ipFamilyPolicy").cloned().unwrap_or_default();
        errors.invalid(&SPEC.child("ipFamilyPolicy"), policy, &why);
    }
}
