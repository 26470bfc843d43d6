use std::sync::Arc;

use admission::Operation;
use http::Response;
use registry::{Verb, validate_ephemeral_containers_update, validate_pod_resize};
use serde_json::Value;
use store::{CommitError, Expect};
use types::{FieldErrors, Status, at, at_mut};

use crate::pipeline::Call;
use crate::respond::Body;
use crate::state::Inner;
use crate::verbs::{Part, Write};
use crate::{admit, body, encode, object, verbs};

/// The parts of a pod's spec that may change after all: ephemeral containers can be added, resources resized
/// (kubernetes/kubernetes, `pkg/registry/core/pod/strategy.go`, `podEphemeralContainersStrategy`,
/// `podResizeStrategy`).
pub(super) async fn write(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    loop {
        let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
        let old = object::decode(&r.def, &record.value)?;
        let given = if r.verb == Verb::Patch {
            verbs::patch_value(&r.registry, &r.def, &headers, &bytes, &old, r.query.field_validation)?.object
        } else {
            let mut given = body::parse(&r.registry, &headers, &bytes)?.object;
            body::check_kind(&mut given, "v1", "Pod")?;
            body::conform(&r.registry, &r.def, &mut given, &[], r.query.field_validation)?;
            given
        };
        let mut new = old.clone();
        let mut errors = FieldErrors::new();
        match r.subresource.as_str() {
            "ephemeralcontainers" => take_ephemeral(&mut new, &given),
            _ => take_resources(&mut new, &given),
        }
        r.def.strategy.default(&mut new);
        let write = Write::of(server, &user, &r, &headers);
        verbs::settle_owners(&write, &mut new, Some(&old), Part::Main, None);
        let request = admit::subresource(&r, &user, Operation::Update);
        server.admit(&request, Some(&mut new), Some(&old)).await?;
        match r.subresource.as_str() {
            "ephemeralcontainers" => validate_ephemeral_containers_update(&new, &old, &mut errors),
            _ => validate_pod_resize(&new, &old, &mut errors),
        }
        if !errors.is_empty() {
            return Err(Status::invalid("", "Pod", &r.name, &errors));
        }
        server.validate(&request, Some(&new), Some(&old)).await?;
        verbs::ignore_times(&mut new, &old);
        if new == old || r.query.dry_run {
            return encode::object(server, &r, &headers, &encode::unwritten(&r.def, &r.namespace, &new))
                .await;
        }
        if let Some(generation) = old["metadata"]["generation"].as_i64() {
            new["metadata"]["generation"] = (generation + 1).into();
        }
        match server.put(&r.def, &r.namespace, &new, Expect::Revision(record.revision)).await {
            Ok(record) => return encode::object(server, &r, &headers, &record).await,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(object::commit_error(&r.def, &r.name, error)),
        }
    }
}

fn take_ephemeral(new: &mut Value, given: &Value) {
    let list = at(given, &["spec", "ephemeralContainers"]).cloned();
    let spec = types::ensure_object(new, "spec");
    match list {
        Some(list) => spec["ephemeralContainers"] = list,
        None => drop(types::object(spec).remove("ephemeralContainers")),
    }
}

fn take_resources(new: &mut Value, given: &Value) {
    if let Some(whole) = at(given, &["spec", "resources"]) {
        types::ensure_object(new, "spec")["resources"] = whole.clone();
    }
    for field in ["containers", "initContainers"] {
        let given = given["spec"][field].as_array();
        // Not by index: that would make the list where there is none.
        let containers = at_mut(new, &["spec", field]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let same = given.into_iter().flatten().find(|c| c["name"] == container["name"]);
            for part in ["resources", "resizePolicy"] {
                if let Some(value) = same.and_then(|c| at(c, &[part])) {
                    container[part] = value.clone();
                }
            }
        }
    }
}
