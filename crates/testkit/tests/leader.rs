//! Leader election against a real API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base::Drain;
use client::Election;
use k8s_openapi::api::coordination::v1::Lease;
use testkit::Cluster;

const PATIENCE: Duration = Duration::from_secs(60);

/// Candidates, and how many of them lead.
struct Race {
    cluster: Cluster,
    leading: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Race {
    async fn start() -> Self {
        Self { cluster: Cluster::start().await, leading: Arc::default(), most: Arc::default() }
    }

    fn enter(&self, name: &str) -> Drain {
        let election = Election {
            lease: Duration::from_secs(3),
            renew: Duration::from_secs(2),
            retry: Duration::from_millis(50),
            ..Election::new(
                self.cluster.client.clone(),
                "kube-system",
                "race",
                name.to_owned(),
                self.cluster.clock.clone(),
            )
        };
        let drain = Drain::new();
        let (leading, most) = (self.leading.clone(), self.most.clone());
        drain.spawn(election.run(drain.clone(), move |term| {
            most.fetch_max(leading.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let (leading, ends) = (leading.clone(), term.clone());
            term.spawn(async move {
                ends.started().await;
                leading.fetch_sub(1, Ordering::SeqCst);
            });
        }));
        drain
    }

    async fn lease(&self) -> Option<Lease> {
        self.cluster.api::<Lease>("kube-system").get_opt("race").await.expect("a read")
    }

    /// Waits until the Lease's holder is as wanted; tells how long that took.
    async fn holder(&self, wanted: impl Fn(&str) -> bool) -> Duration {
        let begun = Instant::now();
        loop {
            let lease = self.lease().await.and_then(|lease| lease.spec);
            if lease.and_then(|spec| spec.holder_identity).is_some_and(|holder| wanted(&holder)) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "no such leader");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_hands_over_when_it_ends() {
    let race = Race::start().await;
    let a = race.enter("a");
    race.holder(|holder| holder == "a").await;
    let others = ["b", "c"].map(|name| race.enter(name));
    a.drain().await;
    assert_eq!(race.leading.load(Ordering::SeqCst).min(1), race.leading.load(Ordering::SeqCst));
    race.holder(|holder| holder == "b" || holder == "c").await;
    let spec = race.lease().await.and_then(|lease| lease.spec).expect("a lease");
    assert!(spec.lease_transitions.is_some_and(|count| count >= 1), "{spec:?}");
    for drain in others {
        drain.drain().await;
    }
    race.holder(str::is_empty).await;
    assert_eq!((race.leading.load(Ordering::SeqCst), race.most.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_followed_when_its_lease_has_run_out() {
    let race = Race::start().await;
    // It took the lease and died.
    let lease: Lease = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "race"},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 2, "renewTime": "2000-01-01T00:00:00.000000Z"},
    }))
    .expect("a lease");
    race.cluster.api::<Lease>("kube-system").create(&Default::default(), &lease).await.expect("a write");
    let begun = Instant::now();
    let drain = race.enter("a");
    race.holder(|holder| holder == "a").await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "its clock is not trusted: {:?}", begun.elapsed());
    drain.drain().await;
}
