//! Ranges of Services' addresses: those that are ready give addresses, and none goes while addresses of it are in use
//! (kubernetes/kubernetes, `pkg/controller/servicecidrs/servicecidrs_controller.go`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Change, Controller, Informer, Key, Next, Recorder, is_deleting};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::context::Context;
use crate::error::{Attempt, Error};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
/// On an address: who has given it. Those that somebody else keeps hold nothing up.
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const MANAGER: &str = "ipallocator.k8s.io";
const IN_USE: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
const OTHER_FAMILY: &str = "addresses of Services are IPv4 addresses here; a range of others gives none";
/// So long after a range is to go, nobody gives addresses of it any more, and all know of those that were.
const GRACE: Duration = Duration::from_secs(10);

struct State {
    ctx: Context,
    ranges: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
    recorder: Recorder,
}

pub(crate) fn start(ctx: &Context) {
    let (ranges, addresses) = (ctx.informers.of::<ServiceCIDR>(), ctx.informers.of::<IPAddress>());
    let (all, of_address) = (ranges.clone(), ranges.clone());
    let controller = Controller::new("service-cidr")
        .workers(1)
        .watches_changes(&ranges, move |_, queue| {
            // Who contains whom may be different now.
            all.store().keys().into_iter().for_each(|key| queue.add(key));
        })
        .watches_changes(&addresses, move |change, queue| {
            if !matches!(change, Change::Updated { .. }) {
                let leaving = of_address.store().list().into_iter().filter(|r| is_deleting(&r.metadata));
                leaving.for_each(|range| queue.add(Key::of(&*range)));
            }
        });
    let recorder = ctx.recorder("service-cidr-controller");
    ctx.spawn(controller, Arc::new(State { ctx: ctx.clone(), ranges, addresses, recorder }), look);
}

fn nets(range: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = range.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
    cidrs.into_iter().flatten().filter_map(|cidr| cidr.parse().ok()).collect()
}

/// The address, if it was given to a Service.
fn given(address: &IPAddress) -> Option<IpAddr> {
    let ours = address.labels().get(MANAGED_BY).is_some_and(|by| by == MANAGER);
    if ours { address.name_any().parse().ok() } else { None }
}

/// What is to be done about a range.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It stays: whether it gives addresses, and why not.
    Stays(Result<(), &'static str>),
    /// It goes as soon as nobody has an address of it.
    InUse,
    Goes,
}

fn verdict(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], addresses: &[IpAddr]) -> Verdict {
    let own = nets(range);
    if is_deleting(&range.metadata) {
        let others = all.iter().filter(|o| o.name_any() != range.name_any() && !is_deleting(&o.metadata));
        let others: Vec<IpNet> = others.flat_map(|other| nets(other)).collect();
        let holds = |nets: &[IpNet], address: &IpAddr| nets.iter().any(|net| net.contains(address));
        let orphans = addresses.iter().any(|a| holds(&own, a) && !holds(&others, a));
        return if orphans { Verdict::InUse } else { Verdict::Goes };
    }
    let served = own.iter().all(|net| matches!(net, IpNet::V4(_)));
    Verdict::Stays(if served { Ok(()) } else { Err(OTHER_FAMILY) })
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let Some(range) = state.ranges.get(&key) else { return Ok(Next::Done) };
    let addresses = state.addresses.store().list();
    let addresses: Vec<IpAddr> = addresses.iter().filter_map(|address| given(address)).collect();
    let held = range.finalizers().iter().any(|f| f == FINALIZER);
    match verdict(&range, &state.ranges.store().list(), &addresses) {
        Verdict::Stays(gives) => {
            if !held {
                state.hold(&range, true).await?;
            }
            match gives {
                Ok(()) => state.say(&range, true, "", "Kubernetes Service CIDR is ready").await?,
                Err(why) => state.say(&range, false, "NotServed", why).await?,
            }
        }
        Verdict::InUse => state.say(&range, false, "Terminating", IN_USE).await?,
        Verdict::Goes if held => {
            let since =
                range.metadata.deletion_timestamp.as_ref().map(|at| state.ctx.now().duration_since(at.0));
            let passed = since.and_then(|since| Duration::try_from(since).ok()).unwrap_or_default();
            let left = GRACE.saturating_sub(passed);
            if !left.is_zero() {
                return Ok(Next::After(left));
            }
            state.hold(&range, false).await?;
        }
        Verdict::Goes => {}
    }
    Ok(Next::Done)
}

impl State {
    async fn hold(&self, range: &ServiceCIDR, on: bool) -> Result<(), Error> {
        let finalizers = range.finalizers().iter().filter(|f| *f != FINALIZER).cloned();
        let finalizers: Vec<String> = finalizers.chain(on.then(|| FINALIZER.to_owned())).collect();
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": range.metadata.resource_version}});
        let api: Api<ServiceCIDR> = Api::all(self.ctx.client());
        match api.patch(&range.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => outcome
                .map(drop)
                .attempt(|| format!("write the finalizers of service CIDR {}", range.name_any())),
        }
    }

