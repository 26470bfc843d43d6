//! A pod's status, from what the runtime and the probes say (kubernetes/kubernetes, `pkg/kubelet/kubelet_pods.go`,
//! `generateAPIPodStatus`).

mod conditions;
mod container;
mod extras;
mod phase;
mod resize;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};

use base::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::ephemeral::as_container;
use crate::plan::{View, is_sidecar};
use crate::resize::Sizes;

pub(crate) use conditions::{BY_AGENT, DISRUPTED, OWN as OWN_CONDITIONS};
pub(crate) use container::{Scheme, full_name};
pub(crate) use extras::user_of;
pub(crate) use resize::PASSING as PASSING_CONDITIONS;

/// What the worker knows besides the runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// How the ids of containers begin.
    pub(crate) scheme: Scheme,
    /// What is mounted below a mount stays writable, whatever a container would prefer.
    pub(crate) no_recursive_read_only: bool,
    pub(crate) pod_ip: Option<String>,
    pub(crate) host_ip: String,
    /// Why containers wait, by name: reason and message.
    pub(crate) waiting: BTreeMap<String, (String, String)>,
    /// Image ids by container name.
    pub(crate) image_ids: BTreeMap<String, String>,
    /// Image ids of volumes that are images, by volume name.
    pub(crate) image_volumes: BTreeMap<String, String>,
    /// Whom containers began as, by container id.
    pub(crate) users: BTreeMap<String, core::ContainerUser>,
    /// What containers said when they ended, by container id.
    pub(crate) last_words: BTreeMap<String, String>,
    /// Containers that were ended to be replaced.
    pub(crate) replaced: HashSet<String>,
    /// All is being ended: reason and message of the pod's end, where it is not by the containers' own doing.
    pub(crate) ending: Option<Ending>,
    /// How the devices of containers are, by the containers' names.
    pub(crate) devices: BTreeMap<String, Vec<core::ResourceStatus>>,
    /// What it was promised, and what its containers run with.
    pub(crate) sizes: Sizes,
    /// It has been seen to that it has its place in the network.
    pub(crate) joined: bool,
    /// It is over and has given back what it needs no more.
    pub(crate) released: bool,
}

/// Why a pod is ended as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) failed: bool,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    /// Whether the node has ended it for its own sake.
    pub(crate) disrupted: bool,
}

/// The status that the pod should have.
pub(crate) fn status_of(pod: &Pod, view: &View<'_>, known: &Known) -> core::PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let empty = core::PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let inits: &[core::Container] = spec.init_containers.as_deref().unwrap_or_default();
    let teller = container::Teller { pod, view, known, has_init: !inits.is_empty() };
    let init: Vec<core::ContainerStatus> = inits.iter().map(|c| teller.tell(c, None, true)).collect();
    let mut main: Vec<core::ContainerStatus> =
        spec.containers.iter().map(|c| teller.tell(c, None, false)).collect();
    for status in &mut main {
        status.allocated_resources_status = known.devices.get(&status.name).cloned();
    }
    // Nobody waits for these, and they are never ready.
    let debugger = |container: &core::EphemeralContainer| core::ContainerStatus {
        started: None,
        ready: false,
        resources: None,
        allocated_resources: None,
        ..teller.tell(&as_container(container), Some("Never"), false)
    };
    let incomplete: Vec<&str> = inits
        .iter()
        .zip(&init)
        .filter(|(c, s)| {
            if is_sidecar(c) {
                s.started != Some(true) && !main_began(&main)
            } else {
                phase::exit_code(s) != Some(0)
            }
        })
        .map(|(c, _)| c.name.as_str())
        .collect();
    let ending = known.ending.as_ref();
    let phase = match ending {
        Some(Ending { failed: true, .. }) => "Failed",
        ending => {
            let inits = inits.iter().zip(&init);
            phase::phase(spec, inits, &main, incomplete.is_empty(), ending.is_some())
        }
    };
    // A pod that has ended stays so.
    let phase = match old.phase.as_deref() {
        Some("Succeeded") => "Succeeded",
        Some("Failed") => "Failed",
        _ => phase,
    };
    let sidecars = inits.iter().zip(&init).filter(|(c, _)| is_sidecar(c)).map(|(_, s)| s);
    let counted: Vec<&core::ContainerStatus> = sidecars.chain(&main).collect();
    let mut conditions = conditions::conditions(&conditions::Facts {
        pod,
        old: old.conditions.as_deref().unwrap_or_default(),
        phase,
        incomplete: &incomplete,
        unready: counted.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect(),
        sandbox: known.pod_ip.is_some() && view.sandbox,
        disruption: ending.filter(|e| e.disrupted).and_then(|e| e.message.as_deref()),
        now: view.now,
    });
    resize::conditions(&mut conditions, pod, &known.sizes, view.now);
    let ip = known.pod_ip.clone().or(old.pod_ip.clone());
    // Of a pod that was refused nothing waits: what is shown of it is why.
    let ran = |list: &[core::ContainerStatus]| {
        list.iter()
            .any(|s| s.container_id.is_some() || s.state.as_ref().is_some_and(|s| s.terminated.is_some()))
    };
    let refused = phase == "Failed" && !ran(&init) && !ran(&main);
    core::PodStatus {
        phase: Some(phase.to_owned()),
        reason: ending.and_then(|e| e.reason.clone()).or(old.reason.clone()),
        message: ending.and_then(|e| e.message.clone()).or(old.message.clone()),
        observed_generation: pod.metadata.generation,
        conditions: Some(conditions),
        start_time: old.start_time.clone().or(Some(Time(whole(view.now)))),
        host_ip: Some(known.host_ip.clone()),
        host_ips: Some(vec![core::HostIP { ip: known.host_ip.clone() }]),
        pod_ips: ip.clone().map(|ip| vec![core::PodIP { ip }]),
        pod_ip: ip,
        init_container_statuses: (!init.is_empty() && !refused).then_some(init),
        container_statuses: (!refused).then_some(main),
        // Of what is said for the pod as a whole: what it was promised, and what it runs with.
        allocated_resources: spec.resources.as_ref().and_then(|whole| whole.requests.clone()),
        resources: known.sizes.running.get(crate::resize::WHOLE).or(spec.resources.as_ref()).cloned(),
        ephemeral_container_statuses: spec
            .ephemeral_containers
            .as_ref()
            .map(|list| list.iter().map(debugger).collect()),
        ..old
    }
}

fn main_began(main: &[core::ContainerStatus]) -> bool {
    main.iter().any(|s| s.container_id.is_some())
}

/// Kubernetes writes times in whole seconds.
pub(crate) fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
