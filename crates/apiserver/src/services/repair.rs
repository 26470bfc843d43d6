//! Makes the claims of Services whole again: those of a cluster that was written before there were claims, and addresses
//! that somebody removed (kubernetes/kubernetes, `pkg/registry/core/service/ipallocator/controller/repairip.go`).

use std::sync::Arc;

use serde_json::Value;
use store::{EventKind, Expect, Op, Txn};
use types::str_at;

use super::{ADDRESSES, ALLOCATOR, Claim, MANAGED_BY, PORTS, SERVICES, claims_of};
use crate::follow::{Follower, News};
use crate::object;
use crate::state::Inner;

/// Looks at all Services once, and from then on at the Service of each address that is removed.
pub(crate) async fn start(server: &Arc<Inner>) {
    let revision = server.store.snapshot(ADDRESSES).revision;
    settle(server).await;
    server.drain.spawn(follow(Follower::since(server, ADDRESSES, revision)));
}

async fn follow(mut addresses: Follower) {
    while let Some((server, news)) = addresses.next().await {
        match news {
            News::Events(events) => {
                for event in events.iter().filter(|event| event.kind == EventKind::Deleted) {
                    take_back(&server, &event.record).await;
                }
            }
            News::Everything(_) => settle(&server).await,
        }
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
        commit(server, op).await;
    }
}

/// An address was removed: if its Service is still there and has it, it comes back. Mostly they went together.
async fn take_back(server: &Inner, removed: &store::Record) {
    let Ok(address) = removed.key.parse() else { return };
    let claim = Claim::Address(address);
    let Some((namespace, name)) = parent(removed) else { return };
    if server.store.get(ADDRESSES, &claim.key()).is_none() && has(server, &namespace, &name, claim) {
        commit(server, server.take(claim, &namespace, &name)).await;
        // The Service may have gone meanwhile, and knew nothing of this.
        if !has(server, &namespace, &name, claim)
            && let Some(op) = server.free(claim, &namespace, &name)
        {
            commit(server, op).await;
        }
    }
}

async fn commit(server: &Inner, op: Op) {
    if let Err(error) = server.store.commit(Txn::from(op)).await {
        tracing::info!(%error, "an address or port of a Service changed while it was being looked after");
    }
}

/// Namespace and name of the Service that a claim's record is of.
fn parent(record: &store::Record) -> Option<(String, String)> {
    let object: Value = serde_json::from_slice(&record.value).ok()?;
    let parent = &object["spec"]["parentRef"];
    if parent["resource"] != SERVICES {
        return None;
    }
    Some((str_at(parent, &["namespace"])?.to_owned(), str_at(parent, &["name"])?.to_owned()))
}

fn has(server: &Inner, namespace: &str, name: &str, claim: Claim) -> bool {
    let service = server.store.get(SERVICES, &object::key(namespace, name));
    let service = service.and_then(|r| serde_json::from_slice::<Value>(&r.value).ok());
    service.is_some_and(|service| claims_of(&service).contains(&claim))
}

/// What removes a claim whose Service is gone or has it no more.
fn orphan(server: &Inner, record: &store::Record, claim: Claim) -> Option<Op> {
    let (namespace, name) = parent(record)?;
    (!has(server, &namespace, &name, claim)).then(|| super::delete(claim, Expect::Revision(record.revision)))
}
