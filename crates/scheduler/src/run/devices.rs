//! What comes between a pod's node and its binding when its claims need devices (kubernetes/kubernetes,
//! `pkg/scheduler/framework/plugins/dynamicresources/dynamicresources.go`, `Reserve`, `PreBind`, `Unreserve`).
//!
//! ```text
//! grant ─► assumed ─► written ─► devices are ready ─► the pod is bound
//!             ▲          └────► no, or not in time ─┐
//!             └──────── another look for a node ◄───┘
//! ```

mod write;

use std::sync::Arc;
use std::time::Duration;

use base::Timestamp;
use client::k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use client::k8s_openapi::api::resource::v1beta2::DeviceTaintRule;
use client::{EventKind, Informers, Key, devices, is_served};
use tokio::time::Instant;

use super::input::{Input, Sender, store_as};
use super::{Config, Scheduler, about};
use crate::dra::{DeviceAsk, Grant, News, Readiness};
use crate::hints::uses_devices;
use crate::pod::PodInfo;
use crate::reason::Unschedulable;

/// Gone, if there is no object.
pub(super) enum DeviceInput {
    Claim(Key, Option<Arc<ResourceClaim>>),
    Class(Key, Option<Arc<DeviceClass>>),
    Slice(Key, Option<Arc<ResourceSlice>>),
    Rule(Key, Option<Arc<DeviceTaintRule>>),
}

/// How the writing of a grant went.
pub(super) struct Granted {
    pod: Arc<PodInfo>,
    grant: Grant,
    /// What was written, and why not all of it was.
    written: Vec<ResourceClaim>,
    failed: Option<String>,
}

/// A pod that waits for its devices.
pub(super) struct Granting {
    pod: Arc<PodInfo>,
    node: Arc<str>,
    grant: Grant,
    /// The claims as they were written.
    written: Vec<ResourceClaim>,
    /// Once all is written.
    until: Option<Instant>,
}

/// Follows what there is to know of devices; the future that comes back ends when all that exists has been told.
pub(super) fn follow(informers: &Informers, to: &Sender) -> impl Future<Output = ()> + use<> {
    let claims = store_as(informers, to, |key, c| Input::Device(DeviceInput::Claim(key, c)));
    let classes = store_as(informers, to, |key, c| Input::Device(DeviceInput::Class(key, c)));
    let slices = store_as(informers, to, |key, s| Input::Device(DeviceInput::Slice(key, s)));
    async move {
        claims.ready().await;
        classes.ready().await;
        slices.ready().await;
    }
}

/// Follows the rules that taint devices, where the server has them: their version is off unless somebody wants it.
pub(super) fn follow_rules(config: &Config, to: &Sender) {
    let (informers, to) = (config.informers.clone(), to.clone());
    config.drain.spawn_until_started(async move {
        if is_served::<DeviceTaintRule>(informers.client()).await {
            store_as(&informers, &to, |key, rule| Input::Device(DeviceInput::Rule(key, rule)));
        }
    });
}

impl Scheduler {
    /// From now on, what a pod is about to be given is nobody else's.
    pub(super) fn reserve(&mut self, pod: &Arc<PodInfo>, node: &Arc<str>, grant: Grant) {
        self.view.devices.assume_grant(&grant);
        let granting =
            Granting { pod: pod.clone(), node: node.clone(), grant, written: Vec::new(), until: None };
        self.granting.insert(pod.uid.clone(), granting);
    }

    /// Binds a pod; before that, what it is given is written. `expected` says that others know where it goes.
    pub(super) fn go(&mut self, pod: Arc<PodInfo>, node: Arc<str>, expected: bool) {
        match self.granting.get(&pod.uid) {
            Some(granting) => {
                let node = (!expected).then_some(node);
                self.bindings.write_grant(pod, granting.grant.clone(), node);
            }
            None => self.bindings.bind(pod, node),
        }
    }

    pub(super) fn granted(&mut self, granted: Granted) {
        self.in_flight -= 1;
        let Granted { pod, grant, written, failed } = granted;
        let uid = pod.uid.clone();
        let known = self.granting.contains_key(&uid);
        if let Some(extended) = grant.extended.as_ref().filter(|_| known && failed.is_none()) {
            // The claim itself counts from now on.
            self.view.devices.forsake_new(&extended.allocation);
        }
        for claim in &written {
            self.view.devices.written(claim.clone());
        }
        let Some(granting) = self.granting.get_mut(&uid) else {
            // The pod is gone meanwhile; whoever follows claims takes back what it was given.
            self.bindings.finished(&uid);
            return;
        };
        granting.written = written;
        match failed {
            None => {
                granting.grant.extended = None;
                let waiting = granting.written.iter().filter(|claim| devices::has_conditions(claim));
                let given: Vec<_> = waiting.map(given_at).collect();
                let now = self.bindings.clock().now();
                // An earlier attempt may have begun to wait.
                let passed = given.iter().flatten().map(|given| now.duration_since(*given)).max();
                let passed = passed.and_then(|passed| Duration::try_from(passed).ok()).unwrap_or_default();
                let left = pod.profile.device_timeout.saturating_sub(passed);
                granting.until = Some(Instant::now() + left);
                if !given.is_empty() {
                    let what = format!("waiting for binding conditions for device on node {}", granting.node);
                    let recorder = self.recorders.of(&pod);
                    recorder.say(about(&pod), EventKind::Normal, "BindingConditionsPending", what);
                }
                self.look_at_devices(&uid);
            }
            Some(why) => {
                self.bindings.finished(&uid);
                self.not_granted(&uid, &why);
            }
        }
    }

