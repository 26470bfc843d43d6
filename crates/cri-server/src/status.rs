//! From the engine's words, and what is recorded beside them, to the interface's. Pure.

use cri::{
    Container, ContainerFilter, ContainerResources, ContainerState, ContainerStatus, ContainerUser,
    ImageSpec, LinuxPodSandboxStatus, Namespace, PodIp, PodSandbox, PodSandboxFilter,
    PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use runtime::{ContainerState as Engine, Exit};

use crate::records::{ContainerRecord, SandboxRecord};

/// What containerd says of containers that did not start.
const START_ERROR: i32 = 128;
/// And of those that nobody knows the end of.
const UNKNOWN: i32 = 255;

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Doing {
    pub(crate) state: ContainerState,
    started_at: i64,
    finished_at: i64,
    exit_code: i32,
    reason: &'static str,
    message: String,
}

/// What a container does, by what the engine says of it. `starting` is whether it is on its way to the engine.
pub(crate) fn doing(record: &ContainerRecord, engine: Option<&Engine>, starting: bool) -> Doing {
    let nanos = |at: base::Timestamp| i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX);
    match (engine, &record.failure) {
        (Some(Engine::Created), _) => Doing::default(),
        (Some(Engine::Running { started_at, .. }), _) => {
            Doing { state: ContainerState::Running, started_at: nanos(*started_at), ..Doing::default() }
        }
        (Some(Engine::Exited(exit)), _) => Doing {
            state: ContainerState::Exited,
            started_at: nanos(exit.started_at),
            finished_at: nanos(exit.finished_at),
            exit_code: exit.code,
            reason: match exit {
                Exit { oom_killed: true, .. } => "OOMKilled",
                Exit { code: 0, .. } => "Completed",
                _ => "Error",
            },
            message: exit.lost.clone().unwrap_or_default(),
        },
        (None, Some((at, why))) => Doing {
            state: ContainerState::Exited,
            finished_at: *at,
            exit_code: START_ERROR,
            reason: "StartError",
            message: why.clone(),
            ..Doing::default()
        },
        (None, None) if record.begun && !starting => Doing {
            state: ContainerState::Exited,
            finished_at: record.created_at,
            exit_code: UNKNOWN,
            reason: "Unknown",
            message: "the machine was restarted, and nobody saw its end".to_owned(),
            ..Doing::default()
        },
        (None, None) => Doing::default(),
    }
}

/// A container as lists show it.
pub(crate) fn container(record: &ContainerRecord, doing: &Doing) -> Container {
    Container {
        id: record.id.clone(),
        pod_sandbox_id: record.sandbox.clone(),
        metadata: record.config.metadata.clone(),
        image: record.config.image.clone(),
        image_ref: record.image_ref.clone(),
        state: doing.state,
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        image_id: record.image_id.clone(),
    }
}

/// All that is told of a container.
pub(crate) fn container_status(record: &ContainerRecord, doing: Doing) -> ContainerStatus {
    let config = &record.config;
    let asked = config.image.clone().unwrap_or_default();
    ContainerStatus {
        id: record.id.clone(),
        metadata: config.metadata.clone(),
        state: doing.state,
        created_at: record.created_at,
        started_at: doing.started_at,
        finished_at: doing.finished_at,
        exit_code: doing.exit_code,
        image: Some(ImageSpec { image: record.image_name.clone(), ..asked }),
        image_ref: record.image_ref.clone(),
        reason: doing.reason.to_owned(),
        message: doing.message,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.spec.log_path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        resources: config
            .linux
            .as_ref()
            .and_then(|linux| linux.resources.clone())
            .map(|linux| ContainerResources { linux: Some(linux) }),
        image_id: record.image_id.clone(),
        user: record.user.clone().map(|user| ContainerUser { linux: Some(user.into()) }),
        stop_signal: match &record.spec.stop_signal {
            Some(name) => cri::Signal::of(name),
            None => cri::Signal::SigTerm,
        },
    }
}

/// A sandbox as lists show it.
pub(crate) fn sandbox(record: &SandboxRecord, state: PodSandboxState) -> PodSandbox {
    PodSandbox {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state,
        created_at: record.created_at,
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

/// All that is told of a sandbox.
pub(crate) fn sandbox_status(
    record: &SandboxRecord,
    state: PodSandboxState,
    ip: Option<String>,
) -> PodSandboxStatus {
    let security = record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.clone()).unwrap_or_default();
    PodSandboxStatus {
        id: record.id.clone(),
        metadata: record.config.metadata.clone(),
        state,
        created_at: record.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ip.unwrap_or_default(),
            additional_ips: Vec::<PodIp>::new(),
        }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(options) }) }),
        labels: record.config.labels.clone(),
        annotations: record.config.annotations.clone(),
        runtime_handler: record.handler.clone(),
    }
}

