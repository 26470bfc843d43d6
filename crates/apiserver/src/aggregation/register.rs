//! The APIServices of what is served here (kubernetes/kubernetes, `kube-aggregator/pkg/controllers/autoregister`,
//! `pkg/controlplane/controller/crdregistration`).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use store::Expect;
use types::Status;

use super::check::Condition;
use super::{Services, TABLE, priorities, watcher};
use crate::follow::Follower;
use crate::state::Inner;
use crate::{bootstrap, object};

const GROUP: &str = "apiregistration.k8s.io";
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Registers the built-in versions once, and then those of custom kinds as they come and go.
pub(super) async fn keep(server: Weak<Inner>) {
    let Some(strong) = server.upgrade() else { return };
    let mut changes = strong.crds.changes();
    let mut registered = Follower::from_now(&strong, TABLE);
    let mut extended = strong.aggregation.extended.subscribe();
    drop(strong);
    let mut first = true;
    loop {
        changes.mark_unchanged();
        extended.mark_unchanged();
        let Some(strong) = server.upgrade() else { return };
        let outcome = async {
            if first {
                register(&strong, built_in(&strong), "onstart", first).await?;
            }
            // Whose it is may change: a user's own server is not to be taken away at the next start.
            register(&strong, beside(&strong), "onstart", false).await?;
            let wanted = custom(&strong);
            withdraw(&strong, &wanted).await?;
            register(&strong, wanted, "true", first).await
        }
        .await;
        if let Err(status) = outcome {
            tracing::warn!(why = status.message, "cannot register what is served here");
            drop(strong);
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        first = false;
        drop(strong);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            changed = extended.changed() => if changed.is_err() { return },
            // Somebody may have taken away what must be there.
            news = registered.next() => if news.is_none() { return },
        }
    }
}

/// By name: group, version and priorities.
type Wanted = BTreeMap<String, (String, String, (i64, i64))>;

fn wanted<'a>(defs: impl Iterator<Item = &'a registry::ResourceDef>) -> Wanted {
    let mut wanted = Wanted::new();
    for def in defs {
        let (group, version) = (&*def.gvk.group, &*def.gvk.version);
        let name = format!("{version}.{group}");
        wanted.entry(name).or_insert_with(|| {
            let priority = priorities::of(group, version, def.custom.is_some());
            (group.to_owned(), version.to_owned(), priority)
        });
    }
    wanted
}

fn built_in(server: &Inner) -> Wanted {
    wanted(server.registry().builtin_resources().iter().map(Arc::as_ref))
}

/// What components of this process serve.
fn beside(server: &Inner) -> Wanted {
    let locals = server.aggregation.locals.read();
    let wanted = |local: &super::Local| {
        (local.name(), (local.group.to_string(), local.version.to_string(), local.priority))
    };
    locals.iter().map(wanted).collect()
}

fn custom(server: &Inner) -> Wanted {
    let registry = server.registry();
    let built_in = built_in(server);
    let mut wanted = wanted(registry.resources().map(Arc::as_ref).filter(|def| def.custom.is_some()));
    wanted.retain(|name, _| !built_in.contains_key(name));
    wanted
}

/// Writes all that is missing, together; and what says something else, if it is to be compared.
async fn register(server: &Arc<Inner>, wanted: Wanted, managed: &str, compare: bool) -> Result<(), Status> {
    let work = wanted.into_iter().map(|(name, (group, version, priority))| async move {
        let spec = json!({"group": group, "version": version,
            "groupPriorityMinimum": priority.0, "versionPriority": priority.1});
        let Some(record) = server.store.get(TABLE, &name) else {
            let object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": name, "labels": {MANAGED: managed}}, "spec": spec});
            return bootstrap::create(server, GROUP, "v1", "apiservices", object).await;
        };
        // What somebody else has registered is theirs.
        if !compare || object::label(&record, MANAGED) != Some(managed) {
            return Ok(());
        }
        let registry = server.registry();
        let Some(def) = registry.find(GROUP, "v1", "apiservices") else { return Ok(()) };
        let mut object = object::decode(def, &record.value)?;
        if object["spec"] == spec {
            return Ok(());
        }
        object["spec"] = spec;
        let written = server.put_quietly(def, "", &object, Expect::Revision(record.revision)).await;
        written.map(drop).map_err(|error| object::commit_error(def, &name, error))
    });
    join_all(work).await.into_iter().collect()
}

/// Takes away what stood for custom kinds that are no more.
async fn withdraw(server: &Arc<Inner>, wanted: &Wanted) -> Result<(), Status> {
    let registry = server.registry();
    let Some(def) = registry.find(GROUP, "v1", "apiservices") else { return Ok(()) };
    let snapshot = server.store.snapshot(TABLE);
    for record in snapshot.records.values() {
        if object::label(record, MANAGED) != Some("true") || wanted.contains_key(&*record.key) {
            continue;
        }
        let last = object::decode(def, &record.value)?;
        match server.remove_quietly(def, "", &last, Expect::Revision(record.revision)).await {
            Ok(_) | Err(store::CommitError::NotFound { .. }) => {}
            Err(error) => return Err(object::commit_error(def, &record.key, error)),
        }
    }
    Ok(())
}

/// What is served here is always there (`kube-aggregator/pkg/controllers/status/local`).
pub(super) async fn mark_local(server: &Inner, services: &Services) {
    let condition = Condition {
        status: "True",
        reason: "Local",
        message: "Local APIServices are always available".into(),
    };
    for name in services.unmarked() {
        let Some(record) = server.store.get(TABLE, name) else { continue };
        let Ok(object) = serde_json::from_slice::<Value>(&record.value) else { continue };
        watcher::tell(server, name, object::uid(&object), &condition).await;
    }
}
