use client::k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::{Outcome, object, run_kubelet};

use crate::testing::cluster;

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it_once_nothing_holds_it() {
    let cluster = cluster().await;
    cluster.create_global(&object::<Namespace>(json!({"metadata": {"name": "shop"}}))).await;
    cluster.wait_until::<ServiceAccount>("shop", "default", "to be made", |_| true).await;
    let map = cluster.wait_until::<ConfigMap>("shop", "kube-root-ca.crt", "to be published", |_| true).await;
    assert_eq!(map.data.unwrap()["ca.crt"], "the authority");
    let mut pod = testkit::pod("web", "web");
    pod.spec.as_mut().unwrap().node_name = Some("n1".into());
    cluster.create("shop", &pod).await;
    cluster.create("shop", &testkit::deployment("web", 2)).await;
    let held: ConfigMap = object(json!({"metadata": {"name": "held", "finalizers": ["x.io/hold"]}}));
    cluster.create("shop", &held).await;

    let namespaces: Api<Namespace> = cluster.all();
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    let says = |what: &'static str| {
        let namespaces = namespaces.clone();
        let cluster = &cluster;
        async move {
            cluster
                .wait_for(what, || async {
                    let namespace = namespaces.get("shop").await.unwrap();
                    let conditions = namespace.status.unwrap().conditions.unwrap_or_default();
                    conditions
                        .iter()
                        .any(|c| c.message.as_deref().is_some_and(|m| m.contains(what)))
                        .then_some(())
                })
                .await;
        }
    };
    says("Some resources are remaining: pods. has 1 resource instances").await;
    // Others wait until the pods are gone.
    run_kubelet(&cluster, |_| Outcome::Running);
    says("Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances").await;
    cluster.wait_gone::<Pod>("shop", "web").await;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    cluster.api::<ConfigMap>("shop").patch("held", &PatchParams::default(), &free).await.unwrap();
    cluster
        .wait_for("the namespace to go", || async {
            namespaces.get_opt("shop").await.unwrap().is_none().then_some(())
        })
        .await;
}