type Labels = std::collections::BTreeMap<String, String>;

/// Whether labels have all that a selector names.
pub(crate) fn selected(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Whether a list that is filtered so shows a sandbox.
pub(crate) fn shows_sandbox(filter: &PodSandboxFilter, sandbox: &PodSandbox) -> bool {
    sandbox.id.starts_with(&filter.id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox.state)
        && selected(&filter.label_selector, &sandbox.labels)
}

/// Whether a list that is filtered so shows a container.
pub(crate) fn shows_container(filter: &ContainerFilter, container: &Container) -> bool {
    container.id.starts_with(&filter.id)
        && container.pod_sandbox_id.starts_with(&filter.pod_sandbox_id)
        && filter.state.as_ref().is_none_or(|wanted| wanted.state == container.state)
        && selected(&filter.label_selector, &container.labels)
}

#[cfg(test)]
mod tests {
    use base::Timestamp;
    use cri::{ContainerConfig, ContainerStateValue, PodSandboxStateValue};

    use super::*;

    fn record() -> ContainerRecord {
        ContainerRecord {
            id: "c1".to_owned(),
            sandbox: "s1".to_owned(),
            created_at: 5,
            config: ContainerConfig {
                labels: [("app".to_owned(), "web".to_owned())].into(),
                ..Default::default()
            },
            spec: runtime::ContainerSpec::default(),
            image_id: "sha256:1".to_owned(),
            image_ref: "r@sha256:2".to_owned(),
            image_name: "r:1".to_owned(),
            holds: Vec::new(),
            begun: false,
            failure: None,
            user: None,
        }
    }

    #[test]
    fn states_follow_the_engine_and_the_record_fills_the_gaps() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut record = record();
        assert_eq!(doing(&record, None, false), Doing::default());
        record.begun = true;
        assert_eq!(doing(&record, None, true).state, ContainerState::Created);
        let lost = doing(&record, None, false);
        assert_eq!((lost.state, lost.exit_code, lost.reason), (ContainerState::Exited, 255, "Unknown"));
        let running = doing(&record, Some(&Engine::Running { pid: 1, started_at: at(2) }), true);
        assert_eq!((running.state, running.started_at), (ContainerState::Running, 2_000_000_000));
        let end = |code, oom_killed| {
            let exit =
                Exit { code, signal: None, oom_killed, started_at: at(1), finished_at: at(2), lost: None };
            doing(&record, Some(&Engine::Exited(exit)), false).reason
        };
        assert_eq!((end(0, false), end(3, false), end(137, true)), ("Completed", "Error", "OOMKilled"));
        record.failure = Some((9, "no such file".to_owned()));
        let failed = container_status(&record, doing(&record, None, false));
        assert_eq!((failed.exit_code, failed.reason.as_str()), (128, "StartError"));
        assert_eq!((failed.finished_at, failed.message.as_str()), (9, "no such file"));
        assert_eq!(failed.image.unwrap().image, "r:1");
    }

    #[test]
    fn filters_are_anded() {
        let shown = container(&record(), &Doing::default());
        let state = |state| Some(ContainerStateValue { state });
        let labels = |value: &str| [("app".to_owned(), value.to_owned())].into();
        let filter = ContainerFilter {
            id: "c".to_owned(),
            state: state(ContainerState::Created),
            pod_sandbox_id: "s1".to_owned(),
            label_selector: labels("web"),
        };
        assert!(shows_container(&filter, &shown) && shows_container(&ContainerFilter::default(), &shown));
        assert!(!shows_container(&ContainerFilter { id: "d".to_owned(), ..filter.clone() }, &shown));
        assert!(!shows_container(&ContainerFilter { label_selector: labels("x"), ..filter.clone() }, &shown));
        assert!(!shows_container(
            &ContainerFilter { state: state(ContainerState::Exited), ..filter },
            &shown
        ));
        let sandbox = PodSandbox { id: "s1".to_owned(), ..Default::default() };
        let gone = Some(PodSandboxStateValue { state: PodSandboxState::NotReady });
        assert!(shows_sandbox(&PodSandboxFilter::default(), &sandbox));
        assert!(!shows_sandbox(&PodSandboxFilter { state: gone, ..Default::default() }, &sandbox));
    }
}
