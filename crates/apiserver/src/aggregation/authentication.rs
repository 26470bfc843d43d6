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

/// Writes the ConfigMap, or brings it up to date. A server that is nobody's front proxy has nothing to say.
pub(crate) async fn publish(server: &Arc<Inner>) -> Result<(), Status> {
    let Some(data) = data(server) else { return Ok(()) };
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

fn data(server: &Inner) -> Option<Value> {
    let identity = server.aggregation.connections.identity.as_ref()?;
    let list = |names: &[&str]| json!(names).to_string();
    Some(json!({
        "client-ca-file": server.config.ca_pem,
        "requestheader-client-ca-file": identity.authority,
        "requestheader-allowed-names": json!(identity.names).to_string(),
        "requestheader-username-headers": list(&["X-Remote-User"]),
        "requestheader-uid-headers": list(&["X-Remote-Uid"]),
        "requestheader-group-headers": list(&["X-Remote-Group"]),
        "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
    }))
}
