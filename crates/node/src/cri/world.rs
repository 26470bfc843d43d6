//! The mirror of what the runtime has, and what has happened since the last look.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::Timestamp;
use cri::{ContainerState as State, PodSandboxState, runtime as calls};
use futures::StreamExt;
use runtime::{ContainerEvent, ContainerState, ContainerStatus, Exit, NetworkMode, SandboxSpec};
use runtime::{SandboxState, SandboxStatus};

use super::{Cri, CriError};
use crate::worker::KEY;

/// The labels that lead back to pods (`pkg/kubelet/types/labels.go`).
pub(super) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(super) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(super) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// A sandbox's own cgroup, below the agent's.
pub(super) const CGROUP: &str = "io.gantry.cgroup";
/// Where the pod's logs are.
pub(super) const LOGS: &str = "io.gantry.logs";
/// A container's image, as its pod calls it.
pub(super) const IMAGE: &str = "io.gantry.image";

/// How many are asked for at once.
const AT_ONCE: usize = 16;

/// All sandboxes, by their pods' UIDs, and all containers, by their ids.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) sandboxes: BTreeMap<String, Place>,
    pub(super) containers: BTreeMap<String, ContainerStatus>,
}

/// A pod's sandbox.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// What the runtime calls it, and after it those that came before it.
    pub(super) ids: Vec<String>,
    pub(super) status: SandboxStatus,
    pub(super) ip: Option<String>,
}

impl World {
    pub(super) fn containers_of(&self, sandbox: &str) -> Vec<ContainerStatus> {
        let own = self.containers.values().filter(|c| c.sandbox_id == sandbox);
        let mut own: Vec<ContainerStatus> = own.cloned().collect();
        own.sort_by_key(|c| (c.created_at, c.attempt));
        own
    }
}

/// What somebody who knew the old world must hear of the new one.
fn news(old: &World, new: &World) -> Vec<ContainerEvent> {
    let mut events = Vec::new();
    for (id, now) in &new.containers {
        let before = old.containers.get(id).map(|c| &c.state);
        let (sandbox_id, id) = (now.sandbox_id.clone(), id.clone());
        match (&now.state, before) {
            (ContainerState::Running { .. }, Some(ContainerState::Running { .. })) => {}
            (ContainerState::Running { .. }, _) => events.push(ContainerEvent::Started { sandbox_id, id }),
            (ContainerState::Exited(_), Some(ContainerState::Exited(_))) => {}
            (ContainerState::Exited(exit), _) => {
                events.push(ContainerEvent::Exited { sandbox_id, id, exit: exit.clone() });
            }
            (ContainerState::Created, _) => {}
        }
    }
    let lost = |id: &String| ContainerEvent::SandboxLost { sandbox_id: id.clone() };
    for (id, before) in &old.sandboxes {
        let now = new.sandboxes.get(id);
        let kept = now.is_some_and(|now| now.ids.first() == before.ids.first());
        let ready = |place: &Place| place.status.state == SandboxState::Ready;
        if !kept || ready(before) && !now.is_some_and(ready) {
            events.push(lost(id));
        }
    }
    // One that nobody knows yet may be one that nobody wants: its pod is looked at.
    events.extend(new.sandboxes.keys().filter(|id| !old.sandboxes.contains_key(*id)).map(lost));
    events
}

/// A time in nanoseconds since 1970; what cannot be is 1970.
fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default()
}

/// What the agent knows of a container, from what the runtime says of it.
fn container_of(uid: &str, told: cri::ContainerStatus) -> ContainerStatus {
    let started = if told.started_at > 0 { told.started_at } else { told.created_at };
    let exit = |lost: Option<String>| Exit {
        code: told.exit_code,
        signal: None,
        oom_killed: told.reason == "OOMKilled",
        started_at: time(started),
        finished_at: time(told.finished_at),
        lost,
    };
    let state = match told.state {
        State::Created => ContainerState::Created,
        // What the process is called on the host, the interface does not say.
        State::Running => ContainerState::Running { pid: 0, started_at: time(started) },
        State::Exited => ContainerState::Exited(exit(None)),
        State::Unknown => {
            let why = format!("the container runtime has lost the container: {}", told.message);
            ContainerState::Exited(Exit { code: 137, ..exit(Some(why)) })
        }
    };
    let metadata = told.metadata.unwrap_or_default();
    let called = told.annotations.get(IMAGE).cloned();
    ContainerStatus {
        id: told.id,
        sandbox_id: uid.to_owned(),
        name: metadata.name,
        attempt: metadata.attempt,
        created_at: time(told.created_at),
        state,
        image: called.or(told.image.map(|i| i.image)).unwrap_or_default(),
        labels: told.labels,
        log_path: Some(told.log_path).filter(|path| !path.is_empty()).map(Into::into),
    }
}

