use std::sync::Arc;

use http::Response;
use registry::{Registry, ResourceDef, Verb};
use serde_json::{Value, json};
use types::{FieldErrors, LabelSelector, Path, Status, at, str_at};

use crate::pipeline::Call;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::verbs::{self, Part};
use crate::{body, object};

/// A workload's number of replicas, apart from everything else (`autoscaling/v1`, `Scale`).
pub(super) async fn serve(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
    let current = object::decode(&r.def, &record.value)?;
    if r.verb == Verb::Get {
        return Ok(respond::json_value(&scale_of(&r.def, &current)));
    }
    let (headers, bytes) = body::read(http).await?;
    let scale_def = scale_def(&r.registry).ok_or_else(Status::no_such_resource)?;
    let change = |old: &Value| {
        let mut scale = scale_of(&r.def, old);
        if r.verb == Verb::Patch {
            scale = verbs::patch_value(
                &r.registry,
                &scale_def,
                &headers,
                &bytes,
                &scale,
                r.query.field_validation,
            )?
            .object;
        } else {
            scale = body::parse_as(&r.registry, &headers, &bytes, &scale_def.gvk)?;
        }
        let replicas = at(&scale, &["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
        if replicas < 0 {
            let mut errors = FieldErrors::new();
            errors.invalid(
                &Path::new("spec").child("replicas"),
                replicas,
                "must be greater than or equal to 0",
            );
            return Err(Status::invalid("autoscaling", "Scale", &r.name, &errors));
        }
        let mut new = old.clone();
        new["spec"]["replicas"] = replicas.into();
        match str_at(&scale, &["metadata", "resourceVersion"]) {
            Some(version) => new["metadata"]["resourceVersion"] = version.into(),
            None => drop(types::object(&mut new["metadata"]).remove("resourceVersion")),
        }
        Ok(new.into())
    };
    let write = verbs::Write::of(server, &user, &r, &headers);
    let written = verbs::rewrite(&write, &r.name, Part::Main, change).await?;
    let object = object::decode(&r.def, &written.record.value)?;
    Ok(respond::json_value(&scale_of(&r.def, &object)))
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
        definitions: None,
        custom: None,
        strategy: template.strategy.clone(),
    })
}

fn scale_of(def: &ResourceDef, object: &Value) -> Value {
    let meta = &object["metadata"];
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta.get(field) {
            metadata[field] = value.clone();
        }
    }
    // A replication controller's selector is a plain map, the others' are selector objects.
    let selector = match &*def.resource {
        "replicationcontrollers" => LabelSelector::from_map(object["spec"].get("selector")).to_string(),
        _ => LabelSelector::from_object(object["spec"].get("selector"))
            .map(|s| s.to_string())
            .unwrap_or_default(),
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector},
    })
}
