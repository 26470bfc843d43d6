//! A cluster with its controllers.

use std::sync::Arc;

use base::{Clock, SystemClock};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use parking_lot::Mutex;
use testkit::{Cluster, Outcome};

use crate::{Config, run};

/// A cluster whose controllers run, with no more rights than their roles give them, and which is ready for pods in the
/// namespace `default`.
pub(crate) async fn cluster() -> Cluster {
    cluster_at(Arc::new(SystemClock)).await
}

/// The same on a clock of the test's.
pub(crate) async fn cluster_at(clock: Arc<dyn Clock>) -> Cluster {
    let cluster = Cluster::start_at(clock).await;
    run(&config(&cluster));
    cluster.wait_until::<ServiceAccount>("default", "default", "to be made", |_| true).await;
    cluster
}

pub(crate) fn config(cluster: &Cluster) -> Config {
    Config {
        informers: cluster.informers.clone(),
        identities: Some(Arc::new(cluster.accounts())),
        clock: cluster.clock.clone(),
        drain: cluster.drain.clone(),
        ca_pem: "the authority".into(),
        nodes: Default::default(),
        terminated_pods: 12_500,
        pod_range: None,
        signing: None,
        autoscaling: Default::default(),
        selected: Default::default(),
        tuning: Default::default(),
    }
}

/// For a stand-in of a kubelet: the first pod it sees fails, all others run.
pub(crate) fn first_fails() -> impl Fn(&Pod) -> Outcome {
    let first = Mutex::new(None);
    move |pod| {
        let uid = pod.metadata.uid.clone();
        if *first.lock().get_or_insert_with(|| uid.clone()) == uid {
            Outcome::Failed
        } else {
            Outcome::Running
        }
    }
}