/// The same of a sandbox.
fn sandbox_of(uid: &str, told: &cri::PodSandbox, network: NetworkMode) -> SandboxStatus {
    let text = |name: &str| told.labels.get(name).cloned().unwrap_or_default();
    let noted = |name: &str| told.annotations.get(name).cloned();
    SandboxStatus {
        spec: Arc::new(SandboxSpec {
            id: uid.to_owned(),
            name: text(POD_NAME),
            labels: [(KEY.to_owned(), format!("{}/{}", text(POD_NAMESPACE), text(POD_NAME)))].into(),
            network,
            cgroup_path: noted(CGROUP).unwrap_or_default(),
            log_dir: noted(LOGS).map(Into::into),
            ..SandboxSpec::default()
        }),
        state: match told.state {
            PodSandboxState::Ready => SandboxState::Ready,
            PodSandboxState::NotReady => SandboxState::Stopped,
        },
        created_at: time(told.created_at),
        netns: None,
        shim_pid: None,
    }
}

impl Cri {
    /// Looks through the runtime, and tells what is new.
    pub(super) async fn look(&self) -> Result<(), CriError> {
        let _turn = self.0.looking.lock().await;
        let (sandboxes, containers) = futures::try_join!(
            self.ask(&calls::LIST_POD_SANDBOX, cri::ListPodSandboxRequest::default()),
            self.ask(&calls::LIST_CONTAINERS, cri::ListContainersRequest::default()),
        )?;
        let old = self.0.world.lock().clone();
        let mut new = World::default();
        let mut items = sandboxes.items;
        // The one that counts first: it is ready, or the youngest.
        items.sort_by_key(|s| (s.state, std::cmp::Reverse(s.created_at)));
        let mut uids = HashMap::new();
        for item in items {
            // Without a pod it is nobody's business here.
            let Some(uid) = item.labels.get(POD_UID).filter(|uid| !uid.is_empty()).cloned() else { continue };
            uids.insert(item.id.clone(), uid.clone());
            if let Some(place) = new.sandboxes.get_mut(&uid) {
                place.ids.push(item.id);
                continue;
            }
            let known = old.sandboxes.get(&uid).filter(|p| p.ids.first() == Some(&item.id));
            let known = known.filter(|p| p.ip.is_some() || p.status.spec.network == NetworkMode::Host);
            let (ip, network) = match known {
                Some(place) => (place.ip.clone(), place.status.spec.network),
                None if item.state == PodSandboxState::Ready => match self.network_of(&item.id).await {
                    Err(error) if error.is_not_found() => continue,
                    found => found?,
                },
                None => (None, NetworkMode::Own),
            };
            let status = sandbox_of(&uid, &item, network);
            new.sandboxes.insert(uid, Place { ids: vec![item.id], status, ip });
        }
        let mut unknown = Vec::new();
        for item in containers.containers {
            let Some(uid) = uids.get(&item.pod_sandbox_id) else { continue };
            match old.containers.get(&item.id).filter(|known| is_as(&known.state, item.state)) {
                Some(known) => drop(new.containers.insert(item.id, known.clone())),
                None => unknown.push((uid.clone(), item.id)),
            }
        }
        let asked = unknown.into_iter().map(|(uid, id)| async move {
            let question = cri::ContainerStatusRequest { container_id: id, verbose: false };
            (uid, self.ask(&calls::CONTAINER_STATUS, question).await)
        });
        let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        for (uid, answer) in answers {
            match answer {
                Ok(told) => {
                    let Some(status) = told.status else { continue };
                    new.containers.insert(status.id.clone(), container_of(&uid, status));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let events = news(&old, &new);
        *self.0.world.lock() = new;
        for event in events {
            // Nobody may be listening.
            let _ = self.0.events.send(event);
        }
        Ok(())
    }

    async fn network_of(&self, id: &str) -> Result<(Option<String>, NetworkMode), CriError> {
        let question = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let status = self.ask(&calls::POD_SANDBOX_STATUS, question).await?.status.unwrap_or_default();
        let options = status.linux.and_then(|l| l.namespaces).and_then(|n| n.options).unwrap_or_default();
        let ip = status.network.map(|n| n.ip).filter(|ip| !ip.is_empty());
        let host = options.network == cri::NamespaceMode::Node;
        Ok((ip, if host { NetworkMode::Host } else { NetworkMode::Own }))
    }

    /// Takes away what an agent made that did not come to starting it.
    pub(super) async fn remove_unstarted(&self) {
        let world = self.0.world.lock().clone();
        for id in world.containers.values().filter(|c| c.state == ContainerState::Created).map(|c| &c.id) {
            if let Err(error) = self.remove_container(id).await {
                tracing::warn!(container = id, %error, "cannot remove a container that was never started");
            }
        }
    }
}

fn is_as(known: &ContainerState, told: State) -> bool {
    matches!(
        (known, told),
        (ContainerState::Created, State::Created)
            | (ContainerState::Running { .. }, State::Running)
            | (ContainerState::Exited(_), State::Exited | State::Unknown)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(id: &str, state: State) -> ContainerStatus {
        let metadata = cri::ContainerMetadata { name: "c".into(), attempt: 2 };
        container_of(
            "u",
            cri::ContainerStatus {
                id: id.into(),
                metadata: Some(metadata),
                state,
                created_at: 1_000_000_000,
                started_at: 2_000_000_000,
                finished_at: 3_000_000_000,
                exit_code: 7,
                reason: "OOMKilled".into(),
                annotations: [(IMAGE.to_owned(), "busybox:1".to_owned())].into(),
                ..Default::default()
            },
        )
    }

    fn sandbox(id: &str, state: PodSandboxState) -> Place {
        let told = cri::PodSandbox { id: id.into(), state, ..Default::default() };
        Place { ids: vec![id.to_owned()], status: sandbox_of("u", &told, NetworkMode::Own), ip: None }
    }

    #[test]
    fn a_container_is_told_in_our_words() {
        let run = told("a", State::Exited);
        let ContainerState::Exited(exit) = &run.state else { panic!("{run:?}") };
        assert_eq!((exit.code, exit.oom_killed, exit.finished_at.as_second()), (7, true, 3));
        assert_eq!((run.name.as_str(), run.attempt, run.image.as_str()), ("c", 2, "busybox:1"));
        let ContainerState::Exited(exit) = told("a", State::Unknown).state else { panic!() };
        assert!(exit.lost.is_some());
    }

    #[test]
    fn changes_are_news_once() {
        let world = |state| World {
            containers: [("a".to_owned(), told("a", state))].into(),
            sandboxes: [("u".to_owned(), sandbox("s", PodSandboxState::Ready))].into(),
        };
        let (running, ended) = (world(State::Running), world(State::Exited));
        assert!(
            matches!(&news(&running, &ended)[..], [ContainerEvent::Exited { exit, .. }] if exit.code == 7)
        );
        assert_eq!(news(&ended, &ended), []);
        let first = news(&World::default(), &running);
        assert!(matches!(&first[..], [ContainerEvent::Started { .. }, ContainerEvent::SandboxLost { .. }]));
    }

    #[test]
    fn a_sandbox_that_goes_or_stops_or_is_another_is_lost() {
        let world = |place: Option<Place>| World {
            sandboxes: place.map(|p| ("u".to_owned(), p)).into_iter().collect(),
            ..World::default()
        };
        let ready = world(Some(sandbox("s", PodSandboxState::Ready)));
        let stopped = world(Some(sandbox("s", PodSandboxState::NotReady)));
        let other = world(Some(sandbox("t", PodSandboxState::Ready)));
        let lost = [ContainerEvent::SandboxLost { sandbox_id: "u".into() }];
        for new in [&World::default(), &stopped, &other] {
            assert_eq!(news(&ready, new), lost);
        }
        assert_eq!(news(&stopped, &stopped), []);
    }
}
