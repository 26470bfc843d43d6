//! The roles and bindings that every cluster has, made and mended at every start.

use std::sync::Arc;

use auth::{BindingChange, User};
use futures::future::try_join_all;
use registry::{Registry, ResourceDef};
use serde_json::Value;
use store::Expect;
use types::{Reason, Status};

use crate::object;
use crate::state::Inner;
use crate::verbs::{Edited, Part, Write, create_object, rewrite};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Makes what is missing, and adds to what is there what it lacks.
pub(crate) async fn ensure(server: &Arc<Inner>) -> Result<(), Status> {
    let registry = server.registry();
    for (resource, objects) in [
        ("clusterroles", auth::cluster_roles()),
        ("clusterrolebindings", auth::cluster_role_bindings()),
        ("roles", auth::roles()),
        ("rolebindings", auth::role_bindings()),
    ] {
        let def = registry.find(GROUP, "v1", resource).ok_or_else(Status::no_such_resource)?;
        // All at once, so that they go to disk together.
        try_join_all(objects.into_iter().map(|want| settle(server, &registry, def, want))).await?;
    }
    Ok(())
}

async fn settle(
    server: &Inner,
    registry: &Arc<Registry>,
    def: &ResourceDef,
    want: Value,
) -> Result<(), Status> {
    let name = object::name(&want).to_owned();
    let namespace = want["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
    let write = Write {
        server,
        registry,
        def,
        user: &user,
        namespace: &namespace,
        subresource: "",
        dry_run: false,
        manager: "kube-apiserver",
        options: admission::Options::default(),
        passed: false,
    };
    let create = async |want: Value| match create_object(&write, want, None).await {
        // Another server of the cluster was faster.
        Err(status) if status.reason == Some(Reason::AlreadyExists) => Ok(()),
        written => written.map(drop),
    };
    let Some(record) = server.store.get(&def.table, &object::key(&namespace, &name)) else {
        return create(want).await;
    };
    let have = object::decode(def, &record.value)?;
    let update =
        async |new: Value| rewrite(&write, &name, Part::Main, |_| Ok(Edited::from(new.clone()))).await;
    if def.resource.ends_with("roles") {
        return match auth::reconcile_role(&have, &want) {
            Some(new) => update(new).await.map(drop),
            None => Ok(()),
        };
    }
    match auth::reconcile_binding(&have, &want) {
        None => Ok(()),
        Some(BindingChange::Update(new)) => update(new).await.map(drop),
        Some(BindingChange::Recreate(new)) => {
            let gone = server.remove(def, &namespace, &have, Expect::Revision(record.revision)).await;
            gone.map_err(|e| object::commit_error(def, &name, e))?;
            create(new).await
        }
    }
}
