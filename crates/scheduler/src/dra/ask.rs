use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use client::{Key, NodeTerm, devices, is_deleting};
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::allocate::{Asked, Memo, Picked, Scene, allocate};
use super::extended::{self, Extended};
use super::known::{Devices, Readiness};
use super::result::allocation;
use super::wanted::{Request, Wanted};
use crate::pod::{DeviceUse, PodInfo};
use crate::reason::Reason;
use crate::view::ClusterView;

/// What a pod's claims of devices ask, made ready for all nodes.
#[derive(Debug)]
pub(crate) struct DeviceAsk<'a> {
    pod: &'a PodInfo,
    devices: &'a Devices,
    held: Vec<Held<'a>>,
    /// Of those that are held, the ones that are not allocated.
    asked: Vec<Asked<'a>>,
    /// How early in their lists the devices stand that the pod's claims have already.
    liked: i64,
    /// Resources that may come as devices.
    extended: Vec<&'a str>,
    memo: Memo,
    /// By which of these come as devices: what is asked for then.
    variants: RefCell<HashMap<Vec<bool>, Rc<Extended>>>,
}

#[derive(Debug)]
struct Held<'a> {
    key: &'a Key,
    claim: &'a Arc<ResourceClaim>,
    /// Where its devices can be used, if it has any.
    places: Option<Vec<NodeTerm>>,
    /// Its devices have to get ready before a pod may be bound.
    waits: bool,
    /// They never will.
    broken: bool,
}

/// What a pod is given before it is bound.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) claims: Vec<ClaimGrant>,
    /// The claim for its extended resources, which is not there yet.
    pub(crate) extended: Option<Box<ExtendedGrant>>,
}

/// What becomes of one claim.
#[derive(Clone, Debug)]
pub(crate) struct ClaimGrant {
    pub(crate) key: Key,
    /// As it was known.
    pub(crate) claim: Arc<ResourceClaim>,
    /// What it is given, if it has nothing yet.
    pub(crate) allocation: Option<Arc<AllocationResult>>,
}

/// A claim that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct ExtendedGrant {
    pub(crate) claim: ResourceClaim,
    pub(crate) allocation: Arc<AllocationResult>,
    pub(crate) mappings: serde_json::Value,
}

impl<'a> DeviceAsk<'a> {
    /// Reads the pod's claims. Nothing, if it needs no devices; or why it has to wait (`PreFilter`).
    pub(crate) fn new(pod: &'a PodInfo, devices: &'a Devices) -> Result<Option<Self>, String> {
        let extended = extended::names(pod, devices);
        if pod.kind.devices.is_empty() && extended.is_empty() {
            return Ok(None);
        }
        let mut ask = Self {
            pod,
            devices,
            held: Vec::new(),
            asked: Vec::new(),
            liked: 0,
            extended,
            memo: Memo::default(),
            variants: RefCell::default(),
        };
        for used in &pod.kind.devices {
            let (key, claim, wanted) = find(pod, used, devices)?;
            let places = devices::allocation(claim).map(|allocation| {
                let terms = allocation.node_selector.iter().flat_map(|s| &s.node_selector_terms);
                terms.map(NodeTerm::of).collect::<Vec<_>>()
            });
            if places.is_none() {
                if devices.is_pending(key) {
                    return Err(format!("resource claim {key} is in the process of being allocated"));
                }
                ask.check_classes(wanted)?;
                ask.asked.push(Asked { key: key.as_str(), wanted });
            }
            ask.liked += wanted.liking(devices::results(claim));
            let waits = devices::has_conditions(claim);
            let broken = waits && matches!(devices.readiness(key), Readiness::Failed(_));
            ask.held.push(Held { key, claim, places, waits, broken });
        }
        if !ask.extended.is_empty() && devices.extended_claim(pod.key.namespace(), &pod.uid).is_some() {
            // It is being deleted, so that the next look can begin anew.
            return Err("cannot schedule extended resource claim".to_owned());
        }
        Ok(Some(ask))
    }

    fn check_classes(&self, wanted: &Wanted) -> Result<(), String> {
        for choice in wanted.requests.iter().flat_map(|request| &request.choices) {
            if self.devices.class(&choice.class).is_none() {
                let (name, class) = (&choice.name, &choice.class);
                return Err(format!("request {name}: device class {class} does not exist"));
            }
        }
        Ok(())
    }

    /// What is in the way on a node.
    pub(crate) fn obstacle(&self, view: &ClusterView, row: usize) -> Option<Reason> {
        if !self.held.iter().all(|held| held.reaches(view, row)) {
            return Some(Reason::ClaimElsewhere);
        }
        let extended = self.variant(view, row);
        match self.search(view, row, extended.as_deref(), |_| ()) {
            Ok(Some(())) => None,
            Ok(None) => Some(Reason::Claims),
            Err(why) => Some(Reason::Devices(why)),
        }
    }