    /// Something that has to do with devices has changed.
    pub(super) fn device(&mut self, input: DeviceInput) {
        let devices = &mut self.view.devices;
        match input {
            DeviceInput::Claim(key, claim) => {
                let gone = claim.is_none();
                let news = devices.set_claim(key.clone(), claim);
                match gone || news == News::Freed {
                    true => self.queue.wake(|_, stuck| stuck.devices),
                    false => self.queue.wake(|pod, stuck| stuck.devices && uses_devices(pod, &key)),
                }
                self.look_at_granted(Some(&key));
                return;
            }
            DeviceInput::Class(key, class) => devices.set_class(key.name(), class),
            DeviceInput::Slice(key, slice) => devices.set_slice(key.name(), slice.as_deref()),
            DeviceInput::Rule(key, rule) => devices.set_rule(key.name(), rule),
        }
        // A class may stand for a resource that was lacking.
        self.queue.wake(|_, stuck| stuck.devices || stuck.room);
    }

    /// Looks at the pods that wait, or at those that wait for one claim.
    fn look_at_granted(&mut self, claim: Option<&Key>) {
        let waits = |granting: &Granting| {
            granting.until.is_some()
                && claim.is_none_or(|key| granting.written.iter().any(|written| Key::of(written) == *key))
        };
        let mut waiting: Vec<Arc<str>> =
            self.granting.iter().filter(|(_, g)| waits(g)).map(|(uid, _)| uid.clone()).collect();
        // The order of the map is none.
        waiting.sort_unstable();
        waiting.iter().for_each(|uid| self.look_at_devices(uid));
    }

    fn look_at_devices(&mut self, uid: &Arc<str>) {
        let Some(granting) = self.granting.get(uid) else { return };
        let devices = &self.view.devices;
        let mut ready = true;
        let mut failed = None;
        for claim in &granting.written {
            match devices.readiness(&Key::of(claim)) {
                Readiness::Ready => {}
                Readiness::NotYet => ready = false,
                Readiness::Failed(why) => failed = Some(why),
            }
        }
        if let Some(why) = failed {
            self.not_granted(uid, &why);
        } else if ready && let Some(Granting { pod, node, .. }) = self.granting.remove(uid) {
            self.in_flight += 1;
            self.bindings.bind(pod, node);
        }
    }

    /// The pod will not get its devices there.
    fn not_granted(&mut self, uid: &Arc<str>, why: &str) {
        let Some(Granting { pod, grant, written, .. }) = self.granting.get(uid) else { return };
        let given = grant.claims.iter().filter(|claim| claim.allocation.is_some());
        let given: Vec<Key> = given.map(|claim| claim.key.clone()).collect();
        let (mut free, mut drop_) = (Vec::new(), Vec::new());
        for claim in written {
            let own = claim.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(devices::EXTENDED));
            match own {
                true => drop_.push(claim.clone()),
                // Devices that did not get ready are given back, whoever they were given to first.
                false => {
                    let whole = given.contains(&Key::of(claim)) || devices::has_conditions(claim);
                    free.push((claim.clone(), whole));
                }
            }
        }
        let (pod, why) = (pod.clone(), format!("running PreBind plugin \"DynamicResources\": {why}"));
        tracing::debug!(pod = %pod.key, why, "cannot give devices");
        self.bindings.take_back(pod.clone(), free, drop_);
        self.give_up(uid);
        self.leave(uid);
        self.say_failed(&pod, &why);
        self.queue.retry(uid);
    }

    /// Whether the pod has been waiting for its devices; it does no longer.
    pub(super) fn give_up_devices(&mut self, uid: &str) -> bool {
        let Some(granting) = self.granting.remove(uid) else { return false };
        self.view.devices.forsake_grant(&granting.grant);
        if granting.until.is_some() {
            self.bindings.finished(uid);
        }
        self.queue.wake(|_, stuck| stuck.devices);
        true
    }

    /// When the first pod has waited for its devices for long enough.
    pub(super) fn device_patience(&self) -> Option<Instant> {
        self.granting.values().filter_map(|granting| granting.until).min()
    }

    pub(super) fn lose_device_patience(&mut self) {
        let now = Instant::now();
        let over = self.granting.iter().filter(|(_, g)| g.until.is_some_and(|until| until <= now));
        let over: Vec<Arc<str>> = over.map(|(uid, _)| uid.clone()).collect();
        for uid in over {
            self.not_granted(&uid, "device binding timeout");
        }
    }

    /// A pod found no node: claims that only it has, and that hold it to nodes that do not fit, are freed (`PostFilter`).
    pub(super) fn free_idle(&mut self, pod: &Arc<PodInfo>, why: &Unschedulable) {
        let stuck = why.everywhere.is_some() || why.reasons.keys().any(crate::reason::Reason::is_of_devices);
        if !stuck {
            return;
        }
        if let Some(stale) = self.view.devices.stale(pod) {
            self.bindings.take_back(pod.clone(), Vec::new(), vec![ResourceClaim::clone(&stale)]);
        } else if let Ok(Some(ask)) = DeviceAsk::new(pod, &self.view.devices)
            && let Some(idle) = ask.idle(&self.view)
        {
            self.bindings.take_back(pod.clone(), vec![(ResourceClaim::clone(&idle), true)], Vec::new());
        }
    }
}

/// When a claim was given its devices.
fn given_at(claim: &ResourceClaim) -> Option<Timestamp> {
    Some(devices::allocation(claim)?.allocation_timestamp.as_ref()?.0)
}

#[cfg(test)]
mod tests;
