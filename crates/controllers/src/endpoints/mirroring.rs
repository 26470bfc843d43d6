//! EndpointSlices for those who still write Endpoints: a Service without a selector whose addresses somebody keeps by hand
//! (kubernetes/kubernetes, `pkg/controller/endpointslicemirroring`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use client::{Change, Controller, Index, Informer, Key, Next, Recorder, is_deleting};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::time::Instant;

use super::fresh::{self, FreshSlices};
use super::slices::{Plan, ports_key, says_the_same};
use super::{MANAGED_BY, SERVICE_NAME, selector, slice_of};
use crate::common::claim::owner_reference;
use crate::context::Context;
use crate::error::Error;
use crate::metrics::{Keeper, Mirrored, Sizes, mirrored, mirrored_sizes};
use crate::tuning::EndpointSettings;

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// Whoever sets this to `true` keeps slices of their own.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are a lock, and no addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// What is about the Endpoints alone.
const OWN_ANNOTATIONS: [&str; 2] =
    ["kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time"];

struct State {
    ctx: Context,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices_of: Index<EndpointSlice>,
    fresh: FreshSlices,
    /// Addresses of one subset at most.
    most: usize,
    recorder: Recorder,
}

/// Mirrors so many addresses of each subset, and gathers changes as long as is said.
pub(crate) fn start(ctx: &Context, settings: EndpointSettings) {
    let informers = &ctx.informers;
    let (services, endpoints) = (informers.of::<Service>(), informers.of::<Endpoints>());
    let slices = informers.of::<EndpointSlice>();
    let slices_of =
        slices.index("mirrored", |slice: &EndpointSlice| slice_of(slice, MANAGER).map(|key| key.to_string()));
    let controller = Controller::new("endpointslicemirroring")
        .watches(&services, |service: &Service| [Key::of(service)])
        .watches_changes(&endpoints, move |change: &Change<Endpoints>, queue| {
            queue.add_after(Key::of(&**change.object()), settings.mirror_batch);
        })
        .watches(&slices, |slice: &EndpointSlice| slice_of(slice, MANAGER));
    let recorder = ctx.recorder("endpoint-slice-mirroring-controller");
    let fresh = FreshSlices::default();
    let most = settings.most_mirrored;
    let state = State { ctx: ctx.clone(), services, endpoints, slices_of, fresh, most, recorder };
    ctx.spawn(controller, Arc::new(state), look);
}

async fn look(state: Arc<State>, key: Key) -> Result<Next, Error> {
    let service = state.services.get(&key).filter(|service| selector(service).is_none());
    let endpoints = state.endpoints.get(&key).filter(|e| service.is_some() && is_mirrored(e));
    let api = state.ctx.api::<EndpointSlice>(key.namespace());
    let existing = state.slices_of.get(key.as_str());
    let Some(endpoints) = endpoints else {
        state.fresh.forget(&key);
        mirrored_sizes(key.as_str(), None);
        let all = existing.iter().map(|slice| slice.metadata.name.clone().unwrap_or_default()).collect();
        let plan = Plan { delete: all, ..Plan::default() };
        return fresh::carry_out(plan, &api, &key, &state.fresh, Keeper::Mirror).await.map(|()| Next::Done);
    };
    if !state.fresh.are_shown(&key, &state.slices_of) {
        return Ok(Next::After(fresh::PATIENCE));
    }
    let begun = Instant::now();
    let most = state.most;
    let mirror = mirror(&endpoints, most);
    if mirror.invalid > 0 {
        let why = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", mirror.invalid);
        state.recorder.warning(&*endpoints, "InvalidIPAddress", why);
    }
    if mirror.beyond > 0 {
        let why = format!(
            "A max of {most} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
            mirror.beyond
        );
        state.recorder.warning(&*endpoints, "TooManyAddressesToMirror", why);
    }
    let (sizes, skipped) = (sizes(&mirror.slices), mirror.invalid + mirror.beyond);
    let change = Mirrored { skipped, ..compare(&existing, &mirror.slices) };
    let plan = plan(mirror.slices, &existing);
    let slices = (existing.len() + plan.create.len()).saturating_sub(plan.delete.len());
    mirrored_sizes(key.as_str(), Some(Sizes { slices, ..sizes }));
    let outcome = fresh::carry_out(plan, &api, &key, &state.fresh, Keeper::Mirror).await;
    mirrored(change, begun.elapsed());
    if let Err(error) = &outcome {
        let why = format!("Failed to update EndpointSlices for Endpoints {key}: {error}");
        state.recorder.warning(&*endpoints, "FailedToUpdateEndpointSlices", why);
    }
    outcome.map(|()| Next::Done)
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let (labels, annotations) = (&endpoints.metadata.labels, &endpoints.metadata.annotations);
    !is_deleting(&endpoints.metadata)
        && labels.as_ref().and_then(|l| l.get(SKIP)).is_none_or(|skip| skip != "true")
        && annotations.as_ref().is_none_or(|a| !a.contains_key(LEADER))
}

