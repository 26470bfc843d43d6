//! The endpoints of the Service `kubernetes`: the API servers that live
//! (kubernetes/kubernetes, `pkg/controlplane/reconcilers/lease.go`, `leaseEndpointReconciler`).
//!
//! Where several servers share a store, each keeps a record under its address and renews it. A server is gone when its
//! record stays as it is for longer than a term, by the clock of whoever looks: clocks are not compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::Drain;
use serde_json::{Value, json};
use store::{CommitError, Expect, Op, Revision, Txn};
use tokio::time::{Instant, MissedTickBehavior};
use types::Status;

use crate::bootstrap;
use crate::object;
use crate::state::Inner;

const LEASES: &str = "masterleases";
/// How long a server is believed without a word from it.
const TERM: Duration = Duration::from_secs(15);
const RENEWAL: Duration = Duration::from_secs(5);

/// Enters this server, and with a shared store keeps it entered until the server drains.
pub(crate) async fn start(server: &Arc<Inner>) -> Result<(), Status> {
    let own = server.config.advertise.0.to_string();
    if !server.store.is_shared() {
        return publish(server, &BTreeSet::from([own])).await;
    }
    let mut living = Living::default();
    renew(server, &own)
        .await
        .map_err(|error| object::unavailable(format!("cannot enter this server: {error}")))?;
    publish(server, &living.at(server, Instant::now())).await?;
    server.drain.spawn(keep(Arc::downgrade(server), own, living, server.drain.clone()));
    Ok(())
}

async fn keep(server: Weak<Inner>, own: String, mut living: Living, drain: Drain) {
    let mut ticks = tokio::time::interval(RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ends = tokio::select! {
            _ = ticks.tick() => false,
            () = drain.started() => true,
        };
        let Some(server) = server.upgrade() else { return };
        let kept = if ends { leave(&server, &own).await } else { renew(&server, &own).await };
        let outcome = match kept {
            Ok(()) => publish(&server, &living.at(&server, Instant::now())).await.map_err(|s| s.message),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = outcome {
            tracing::warn!(error, "cannot keep this server among the endpoints of the API");
        }
        if ends {
            return;
        }
    }
}

async fn renew(server: &Inner, own: &str) -> Result<(), CommitError> {
    let value = object::template(&json!({"metadata": {}, "renewed": server.timestamp()}));
    let (table, key) = (LEASES.into(), own.into());
    let op = Op::Put { table, key, value, terms: Default::default(), expect: Expect::Any };
    server.store.commit(Txn::from(op)).await.map(drop)
}

async fn leave(server: &Inner, own: &str) -> Result<(), CommitError> {
    let op = Op::Delete { table: LEASES.into(), key: own.into(), value: None, expect: Expect::Any };
    match server.store.commit(Txn::from(op)).await {
        Err(CommitError::NotFound { .. }) => Ok(()),
        other => other.map(drop),
    }
}

/// When this server last saw each of the others change its record.
#[derive(Default)]
struct Living(BTreeMap<String, (Revision, Instant)>);

impl Living {
    /// The addresses of those who live at a moment.
    fn at(&mut self, server: &Inner, now: Instant) -> BTreeSet<String> {
        let records = server.store.snapshot(LEASES).records;
        self.0.retain(|address, _| records.contains_key(address.as_str()));
        for (address, record) in &records {
            let seen = self.0.entry(address.to_string()).or_insert((record.revision, now));
            if seen.0 != record.revision {
                *seen = (record.revision, now);
            }
        }
        self.0.iter().filter(|(_, (_, at))| now.duration_since(*at) < TERM).map(|(a, _)| a.clone()).collect()
    }
}

/// Makes the endpoints these addresses, unless they are already. Without any they stay: a server that leaves last
/// leaves no trace worth a write.
async fn publish(server: &Arc<Inner>, addresses: &BTreeSet<String>) -> Result<(), Status> {
    if addresses.is_empty() {
        return Ok(());
    }
    let port = server.config.advertise.1;
    let each = |make: &dyn Fn(&String) -> Value| addresses.iter().map(make).collect::<Vec<_>>();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": each(&|ip| json!({"addresses": [ip], "conditions": {"ready": true}})),
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    replace(server, "discovery.k8s.io", "endpointslices", slice).await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": each(&|ip| json!({"ip": ip})),
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    replace(server, "", "endpoints", endpoints).await
}

/// Makes the object, or gives the one that is there this content.
async fn replace(server: &Arc<Inner>, group: &str, resource: &str, mut object: Value) -> Result<(), Status> {
    bootstrap::create(server, group, "v1", resource, object.clone()).await?;
    let registry = server.registry();
    let def = registry.find(group, "v1", resource).ok_or_else(Status::no_such_resource)?;
    let name = object::name(&object).to_owned();
    loop {
        let Some(record) = server.store.get(&def.table, &object::key("default", &name)) else {
            return Ok(());
        };
        let old = object::decode(def, &record.value)?;
        if ["endpoints", "ports", "subsets"].iter().all(|field| old.get(field) == object.get(field)) {
            return Ok(());
        }
        object["metadata"] = old["metadata"].clone();
        match server.put(def, "default", &object, Expect::Revision(record.revision)).await {
            Err(CommitError::Conflict { .. }) => {}
            written => return written.map(drop).map_err(|e| object::commit_error(def, &name, e)),
        }
    }
}
