//! The demo's Deployment and Service.

use std::fmt::Debug;

use client::k8s_openapi::api::apps::v1::Deployment;
use client::k8s_openapi::api::core::v1::Service;
use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use client::kube::core::NamespaceResourceScope;
use client::kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{DemoError, IMAGE, NAME, NAMESPACE, NODE_PORT, REPLICAS};

fn deployment(image_id: &str) -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                // The tag stays the same when the program changes; this does not, so the change rolls out.
                "metadata": {"labels": {"app": NAME}, "annotations": {"gantry-demo/image-id": image_id}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532},
                    "containers": [{
                        "name": "web",
                        "image": IMAGE,
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "env": [
                            field("POD_NAME", "metadata.name"),
                            field("POD_NAMESPACE", "metadata.namespace"),
                            field("NODE_NAME", "spec.nodeName"),
                        ],
                        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
                        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}},
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": {"drop": ["ALL"]},
                        },
                    }],
                },
            },
        },
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "labels": {"app": NAME}},
        "spec": {
            "type": "NodePort",
            "selector": {"app": NAME},
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "nodePort": NODE_PORT}],
        },
    })
}

/// Makes both objects what they should be.
pub(super) async fn apply(client: &Client, image_id: &str) -> Result<(), DemoError> {
    if let Some(other) = holder_of_port(client).await? {
        return Err(DemoError::PortTaken(other));
    }
    put::<Deployment>(client, deployment(image_id)).await?;
    put::<Service>(client, service()).await
}

/// Removes both; their pods follow.
pub(super) async fn delete(client: &Client) -> Result<(), DemoError> {
    take::<Service>(client).await?;
    take::<Deployment>(client).await
}

/// Another Service that has the demo's port.
async fn holder_of_port(client: &Client) -> Result<Option<String>, DemoError> {
    let services = Api::<Service>::all(client.clone()).list(&Default::default()).await;
    let services = services.map_err(failed("list the Services"))?;
    let holder = services.items.iter().find(|service| {
        let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
        ports.into_iter().any(|p| p.node_port == Some(NODE_PORT.into()))
    });
    let name = |s: &Service| {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}", of(&s.metadata.namespace), of(&s.metadata.name))
    };
    Ok(holder.map(name).filter(|name| *name != format!("{NAMESPACE}/{NAME}")))
}

/// What an API request was for, should it fail.
pub(super) fn failed(attempt: impl Into<String>) -> impl FnOnce(client::kube::Error) -> DemoError {
    let attempt = attempt.into();
    move |source| DemoError::Api { attempt, source: Box::new(source) }
}

fn kind<K: Resource<DynamicType = ()>>() -> String {
    K::kind(&()).to_lowercase()
}

async fn put<K>(client: &Client, wanted: Value) -> Result<(), DemoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Serialize + DeserializeOwned,
    K: Clone + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), NAMESPACE);
    let name = format!("{}/{NAME}", kind::<K>());
    let object: K = serde_json::from_value(wanted.clone())
        .map_err(|e| failed(format!("write {name}"))(client::kube::Error::SerdeError(e)))?;
    let before = api.get_opt(NAME).await.map_err(failed(format!("get {name}")))?;
    let Some(before) = before else {
        api.create(&PostParams::default(), &object).await.map_err(failed(format!("create {name}")))?;
        println!("  {name} created");
        return Ok(());
    };
    let after = api.patch(NAME, &PatchParams::default(), &Patch::Strategic(wanted)).await;
    let after = after.map_err(failed(format!("change {name}")))?;
    let same = before.meta().resource_version == after.meta().resource_version;
    println!("  {name} {}", if same { "unchanged" } else { "configured" });
    Ok(())
}

async fn take<K>(client: &Client) -> Result<(), DemoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
    K: Clone + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), NAMESPACE);
    let name = format!("{}/{NAME}", kind::<K>());
    match api.delete(NAME, &DeleteParams::background()).await {
        Ok(_) => println!("{name} deleted"),
        Err(error) if client::is_not_found(&error) => println!("{name} is not there"),
        Err(error) => return Err(failed(format!("delete {name}"))(error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the types do not know would be lost on creation, and be there after a patch.
    #[test]
    fn nothing_is_misspelt() {
        let typed: Deployment = serde_json::from_value(deployment("sha256:x")).unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), deployment("sha256:x"));
        let typed: Service = serde_json::from_value(service()).unwrap();
        assert_eq!(serde_json::to_value(typed).unwrap(), service());
    }
}
