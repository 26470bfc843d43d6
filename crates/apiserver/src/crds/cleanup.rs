//! The end of a definition: its objects go first, then it does (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use auth::User;
use base::{Backoff, Drain};
use registry::{CLEANUP, is_true, set_condition};
use serde_json::Value;
use store::{CommitError, Expect};
use types::Status;

use super::{TABLE, controller};
use crate::object;
use crate::state::Inner;
use crate::verbs::{Deletion, delete_object};

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(10);

/// What a step of the end came to.
enum Step {
    /// The definition is gone, or is not waiting for its objects.
    Over,
    /// Objects are left that others hold.
    Waiting,
}

/// Begins the end of a definition that is marked for it, unless that has begun.
pub(super) fn begin(server: &Arc<Inner>, name: &Arc<str>) {
    if !server.crds.going.lock().insert(name.clone()) {
        return;
    }
    let (weak, name, drain) = (Arc::downgrade(server), name.clone(), server.drain.clone());
    drain.clone().spawn(async move {
        run(&weak, &name, &drain).await;
        if let Some(server) = weak.upgrade() {
            server.crds.going.lock().remove(&name);
        }
    });
}

async fn run(server: &Weak<Inner>, name: &str, drain: &Drain) {
    let mut backoff = Backoff::new(FIRST, MOST);
    loop {
        let Some(strong) = server.upgrade() else { return };
        let before = strong.store.revision();
        let outcome = step(&strong, name).await;
        let objects = strong.store.watch(name, before);
        drop(strong);
        match outcome {
            Ok(Step::Over) => return,
            Ok(Step::Waiting) => {
                // Whoever holds the objects lets them go sooner or later.
                let next = async {
                    match objects {
                        Ok(mut watch) => drop(watch.next().await),
                        Err(_) => tokio::time::sleep(FIRST).await,
                    }
                };
                tokio::select! {
                    () = next => {}
                    () = tokio::time::sleep(MOST) => {}
                    () = drain.started() => return,
                }
            }
            Err(error) => {
                tracing::warn!(name, %error, "cannot delete the objects of a definition");
                tokio::select! {
                    () = tokio::time::sleep(backoff.fail()) => {}
                    () = drain.started() => return,
                }
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("write the definition: {0}")]
    Write(#[from] CommitError),
    #[error("delete an object: {}", .0.message)]
    Delete(Status),
}

async fn step(server: &Arc<Inner>, name: &str) -> Result<Step, Error> {
    let Some(crd) = waiting(server, name) else { return Ok(Step::Over) };
    let overlaps = controller::overlaps(server, name);
    if is_true(&crd, "Established") && !overlaps {
        let message = "CustomResource deletion is in progress";
        change(server, name, |crd, now| {
            set_condition(crd, "Terminating", true, "InstanceDeletionInProgress", message, now);
        })
        .await?;
        if !delete_all(server, name).await.map_err(Error::Delete)? {
            return Ok(Step::Waiting);
        }
    }
    change(server, name, |crd, now| {
        let (reason, message) = if overlaps {
            ("OverlappingBuiltInResource", "instances overlap with built-in resources in storage")
        } else if is_true(crd, "Established") {
            ("InstanceDeletionCompleted", "removed all instances")
        } else {
            ("NeverEstablished", "resource was never established")
        };
        set_condition(crd, "Terminating", false, reason, message, now);
        if let Some(list) = crd["metadata"]["finalizers"].as_array_mut() {
            list.retain(|f| f != CLEANUP);
            if list.is_empty() {
                types::object(&mut crd["metadata"]).remove("finalizers");
            }
        }
    })
    .await?;
    Ok(Step::Over)
}

/// The definition, if it waits for its objects to go.
fn waiting(server: &Inner, name: &str) -> Option<Value> {
    let record = server.store.get(TABLE, name)?;
    let crd: Value = serde_json::from_slice(&record.value).ok()?;
    let held = crd["metadata"]["finalizers"].as_array()?.iter().any(|f| f == CLEANUP);
    (held && !crd["metadata"]["deletionTimestamp"].is_null()).then_some(crd)
}

/// Deletes every object. Tells whether none is left.
async fn delete_all(server: &Inner, name: &str) -> Result<bool, Status> {
    let registry = server.registry();
    // Any version will do: they share the table. A definition without served versions has objects all the same.
    let def = match registry.custom(name).first() {
        Some(def) => def.clone(),
        None => match unserved(server, name) {
            Some(def) => def,
            None => return Ok(server.store.snapshot(name).records.is_empty()),
        },
    };
    let user = User::authenticated("system:apiserver", [User::MASTERS.to_owned()]);
    let unasked = Deletion { passed: true, ..Deletion::default() };
    for record in server.store.snapshot(name).records.values() {
        let (namespace, object) = object::split_key(&record.key);
        match delete_object(server, &def, &user, namespace, object, &unasked).await {
            Ok(_) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    Ok(server.store.snapshot(name).records.is_empty())
}

fn unserved(server: &Inner, name: &str) -> Option<Arc<registry::ResourceDef>> {
    let record = server.store.get(TABLE, name)?;
    let mut crd: Value = serde_json::from_slice(&record.value).ok()?;
    for version in crd["spec"]["versions"].as_array_mut()? {
        version["served"] = true.into();
    }
    let base = server.registry().definitions().clone();
    registry::custom_resources(&crd, &base, server.store.revision(), 0).into_iter().next()
}

/// Changes the definition, and removes it when nothing holds it any longer.
async fn change(server: &Inner, name: &str, change: impl Fn(&mut Value, &str)) -> Result<(), CommitError> {
    loop {
        let Some(record) = server.store.get(TABLE, name) else { return Ok(()) };
        let Ok(old) = serde_json::from_slice::<Value>(&record.value) else { return Ok(()) };
        let mut new = old.clone();
        change(&mut new, &server.timestamp());
        if new == old {
            return Ok(());
        }
        let free = new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let written = if free {
            let Some(def) = controller::definition(server) else { return Ok(()) };
            // Whoever sees that the definition is gone must find its kinds gone.
            controller::stop_serving(server, name);
            server.remove_quietly(&def, "", &new, Expect::Revision(record.revision)).await
        } else {
            controller::write(server, &new, &record).await
        };
        match written {
            Ok(_) | Err(CommitError::NotFound { .. }) => return Ok(()),
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}
