//! The endpoints of the Service `kubernetes`: the API servers that live
//! (kubernetes/kubernetes, `pkg/controlplane/reconcilers/lease.go`, `leaseEndpointReconciler`).
//!
//! Where several servers share a store, each keeps a record under its address, and in each term renews its own and looks
//! at those of the others. A server is gone when its record is found unchanged a few times in a row. No clocks are
//! compared, nor is any read: who looks late, or finds the store again after a while, gives the others time to be heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use base::Drain;
use serde_json::{Value, json};
use store::{CommitError, Expect, Op, Records, Revision, Txn};
use tokio::time::{Instant, MissedTickBehavior};
use types::Status;

use crate::bootstrap;
use crate::object;
use crate::state::Inner;

const LEASES: &str = "masterleases";
/// How often a server renews its record, and looks.
const RENEWAL: Duration = Duration::from_secs(5);
/// How many looks in a row find the record of a server unchanged that is gone.
const PATIENCE: u32 = 3;
/// After so many of them, an hour, whoever looks removes the record: servers come and go under ever new addresses.
const FORGOTTEN: u32 = 720;

/// Enters this server, and with a shared store keeps it entered until the server drains.
pub(crate) async fn start(server: &Arc<Inner>) -> Result<(), Status> {
    let own = server.config.advertise.0.to_string();
    if !server.store.is_shared() {
        return publish(server, &BTreeSet::from([own])).await;
    }
    let mut member = Member { own, living: Living::default() };
    member
        .renew(server)
        .await
        .map_err(|error| object::unavailable(format!("cannot enter this server: {error}")))?;
    member.look(server).await?;
    server.drain.spawn(keep(Arc::downgrade(server), member, server.drain.clone()));
    Ok(())
}

