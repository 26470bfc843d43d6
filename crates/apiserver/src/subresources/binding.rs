use std::sync::Arc;

use admission::{Operation, Request};
use http::{Response, StatusCode};
use registry::Gvk;
use serde_json::{Value, json};
use types::{Status, ensure_object, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::verbs::seconds_text;
use crate::{admit, body, object};

/// Gives a pod to a node: what the scheduler does (kubernetes/kubernetes,
/// `pkg/registry/core/pod/storage/storage.go`, `BindingREST`).
pub(crate) async fn bind(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let mut binding = body::read_as(&r.registry, http, &Gvk::new("", "v1", "Binding")).await?;
    let name = if r.name.is_empty() { object::name(&binding).to_owned() } else { r.name.clone() };
    // `bindings` is the older way to the same.
    let request = admit::subresource(&r, &user, Operation::Create);
    server.pass(&Request { name: &name, ..request }, Some(&mut binding), None).await?;
    let node = str_at(&binding, &["target", "name"])
        .ok_or_else(|| Status::bad_request("target.name: Required value"))?;
    let registry = server.registry();
    let pods = registry.find("", "v1", "pods").ok_or_else(Status::no_such_resource)?;
    let key = object::key(&r.namespace, &name);
    loop {
        let record =
            server.store.get(&pods.table, &key).ok_or_else(|| Status::not_found("", "pods", &name))?;
        let mut pod: Value = serde_json::from_slice(&record.value).map_err(Status::internal)?;
        check(&binding, &pod, &name, node)?;
        ensure_object(&mut pod, "spec")["nodeName"] = node.into();
        let annotations = binding["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        for (key, value) in annotations {
            ensure_object(ensure_object(&mut pod, "metadata"), "annotations")[key] = value;
        }
        // What admission knows of the node's place; nothing else of a binding's labels is the pod's.
        for key in ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"] {
            if let Some(value) = binding["metadata"]["labels"].get(key) {
                ensure_object(ensure_object(&mut pod, "metadata"), "labels")[key] = value.clone();
            }
        }
        set_scheduled(&mut pod, &seconds_text(server.config.clock.now()));
        // It has its node now (`ClearingNominatedNodeNameAfterBinding`).
        types::object(ensure_object(&mut pod, "status")).remove("nominatedNodeName");
        if r.query.dry_run {
            break;
        }
        match server.put(pods, &r.namespace, &pod, store::Expect::Revision(record.revision)).await {
            Ok(_) => break,
            Err(store::CommitError::Conflict { .. }) => {}
            Err(error) => return Err(object::commit_error(pods, &name, error)),
        }
    }
    let success = Status { code: 201, ..Status::success("", "", "", "") };
    Ok(respond::json(StatusCode::CREATED, Status { details: None, ..success }.to_json()))
}

fn check(binding: &Value, pod: &Value, name: &str, node: &str) -> Result<(), Status> {
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", name, &why));
    if let Some(uid) = str_at(binding, &["metadata", "uid"])
        && pod["metadata"]["uid"] != uid
    {
        return conflict(format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            pod["metadata"]["uid"].as_str().unwrap_or_default()
        ));
    }
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    match str_at(pod, &["spec", "nodeName"]) {
        Some(taken) => conflict(format!("pod {name} is already assigned to node {taken:?}")),
        None if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) => {
            conflict(format!("pod {name} has non-empty .spec.schedulingGates"))
        }
        None if node.is_empty() => conflict("target.name is empty".into()),
        None => Ok(()),
    }
}

fn set_scheduled(pod: &mut Value, now: &str) {
    let status = ensure_object(pod, "status");
    let condition = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now});
    match &mut status["conditions"] {
        Value::Array(list) => match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
            Some(old) => *old = condition,
            None => list.push(condition),
        },
        other => *other = json!([condition]),
    }
}
