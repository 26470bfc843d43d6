//! Writes into the status of a ValidatingAdmissionPolicy what its expressions have against the types they are about
//! (kubernetes/kubernetes, `pkg/controller/validatingadmissionpolicystatus`).

use std::sync::Arc;

use auth::User;
use serde_json::{Value, json};
use types::Status;

use crate::follow::Follower;
use crate::state::Inner;
use crate::verbs::{Edited, Part, Write, apply_edit, rewrite};

const TABLE: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
/// The name under which the status is owned.
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Does it for all policies there are, and again after every change.
pub(crate) fn start(server: &Arc<Inner>) {
    server.drain.spawn(follow(Follower::new(server, TABLE)));
}

async fn follow(mut policies: Follower) {
    while let Some((server, _)) = policies.next().await {
        settle(&server).await;
    }
}

fn is_behind(policy: &Value) -> bool {
    let number = |part: &str, field: &str| policy[part][field].as_i64().unwrap_or(0);
    number("metadata", "generation") > number("status", "observedGeneration")
}

async fn settle(server: &Arc<Inner>) {
    let snapshot = server.store.snapshot(TABLE);
    let policies = snapshot.records.values().filter_map(|r| serde_json::from_slice::<Value>(&r.value).ok());
    for policy in policies.filter(is_behind) {
        match check(server, &policy).await {
            Err(status) if status.reason == Some(types::Reason::NotFound) => {}
            Err(error) => {
                let name = crate::object::name(&policy);
                tracing::warn!(name, error = error.message, "cannot write what the types of a policy say");
            }
            Ok(()) => {}
        }
    }
}

async fn check(server: &Arc<Inner>, policy: &Value) -> Result<(), Status> {
    let registry = server.registry();
    let kind = "validatingadmissionpolicies";
    let Some(def) = registry.find("admissionregistration.k8s.io", "v1", kind) else { return Ok(()) };
    let warnings = registry::type_warnings(policy, &registry);
    let mut checked = json!({});
    if !warnings.is_empty() {
        checked["expressionWarnings"] = warnings.into();
    }
    let generation = policy["metadata"]["generation"].clone();
    let name = crate::object::name(policy);
    let config = json!({"apiVersion": def.api_version(), "kind": &*def.gvk.kind, "metadata": {"name": name},
        "status": {"observedGeneration": generation, "typeChecking": checked}});
    let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
    let write = Write {
        server,
        registry: &registry,
        def,
        user: &user,
        namespace: "",
        subresource: "status",
        dry_run: false,
        manager: MANAGER,
        options: admission::Options::default(),
        passed: false,
    };
    let edit = |live: &Value| -> Result<Edited, Status> {
        // Another one is looked at when its own change is seen.
        if live["metadata"]["generation"] != generation
            || live["metadata"]["uid"] != policy["metadata"]["uid"]
        {
            return Ok(live.clone().into());
        }
        apply_edit(&write, live, &config, Part::Status, true)
    };
    rewrite(&write, name, Part::Status, edit).await.map(drop)
}