    /// Looks for devices, if any have to be looked for.
    fn search<T>(
        &self,
        view: &ClusterView,
        row: usize,
        extended: Option<&Extended>,
        found: impl FnOnce(&[Vec<Picked<'_>>]) -> T,
    ) -> Result<Option<T>, String> {
        let more = extended.map(|extended| Asked { key: &extended.key, wanted: &extended.wanted });
        let asked: Vec<Asked<'_>> = self.asked.iter().copied().chain(more).collect();
        if asked.is_empty() {
            return Ok(Some(found(&[])));
        }
        let memo = extended.map_or(&self.memo, |extended| &extended.memo);
        let scene = Scene { node: &view.names[row], labels: &view.labels[row], devices: self.devices, memo };
        Ok(allocate(&asked, scene)?.map(|picked| found(&picked)))
    }

    /// What the pod asks of a node besides its claims, because the node has the resources only as devices.
    fn variant(&self, view: &ClusterView, row: usize) -> Option<Rc<Extended>> {
        let lacks = |name: &&str| view.others.get(*name).is_none_or(|column| column.has[row] == 0);
        let lacking: Vec<bool> = self.extended.iter().map(lacks).collect();
        if !lacking.contains(&true) {
            return None;
        }
        let mut variants = self.variants.borrow_mut();
        let variant = variants.entry(lacking).or_insert_with_key(|lacking| {
            let names = self.extended.iter().zip(lacking).filter(|(_, lacks)| **lacks);
            let names: Vec<&str> = names.map(|(name, _)| *name).collect();
            Rc::new(Extended::of(self.pod, &names, self.devices))
        });
        Some(variant.clone())
    }

    /// Whether any claim that is to be allocated says what it would like best.
    pub(crate) fn has_lists(&self) -> bool {
        self.asked.iter().any(|asked| asked.wanted.requests.iter().any(Request::is_list))
    }

    /// How early in their lists the devices stand that the pod would be given on a node, those that it has already
    /// included (`computeScore`).
    pub(crate) fn liking(&self, view: &ClusterView, row: usize) -> i64 {
        let extended = self.variant(view, row);
        let to_be = self.search(view, row, extended.as_deref(), |picked| {
            let of = |(asked, picked): (&Asked<'_>, &Vec<Picked<'_>>)| -> i64 {
                let requests = asked.wanted.requests.iter().enumerate();
                let given = |number| picked.iter().find(|p| p.request == number).map(|p| p.choice);
                requests.filter_map(|(number, request)| Some(request.liking(given(number)?))).sum()
            };
            self.asked.iter().zip(picked).map(of).sum::<i64>()
        });
        self.liked + to_be.ok().flatten().unwrap_or(0)
    }

    /// What the pod is given on a node that has no obstacle; nothing if all is settled already.
    pub(crate) fn grant(&self, view: &ClusterView, row: usize) -> Option<Grant> {
        let extended = self.variant(view, row);
        let node = &*view.names[row];
        let given = self.search(view, row, extended.as_deref(), |picked| {
            let held = self.held.iter().filter(|held| held.places.is_none());
            let own = held.zip(&self.asked).zip(picked).map(|((held, asked), picked)| {
                Arc::new(allocation(held.claim, asked.wanted, picked, node, self.devices))
            });
            let own: Vec<Arc<AllocationResult>> = own.collect();
            let more = extended.as_ref().zip(picked.get(self.asked.len())).map(|(extended, picked)| {
                let allocation =
                    Arc::new(allocation(&extended.claim, &extended.wanted, picked, node, self.devices));
                Box::new(ExtendedGrant {
                    claim: extended.claim.clone(),
                    allocation,
                    mappings: extended.mappings.clone(),
                })
            });
            (own, more)
        });
        let (own, more) = given.ok().flatten()?;
        let mut own = own.into_iter();
        let mut claims = Vec::new();
        for held in &self.held {
            let allocation = if held.places.is_none() { own.next() } else { None };
            // What an earlier attempt was given may not be ready yet.
            let settled = devices::is_reserved_for(held.claim, &self.pod.uid) && !held.waits;
            if allocation.is_some() || !settled {
                claims.push(ClaimGrant { key: held.key.clone(), claim: held.claim.clone(), allocation });
            }
        }
        (!claims.is_empty() || more.is_some()).then_some(Grant { claims, extended: more })
    }

    /// A claim that keeps the pod from some nodes, and that nobody else has: it can be allocated anew (`PostFilter`).
    pub(crate) fn idle(&self, view: &ClusterView) -> Option<Arc<ResourceClaim>> {
        let is_idle = |held: &&Held<'_>| {
            let consumers = devices::consumers(held.claim);
            consumers.iter().all(|consumer| *consumer.uid == *self.pod.uid)
                && (0..view.len()).any(|row| !held.reaches(view, row))
        };
        self.held.iter().find(is_idle).map(|held| held.claim.clone())
    }
}

impl Held<'_> {
    /// Whether a node can use what was allocated.
    fn reaches(&self, view: &ClusterView, row: usize) -> bool {
        if self.broken {
            return false;
        }
        match self.places.as_deref() {
            None | Some([]) => true,
            Some(terms) => terms.iter().any(|term| term.holds(&view.names[row], &view.labels[row])),
        }
    }
}

/// A claim that a pod can go by (`foreachPodResourceClaim`).
fn find<'a>(
    pod: &PodInfo,
    used: &DeviceUse,
    devices: &'a Devices,
) -> Result<(&'a Key, &'a Arc<ResourceClaim>, &'a Wanted), String> {
    let (name, made) = match used {
        DeviceUse::Named(name) => (name, false),
        DeviceUse::Made(name) => (name, true),
        DeviceUse::Awaited => {
            return Err(format!("pod {:?}: ResourceClaim not created yet", pod.key.as_str()));
        }
    };
    let namespace = pod.key.namespace();
    let Some((key, claim, wanted)) = devices.claim(&Key::new(namespace, name)) else {
        return Err(format!("resourceclaim.resource.k8s.io {name:?} not found"));
    };
    if is_deleting(&claim.metadata) {
        return Err(format!("resourceclaim {name:?} is being deleted"));
    }
    if made && let Some(why) = devices::disowned(claim, namespace, pod.key.name(), &pod.uid) {
        return Err(why);
    }
    Ok((key, claim, wanted))
}
