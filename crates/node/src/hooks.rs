//! Lifecycle hooks (kubernetes/kubernetes, `pkg/kubelet/lifecycle/handlers.go`).

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::error::NodeError;
use crate::plan::grace_of;
use crate::probe::{Target, send};
use crate::worker::Agent;

/// A hook without a limit of its own.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// Runs one hook; why it failed, if it did.
pub(crate) async fn run(handler: &LifecycleHandler, target: &Target, limit: Duration) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let argv = exec.command.clone().unwrap_or_default();
        let output =
            target.runtime.exec_sync(&target.id, argv, Some(limit)).await.map_err(|e| e.to_string())?;
        match output.code {
            0 => Ok(()),
            code => Err(format!(
                "command exited with {code}: {}",
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim()
            )),
        }
    } else if let Some(get) = &handler.http_get {
        let mut get = get.clone();
        if get.port == IntOrString::String(String::new()) {
            get.port = IntOrString::Int(80);
        }
        // Whoever answers has heard it, whatever the answer.
        send(&target.http(&get)?, limit).await.map(drop)
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        Ok(())
    } else {
        Err("invalid handler".into())
    }
}

impl Agent {
    /// A container whose hook fails is ended (`kuberuntime_container.go`, `startContainer`).
    pub(crate) async fn post_start(
        &self,
        pod: &Pod,
        container: &Container,
        id: &str,
        ip: &str,
    ) -> Result<(), NodeError> {
        let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return Ok(());
        };
        let target = self.target(container, id, ip);
        let Err(why) = run(handler, &target, FOR_EVER).await else { return Ok(()) };
        tracing::warn!(container = id, why, "the hook after the start failed");
        // The reason may hold what is nobody's business; upstream says no more either.
        self.warn(pod, container, "FailedPostStartHook", "PostStartHook failed");
        let grace = pod.spec.as_ref().map_or(0, grace_of);
        self.note(crate::worker::uid_of(pod), |known| {
            known.replaced.insert(id.to_owned());
        });
        self.kill(pod, Some(container), id, "FailedPostStartHook", grace, &[]).await?;
        Err(NodeError::Hook { container: container.name.clone(), why })
    }

    /// Runs the hook before the end for as long as `limit` allows.
    pub(crate) async fn pre_stop(&self, pod: &Pod, container: &Container, id: &str, limit: Duration) {
        let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
        let ip = self.pod_ip(pod).unwrap_or_default();
        let target = self.target(container, id, &ip);
        match tokio::time::timeout(limit, run(handler, &target, limit)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => {
                tracing::warn!(container = id, why, "the hook before the end failed");
                self.warn(pod, container, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => {
                tracing::warn!(container = id, "the hook before the end took all of the grace period");
                self.warn(pod, container, "FailedPreStopHook", "PreStopHook failed");
            }
        }
    }

    fn target(&self, container: &Container, id: &str, ip: &str) -> Target {
        Target {
            runtime: self.runtime.clone(),
            id: id.to_owned(),
            container: container.clone(),
            pod_ip: ip.to_owned(),
        }
    }
}
