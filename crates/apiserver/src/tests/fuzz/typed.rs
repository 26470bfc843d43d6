//! What the API serves, as typed clients read it. One object that they cannot read stops a watch of its whole kind.

use k8s_openapi::api::{
    apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch, certificates::v1 as certificates,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, events::v1 as events,
    networking::v1 as networking, node::v1 as node, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read<T: DeserializeOwned>(object: &Value) -> Result<(), serde_json::Error> {
    serde_json::from_value::<T>(object.clone()).map(drop)
}

/// Whether an object can be read as its kind's type.
pub(super) fn readable(object: &Value) -> Result<(), serde_json::Error> {
    macro_rules! kinds {
        ($($module:ident: $($kind:ident)+;)+) => {
            match (object["apiVersion"].as_str().unwrap_or_default(), object["kind"].as_str().unwrap_or_default()) {
                ("events.k8s.io/v1", "Event") => read::<events::Event>(object),
                ("autoscaling/v1", _) => Ok(()),
                $($((_, stringify!($kind)) => read::<$module::$kind>(object),)+)+
                _ => Ok(()),
            }
        };
    }
    kinds! {
        core: Pod PodTemplate ConfigMap Secret ServiceAccount Namespace Node Service Endpoints Event PersistentVolume
            PersistentVolumeClaim ResourceQuota LimitRange ReplicationController;
        apps: Deployment ReplicaSet StatefulSet DaemonSet ControllerRevision;
        batch: Job CronJob;
        autoscaling: HorizontalPodAutoscaler;
        policy: PodDisruptionBudget;
        discovery: EndpointSlice;
        networking: Ingress IngressClass NetworkPolicy;
        coordination: Lease;
        node: RuntimeClass;
        scheduling: PriorityClass;
        storage: StorageClass;
        rbac: Role ClusterRole RoleBinding ClusterRoleBinding;
        certificates: CertificateSigningRequest;
    }
}
