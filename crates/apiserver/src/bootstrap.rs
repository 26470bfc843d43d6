//! The objects that every cluster has. Made at every start if they are missing; nothing else makes them.

mod snapshots;

use std::net::Ipv4Addr;
use std::sync::Arc;

use auth::User;
use serde_json::{Value, json};
use types::{Status, local_volumes};

use crate::state::Inner;
use crate::verbs::{Write, create_object};
use crate::{aggregation, authorize, endpoints, fairness, object};

/// Makes what is missing, and brings what follows from the configuration up to date.
pub(crate) async fn ensure(server: &Arc<Inner>) -> Result<(), Status> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        create(
            server,
            "",
            "v1",
            "namespaces",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        )
        .await?;
    }
    authorize::ensure_policy(server).await?;
    for (resource, object) in fairness::default_objects() {
        create(server, "flowcontrol.apiserver.k8s.io", "v1", resource, object).await?;
    }
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": what});
        create(server, "scheduling.k8s.io", "v1", "priorityclasses", class).await?;
    }
    storage(server).await?;
    snapshots::ensure(server).await?;
    track_tokens(server).await?;
    services(server).await?;
    endpoints::start(server).await?;
    aggregation::publish_authentication(server).await
}

/// Says since when the use of service accounts' old tokens is noted: whoever cleans up must not go by what nobody wrote
/// down (kubernetes/kubernetes, `pkg/controlplane/controller/legacytokentracking`).
async fn track_tokens(server: &Arc<Inner>) -> Result<(), Status> {
    let today = server.config.clock.now().strftime("%Y-%m-%d").to_string();
    let since = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": today},
    });
    create(server, "", "v1", "configmaps", since).await
}

/// The address of the range's `n`th host.
fn nth(server: &Inner, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(server.config.service_cidr.network()) + n)
}

/// The built-in storage: what claims get that ask for nothing else.
async fn storage(server: &Arc<Inner>) -> Result<(), Status> {
    const GROUP: &str = "storage.k8s.io";
    let driver = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": local_volumes::DRIVER},
        "spec": {"attachRequired": false, "podInfoOnMount": false, "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent"]},
    });
    create(server, GROUP, "v1", "csidrivers", driver).await?;
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": local_volumes::CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": local_volumes::DRIVER, "parameters": {local_volumes::KIND: local_volumes::IMAGE},
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
    });
    create(server, GROUP, "v1", "storageclasses", class).await
}

async fn services(server: &Arc<Inner>) -> Result<(), Status> {
    let (_, port) = server.config.advertise;
    let api = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"clusterIP": nth(server, 1).to_string(), "ports": [{"name": "https", "port": 443, "targetPort": port}]},
    });
    create(server, "", "v1", "services", api).await?;
    let dns = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"clusterIP": nth(server, 10).to_string(), "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]},
    });
    create(server, "", "v1", "services", dns).await?;
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [server.config.service_cidr.to_string()]},
    });
    create(server, "networking.k8s.io", "v1", "servicecidrs", range).await
}

/// Makes an object if it is missing.
pub(crate) async fn create(
    server: &Arc<Inner>,
    group: &str,
    version: &str,
    resource: &str,
    object: Value,
) -> Result<(), Status> {
    let registry = server.registry();
    let Some(def) = registry.find(group, version, resource) else {
        return Err(Status::no_such_resource());
    };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    if server.store.get(&def.table, &object::key(&namespace, object::name(&object))).is_some() {
        return Ok(());
    }
    let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
    let write = Write {
        server,
        registry: &registry,
        def,
        user: &user,
        namespace: &namespace,
        subresource: "",
        dry_run: false,
        manager: "kube-apiserver",
        options: admission::Options::default(),
        passed: false,
    };
    match create_object(&write, object, None).await {
        // Another server of the cluster was faster.
        Err(status) if status.reason == Some(types::Reason::AlreadyExists) => Ok(()),
        Err(status) => Err(status),
        Ok(_) => Ok(()),
    }
}