/// What slices there should be, and what they leave out.
#[derive(Default)]
struct Mirror {
    slices: Vec<EndpointSlice>,
    invalid: usize,
    beyond: usize,
}

/// What goes into one slice.
struct Group {
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

fn mirror(endpoints: &Endpoints, most: usize) -> Mirror {
    let mut mirror = Mirror::default();
    // By family and ports.
    let mut groups: BTreeMap<(&str, String), Group> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (seen, (address, ready)) in ready.chain(unready).enumerate() {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                mirror.invalid += 1;
                continue;
            };
            if seen >= most {
                mirror.beyond += 1;
                continue;
            }
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups.entry((family, ports_key(&ports)));
            let group = group.or_insert_with(|| Group { ports: ports.clone(), endpoints: Vec::new() });
            group.endpoints.push(endpoint(address, ready));
        }
    }
    for ((family, _), group) in groups {
        mirror.slices.push(slice(endpoints, family, group));
    }
    mirror
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn slice(endpoints: &Endpoints, family: &str, group: Group) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !OWN_ANNOTATIONS.contains(&name.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (!annotations.is_empty()).then_some(annotations),
            owner_references: Some(vec![owner_reference(endpoints)]),
            ..Default::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(group.endpoints),
        ports: Some(group.ports),
    }
}

/// How many endpoints there should be, and how many slices are enough for them.
fn sizes(wanted: &[EndpointSlice]) -> Sizes {
    let endpoints = wanted.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum();
    Sizes { endpoints, slices: 0, needed: wanted.len() }
}

/// Which endpoints come, change and go: by address and ports.
fn compare(existing: &[Arc<EndpointSlice>], wanted: &[EndpointSlice]) -> Mirrored {
    let all = |slices: &mut dyn Iterator<Item = &EndpointSlice>| -> HashMap<(String, String), Endpoint> {
        let of = |slice: &EndpointSlice| {
            let ports = ports_key(slice.ports.as_deref().unwrap_or_default());
            let endpoints = slice.endpoints.clone().unwrap_or_default().into_iter();
            endpoints.map(move |e| ((e.addresses.concat(), ports.clone()), e)).collect::<Vec<_>>()
        };
        slices.flat_map(of).collect()
    };
    let (before, now) = (all(&mut existing.iter().map(|slice| &**slice)), all(&mut wanted.iter()));
    let added = now.keys().filter(|key| !before.contains_key(*key)).count();
    let removed = before.keys().filter(|key| !now.contains_key(*key)).count();
    let updated = now.iter().filter(|(key, e)| before.get(*key).is_some_and(|old| old != *e)).count();
    Mirrored { added, updated, removed, skipped: 0 }
}

/// A slice of the same family and ports is changed; others go.
fn plan(wanted: Vec<EndpointSlice>, existing: &[Arc<EndpointSlice>]) -> Plan {
    let group = |slice: &EndpointSlice| {
        (slice.address_type.clone(), ports_key(slice.ports.as_deref().unwrap_or_default()))
    };
    let mut plan = Plan::default();
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    for slice in wanted {
        let Some(at) = left.iter().position(|old| group(old) == group(&slice)) else {
            plan.create.push(slice);
            continue;
        };
        let old = left.swap_remove(at);
        let metadata = ObjectMeta {
            labels: slice.metadata.labels.clone(),
            annotations: slice.metadata.annotations.clone(),
            owner_references: slice.metadata.owner_references.clone(),
            ..old.metadata.clone()
        };
        let new = EndpointSlice { metadata, ..slice };
        if !says_the_same(old, &new) || old.metadata.annotations != new.metadata.annotations {
            plan.update.push(new);
        }
    }
    plan.delete = left.iter().map(|slice| slice.metadata.name.clone().unwrap_or_default()).collect();
    plan
}

#[cfg(test)]
mod tests {
    use client::k8s_openapi::api::discovery::v1::EndpointSlice;
    use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
    use serde_json::{Value, json};
    use testkit::Cluster;

    use super::*;
    use crate::testing::cluster;

    /// Family, port and addresses of each slice of the Service `web`.
    async fn slices(cluster: &Cluster) -> Vec<(String, i32, Vec<String>)> {
        let selected = ListParams::default().labels("kubernetes.io/service-name=web");
        let found = cluster.api::<EndpointSlice>("default").list(&selected).await.unwrap().items;
        let row = |slice: EndpointSlice| {
            let port = slice.ports.iter().flatten().next().and_then(|p| p.port).unwrap_or(0);
            let addresses = slice.endpoints.iter().flatten().flat_map(|e| e.addresses.clone());
            (slice.address_type.clone(), port, addresses.collect())
        };
        let mut rows: Vec<_> = found.into_iter().map(row).collect();
        rows.sort();
        rows
    }

