use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Container, Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde::{Deserialize, Serialize};

use super::error::DraError;
use super::messages::{ClaimRef, PreparedDevice};
use crate::checkpoint::Checkpoint;

/// What is known of one claim (`pkg/kubelet/cm/dra/claiminfo.go`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimInfo {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// The UIDs of the pods that have it.
    pub(super) pods: BTreeSet<String>,
    /// By driver: what it has prepared.
    pub(super) drivers: BTreeMap<String, Vec<PreparedDevice>>,
    /// Whether all drivers have. An agent that starts again asks them again: they may have started again too.
    #[serde(skip)]
    pub(super) prepared: bool,
}

impl ClaimInfo {
    pub(super) fn reference(&self) -> ClaimRef {
        ClaimRef { namespace: self.namespace.clone(), uid: self.uid.clone(), name: self.name.clone() }
    }

    /// What a claim was given, before any driver is asked.
    pub(super) fn of(claim: &ResourceClaim) -> Result<Self, DraError> {
        let name = claim.metadata.name.clone().unwrap_or_default();
        if client::devices::allocation(claim).is_none() {
            return Err(DraError::Claim(format!("ResourceClaim {name}: not allocated")));
        }
        let drivers = client::devices::results(claim).iter();
        Ok(Self {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            name,
            drivers: drivers.map(|result| (result.driver.clone(), Vec::new())).collect(),
            ..Self::default()
        })
    }
}

/// The claims of this node's pods, by namespace and name.
pub(super) struct Claims {
    all: BTreeMap<(String, String), ClaimInfo>,
    checkpoint: Checkpoint,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    version: String,
    claims: Vec<ClaimInfo>,
}

impl Claims {
    pub(super) fn load(path: PathBuf) -> Result<Self, DraError> {
        let checkpoint = Checkpoint::at(path);
        let saved: Option<Saved> = checkpoint.load()?;
        let claims = saved.map(|saved| saved.claims).unwrap_or_default();
        let all = claims.into_iter().map(|info| ((info.namespace.clone(), info.name.clone()), info));
        Ok(Self { all: all.collect(), checkpoint })
    }

    pub(super) fn save(&self) -> Result<(), DraError> {
        let saved = Saved { version: "v1".to_owned(), claims: self.all.values().cloned().collect() };
        Ok(self.checkpoint.save(&saved)?)
    }

    pub(super) fn get_mut(&mut self, namespace: &str, name: &str) -> Option<&mut ClaimInfo> {
        self.all.get_mut(&(namespace.to_owned(), name.to_owned()))
    }

    /// Notes that a pod has a claim.
    pub(super) fn use_claim(&mut self, info: ClaimInfo, pod: &str) -> Result<&ClaimInfo, DraError> {
        let key = (info.namespace.clone(), info.name.clone());
        let known = self.all.entry(key).or_insert_with(|| info.clone());
        if known.uid != info.uid {
            return Err(DraError::Claim(format!(
                "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                info.name, known.uid
            )));
        }
        known.pods.insert(pod.to_owned());
        Ok(known)
    }

    /// The claims that a pod has.
    pub(super) fn of_pod(&self, uid: &str) -> Vec<ClaimInfo> {
        self.all.values().filter(|info| info.pods.contains(uid)).cloned().collect()
    }

    /// A pod has a claim no longer. The last one takes it along.
    pub(super) fn release(&mut self, namespace: &str, name: &str, pod: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(info) = self.all.get_mut(&key) {
            info.pods.remove(pod);
            if info.pods.is_empty() {
                self.all.remove(&key);
            }
        }
    }

    pub(super) fn users(&self) -> BTreeSet<String> {
        self.all.values().flat_map(|info| info.pods.iter().cloned()).collect()
    }

