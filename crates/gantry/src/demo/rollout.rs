//! Waiting for the demo's pods, and saying why one does not come.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use client::k8s_openapi::api::apps::v1::Deployment;
use client::k8s_openapi::api::core::v1::{ContainerState, Event as PodEvent, Pod};
use client::kube::api::ListParams;
use client::kube::runtime::wait::{Error, await_condition};
use client::kube::runtime::watcher::{self, Event, watcher};
use client::kube::{Api, Client};
use futures::TryStreamExt;

use super::objects::failed;
use super::{DemoError, NAME, NAMESPACE};

/// So many of a pod's last events are shown.
const EVENTS: usize = 3;

fn ours() -> ListParams {
    ListParams::default().labels(&format!("app={NAME}"))
}

/// Waits until the Deployment's newest version is all there is of it, and ready.
pub(super) async fn wait(client: &Client, patience: Duration) -> Result<(), DemoError> {
    let told = Cell::new(None);
    let done = |deployment: Option<&Deployment>| {
        let progress = deployment.map(Progress::of).unwrap_or_default();
        if told.replace(Some(progress)) != Some(progress) {
            println!("  {} of {} ready", progress.ready, progress.wanted);
        }
        progress.complete
    };
    let api = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    match tokio::time::timeout(patience, await_condition(api, NAME, done)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(DemoError::Watch { what: "the Deployment", source: Box::new(error) }),
        Err(_) => Err(DemoError::NotReady { patience, why: reasons(client).await? }),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    wanted: i32,
    ready: i32,
    complete: bool,
}

impl Progress {
    /// As `kubectl rollout status` sees it (kubernetes/kubectl, `DeploymentStatusViewer`).
    fn of(deployment: &Deployment) -> Self {
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let Some(status) = &deployment.status else { return Self { wanted, ..Self::default() } };
        let count = |field: Option<i32>| field.unwrap_or(0);
        let (updated, available) = (count(status.updated_replicas), count(status.available_replicas));
        let seen = status.observed_generation >= deployment.metadata.generation;
        let complete = seen && updated >= wanted && count(status.replicas) <= updated && available >= updated;
        Self { wanted, ready: if seen { available.min(updated) } else { 0 }, complete }
    }
}

/// The names of the pods that run.
pub(super) async fn pods(client: &Client) -> Result<Vec<String>, DemoError> {
    let pods = list(client).await?;
    let staying = pods.into_iter().filter(|p| !client::is_deleting(&p.metadata));
    Ok(staying.filter_map(|p| p.metadata.name).collect())
}

async fn list(client: &Client) -> Result<Vec<Pod>, DemoError> {
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    Ok(api.list(&ours()).await.map_err(failed("list the pods"))?.items)
}

/// Waits until no pod of the demo is left.
pub(super) async fn wait_gone(client: &Client, patience: Duration) -> Result<(), DemoError> {
    let api = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().labels(&format!("app={NAME}"));
    let gone = async {
        let (mut left, mut complete) = (HashSet::new(), false);
        let mut events = std::pin::pin!(watcher(api, config));
        while let Some(event) = events.try_next().await? {
            let name = |pod: Pod| pod.metadata.name.unwrap_or_default();
            match event {
                Event::Init => left.clear(),
                Event::InitApply(pod) | Event::Apply(pod) => drop(left.insert(name(pod))),
                Event::Delete(pod) => drop(left.remove(&name(pod))),
                Event::InitDone => complete = true,
            }
            if complete && left.is_empty() {
                break;
            }
        }
        Ok(())
    };
    match tokio::time::timeout(patience, gone).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            Err(DemoError::Watch { what: "the pods", source: Box::new(Error::ProbeFailed(error)) })
        }
        Err(_) => Err(DemoError::NotGone(patience)),
    }
}

