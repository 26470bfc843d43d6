//! Writes the rules of aggregated ClusterRoles into them, for people and tools to read; decisions do not wait for it
//! (kubernetes/kubernetes, `pkg/controller/clusterroleaggregation`).

use std::sync::Arc;

use auth::{RbacIndex, RoleObject, Rule, User};
use serde_json::Value;
use types::Status;

use crate::follow::Follower;
use crate::state::Inner;
use crate::verbs::{Edited, Part, Write, rewrite};

const TABLE: &str = "clusterroles.rbac.authorization.k8s.io";

/// Does it once, and again after every change.
pub(crate) async fn start(server: &Arc<Inner>) -> Result<(), Status> {
    let revision = server.store.snapshot(TABLE).revision;
    settle(server).await?;
    server.drain.spawn(follow(Follower::since(server, TABLE, revision)));
    Ok(())
}

async fn follow(mut roles: Follower) {
    while let Some((server, _)) = roles.next().await {
        if let Err(error) = settle(&server).await {
            tracing::warn!(error = error.message, "cannot write the rules of an aggregated role");
        }
    }
}

async fn settle(server: &Arc<Inner>) -> Result<(), Status> {
    let snapshot = server.store.snapshot(TABLE);
    let decoded = snapshot.records.values().filter_map(|r| serde_json::from_slice::<Value>(&r.value).ok());
    let objects: Vec<Value> = decoded.collect();
    let roles: Vec<Arc<RoleObject>> = objects.iter().map(|o| Arc::new(RoleObject::read(o))).collect();
    let registry = server.registry();
    let Some(def) = registry.find("rbac.authorization.k8s.io", "v1", "clusterroles") else { return Ok(()) };
    let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
    for (name, rules) in RbacIndex::aggregated(&roles) {
        let have = objects.iter().find(|o| o["metadata"]["name"] == name.as_str());
        if have.is_none_or(|have| Rule::read_all(have) == *rules) {
            continue;
        }
        let write = Write {
            server,
            registry: &registry,
            def,
            user: &user,
            namespace: "",
            subresource: "",
            dry_run: false,
            manager: "clusterrole-aggregation-controller",
            options: admission::Options::default(),
            passed: false,
        };
        let edit = |old: &Value| {
            let mut new = old.clone();
            new["rules"] = rules.iter().map(Rule::to_json).collect();
            Ok(Edited::from(new))
        };
        match rewrite(&write, &name, Part::Main, edit).await {
            Err(status) if status.reason == Some(types::Reason::NotFound) => {}
            written => drop(written?),
        }
    }
    Ok(())
}
