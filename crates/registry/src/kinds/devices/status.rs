//! The status of claims: who has them, which devices they were given, and what drivers say of these
//! (kubernetes/kubernetes, `pkg/apis/resource/validation/validation.go`, `validateResourceClaimStatusUpdate`).

use serde_json::Value;
use types::{FieldErrors, Path, dns_label};

use super::super::check::*;
use super::super::pod_spec::scheduling::node_selector;
use super::super::pod_spec::sources::csi_driver_name;
use super::claim::{request_name, request_names};
use super::{STATUS, at_most, configuration, device, json_object, pool_name, taint};

/// Driver, pool, device and share.
fn id(of: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| text(of, field))
}

fn results(status: &Value) -> impl Iterator<Item = &Value> {
    list(&status["allocation"]["devices"], "results")
}

/// What drivers say of devices goes with them (upstream: `dropDeallocatedStatusDevices`).
pub(super) fn forget_devices(new: &mut Value, old: &Value) {
    let gone: Vec<[&str; 4]> = results(&old["status"])
        .map(id)
        .filter(|had| !results(&new["status"]).any(|r| id(r) == *had))
        .collect();
    let kept: Vec<Value> =
        list(&new["status"], "devices").filter(|told| !gone.contains(&id(told))).cloned().collect();
    if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut)
        && status.contains_key("devices")
    {
        match kept.is_empty() {
            true => drop(status.remove("devices")),
            false => drop(status.insert("devices".to_owned(), Value::Array(kept))),
        }
    }
}

pub(super) fn validate(new: &Value, old: &Value, errors: &mut FieldErrors) {
    let (status, before) = (&new["status"], &old["status"]);
    at_most(status, "reservedFor", 256, &STATUS, errors);
    let path = STATUS.child("reservedFor");
    for (i, user) in list(status, "reservedFor").enumerate() {
        let path = path.index(i);
        for field in ["resource", "name", "uid"] {
            required(user, field, &path, errors);
        }
        let uid = text(user, "uid");
        if repeats(list(status, "reservedFor").take(i).map(|u| text(u, "uid")), uid) {
            errors.duplicate(&path, uid);
        }
    }
    let allocation = get(status, "allocation");
    if count(status, "reservedFor") > 0 && allocation.is_none() {
        errors.forbidden(&path, "may not be specified when `allocated` is not set");
    }
    let is_new = |user: &Value| !list(before, "reservedFor").any(|other| other == user);
    if has(&new["metadata"], "deletionTimestamp") && list(status, "reservedFor").any(is_new) {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(&path, why);
    }
    let path = STATUS.child("devices");
    for (i, told) in list(status, "devices").enumerate() {
        device_status(told, status, &path.index(i), errors);
        if list(status, "devices").take(i).any(|other| id(other) == id(told)) {
            errors.duplicate(&path.index(i), id(told).join("/"));
        }
    }
    match (allocation, get(before, "allocation")) {
        (Some(_), Some(_)) => immutable(status, before, "allocation", &STATUS, errors),
        (Some(allocation), None) => {
            allocated(allocation, &new["spec"]["devices"], &STATUS.child("allocation"), errors);
        }
        (None, _) => {}
    }
}

fn allocated(allocation: &Value, asked: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let given = get(allocation, "devices").unwrap_or(&Value::Null);
    let devices = path.child("devices");
    at_most(given, "results", 32, &devices, errors);
    let results = devices.child("results");
    for (i, result) in list(given, "results").enumerate() {
        let path = results.index(i);
        request_name(text(result, "request"), asked, &path.child("request"), errors);
        csi_driver_name(text(result, "driver"), &path.child("driver"), errors);
        pool_name(text(result, "pool"), &path.child("pool"), errors);
        name_is(text(result, "device"), dns_label, &path.child("device"), errors);
        device::binding(result, &path, errors);
        let tolerations = path.child("tolerations");
        for (i, toleration) in list(result, "tolerations").enumerate() {
            taint::toleration(toleration, &tolerations.index(i), errors);
        }
        share_id(result, &path, errors);
    }
    at_most(given, "config", 64, &devices, errors);
    let configs = devices.child("config");
    for (i, config) in list(given, "config").enumerate() {
        let path = configs.index(i);
        required_one_of(config, "source", &path, &["FromClaim", "FromClass"], errors);
        request_names(config, asked, &path, errors);
        configuration(config, &path, errors);
    }
    if let Some(selector) = get(allocation, "nodeSelector") {
        node_selector(selector, &path.child("nodeSelector"), errors);
    }
}

/// A UUID in its usual form, if there is one.
fn share_id(of: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const WHY: &str = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
    let Some(share) = of.get("shareID").and_then(Value::as_str) else { return };
    let parts: Vec<&str> = share.split('-').collect();
    let is_hex = |part: &&str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    if lengths != [8, 4, 4, 4, 12] || !parts.iter().all(is_hex) {
        errors.invalid(&path.child("shareID"), share, WHY);
    }
}

/// What a driver says of a device (`validateDeviceStatus`).
fn device_status(told: &Value, status: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    csi_driver_name(text(told, "driver"), &path.child("driver"), errors);
    pool_name(text(told, "pool"), &path.child("pool"), errors);
    name_is(text(told, "device"), dns_label, &path.child("device"), errors);
    share_id(told, path, errors);
    if !results(status).any(|result| id(result) == id(told)) {
        let shown = id(told).into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        errors.invalid(path, shown, "must be an allocated device in the claim");
    }
    at_most(told, "conditions", 8, path, errors);
    if let Some(data) = get(told, "data") {
        json_object(data, &path.child("data"), errors);
    }
    if let Some(network) = get(told, "networkData") {
        let path = path.child("networkData");
        for (field, most) in [("interfaceName", 256), ("hardwareAddress", 128)] {
            if text(network, field).len() > most {
                errors.too_long(&path.child(field), most);
            }
        }
        at_most(network, "ips", 16, &path, errors);
        let ips = path.child("ips");
        for (i, address) in texts(network, "ips").enumerate() {
            let path = ips.index(i);
            let is_one = address.split_once('/').is_some_and(|(ip, bits)| {
                let most = if ip.contains(':') { 128 } else { 32 };
                ip.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= most)
            });
            if !is_one {
                let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                errors.invalid(&path, address, why);
            }
            if repeats(texts(network, "ips").take(i), address) {
                errors.duplicate(&path, address);
            }
        }
    }
}
