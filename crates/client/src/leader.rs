//! Leader election over a Lease: of several processes that could do a job, one does it.
//!
//! The rules are those of kubernetes/client-go, `tools/leaderelection/leaderelection.go` (`tryAcquireOrRenew`,
//! `release`), so that upstream's components and ours may compete for one Lease. Whether a Lease has run out is told
//! by this process's own clock, from when it first saw the Lease as it is.

use std::sync::Arc;
use std::time::Duration;

use base::metrics::{Family, Gauge, Page};
use base::{Clock, Drain};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{is_already_exists, is_conflict, is_not_found};

/// A candidate's name, what it runs for, and its patience.
#[derive(Clone)]
pub struct Election {
    /// How the Lease is reached.
    pub client: kube::Client,
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// This candidate, unlike any other.
    pub identity: String,
    /// The wall clock, for what the Lease shows.
    pub clock: Arc<dyn Clock>,
    /// How long others wait for a leader that is silent.
    pub lease: Duration,
    /// After how long without success a leader gives up; less than `lease`.
    pub renew: Duration,
    /// The pause between attempts.
    pub retry: Duration,
}

/// The Lease as it was when it last changed.
struct Seen {
    spec: LeaseSpec,
    at: Instant,
}

/// Who leads in this process, by the Lease's name.
static LEADING: Family<Gauge> = Family::new();

/// Notes whether this process leads in an office (`leader_election_master_status`). An election does so itself; whoever
/// leads without one says so.
pub fn note_leader(name: &str, leads: bool) {
    LEADING.of(&format!("name=\"{name}\""), Gauge::new).set(leads.into());
}

/// Adds to a page who leads in this process, of all offices or of one (kubernetes/kubernetes,
/// `component-base/metrics/prometheus/clientgo/leaderelection/metrics.go`).
pub fn election_metrics(page: &mut Page, only: Option<&str>) {
    let help = "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.";
    page.family("leader_election_master_status", "gauge", help);
    for (labels, leads) in LEADING.all() {
        if only.is_none_or(|name| labels == format!("name=\"{name}\"")) {
            page.sample(&labels, leads.get() as f64);
        }
    }
}

impl Election {
    /// A candidate with upstream's durations: 15, 10 and 2 seconds.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        identity: String,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity,
            clock,
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }

    /// Runs for office until `drain` starts. Each time it is won, `lead` starts the work, which must end with the
    /// drain it is given; that starts when the office is lost, or when `drain` does. At the end the office is laid
    /// down, once the work has ended.
    pub async fn run(self, drain: Drain, mut lead: impl FnMut(&Drain) + Send) {
        let mut seen = None;
        note_leader(&self.name, false);
        while !drain.is_started() {
            if !self.attempt(&mut seen).await {
                tokio::select! {
                    () = sleep(self.retry) => {}
                    () = drain.started() => {}
                }
                continue;
            }
            tracing::info!(lease = %self.name, identity = %self.identity, "leading");
            let term = drain.child();
            note_leader(&self.name, true);
            lead(&term);
            self.keep(&mut seen, &drain).await;
            note_leader(&self.name, false);
            term.drain().await;
            if drain.is_started() {
                self.release(&mut seen).await;
            } else {
                tracing::warn!(lease = %self.name, "lost the lead");
            }
        }
    }

    /// Renews until that fails for too long or the drain starts.
    async fn keep(&self, seen: &mut Option<Seen>, drain: &Drain) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.renew {
            tokio::select! {
                () = sleep(self.retry) => {}
                () = drain.started() => return,
            }
            let left = self.renew.saturating_sub(renewed.elapsed());
            let began = Instant::now();
            if timeout(left, self.attempt(seen)).await.unwrap_or(false) {
                renewed = began;
            } else if seen.as_ref().is_some_and(|s| s.spec.holder_identity.as_ref() != Some(&self.identity)) {
                return; // Somebody else leads.
            }
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Tries to take or renew the Lease; tells whether it is ours now.
    async fn attempt(&self, seen: &mut Option<Seen>) -> bool {
        match self.try_attempt(seen).await {
            Ok(ours) => ours,
            Err(error) if is_conflict(&error) || is_already_exists(&error) => false,
            Err(error) => {
                tracing::debug!(lease = %self.name, %error, "cannot take or renew the lease");
                false
            }
        }
    }

    async fn try_attempt(&self, seen: &mut Option<Seen>) -> Result<bool, kube::Error> {
        let api = self.api();
        let found = match api.get(&self.name).await {
            Ok(lease) => lease,
            Err(error) if is_not_found(&error) => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let spec = self.spec(None);
                let lease = Lease { metadata, spec: Some(spec) };
                let lease = api.create(&PostParams::default(), &lease).await?;
                *seen = Some(Seen { spec: lease.spec.unwrap_or_default(), at: Instant::now() });
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let old = found.spec.clone().unwrap_or_default();
        if seen.as_ref().is_none_or(|seen| seen.spec != old) {
            *seen = Some(Seen { spec: old.clone(), at: Instant::now() });
        }
        let holder = old.holder_identity.as_deref().unwrap_or_default();
        let lasts = u64::try_from(old.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
        let lasts = Duration::from_secs(lasts);
        let valid = seen.as_ref().is_some_and(|seen| seen.at.elapsed() < lasts);
        if !holder.is_empty() && holder != self.identity && valid {
            return Ok(false);
        }
        // The resource version that was read is the precondition.
        let lease = Lease { spec: Some(self.spec(Some(&old))), ..found };
        let lease = api.replace(&self.name, &PostParams::default(), &lease).await?;
        *seen = Some(Seen { spec: lease.spec.unwrap_or_default(), at: Instant::now() });
        Ok(true)
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.clock.now());
        let ours = old.is_some_and(|old| old.holder_identity.as_ref() == Some(&self.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.lease.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: if ours { old.and_then(|old| old.acquire_time.clone()) } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours || old.is_none() { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    /// Lays the office down, so that the next one need not wait.
    async fn release(&self, seen: &mut Option<Seen>) {
        let released = async {
            let mut lease = self.api().get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(self.clock.now()));
            self.api().replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(self.retry, released).await {
            Ok(Ok(())) => tracing::info!(lease = %self.name, "laid down the lead"),
            // Others wait until it has run out.
            Ok(Err(error)) => tracing::warn!(lease = %self.name, %error, "cannot lay down the lead"),
            Err(_) => tracing::warn!(lease = %self.name, "cannot lay down the lead in time"),
        }
        *seen = None;
    }
}