async fn keep(server: Weak<Inner>, mut member: Member, drain: Drain) {
    let mut ticks = tokio::time::interval_at(Instant::now() + RENEWAL, RENEWAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ends = tokio::select! {
            _ = ticks.tick() => false,
            () = drain.started() => true,
        };
        let Some(server) = server.upgrade() else { return };
        let kept = if ends { member.leave(&server).await } else { member.renew(&server).await };
        let outcome = match kept {
            Ok(()) => member.look(&server).await.map_err(|status| status.message),
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

/// One of the servers that share a store.
struct Member {
    /// Its address.
    own: String,
    living: Living,
}

impl Member {
    async fn renew(&self, server: &Inner) -> Result<(), CommitError> {
        let value = object::template(&json!({"metadata": {}, "renewed": server.timestamp()}));
        let (table, key) = (LEASES.into(), self.own.as_str().into());
        let op = Op::Put { table, key, value, terms: Default::default(), expect: Expect::Any };
        server.store.commit(Txn::from(op)).await.map(drop)
    }

    async fn leave(&self, server: &Inner) -> Result<(), CommitError> {
        let (table, key) = (LEASES.into(), self.own.as_str().into());
        match server
            .store
            .commit(Txn::from(Op::Delete { table, key, value: None, expect: Expect::Any }))
            .await
        {
            Err(CommitError::NotFound { .. }) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Looks who lives, and makes them the endpoints.
    async fn look(&mut self, server: &Arc<Inner>) -> Result<(), Status> {
        let living = self.living.look(&server.store.snapshot(LEASES).records);
        for (address, revision) in self.living.forgotten() {
            let (table, key) = (LEASES.into(), address.into());
            let op = Op::Delete { table, key, value: None, expect: Expect::Revision(revision) };
            // Somebody else has removed it, or it lives after all; or the store is out of reach, and there is a next time.
            let _ = server.store.commit(Txn::from(op)).await;
        }
        publish(server, &living).await
    }
}

/// How each server's record was when it was looked at last, and how many looks in a row it has been so.
#[derive(Default)]
struct Living(BTreeMap<String, (Revision, u32)>);

impl Living {
    /// Looks at the records once, and gives the addresses of those who live.
    fn look(&mut self, records: &Records) -> BTreeSet<String> {
        self.0.retain(|address, _| records.contains_key(address.as_str()));
        for (address, record) in records {
            match self.0.get_mut(&**address) {
                Some((revision, unchanged)) if *revision == record.revision => *unchanged += 1,
                _ => drop(self.0.insert(address.to_string(), (record.revision, 0))),
            }
        }
        let living = self.0.iter().filter(|(_, (_, unchanged))| *unchanged < PATIENCE);
        living.map(|(address, _)| address.clone()).collect()
    }

    /// The records that nobody has renewed for very long, and how they were.
    fn forgotten(&self) -> impl Iterator<Item = (&str, Revision)> {
        let old = self.0.iter().filter(|(_, (_, unchanged))| *unchanged >= FORGOTTEN);
        old.map(|(address, (revision, _))| (address.as_str(), *revision))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::TestServer;

    fn member(own: &str) -> Member {
        Member { own: own.into(), living: Living::default() }
    }

    /// The addresses of the slice; none while those of the Endpoints are others.
    async fn endpoints(test: &TestServer) -> Vec<String> {
        let (code, slice) =
            test.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
        assert_eq!(code, 200, "{slice}");
        let (_, endpoints) = test.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
        let of = |list: &Value, path: &str| -> Vec<String> {
            let all = list.as_array().into_iter().flatten();
            all.map(|e| e.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()).collect()
        };
        let addresses = of(&slice["endpoints"], "/addresses/0");
        let same = of(&endpoints["subsets"][0]["addresses"], "/ip") == addresses;
        if same { addresses } else { Vec::new() }
    }

    fn record(test: &TestServer, address: &str) -> Option<(Revision, Value)> {
        let record = test.api.store().get(LEASES, address)?;
        Some((record.revision, serde_json::from_slice(&record.value).unwrap()))
    }

    /// Lets one term pass: for the clock, and for what waits.
    async fn pass(test: &TestServer) {
        test.clock.advance(RENEWAL);
        tokio::time::pause();
        tokio::time::advance(RENEWAL).await;
        tokio::time::resume();
    }

    #[tokio::test]
    async fn a_record_is_renewed_and_goes_with_its_server() {
        let test = TestServer::start().await;
        let (server, own) = (&test.api.0, "127.0.0.1");
        let drain = Drain::new();
        drain.spawn(keep(Arc::downgrade(server), member(own), drain.clone()));
        for now in ["2026-01-01T00:00:05Z", "2026-01-01T00:00:10Z"] {
            member("127.0.0.2").renew(server).await.unwrap();
            // The task has to be at rest before time moves: it begins to count when it first runs.
            tokio::task::yield_now().await;
            pass(&test).await;
            test.until(async || record(&test, own).is_some_and(|(_, r)| r["renewed"] == now)).await;
            test.until(async || endpoints(&test).await == [own, "127.0.0.2"]).await;
        }
        drain.drain().await;
        assert_eq!(record(&test, own), None);
        assert_eq!(endpoints(&test).await, ["127.0.0.2"]);
    }

    #[tokio::test]
    async fn a_dead_server_runs_out_and_may_come_back() {
        let test = TestServer::start().await;
        let server = &test.api.0;
        let (mut looks, other) = (member("127.0.0.1"), member("127.0.0.2"));
        other.renew(server).await.unwrap();
        for unchanged in 0..=PATIENCE {
            looks.renew(server).await.unwrap();
            looks.look(server).await.unwrap();
            let lives = unchanged < PATIENCE;
            assert_eq!(endpoints(&test).await.contains(&other.own), lives, "{unchanged}");
        }
        assert_eq!(endpoints(&test).await, ["127.0.0.1"]);
        // Whoever comes anew sees a record, and does not know yet that nobody renews it.
        other.renew(server).await.unwrap();
        looks.look(server).await.unwrap();
        assert_eq!(endpoints(&test).await, ["127.0.0.1", "127.0.0.2"]);
        other.leave(server).await.unwrap();
        other.leave(server).await.unwrap();
        looks.look(server).await.unwrap();
        assert_eq!(endpoints(&test).await, ["127.0.0.1"]);
    }

    #[tokio::test]
    async fn records_of_the_dead_are_removed_in_the_end() {
        let test = TestServer::start().await;
        let server = &test.api.0;
        let (mut looks, other) = (member("127.0.0.1"), member("127.0.0.2"));
        other.renew(server).await.unwrap();
        looks.renew(server).await.unwrap();
        for looked in 0..=FORGOTTEN {
            assert!(record(&test, &other.own).is_some(), "after {looked} looks");
            looks.renew(server).await.unwrap();
            looks.look(server).await.unwrap();
        }
        assert_eq!(record(&test, &other.own), None);
        assert!(record(&test, &looks.own).is_some());
    }

    #[tokio::test]
    async fn clocks_that_jump_remove_nobody() {
        let test = TestServer::start().await;
        let (server, day) = (&test.api.0, Duration::from_secs(86_400));
        let (mut looks, other) = (member("127.0.0.1"), member("127.0.0.2"));
        for _ in 0..=PATIENCE {
            looks.renew(server).await.unwrap();
            other.renew(server).await.unwrap();
            looks.look(server).await.unwrap();
            // Both slept for a day, and this one wakes first.
            test.clock.advance(day);
            tokio::time::pause();
            tokio::time::advance(day).await;
            tokio::time::resume();
            looks.renew(server).await.unwrap();
            looks.look(server).await.unwrap();
            assert_eq!(endpoints(&test).await, ["127.0.0.1", "127.0.0.2"]);
        }
    }
}
