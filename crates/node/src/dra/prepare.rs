use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::Api;

use super::Inner;
use super::claims::{ClaimInfo, of_pod};
use super::error::DraError;
use super::messages::ClaimRef;
use super::plugin::Plugin;
use crate::worker::uid_of;

/// First everything is looked at, and only then is anything noted: a pod that cannot begin for want of a driver can
/// still be deleted (`pkg/kubelet/cm/dra/manager.go`, `prepareResources`).
pub(super) async fn prepare(dra: &Inner, pod: &Pod) -> Result<(), DraError> {
    let mut plugins: BTreeMap<String, Arc<Plugin>> = BTreeMap::new();
    let mut infos = Vec::new();
    for (name, made) in of_pod(pod)? {
        let info = ClaimInfo::of(&fetch(dra, pod, &name, made).await?)?;
        for driver in info.drivers.keys() {
            plugins.insert(driver.clone(), dra.plugins.get(driver)?);
        }
        infos.push(info);
    }
    if infos.is_empty() {
        return Ok(());
    }
    let mut batches: BTreeMap<String, Vec<ClaimRef>> = BTreeMap::new();
    let mut waiting = Vec::new();
    {
        let mut claims = dra.claims.lock();
        for info in infos {
            let known = claims.use_claim(info, uid_of(pod))?;
            if !known.prepared {
                waiting.push(known.reference());
                for driver in known.drivers.keys() {
                    batches.entry(driver.clone()).or_default().push(known.reference());
                }
            }
        }
        // From now on, whatever happens, somebody will take it back.
        claims.save()?;
    }
    for (driver, batch) in &batches {
        let Some(plugin) = plugins.get(driver) else { return Err(DraError::NoDriver(driver.clone())) };
        let answers = plugin.prepare(batch).await?;
        let mut claims = dra.claims.lock();
        for (claim, answer) in batch.iter().filter_map(|claim| Some((claim, answers.get(&claim.uid)?))) {
            if let Some(known) = claims.get_mut(&claim.namespace, &claim.name) {
                known.drivers.insert(driver.clone(), answer.devices.clone());
            }
        }
    }
    let mut claims = dra.claims.lock();
    for claim in &waiting {
        if let Some(known) = claims.get_mut(&claim.namespace, &claim.name) {
            known.prepared = true;
        }
    }
    if waiting.is_empty() { Ok(()) } else { claims.save() }
}

/// A claim as the server has it; the pod must be one of those that have it.
async fn fetch(dra: &Inner, pod: &Pod, name: &str, made: bool) -> Result<ResourceClaim, DraError> {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, called) = (of(&pod.metadata.namespace), of(&pod.metadata.name));
    let api: Api<ResourceClaim> = Api::namespaced(dra.client.clone(), &namespace);
    let claim = api.get(name).await;
    let claim = claim.map_err(|source| DraError::Fetch { claim: name.to_owned(), source })?;
    let uid = uid_of(pod);
    if made && let Some(why) = client::devices::disowned(&claim, &namespace, &called, uid) {
        return Err(DraError::Claim(why));
    }
    if !client::devices::is_reserved_for(&claim, uid) {
        let other = of(&claim.metadata.uid);
        let why = format!("pod {called} ({uid}) is not allowed to use ResourceClaim {name} ({other})");
        return Err(DraError::Claim(why));
    }
    Ok(claim)
}

/// A claim that other pods have as well stays prepared (`unprepareResources`).
pub(super) async fn unprepare(dra: &Inner, uid: &str) -> Result<(), DraError> {
    let infos = dra.claims.lock().of_pod(uid);
    if infos.is_empty() {
        return Ok(());
    }
    let mut batches: BTreeMap<String, Vec<ClaimRef>> = BTreeMap::new();
    for info in infos.iter().filter(|info| info.pods.len() == 1) {
        for driver in info.drivers.keys() {
            batches.entry(driver.clone()).or_default().push(info.reference());
        }
    }
    for (driver, batch) in &batches {
        dra.plugins.get(driver)?.unprepare(batch).await?;
    }
    let mut claims = dra.claims.lock();
    infos.iter().for_each(|info| claims.release(&info.namespace, &info.name, uid));
    claims.save()
}