    /// The CDI devices of a container (`GetResources`).
    pub(super) fn devices(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, DraError> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut found = Vec::new();
        for (name, request) in asked(pod, container)? {
            let Some(info) = self.all.get(&(namespace.to_owned(), name.clone())) else {
                return Err(DraError::Claim(format!(
                    "internal error: unable to get claim info for ResourceClaim {name} in namespace {namespace}"
                )));
            };
            for device in info.drivers.values().flatten() {
                if device.is_for(&request) {
                    found.extend(device.cdi.iter().cloned());
                }
            }
        }
        // Two requests may lead to one device.
        let mut known = BTreeSet::new();
        found.retain(|name| known.insert(name.clone()));
        Ok(found)
    }
}

impl Claims {
    /// The prepared devices and their drivers of the claims that a container names, by what the status calls those. What is
    /// not known of is left out.
    pub(super) fn by_claim(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Vec<(String, Vec<(String, PreparedDevice)>)> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let mut all = Vec::new();
        for used in container.resources.iter().flat_map(|r| r.claims.iter().flatten()) {
            let claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
            let claim = claims.into_iter().find(|claim| claim.name == used.name);
            let Some(Ok(Some((object, _)))) = claim.map(|claim| object_name(pod, claim)) else { continue };
            let Some(info) = self.all.get(&(namespace.to_owned(), object)) else { continue };
            let request = used.request.as_deref().unwrap_or_default();
            let devices = info.drivers.iter().flat_map(|(driver, all)| all.iter().map(move |d| (driver, d)));
            let devices = devices.filter(|(_, device)| device.is_for(request));
            let name = match request {
                "" => format!("claim:{}", used.name),
                request => format!("claim:{}/{request}", used.name),
            };
            all.push((name, devices.map(|(driver, device)| (driver.clone(), device.clone())).collect()));
        }
        all
    }
}

/// The claims that a container names, and which request of each; all, if the request has no name.
fn asked(pod: &Pod, container: &Container) -> Result<Vec<(String, String)>, DraError> {
    let mut all = Vec::new();
    let resources = container.resources.as_ref();
    for used in resources.iter().flat_map(|r| r.claims.iter().flatten()) {
        let claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
        let Some(claim) = claims.into_iter().find(|claim| claim.name == used.name) else { continue };
        if let Some((name, _)) = object_name(pod, claim)? {
            all.push((name, used.request.clone().unwrap_or_default()));
        }
    }
    let extended = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    for mapping in extended.iter().flat_map(|extended| &extended.request_mappings) {
        let asks = resources
            .and_then(|r| r.requests.as_ref())
            .is_some_and(|r| r.contains_key(&mapping.resource_name));
        if mapping.container_name == container.name && asks {
            let name = extended.map(|e| e.resource_claim_name.clone()).unwrap_or_default();
            all.push((name, mapping.request_name.clone()));
        }
    }
    Ok(all)
}

/// All claims of a pod: their names, and whether each must have been made for the pod.
pub(super) fn of_pod(pod: &Pod) -> Result<Vec<(String, bool)>, DraError> {
    let mut all = Vec::new();
    for claim in pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten()) {
        all.extend(object_name(pod, claim)?);
    }
    let extended = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    all.extend(extended.map(|extended| (extended.resource_claim_name.clone(), false)));
    Ok(all)
}

/// Which object a claim of a pod is; none, if none is needed.
fn object_name(pod: &Pod, claim: &PodResourceClaim) -> Result<Option<(String, bool)>, DraError> {
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some((name.clone(), false)));
    }
    let mut made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    match made.find(|made| made.name == claim.name) {
        Some(made) => Ok(made.resource_claim_name.clone().map(|name| (name, true))),
        None => {
            let of = |text: &Option<String>| text.clone().unwrap_or_default();
            let (namespace, name) = (of(&pod.metadata.namespace), of(&pod.metadata.name));
            Err(DraError::Claim(format!("pod \"{namespace}/{name}\": ResourceClaim not created yet")))
        }
    }
}