    async fn wait(cluster: &Cluster, what: &str, wanted: &[(&str, i32, &[&str])]) {
        cluster
            .wait_for(what, || async {
                let found = slices(cluster).await;
                let same = found.len() == wanted.len()
                    && found.iter().zip(wanted).all(|((family, port, addresses), (f, p, a))| {
                        family == f && port == p && addresses == a
                    });
                same.then_some(())
            })
            .await;
    }

    fn endpoints(subsets: Value) -> Endpoints {
        testkit::object(json!({"metadata": {"name": "web"}, "subsets": subsets}))
    }

    #[tokio::test]
    async fn addresses_kept_by_hand_are_mirrored_as_long_as_nobody_else_keeps_them() {
        let cluster = cluster().await;
        let service: Service =
            testkit::object(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}));
        cluster.create("default", &service).await;
        let both = json!([{"addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}],
            "notReadyAddresses": [{"ip": "192.0.2.2"}], "ports": [{"port": 8080}]}]);
        cluster.create("default", &endpoints(both)).await;
        let first: &[(&str, i32, &[&str])] =
            &[("IPv4", 8080, &["192.0.2.1", "192.0.2.2"]), ("IPv6", 8080, &["2001:db8::1"])];
        wait(&cluster, "a slice for each family", first).await;
        let all = cluster.api::<EndpointSlice>("default").list(&ListParams::default()).await.unwrap().items;
        let one = all.iter().find(|s| s.address_type == "IPv4" && slice_of(s, MANAGER).is_some()).unwrap();
        assert_eq!(one.metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
        let ready = |e: &Endpoint| e.conditions.as_ref().and_then(|c| c.ready);
        let readiness: Vec<_> = one.endpoints.iter().flatten().map(ready).collect();
        assert_eq!(readiness, [Some(true), Some(false)]);
        let name = one.metadata.name.clone();

        let api = cluster.api::<Endpoints>("default");
        let fewer = Patch::Merge(
            json!({"subsets": [{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 8080}]}]}),
        );
        api.patch("web", &PatchParams::default(), &fewer).await.unwrap();
        wait(&cluster, "the slice to follow", &[("IPv4", 8080, &["192.0.2.9"])]).await;
        let all = cluster.api::<EndpointSlice>("default").list(&ListParams::default()).await.unwrap().items;
        assert!(all.iter().any(|s| s.metadata.name == name), "the slice was made anew");

        let mine = Patch::Merge(json!({"metadata": {"labels": {SKIP: "true"}}}));
        api.patch("web", &PatchParams::default(), &mine).await.unwrap();
        wait(&cluster, "the slices to go", &[]).await;
        let yours = Patch::Merge(json!({"metadata": {"labels": {SKIP: null}}}));
        api.patch("web", &PatchParams::default(), &yours).await.unwrap();
        wait(&cluster, "the slice to come back", &[("IPv4", 8080, &["192.0.2.9"])]).await;
        api.delete("web", &DeleteParams::default()).await.unwrap();
        wait(&cluster, "the slice to go with the endpoints", &[]).await;
    }

    #[test]
    fn what_is_no_address_or_too_much_is_left_out() {
        let many: Vec<Value> =
            (0..1_001).map(|n| json!({"ip": format!("10.0.{}.{}", n / 250, n % 250)})).collect();
        let endpoints = endpoints(
            json!([{"addresses": many}, {"addresses": [{"ip": "no address"}, {"ip": "10.9.9.9"}]}]),
        );
        let all = mirror(&endpoints, 1_000);
        assert_eq!((all.invalid, all.beyond, all.slices.len()), (1, 1, 1));
        assert_eq!(all.slices[0].endpoints.as_ref().map(Vec::len), Some(1_001));
        assert_eq!(mirror(&endpoints, 10).beyond, 991, "people may want less");
        let few = mirror(&endpoints, 10);
        let before: Vec<Arc<EndpointSlice>> = few.slices.into_iter().map(Arc::new).collect();
        assert_eq!(compare(&before, &all.slices), Mirrored { added: 990, ..Mirrored::default() });
        let mut changed = EndpointSlice::clone(&before[0]);
        changed.endpoints.as_mut().unwrap()[0].hostname = Some("h".into());
        changed.endpoints.as_mut().unwrap().pop();
        let expected = Mirrored { updated: 1, removed: 1, ..Mirrored::default() };
        assert_eq!(compare(&before, &[changed]), expected);
        let lock = json!({"metadata": {"name": "web", "annotations": {LEADER: "{}"}}});
        assert!(!is_mirrored(&testkit::object(lock)) && is_mirrored(&endpoints));
    }
}
