//! Resources that change while a pod runs (kubernetes/kubernetes, `pkg/kubelet/allocation/allocation_manager.go` and
//! `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `doPodResizeAction`).
//!
//! ```text
//! the spec asks ─► is there room? ─► allocated ─► cgroups are told, or the container is replaced ─► runs with it
//!                        └─ no: PodResizePending; the pod goes on as it was
//! ```
//!
//! What a pod was promised is remembered in the status, from which an agent that starts again goes on.

mod decide;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Amounts, Key};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use runtime::{ContainerState, ContainerStatus, Resources};

use crate::container;
use crate::plan::{Action, grace_of, is_over, latest};
use crate::pod_limits;
use crate::requests::requests;
use crate::status::Known;
use crate::worker::{Agent, uid_of};

pub(crate) use decide::{Pending, WHOLE};

/// Resources by the container's name.
pub(crate) type Allocation = BTreeMap<String, ResourceRequirements>;

/// What is known of a pod's resources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sizes {
    /// What the pod was promised; absent before the first look.
    allocated: Option<Arc<Allocation>>,
    /// What its running containers run with, by id.
    pub(crate) running: BTreeMap<String, ResourceRequirements>,
    /// Why it is not promised what it asks for.
    pub(crate) pending: Option<Pending>,
    /// Something does not run with what it was promised; with the reason, if that is a failure.
    pub(crate) progress: Option<Option<String>>,
}

/// When a pod whose memory could not be taken away is looked at again.
const AGAIN: Duration = Duration::from_secs(10);

impl Agent {
    /// The pod with the resources that it has a right to, which may not yet be those it asks for.
    pub(crate) fn allocate(&self, pod: Arc<Pod>) -> Arc<Pod> {
        let over = is_over(&pod) || pod.metadata.deletion_timestamp.is_some();
        // Two pods that grow at once must not be promised the same room.
        let mut all = self.known.lock();
        let known = all.entry(uid_of(&pod).to_owned()).or_insert_with(|| self.nothing_known());
        let sizes = &mut known.sizes;
        let before = sizes.allocated.clone().unwrap_or_else(|| Arc::new(decide::told(&pod)));
        let wanted = decide::wanted(&pod);
        if !decide::differ(&before, &wanted) {
            (sizes.allocated, sizes.pending) = (Some(Arc::new(wanted)), None);
            return pod;
        }
        let now = decide::with(&pod, &before);
        sizes.allocated = Some(before);
        if over {
            return Arc::new(now);
        }
        let has = volumes::Allocatable::from(self.managers.room.allocatable);
        let node = Amounts { cpu: has.cpu_millis, memory: has.memory, ..Amounts::default() };
        let mut used = Amounts::default();
        for other in self.pods.list().iter().filter(|p| uid_of(p) != uid_of(&pod) && !is_over(p)) {
            let promised = all.get(uid_of(other)).and_then(|known| known.sizes.allocated.clone());
            let promised = promised.unwrap_or_else(|| Arc::new(decide::told(other)));
            used.combine(&requests(&decide::with(other, &promised)), i64::saturating_add);
        }
        let room = self
            .managers
            .bars_resize(&now, &pod)
            .map_or(Ok(()), |message| Err(Pending { reason: "Infeasible", message }));
        let room = room.and_then(|()| decide::room(&requests(&now), &requests(&pod), &used, &node));
        let known = all.entry(uid_of(&pod).to_owned()).or_insert_with(|| self.nothing_known());
        let sizes = &mut known.sizes;
        match room {
            Ok(()) => {
                (sizes.allocated, sizes.pending) = (Some(Arc::new(wanted)), None);
                drop(all);
                self.taken.resized(&pod);
                // It may have become smaller.
                self.wake_deferred();
                pod
            }
            Err(why) => {
                if sizes.pending.as_ref() != Some(&why) {
                    let reason = format!("Resize{}", why.reason);
                    self.recorder.warning(
                        &*pod,
                        &reason,
                        format!("Pod resize {}: {}", why.reason, why.message),
                    );
                }
                sizes.pending = Some(why);
                Arc::new(now)
            }
        }
    }

