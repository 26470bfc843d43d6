//! What the API shows of the node's own pods (kubernetes/kubernetes, `pkg/kubelet/pod/mirror_client.go`).
//!
//! A controller of its own with a key for each name: it looks at the pod and at the API's picture of it, does the one thing
//! that is next, and is woken by what comes of it. Whatever becomes of the picture, the pod does not notice.

use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use client::{Controller, Informer, Key, Next};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};

use super::{HASH, MIRROR, Pods, is_mirror};
use crate::error::NodeError;
use crate::report::send_status;

/// When a picture that could not be made is tried again without news.
const AGAIN: Duration = Duration::from_secs(10);

struct Mirrors {
    client: Client,
    pods: Pods,
    api: Informer<Pod>,
    node: Informer<Node>,
    name: String,
}

/// Keeps the API's picture of the node's own pods true until `drain` starts.
pub(crate) fn start(
    client: Client,
    pods: &Pods,
    api: &Informer<Pod>,
    node: &Informer<Node>,
    name: &str,
    drain: &Drain,
) {
    let controller = Controller::new("mirror-pods").watches_changes(api, |change, queue| {
        if is_mirror(change.object()) {
            queue.add(Key::of(&**change.object()));
        }
    });
    let controller = controller.after(node);
    pods.mirrors_go_to(controller.queue());
    // Those from before.
    pods.list().iter().filter(|pod| pods.is_own(pod)).for_each(|pod| controller.queue().add(Key::of(&**pod)));
    let mirrors = Arc::new(Mirrors {
        client,
        pods: pods.clone(),
        api: api.clone(),
        node: node.clone(),
        name: name.to_owned(),
    });
    drain.spawn(controller.run(drain.clone(), move |key| {
        let mirrors = mirrors.clone();
        async move { mirrors.look(&key).await }
    }));
}

/// What is next for a picture.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// There is a pod and no picture.
    Create,
    /// The picture shows something else, or is on its way out.
    Delete,
    /// It may show another status.
    Tell,
}

fn hash_of<'a>(pod: &'a Pod, annotation: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(annotation).map(String::as_str)
}

/// Decides from the node's own pod and the API's of this name.
fn step(own: Option<&Pod>, shown: Option<&Pod>) -> Step {
    match (own, shown) {
        (None, Some(shown)) if is_mirror(shown) => Step::Delete,
        (None, _) => Step::Nothing,
        // It is not worth showing any more.
        (Some(own), None) if own.metadata.deletion_timestamp.is_some() => Step::Nothing,
        (Some(_), None) => Step::Create,
        // Somebody else's: it has the name for now.
        (Some(_), Some(shown)) if !is_mirror(shown) => Step::Nothing,
        (Some(own), Some(shown)) => {
            let same = hash_of(own, HASH) == hash_of(shown, MIRROR);
            if same && shown.metadata.deletion_timestamp.is_none() { Step::Tell } else { Step::Delete }
        }
    }
}

/// The picture of a pod, owned by its node.
fn picture(own: &Pod, node: &Node) -> Pod {
    let mut annotations = own.metadata.annotations.clone().unwrap_or_default();
    if let Some(hash) = hash_of(own, HASH) {
        annotations.insert(MIRROR.to_owned(), hash.to_owned());
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    Pod {
        metadata: ObjectMeta {
            name: own.metadata.name.clone(),
            namespace: own.metadata.namespace.clone(),
            labels: own.metadata.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: own.spec.clone(),
        status: None,
    }
}

impl Mirrors {
    async fn look(&self, key: &Key) -> Result<Next, NodeError> {
        let own = self.pods.get(key).filter(|pod| self.pods.is_own(pod));
        let shown = self.api.get(key);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), key.namespace());
        match step(own.as_deref(), shown.as_deref()) {
            Step::Nothing => {
                if own.is_some() && shown.is_some() {
                    tracing::warn!(pod = %key, "a pod of the API has the name of a static pod, which is not shown");
                }
                Ok(Next::Done)
            }
            Step::Create => {
                let node = self.node.get(&Key::new("", &self.name));
                // A node that is going has no pods to show.
                let node = node.filter(|node| node.metadata.deletion_timestamp.is_none());
                let (Some(own), Some(node)) = (own, node) else { return Ok(Next::After(AGAIN)) };
                match api.create(&PostParams::default(), &picture(&own, &node)).await {
                    Ok(_) => Ok(Next::Done),
                    // The watch is a little behind.
                    Err(error) if client::is_already_exists(&error) => Ok(Next::After(AGAIN)),
                    Err(error) if client::is_server_refusal(&error) => {
                        let why = client::message(&error);
                        tracing::warn!(pod = %key, error = why, "Failed creating a mirror pod");
                        Ok(Next::After(AGAIN))
                    }
                    Err(error) => Err(error.into()),
                }
            }
            Step::Delete => {
                let uid = shown.and_then(|shown| shown.metadata.uid.clone());
                let how = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(Preconditions { uid, resource_version: None }),
                    ..DeleteParams::default()
                };
                match api.delete(key.name(), &how).await {
                    Err(error) if !client::is_not_found(&error) && !client::is_conflict(&error) => {
                        Err(error.into())
                    }
                    _ => Ok(Next::Done),
                }
            }
            Step::Tell => {
                let (Some(own), Some(shown)) = (own, shown) else { return Ok(Next::Done) };
                // Until somebody has looked at it, it is pending, as every new pod.
                let Some(status) = own.status.clone().filter(|status| status.start_time.is_some()) else {
                    return Ok(Next::Done);
                };
                send_status(&self.client, &shown, status).await?;
                Ok(Next::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(metadata: Value) -> Pod {
        serde_json::from_value(json!({"metadata": metadata, "spec": {"containers": [{"name": "c"}]}}))
            .unwrap()
    }

    fn own(hash: &str) -> Pod {
        pod(json!({"name": "a-n", "namespace": "x", "uid": hash, "annotations": {HASH: hash}}))
    }

    fn mirror(hash: &str) -> Pod {
        pod(json!({"name": "a-n", "namespace": "x", "uid": "u", "annotations": {MIRROR: hash, HASH: hash}}))
    }

    #[test]
    fn pictures_follow_pods() {
        let ending = |mut pod: Pod| {
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            pod
        };
        let other = pod(json!({"name": "a-n", "namespace": "x"}));
        for (own, shown, want) in [
            (None, None, Step::Nothing),
            (None, Some(mirror("1")), Step::Delete),
            (None, Some(other.clone()), Step::Nothing),
            (Some(own("1")), None, Step::Create),
            (Some(ending(own("1"))), None, Step::Nothing),
            (Some(own("1")), Some(mirror("1")), Step::Tell),
            (Some(ending(own("1"))), Some(mirror("1")), Step::Tell),
            (Some(own("1")), Some(ending(mirror("1"))), Step::Delete),
            (Some(own("2")), Some(mirror("1")), Step::Delete),
            (Some(own("1")), Some(other), Step::Nothing),
        ] {
            assert_eq!(step(own.as_ref(), shown.as_ref()), want, "{own:?} {shown:?}");
        }
    }

    #[test]
    fn a_picture_names_its_node_and_its_hash() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n", "uid": "node-uid"}})).unwrap();
        let picture = picture(&own("1"), &node);
        assert!(is_mirror(&picture) && picture.metadata.uid.is_none() && picture.status.is_none());
        let owner = &picture.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.uid.as_str(), owner.controller), ("node-uid", Some(true)));
        assert_eq!(step(Some(&own("1")), Some(&picture)), Step::Tell);
    }
}
