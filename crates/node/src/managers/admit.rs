//! A pod is given what it asks for, or refused (kubernetes/kubernetes, `pkg/kubelet/cm/topologymanager/scope_container.go`,
//! `scope_pod.go`, `scope_none.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

use super::asks::Role;
use super::{Ask, Managers, PodAsk};
use crate::admit::Refusal;
use crate::cpu::{CpuError, CpuState};
use crate::devices::Asker;
use crate::memory::{MemoryError, Who};
use crate::topology::{CpuSet, Hint, TopologyPolicy, TopologyScope, Wishes, decide};

impl Managers {
    /// Gives a pod what it asks for, or says why not. What an interrupted attempt left is given back first: nothing of the
    /// pod runs yet.
    ///
    /// # Errors
    /// In upstream's words; the pod has nothing then.
    pub(crate) async fn admit(&self, pod: &Pod) -> Result<(), Refusal> {
        let ask = PodAsk::of(pod);
        let _turn = self.admitting.lock().await;
        self.release(&ask.uid);
        if !ask.containers.iter().any(|container| self.concerns(container)) {
            return Ok(());
        }
        let admitted = self.admit_all(&ask).await;
        if admitted.is_err() {
            self.release(&ask.uid);
        }
        admitted
    }

    fn concerns(&self, ask: &Ask) -> bool {
        (ask.cpus > 0 && self.cpus.is_some())
            || (!ask.memory.is_empty() && self.memory.is_some())
            || ask.devices.keys().any(|resource| self.devices.is_ours(resource))
    }

    async fn admit_all(&self, ask: &PodAsk) -> Result<(), Refusal> {
        let settings = &self.settings;
        let whole = match (settings.topology_manager_policy, settings.topology_manager_scope) {
            (TopologyPolicy::None, _) => Some(Hint { affinity: None, preferred: false }),
            (_, TopologyScope::Pod) => Some(self.decide(&self.pod_wishes(ask))?),
            (_, TopologyScope::Container) => None,
        };
        for (place, container) in ask.containers.iter().enumerate() {
            let ended = ask.ended(place);
            let asker = Asker { uid: &ask.uid, container: &container.name, ended: &ended };
            let hint = match whole {
                Some(hint) => hint,
                None => self.decide(&self.wishes(asker, container))?,
            };
            for (resource, count) in &container.devices {
                if self.devices.is_ours(resource) {
                    let done = self.devices.allocate(asker, resource, *count, hint.affinity).await;
                    done.map_err(|why| unexpected(&why))?;
                }
            }
            self.give_cpus(asker, container, hint)?;
            self.give_memory(asker, container, hint)?;
        }
        Ok(())
    }

    fn decide(&self, wishes: &[Wishes]) -> Result<Hint, Refusal> {
        let policy = self.settings.topology_manager_policy;
        match decide(policy, self.closest, &self.machine, wishes) {
            (hint, true) => Ok(hint),
            (_, false) => Err(Refusal {
                reason: "TopologyAffinityError".to_owned(),
                message: "Resources cannot be allocated with Topology locality".to_owned(),
            }),
        }
    }

    fn wishes(&self, asker: Asker<'_>, ask: &Ask) -> Vec<Wishes> {
        let mut wishes = vec![Wishes::new(), Wishes::new(), Wishes::new()];
        for (resource, count) in &ask.devices {
            if self.devices.is_ours(resource) {
                wishes[0].insert(resource.clone(), self.devices.hints(asker, resource, *count));
            }
        }
        if let (Some((policy, kept)), true) = (&self.cpus, ask.cpus > 0) {
            let state = kept.state.lock();
            let hints = policy.hints(&policy.available(&state), &reusable_cpus(&state, asker), ask.cpus);
            wishes[1].insert("cpu".to_owned(), Some(hints));
        }
        if let (Some(kept), false) = (&self.memory, ask.memory.is_empty()) {
            let hints = kept.state.lock().hints(who(asker), &ask.memory);
            // Nobody who has too little has a wish: giving it will say what is wrong.
            if !hints.is_empty() {
                wishes[2].insert("memory".to_owned(), Some(hints));
            }
        }
        wishes
    }

    /// The wishes for all containers together, as if they were one.
    fn pod_wishes(&self, ask: &PodAsk) -> Vec<Wishes> {
        let names = |of: fn(&Ask) -> Vec<&String>| -> BTreeSet<String> {
            ask.containers.iter().flat_map(of).cloned().collect()
        };
        let devices = names(|c| c.devices.keys().collect()).into_iter().map(|name| {
            let most = ask.most(|c| c.devices.get(&name).copied().unwrap_or(0) as u64);
            (name, most as usize)
        });
        let memory = names(|c| c.memory.keys().collect()).into_iter().map(|name| {
            let most = ask.most(|c| c.memory.get(&name).copied().unwrap_or(0));
            (name, most)
        });
        let whole = Ask {
            name: String::new(),
            role: Role::Main,
            cpus: ask.most(|c| c.cpus as u64) as usize,
            memory: memory.collect(),
            devices: devices.collect(),
        };
        self.wishes(Asker { uid: &ask.uid, container: "", ended: &[] }, &whole)
    }

    fn give_cpus(&self, asker: Asker<'_>, ask: &Ask, hint: Hint) -> Result<(), Refusal> {
        let Some((policy, kept)) = self.cpus.as_ref().filter(|_| ask.cpus > 0) else { return Ok(()) };
        let given = kept.change(|state| {
            let reusable = reusable_cpus(state, asker);
            policy.allocate(state, (asker.uid, asker.container), ask.cpus, hint.affinity, &reusable)
        });
        self.cpus_changed.notify_one();
        match given.map_err(|why| unexpected(&why))? {
            Ok(_) => Ok(()),
            Err(why @ (CpuError::SplitsCore { .. } | CpuError::FewCores { .. })) => {
                Err(Refusal { reason: "SMTAlignmentError".to_owned(), message: why.to_string() })
            }
            Err(why) => Err(unexpected(&why)),
        }
    }

    fn give_memory(&self, asker: Asker<'_>, ask: &Ask, hint: Hint) -> Result<(), Refusal> {
        let Some(kept) = self.memory.as_ref().filter(|_| !ask.memory.is_empty()) else { return Ok(()) };
        let given: Result<(), MemoryError> = kept
            .change(|state| state.allocate(who(asker), &ask.memory, hint))
            .map_err(|why| unexpected(&why))?;
        given.map_err(|why| unexpected(&why))
    }
}

/// A refusal that nobody has a name for (`pkg/kubelet/cm/admission/errors.go`).
fn unexpected(why: &dyn std::error::Error) -> Refusal {
    Refusal {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: format!("Allocate failed due to {why}, which is unexpected"),
    }
}

fn who(asker: Asker<'_>) -> Who<'_> {
    Who { uid: asker.uid, container: asker.container, ended: asker.ended }
}

/// The CPUs of init containers that have ended, and that nobody who runs has taken over.
fn reusable_cpus(state: &CpuState, asker: Asker<'_>) -> CpuSet {
    let Some(pod) = state.entries.get(asker.uid) else { return CpuSet::default() };
    let of = |ended: bool| {
        let wanted = pod.iter().filter(|(name, _)| asker.ended.contains(&name.as_str()) == ended);
        wanted.fold(CpuSet::default(), |all, (_, cpus)| all.or(cpus))
    };
    of(true).without(&of(false))
}
