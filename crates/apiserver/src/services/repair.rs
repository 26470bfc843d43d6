//! Makes the claims of Services whole again: those of a cluster that was written before there were claims, and addresses
//! that somebody removed (kubernetes/kubernetes, `pkg/registry/core/service/ipallocator/controller/repairip.go`).

use std::sync::{Arc, Weak};

use base::Drain;
use serde_json::Value;
use store::{EventKind, Expect, Op, Txn, Watch};
use types::{Status, str_at};

use super::{ADDRESSES, ALLOCATOR, Claim, MANAGED_BY, PORTS, SERVICES, claims_of};
use crate::object;
use crate::state::Inner;

/// Looks at all Services once, and again whenever an address is removed.
pub(crate) async fn start(server: &Arc<Inner>) -> Result<(), Status> {
    let revision = server.store.snapshot(ADDRESSES).revision;
    settle(server).await;
    let watch = server.store.watch(ADDRESSES, revision).map_err(Status::internal)?;
    server.drain.spawn(follow(Arc::downgrade(server), watch, server.drain.clone()));
    Ok(())
}

async fn follow(server: Weak<Inner>, mut watch: Watch, drain: Drain) {
    loop {
        let events = tokio::select! {
            events = watch.next() => events,
            () = drain.started() => return,
        };
        let Some(server) = server.upgrade() else { return };
        match events {
            Ok(events) if !events.iter().any(|event| event.kind == EventKind::Deleted) => continue,
            Ok(_) => {}
            Err(_) => match server.store.watch(ADDRESSES, server.store.snapshot(ADDRESSES).revision) {
                Ok(fresh) if !drain.is_started() => watch = fresh,
                _ => return,
            },
        }
        settle(&server).await;
    }
}

/// Adds the claims that are missing and removes those whose Service is gone. Each change is small and stands alone;
/// what fails because somebody else is at it needs no repair.
async fn settle(server: &Inner) {
    let services = server.store.snapshot(SERVICES);
    let (addresses, ports) = (server.store.snapshot(ADDRESSES), server.store.snapshot(PORTS));
    let mut repairs: Vec<Op> = Vec::new();
    for service in services.records.values().filter_map(|r| serde_json::from_slice::<Value>(&r.value).ok()) {
        let (namespace, name) =
            (str_at(&service, &["metadata", "namespace"]).unwrap_or_default(), object::name(&service));
        for claim in claims_of(&service) {
            let table = if matches!(claim, Claim::Address(_)) { &addresses } else { &ports };
            if !super::is_taken(table, claim) {
                repairs.push(server.take(claim, namespace, name));
            }
        }
    }
    for (record, claim) in
        addresses.records.values().filter_map(|r| Some((r, Claim::Address(r.key.parse().ok()?))))
    {
        if object::label(record, MANAGED_BY) == Some(ALLOCATOR) {
            repairs.extend(orphan(server, record, claim));
        }
    }
    for (record, claim) in ports.records.values().filter_map(|r| Some((r, Claim::Port(r.key.parse().ok()?))))
    {
        repairs.extend(orphan(server, record, claim));
    }
    for op in repairs {
        if let Err(error) = server.store.commit(Txn::from(op)).await {
            tracing::info!(%error, "an address or port of a Service changed while it was being looked after");
        }
    }
}

/// What removes a claim whose Service is gone or has it no more.
fn orphan(server: &Inner, record: &store::Record, claim: Claim) -> Option<Op> {
    let object: Value = serde_json::from_slice(&record.value).ok()?;
    let parent = &object["spec"]["parentRef"];
    let (namespace, name) = (str_at(parent, &["namespace"])?, str_at(parent, &["name"])?);
    let service = server.store.get(SERVICES, &object::key(namespace, name));
    let service = service.and_then(|r| serde_json::from_slice::<Value>(&r.value).ok());
    let has = service.is_some_and(|service| claims_of(&service).contains(&claim));
    if has { None } else { Some(super::delete(claim, Expect::Revision(record.revision))) }
}