    /// The pod with the resources that it was promised last.
    pub(crate) fn as_promised(&self, pod: &Pod) -> Pod {
        let promised = self.known.lock().get(uid_of(pod)).and_then(|known| known.sizes.allocated.clone());
        decide::with(pod, &promised.unwrap_or_else(|| Arc::new(decide::told(pod))))
    }

    /// There may be room now: who waits for it is looked at again.
    pub(crate) fn wake_deferred(&self) {
        let all = self.known.lock();
        let waits = |known: &Known| known.sizes.pending.as_ref().is_some_and(|why| why.reason == "Deferred");
        let waiting: Vec<&str> =
            all.iter().filter(|(_, known)| waits(known)).map(|(uid, _)| &**uid).collect();
        if waiting.is_empty() {
            return;
        }
        let pods = self.pods.list();
        pods.iter()
            .filter(|pod| waiting.contains(&uid_of(pod)))
            .for_each(|pod| self.queue.add(Key::of(&**pod)));
    }

    /// Lets what runs follow what the pod was promised. Gives what must be replaced for that, and when to look again.
    pub(crate) async fn resize(&self, pod: &Pod) -> (Vec<Action>, Option<Duration>) {
        let uid = uid_of(pod);
        let mut restarts = Vec::new();
        if is_over(pod) || pod.metadata.deletion_timestamp.is_some() {
            return (restarts, None);
        }
        let known = self.known(pod);
        let (runs, mut progress, mut running) = (self.runtime.containers(uid), None, BTreeMap::new());
        for container in decide::resizable(pod) {
            let Some(run @ ContainerStatus { state: ContainerState::Running { .. }, .. }) =
                latest(&runs, &container.name)
            else {
                continue;
            };
            let has = runs_with(pod, container, run, &known);
            let has = match decide::step(container, &has) {
                decide::Step::Nothing => has,
                decide::Step::Restart => {
                    self.limit_pod(pod).await;
                    progress = progress.or(Some(None));
                    restarts.push(Action::Kill {
                        id: run.id.clone(),
                        container: container.name.clone(),
                        message: format!("Container {} resize requires restart", container.name),
                        grace: pod.spec.as_ref().map_or(0, grace_of),
                    });
                    has
                }
                decide::Step::Update => match self.update(pod, container, run, &has).await {
                    Ok(()) => {
                        let text = format!("Container {} was resized without a restart", container.name);
                        self.say(pod, container, "ResizeCompleted", text);
                        container.resources.clone().unwrap_or_default()
                    }
                    Err(why) => {
                        if known.sizes.progress != Some(Some(why.clone())) {
                            self.warn(pod, container, "ResizeError", format!("Pod resize error: {why}"));
                        }
                        progress = Some(Some(why));
                        has
                    }
                },
            };
            running.insert(run.id.clone(), has);
        }
        if let Some(wanted) = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()) {
            let noted = known.sizes.running.get(decide::WHOLE).cloned();
            let has = noted.or_else(|| decide::whole_told(pod)).unwrap_or_default();
            let runs = runs.iter().any(|run| matches!(run.state, ContainerState::Running { .. }));
            let has = if !runs || !decide::Changes::between(Some(&has), Some(wanted)).any() {
                wanted.clone()
            } else {
                match self.update_whole(pod, wanted, &has).await {
                    Ok(()) => {
                        self.recorder.normal(pod, "ResizeCompleted", "Pod was resized without a restart");
                        wanted.clone()
                    }
                    Err(why) => {
                        if known.sizes.progress != Some(Some(why.clone())) {
                            self.recorder.warning(pod, "ResizeError", format!("Pod resize error: {why}"));
                        }
                        progress = Some(Some(why));
                        has
                    }
                }
            };
            running.insert(decide::WHOLE.to_owned(), has);
        }
        let failed = matches!(progress, Some(Some(_)));
        self.note(uid, |known| (known.sizes.running, known.sizes.progress) = (running, progress));
        (restarts, failed.then_some(AGAIN))
    }

    /// Tells a container's cgroup. What is in use is not taken away, since something would be killed for it
    /// (`validateMemoryResizeAction`).
    async fn update(
        &self,
        pod: &Pod,
        container: &Container,
        run: &ContainerStatus,
        has: &ResourceRequirements,
    ) -> Result<(), String> {
        if let Some(limit) = decide::lower_memory_limit(container.resources.as_ref(), has) {
            let all = self.runtime.usage(false).await.map_err(|e| e.to_string())?;
            let found = all.iter().flat_map(|s| &s.containers).find(|c| c.container.id == run.id);
            let usage = found.map_or(0, |c| c.usage.memory);
            if i64::try_from(usage).unwrap_or(i64::MAX) >= limit {
                return Err(format!(
                    "cannot decrease memory limits: attempting to set container {:?} memory limit ({limit}) below current usage ({usage})",
                    container.name
                ));
            }
        }
        let new = container::resources(
            pod,
            container,
            volumes::Allocatable::from(self.managers.room.allocatable).memory,
        );
        let new = Resources { oom_score_adj: None, ..self.config.kubelet.containers.enforced(new) };
        // If the pod grows, it goes first; if it shrinks, its containers do.
        self.limit_pod(pod).await;
        let updated = self.runtime.update_resources(&run.id, new).await.map_err(|e| e.to_string());
        self.limit_pod(pod).await;
        updated
    }

    /// The same for what is said for the pod as a whole.
    async fn update_whole(
        &self,
        pod: &Pod,
        wanted: &ResourceRequirements,
        has: &ResourceRequirements,
    ) -> Result<(), String> {
        if let Some(limit) = decide::lower_memory_limit(Some(wanted), has) {
            let all = self.runtime.usage(false).await.map_err(|e| e.to_string())?;
            let usage = all.iter().find(|s| s.sandbox.spec.id == uid_of(pod)).map_or(0, |s| s.usage.memory);
            if i64::try_from(usage).unwrap_or(i64::MAX) >= limit {
                return Err(format!(
                    "cannot decrease memory limits: attempting to set pod memory limit ({limit}) below current usage ({usage})"
                ));
            }
        }
        self.runtime.limit_sandbox(uid_of(pod), &self.limits_of(pod)).await.map_err(|e| e.to_string())
    }

    /// Tells the pod's own cgroup what all containers may use together.
    async fn limit_pod(&self, pod: &Pod) {
        if let Err(error) = self.runtime.limit_sandbox(uid_of(pod), &self.limits_of(pod)).await {
            // Refused while a container of it may still use more; then another call follows.
            tracing::debug!(pod = uid_of(pod), %error, "a pod's limits cannot be changed yet");
        }
    }

    /// The limits of the pod's own cgroup; one that it has no more is taken off.
    fn limits_of(&self, pod: &Pod) -> Resources {
        let whole = self.config.kubelet.containers.enforced(pod_limits::of(pod));
        Resources { cpu_quota_us: whole.cpu_quota_us.or(Some(-1)), ..whole }
    }
}

/// What a run runs with: as it was noted, or as an earlier agent said, or as it should.
fn runs_with(pod: &Pod, container: &Container, run: &ContainerStatus, known: &Known) -> ResourceRequirements {
    if let Some(noted) = known.sizes.running.get(&run.id) {
        return noted.clone();
    }
    let status = pod.status.iter();
    let mut told =
        status.flat_map(|s| s.init_container_statuses.iter().chain(&s.container_statuses)).flatten();
    let id = known.scheme.of(&run.id);
    let said = told.find(|c| c.container_id.as_ref() == Some(&id)).and_then(|c| c.resources.clone());
    said.or_else(|| container.resources.clone()).unwrap_or_default()
}
