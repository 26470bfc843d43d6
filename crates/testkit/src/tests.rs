use client::k8s_openapi::api::core::v1::{ConfigMap, Pod};
use client::{Change, Key, Selection};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::{Cluster, Outcome, object, pod, run_kubelet};

#[tokio::test]
async fn informers_follow_the_server() {
    let cluster = Cluster::start().await;
    let chosen = cluster.informers.select::<ConfigMap>(Selection::labels("pick=yes"));
    let mut changes = chosen.subscribe();
    chosen.ready().await;
    let make = |name: &str, pick: &str| -> ConfigMap {
        object(json!({"metadata": {"name": name, "labels": {"pick": pick}}}))
    };
    cluster.create("default", &make("a", "yes")).await;
    cluster.create("default", &make("b", "no")).await;
    let added = changes.recv().await.unwrap();
    assert!(matches!(&added, Change::Added(o) if o.metadata.name.as_deref() == Some("a")), "{added:?}");
    let patch = Patch::Merge(json!({"data": {"k": "v"}}));
    let api = cluster.api::<ConfigMap>("default");
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    let updated = changes.recv().await.unwrap();
    assert!(matches!(&updated, Change::Updated { old, .. } if old.data.is_none()), "{updated:?}");
    assert!(chosen.get(&Key::new("default", "a")).unwrap().data.is_some());
    assert!(chosen.get(&Key::new("default", "b")).is_none());
    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(changes.recv().await.unwrap(), Change::Deleted(_)));
}

#[tokio::test]
async fn the_stand_in_kubelet_runs_pods_and_lets_them_go() {
    let cluster = Cluster::start().await;
    cluster
        .create(
            "default",
            &object::<client::k8s_openapi::api::core::v1::ServiceAccount>(
                json!({"metadata": {"name": "default"}}),
            ),
        )
        .await;
    run_kubelet(&cluster, |_| Outcome::Running);
    cluster.create("default", &pod("p", "x")).await;
    let running = cluster
        .wait_until::<Pod>("default", "p", "to run", |p| {
            p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"))
        })
        .await;
    assert!(running.status.unwrap().pod_ip.is_some());
    cluster.api::<Pod>("default").delete("p", &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<Pod>("default", "p").await;
}

#[tokio::test]
async fn the_same_client_works_over_tls() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let pki = auth::Pki::open(folder.path(), &base::SystemClock).unwrap();
    let issue = |file: &str, usage, organization: &str| {
        pki.issue(&auth::CertificateRequest {
            file: file.into(),
            common_name: "somebody".into(),
            organization: organization.into(),
            names: vec!["127.0.0.1".into()],
            usage,
        })
        .unwrap()
    };
    let server = issue("server", auth::Usage::Server, "");
    let person = issue("person", auth::Usage::Client, auth::User::MASTERS);
    let tls = apiserver::Tls::new(&server, pki.ca()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    cluster.drain.spawn(cluster.api.clone().serve(listener, tls, cluster.drain.clone()));
    let server = |identity| client::Server { url: url.clone(), ca_pem: pki.ca().to_owned(), identity };
    let certificate =
        client::Identity::Certificate { certificate: person.certificate.clone(), key: person.key.clone() };
    let master = client::Transport::tls(&server(certificate)).unwrap().client();
    let informers = client::Informers::new(master, cluster.drain.clone());
    let maps = informers.of::<ConfigMap>();
    let mut changes = maps.subscribe();
    maps.ready().await;
    cluster.create("default", &object::<ConfigMap>(json!({"metadata": {"name": "a"}}))).await;
    assert!(matches!(changes.recv().await.unwrap(), Change::Added(_)));
    let stranger = client::Transport::tls(&server(client::Identity::Anonymous)).unwrap().client();
    let refused = kube::Api::<ConfigMap>::all(stranger).list(&Default::default()).await.unwrap_err();
    assert!(client::is_forbidden(&refused), "{refused}");
}
