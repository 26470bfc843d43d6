//! What extension servers read to know whose word to believe (kubernetes/kubernetes,
//! `pkg/controlplane/controller/clusterauthenticationtrust`).

use std::sync::Arc;

use serde_json::{Value, json};
use store::Expect;
use types::Status;

use crate::state::Inner;
use crate::{bootstrap, object};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// Writes the ConfigMap, or brings it up to date.
pub(super) async fn publish(server: &Arc<Inner>) -> Result<(), Status> {
    let data = data(server);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE}, "data": data});
    bootstrap::create(server, "", "v1", "configmaps", object).await?;
    let registry = server.registry();
    let Some(def) = registry.find("", "v1", "configmaps") else { return Err(Status::no_such_resource()) };
    let Some(record) = server.store.get(&def.table, &object::key(NAMESPACE, NAME)) else { return Ok(()) };
    let mut now = object::decode(def, &record.value)?;
    let missing = data.as_object().into_iter().flatten().any(|(key, value)| now["data"][key] != *value);
    if !missing {
        return Ok(());
    }
    let held = types::ensure_object(&mut now, "data");
    for (key, value) in data.as_object().into_iter().flatten() {
        held[key.as_str()] = value.clone();
    }
    let written = server.put_quietly(def, NAMESPACE, &now, Expect::Revision(record.revision)).await;
    written.map(drop).map_err(|error| object::commit_error(def, NAME, error))
}

fn data(server: &Inner) -> Value {
    let mut data = json!({"client-ca-file": server.config.ca_pem});
    if let Some(identity) = &server.aggregation.connections.identity {
        let list = |names: &[&str]| json!(names).to_string();
        data["requestheader-client-ca-file"] = identity.authority.clone().into();
        data["requestheader-allowed-names"] = json!(identity.names).to_string().into();
        data["requestheader-username-headers"] = list(&["X-Remote-User"]).into();
        data["requestheader-uid-headers"] = list(&["X-Remote-Uid"]).into();
        data["requestheader-group-headers"] = list(&["X-Remote-Group"]).into();
        data["requestheader-extra-headers-prefix"] = list(&["X-Remote-Extra-"]).into();
    }
    data
}
