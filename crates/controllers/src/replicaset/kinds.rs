//! The two kinds that keep so many pods of one template, and where they differ. A ReplicationController is treated as
//! the replica set that it could be (kubernetes/kubernetes, `pkg/controller/replication/conversion.go`).

use client::Object;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use kube::Resource;
use serde::Serialize;
use types::{LabelSelector, Requirement, SelectorError};

/// A kind that keeps so many pods of one template.
pub(crate) trait Replicating:
    Object + Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize
{
    /// The controller's name, as events give it.
    const CONTROLLER: &'static str;

    fn replicas(&self) -> Option<i32>;
    fn min_ready_seconds(&self) -> i32;
    fn selector(&self) -> Result<LabelSelector, SelectorError>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> Option<ReplicaSetStatus>;
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl Replicating for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";

    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref()?.replicas
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        self.spec.as_ref().map_or_else(|| Ok(LabelSelector::nothing()), |s| client::selector(&s.selector))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Option<ReplicaSetStatus> {
        self.status.clone()
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self { status: Some(status), ..self.clone() }
    }
}

impl Replicating for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";

    fn replicas(&self) -> Option<i32> {
        self.spec.as_ref()?.replicas
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        let labels = self.spec.as_ref().and_then(|s| s.selector.as_ref());
        let equals = |(key, value): (&String, &String)| Requirement::In(key.clone(), vec![value.clone()]);
        Ok(labels.map_or_else(LabelSelector::nothing, |l| LabelSelector::of(l.iter().map(equals).collect())))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> Option<ReplicaSetStatus> {
        let status = self.status.clone()?;
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        Some(ReplicaSetStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
            terminating_replicas: None,
        })
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        let condition = |c: ReplicaSetCondition| ReplicationControllerCondition {
            last_transition_time: c.last_transition_time,
            message: c.message,
            reason: c.reason,
            status: c.status,
            type_: c.type_,
        };
        let status = ReplicationControllerStatus {
            available_replicas: status.available_replicas,
            conditions: status.conditions.map(|all| all.into_iter().map(condition).collect()),
            fully_labeled_replicas: status.fully_labeled_replicas,
            observed_generation: status.observed_generation,
            ready_replicas: status.ready_replicas,
            replicas: status.replicas,
        };
        Self { status: Some(status), ..self.clone() }
    }
}
