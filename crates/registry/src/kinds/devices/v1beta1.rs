//! How `v1beta1` writes claims and slices (kubernetes/kubernetes, `pkg/apis/resource/v1beta1/conversion.go`).

use serde_json::Value;

use crate::strategy::Convert;

/// `v1beta1`, where a request and a device were written otherwise.
pub(in super::super) struct DevicesV1Beta1;

/// What of a request is below `exactly` in `v1`.
const EXACTLY: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

/// The requests of a claim or of a claim's template, and the devices of a slice.
fn requests(object: &mut Value) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    let path: &[&str] = match object["kind"].as_str() {
        Some("ResourceClaimTemplate") => &["spec", "spec", "devices", "requests"],
        _ => &["spec", "devices", "requests"],
    };
    maps(object, path)
}

fn slice_devices(object: &mut Value) -> impl Iterator<Item = &mut serde_json::Map<String, Value>> {
    let path: &[&str] = if object["kind"] == "ResourceSlice" { &["spec", "devices"] } else { &[] };
    maps(object, path)
}

fn maps<'a>(
    object: &'a mut Value,
    path: &[&str],
) -> impl Iterator<Item = &'a mut serde_json::Map<String, Value>> {
    let list = types::at_mut(object, path).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

impl Convert for DevicesV1Beta1 {
    fn store(&self, object: &mut Value) {
        for request in requests(object) {
            let moved: serde_json::Map<String, Value> =
                EXACTLY.iter().filter_map(|field| request.remove_entry(*field)).collect();
            if !moved.is_empty() {
                request.insert("exactly".into(), Value::Object(moved));
            }
        }
        for device in slice_devices(object) {
            if let Some(Value::Object(basic)) = device.remove("basic") {
                device.extend(basic);
            }
        }
    }

    fn show(&self, object: &mut Value) {
        for request in requests(object) {
            if let Some(Value::Object(exactly)) = request.remove("exactly") {
                request.extend(exactly);
            }
        }
        for device in slice_devices(object) {
            let name = device.remove_entry("name");
            let basic = std::mem::take(device);
            device.extend(name);
            device.insert("basic".into(), Value::Object(basic));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn older_requests_and_devices_come_back_as_they_were() {
        for (old, new) in [
            (
                json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "gpu", "count": 2}, {"name": "b", "firstAvailable": []}]}}}),
                json!({"kind": "ResourceClaim", "spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "gpu", "count": 2}},
                    {"name": "b", "firstAvailable": []}]}}}),
            ),
            (
                json!({"kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "deviceClassName": "gpu"}]}}}}),
                json!({"kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [
                    {"name": "a", "exactly": {"deviceClassName": "gpu"}}]}}}}),
            ),
            (
                json!({"kind": "ResourceSlice", "spec": {"devices": [
                    {"name": "a", "basic": {"capacity": {"x": {"value": "1"}}}}]}}),
                json!({"kind": "ResourceSlice", "spec": {"devices": [
                    {"name": "a", "capacity": {"x": {"value": "1"}}}]}}),
            ),
        ] {
            let mut object = old.clone();
            DevicesV1Beta1.store(&mut object);
            assert_eq!(object, new);
            DevicesV1Beta1.show(&mut object);
            assert_eq!(object, old);
        }
    }
}
