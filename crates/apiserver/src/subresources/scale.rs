use std::sync::Arc;

use admission::Operation;
use http::{HeaderMap, HeaderValue, Response, header};
use registry::{Registry, ResourceDef, ScalePaths, Verb};
use serde_json::{Value, json};
use types::{FieldErrors, LabelSelector, Path, Reason, Status, at, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::verbs::{self, Part};
use crate::{admit, body, object};

/// A workload's number of replicas, apart from everything else (`autoscaling/v1`, `Scale`).
pub(super) async fn serve(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
    let current = object::decode(&r.def, &server.shown(&r.def, &record).await?.value)?;
    if r.verb == Verb::Get {
        return Ok(respond::json_value(&scale_of(&r.def, &current)?));
    }
    let (headers, bytes) = body::read(http).await?;
    let scale_def = scale_def(&r.registry).ok_or_else(Status::no_such_resource)?;
    let headers = &headers;
    let is_apply = verbs::is_apply(headers);
    if is_apply && r.query.field_manager.is_none() {
        return Err(verbs::no_field_manager());
    }
    let asked = |old: &Value| -> Result<Value, Status> {
        let scale = scale_of(&r.def, old)?;
        let validation = r.query.field_validation;
        if is_apply {
            body::parse_as(&r.registry, &yaml_headers(), &bytes, &scale_def.gvk)
        } else if r.verb == Verb::Patch {
            Ok(verbs::patch_value(&r.registry, &scale_def, headers, &bytes, &scale, validation)?.object)
        } else {
            body::parse_as(&r.registry, headers, &bytes, &scale_def.gvk)
        }
    };
    let mut current = current;
    loop {
        // Admission passes the scale, not what it is of.
        let mut scale = asked(&current)?;
        let request = admit::subresource(&r, &user, Operation::Update);
        let old = scale_of(&r.def, &current)?;
        server.admit(&request, Some(&mut scale), Some(&old)).await?;
        let replicas = check(&r.name, &scale)?;
        server.validate(&request, Some(&scale), Some(&old)).await?;
        let named = str_at(&scale, &["metadata", "resourceVersion"]);
        let seen = str_at(&current, &["metadata", "resourceVersion"]);
        let write = verbs::Write { passed: true, ..verbs::Write::of(server, &user, &r, headers) };
        let change = |live: &Value| {
            if is_apply {
                // Applying a scale is applying the object's replicas and nothing else.
                let mut config = json!({"apiVersion": r.def.api_version(), "kind": &*r.def.gvk.kind,
                    "metadata": {"name": r.name.as_str(), "resourceVersion": seen}});
                set_replicas(&r.def, &mut config, replicas);
                let force = r.query.force.unwrap_or(false);
                return verbs::apply_edit(&write, live, &config, Part::Main, force);
            }
            let mut new = live.clone();
            set_replicas(&r.def, &mut new, replicas);
            // What was passed is this very state.
            new["metadata"]["resourceVersion"] = named.or(seen).unwrap_or_default().into();
            Ok(new.into())
        };
        match verbs::rewrite(&write, &r.name, Part::Main, change).await {
            // Fields that others own stay theirs, however often one asks.
            Err(status) if status.has_causes() => return Err(status),
            Err(status) if status.reason == Some(Reason::Conflict) && (named.is_none() || named == seen) => {
                let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
                if r.verb != Verb::Patch && named.is_some() {
                    return Err(status);
                }
                current = object::decode(&r.def, &server.shown(&r.def, &record).await?.value)?;
            }
            Err(status) => return Err(status),
            Ok(written) => {
                let object = object::decode(&r.def, &server.shown(&r.def, &written.record).await?.value)?;
                return Ok(respond::json_value(&scale_of(&r.def, &object)?));
            }
        }
    }
}

/// The number of replicas that is asked for.
fn check(name: &str, scale: &Value) -> Result<i64, Status> {
    let replicas = at(scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
    if replicas >= 0 {
        return Ok(replicas);
    }
    let mut errors = FieldErrors::new();
    errors.invalid(&Path::new("spec").child("replicas"), replicas, "must be greater than or equal to 0");
    Err(Status::invalid("autoscaling", "Scale", name, &errors))
}

/// A configuration to apply is YAML, whatever its media type is called.
fn yaml_headers() -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/yaml"))])
}

/// `Scale` is no resource of its own, so its row is made here for the patch machinery.
fn scale_def(registry: &Registry) -> Option<ResourceDef> {
    let template = registry.find("autoscaling", "v2", "horizontalpodautoscalers")?;
    let definitions = registry.definitions();
    Some(ResourceDef {
        gvk: registry::Gvk::new("autoscaling", "v1", "Scale"),
        resource: "scales".into(),
        singular: "scale".into(),
        short_names: Default::default(),
        categories: Default::default(),
        namespaced: true,
        verbs: template.verbs,
        subresources: Default::default(),
        table: "scales".into(),
        storage: registry::Gvk::new("autoscaling", "v1", "Scale"),
        convert: None,
        schema: definitions.find("io.k8s.api.autoscaling.v1.Scale"),
        custom: None,
        strategy: template.strategy.clone(),
    })
}

/// Writes the number of replicas to where the kind keeps it.
fn set_replicas(def: &ResourceDef, object: &mut Value, replicas: i64) {
    let Some(scale) = def.custom.as_ref().and_then(|c| c.scale.as_ref()) else {
        object["spec"]["replicas"] = replicas.into();
        return;
    };
    let mut place = object;
    for name in &scale.spec_replicas {
        place = types::object(place).entry(&**name).or_insert(Value::Null);
    }
    *place = replicas.into();
}

/// The parts that the definition of a custom kind points to (kubernetes/kubernetes,
/// `apiextensions-apiserver/pkg/registry/customresource/etcd.go`, `scaleFromCustomResource`).
fn custom_parts(paths: &ScalePaths, object: &Value) -> Result<(i64, i64, String), Status> {
    let find = |path: &[Box<str>]| path.iter().try_fold(object, |value, name| value.get(&**name));
    let spec = find(&paths.spec_replicas).and_then(Value::as_i64);
    let spec = spec.ok_or_else(|| {
        Status::internal(format_args!(
            "the spec replicas field \".{}\" does not exist",
            paths.spec_replicas.join(".")
        ))
    })?;
    let status = find(&paths.status_replicas).and_then(Value::as_i64).unwrap_or(0);
    let selector = paths.label_selector.as_ref().and_then(|path| find(path)).and_then(Value::as_str);
    Ok((spec, status, selector.unwrap_or_default().to_owned()))
}

fn scale_of(def: &ResourceDef, object: &Value) -> Result<Value, Status> {
    let meta = &object["metadata"];
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            metadata[field] = value.clone();
        }
    }
    // A replication controller's selector is a plain map, the others' are selector objects.
    if let Some(paths) = def.custom.as_ref().and_then(|c| c.scale.as_ref()) {
        let (spec, status, selector) = custom_parts(paths, object)?;
        let mut status = json!({"replicas": status});
        if !selector.is_empty() {
            status["selector"] = selector.into();
        }
        return Ok(json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": {"replicas": spec}, "status": status}));
    }
    let selector = match &*def.resource {
        "replicationcontrollers" => LabelSelector::from_map(object["spec"].get("selector")).to_string(),
        _ => LabelSelector::from_object(object["spec"].get("selector"))
            .map(|s| s.to_string())
            .unwrap_or_default(),
    };
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector},
    }))
}