    async fn say(&self, range: &ServiceCIDR, ready: bool, reason: &str, message: &str) -> Result<(), Error> {
        let status = if ready { "True" } else { "False" };
        let known = range.status.as_ref().and_then(|s| s.conditions.as_ref());
        let known = known.and_then(|all| all.iter().find(|c| c.type_ == READY));
        if known.is_some_and(|c| c.status == status && c.reason == reason && c.message == message) {
            return Ok(());
        }
        let since = known.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        let condition = Condition {
            type_: READY.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: since.unwrap_or(Time(self.ctx.now())),
            observed_generation: None,
        };
        // That a range waits for its addresses is no news of upstream's.
        if !ready && message == OTHER_FAMILY {
            self.recorder.warning(range, &format!("KubernetesServiceCIDR{reason}"), message);
        }
        let api: Api<ServiceCIDR> = Api::all(self.ctx.client());
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        match api.patch_status(&range.name_any(), &PatchParams::default(), &patch).await {
            Err(error) if client::is_not_found(&error) => Ok(()),
            outcome => {
                outcome.map(drop).attempt(|| format!("write the status of service CIDR {}", range.name_any()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base::ManualClock;
    use k8s_openapi::api::core::v1::Service;
    use kube::api::DeleteParams;
    use serde_json::Value;

    use super::*;
    use crate::testing::cluster_at;

    fn range(name: &str, cidrs: &[&str], more: Value) -> ServiceCIDR {
        let mut range = json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}});
        for (field, value) in more.as_object().into_iter().flatten() {
            range["metadata"][field] = value.clone();
        }
        testkit::object(range)
    }

    #[test]
    fn ranges_go_when_nobody_would_be_without_one() {
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let going = range("going", &["10.0.0.0/24"], leaving);
        let address = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
        let with = |others: &[ServiceCIDR], addresses: &[IpAddr]| {
            let all: Vec<_> = others.iter().chain([&going]).cloned().map(Arc::new).collect();
            verdict(&going, &all, addresses)
        };
        assert_eq!(with(&[], &address("10.0.1.1")), Verdict::Goes);
        assert_eq!(with(&[], &address("10.0.0.1")), Verdict::InUse);
        let wider = range("wider", &["10.0.0.0/16"], json!({}));
        assert_eq!(with(&[wider], &address("10.0.0.1")), Verdict::Goes);
    }

    #[test]
    fn only_what_was_given_to_services_counts() {
        let address = |labels: Value| -> IPAddress {
            testkit::object(json!({"metadata": {"name": "10.0.0.1", "labels": labels}}))
        };
        assert_eq!(given(&address(json!({MANAGED_BY: MANAGER}))), "10.0.0.1".parse().ok());
        assert_eq!(given(&address(json!({MANAGED_BY: "metallb.io"}))), None);
        assert_eq!(given(&address(json!({}))), None);
    }

    #[tokio::test]
    async fn ranges_become_ready_and_go_when_nobody_has_an_address_of_them() {
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let cluster = cluster_at(clock.clone()).await;
        let condition = |r: &ServiceCIDR| {
            let all = r.status.as_ref()?.conditions.as_ref()?;
            let ready = all.iter().find(|c| c.type_ == READY)?;
            Some((ready.status.clone(), ready.reason.clone()))
        };
        let all: Api<ServiceCIDR> = cluster.all();
        for (name, cidr) in [("other", "192.168.0.0/24"), ("six", "2001:db8::/112")] {
            cluster.create_global(&range(name, &[cidr], json!({}))).await;
        }
        let wait = |name: &'static str, status: &'static str, reason: &'static str| {
            let (cluster, all) = (&cluster, all.clone());
            async move {
                let is = |r: &ServiceCIDR| condition(r) == Some((status.to_owned(), reason.to_owned()));
                let look = || async { all.get(name).await.ok().filter(|r| is(r)) };
                cluster.wait_for(&format!("{name} to be {status} {reason}"), look).await
            }
        };
        wait("kubernetes", "True", "").await;
        wait("other", "True", "").await;
        wait("six", "False", "NotServed").await;
        let service: Service = testkit::object(json!({"metadata": {"name": "s"},
            "spec": {"ports": [{"port": 80}], "clusterIP": "192.168.0.7"}}));
        cluster.create("default", &service).await;
        // The address of the Service kubernetes is of the server's own range.
        for name in ["kubernetes", "other", "six"] {
            all.delete(name, &DeleteParams::default()).await.unwrap();
        }
        wait("kubernetes", "False", "Terminating").await;
        wait("other", "False", "Terminating").await;
        cluster.api::<Service>("default").delete("s", &DeleteParams::default()).await.unwrap();
        // Somebody may have got an address of it just before it was to go.
        let gone = |name: &'static str| {
            let (cluster, all) = (&cluster, all.clone());
            async move {
                let look = || async { all.get_opt(name).await.unwrap().is_none().then_some(()) };
                cluster.wait_for(&format!("{name} to be gone"), look).await;
            }
        };
        let addresses: Api<IPAddress> = cluster.all();
        let given = || async { addresses.get_opt("192.168.0.7").await.unwrap().is_none().then_some(()) };
        cluster.wait_for("the address to be given back", given).await;
        assert!(all.get_opt("other").await.unwrap().is_some() && all.get_opt("six").await.unwrap().is_some());
        clock.advance(GRACE);
        tokio::time::pause();
        tokio::time::advance(GRACE).await;
        tokio::time::resume();
        gone("other").await;
        gone("six").await;
    }
}