/// Why pods are not ready, as they and their events tell it.
pub(super) async fn reasons(client: &Client) -> Result<String, DemoError> {
    let mut text = String::new();
    let pods = list(client).await?;
    if pods.is_empty() {
        text.push_str("  there are no pods; see: kubectl describe deployment,replicaset\n");
    }
    for pod in &pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Unknown");
        let _ = writeln!(text, "  pod {name}: {phase}");
        for said in complaints(pod) {
            let _ = writeln!(text, "    {said}");
        }
        for said in events(client, name).await? {
            let _ = writeln!(text, "    event: {said}");
        }
    }
    Ok(text.trim_end().to_owned())
}

/// What a pod's status says against its being ready.
fn complaints(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let said = |reason: Option<&String>, message: Option<&String>| {
        let parts = [reason, message].into_iter().flatten().filter(|p| !p.is_empty());
        parts.map(String::as_str).collect::<Vec<_>>().join(": ")
    };
    let conditions = status.conditions.iter().flatten().filter(|c| c.status != "True");
    let unmet = conditions
        .filter(|c| c.type_ == "PodScheduled" || c.type_ == "PodReadyToStartContainers")
        .map(|c| said(c.reason.as_ref(), c.message.as_ref()));
    let containers = status.container_statuses.iter().flatten().filter(|c| !c.ready).map(|c| {
        let why = match c.state.as_ref() {
            Some(ContainerState { waiting: Some(w), .. }) => said(w.reason.as_ref(), w.message.as_ref()),
            Some(ContainerState { terminated: Some(t), .. }) => {
                format!(
                    "ended with exit code {}: {}",
                    t.exit_code,
                    said(t.reason.as_ref(), t.message.as_ref())
                )
            }
            Some(ContainerState { running: Some(_), .. }) => "runs, but is not ready".to_owned(),
            _ => "has no state yet".to_owned(),
        };
        let before = c.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        let before = before.map(|t| format!(" (the last run ended with exit code {})", t.exit_code));
        format!("container {}: {why}{}", c.name, before.unwrap_or_default())
    });
    unmet.chain(containers).filter(|line| !line.is_empty()).collect()
}

async fn events(client: &Client, pod: &str) -> Result<Vec<String>, DemoError> {
    let api = Api::<PodEvent>::namespaced(client.clone(), NAMESPACE);
    let about = format!("involvedObject.kind=Pod,involvedObject.name={pod}");
    let events = api.list(&ListParams::default().fields(&about)).await;
    let mut events = events.map_err(failed("list the events"))?.items;
    events.sort_by_key(|e| e.last_timestamp.clone());
    let last = &events[events.len().saturating_sub(EVENTS)..];
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Ok(last.iter().map(|e| format!("{}: {}", text(&e.reason), text(&e.message))).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn progress(generation: i64, status: Value) -> Progress {
        let object = json!({"metadata": {"generation": generation}, "spec": {"replicas": 3, "selector": {},
            "template": {}}, "status": status});
        Progress::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn complete_when_nothing_old_is_left() {
        let status = |replicas, updated, available| {
            json!({"observedGeneration": 2, "replicas": replicas, "updatedReplicas": updated,
                "availableReplicas": available})
        };
        assert!(progress(2, status(3, 3, 3)).complete);
        assert!(!progress(3, status(3, 3, 3)).complete, "the change has not been seen yet");
        assert!(!progress(2, status(4, 3, 3)).complete, "an old pod is left");
        let partly = progress(2, status(3, 3, 1));
        assert!(!partly.complete && partly.ready == 1);
        assert!(!progress(1, json!({})).complete);
    }

    #[test]
    fn pods_tell_what_holds_them_up() {
        let pod: Pod = serde_json::from_value(json!({"status": {
            "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"},
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            ],
            "containerStatuses": [{"name": "web", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}],
        }}))
        .unwrap();
        assert_eq!(
            complaints(&pod),
            ["Unschedulable: 0/1 nodes", "container web: ErrImagePull: no such image"]
        );
    }
}
