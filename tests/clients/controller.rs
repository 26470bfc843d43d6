//! A controller as people write them with kube-rs: for each ConfigMap labelled `kube-rs=yes` a Secret that it owns.
//! Ends when it has seen one come, change and go.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(#[from] kube::Error);

async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, Failed> {
    let secrets: Api<Secret> = Api::namespaced(client.as_ref().clone(), &map.namespace().unwrap_or_default());
    let name = map.name_any();
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(map.controller_owner_ref(&()).into_iter().collect()),
            ..Default::default()
        },
        string_data: map.data.clone(),
        ..Default::default()
    };
    secrets.patch(&name, &PatchParams::apply("kube-rs").force(), &Patch::Apply(&secret)).await?;
    Ok(Action::await_change())
}

fn failed(_: Arc<ConfigMap>, error: &Failed, _: Arc<Client>) -> Action {
    eprintln!("{error}");
    Action::requeue(Duration::from_millis(200))
}

/// Waits until a secret is as it should be.
async fn until(secrets: &Api<Secret>, name: &str, wanted: Option<&str>) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let found = secrets.get_opt(name).await?;
        let text =
            found.and_then(|s| s.data?.remove("a")).map(|b| String::from_utf8_lossy(&b.0).into_owned());
        if text.as_deref() == wanted {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(format!("{name} is {text:?}, not {wanted:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let namespace = std::env::args().nth(1).ok_or("which namespace?")?;
    let client = Client::try_default().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("kube-rs=yes"))
        .owns(secrets.clone(), watcher::Config::default().streaming_lists())
        .run(reconcile, failed, Arc::new(client));
    let driving = async {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("rs".into());
        map.labels_mut().insert("kube-rs".into(), "yes".into());
        map.data = Some([("a".to_owned(), "1".to_owned())].into());
        maps.create(&PostParams::default(), &map).await?;
        until(&secrets, "rs", Some("1")).await?;
        let change = serde_json::json!({"data": {"a": "2"}});
        maps.patch("rs", &PatchParams::default(), &Patch::Merge(&change)).await?;
        until(&secrets, "rs", Some("2")).await?;
        // What the controller owns comes back when somebody takes it away.
        secrets.delete("rs", &DeleteParams::default()).await?;
        until(&secrets, "rs", Some("2")).await?;
        maps.delete("rs", &DeleteParams::default()).await?;
        until(&secrets, "rs", None).await?;
        let left = secrets.list(&ListParams::default()).await?.items.len();
        println!("the Rust client is content; {left} secrets are left");
        Ok::<(), Failure>(())
    };
    tokio::select! {
        done = driving => done,
        () = controller.for_each(|_| async {}) => Err("the controller ended".into()),
    }
}
