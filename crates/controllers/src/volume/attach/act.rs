//! What is written, and what is asked of the server because a cache is not enough.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::State;
use super::plan::{Want, csi, is_exclusive};
use crate::error::{Attempt, Error};

impl State {
    fn node_api(&self) -> Api<Node> {
        Api::all(self.ctx.client())
    }

    fn attachment_api(&self) -> Api<VolumeAttachment> {
        Api::all(self.ctx.client())
    }

    /// A node as the server has it.
    pub(super) async fn read(&self, name: &str) -> Result<Option<Node>, Error> {
        self.node_api().get_opt(name).await.attempt(|| format!("look at node {name}"))
    }

    /// Tells a node what it has. The answer says what it uses by then.
    pub(super) async fn report(&self, name: &str, volumes: &BTreeSet<String>) -> Result<Node, Error> {
        let all: Vec<Value> = volumes.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
        let all = if all.is_empty() { Value::Null } else { all.into() };
        let patch = Patch::Merge(json!({"status": {"volumesAttached": all}}));
        let told = self.node_api().patch_status(name, &PatchParams::default(), &patch).await;
        told.attempt(|| format!("tell node {name} which volumes are attached to it"))
    }

    /// Deletes an attachment; its driver detaches the volume before it goes.
    pub(super) async fn delete(&self, node: &str, attachment: &VolumeAttachment) -> Result<(), Error> {
        self.memory.deletes(node, attachment, false);
        let name = attachment.name_any();
        let only = Preconditions { uid: attachment.metadata.uid.clone(), ..Default::default() };
        let how = DeleteParams { preconditions: Some(only), ..Default::default() };
        match self.attachment_api().delete(&name, &how).await {
            // It is gone, or another one by now.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {}
            outcome => drop(outcome.attempt(|| format!("delete attachment {name}"))?),
        }
        self.memory.deletes(node, attachment, true);
        Ok(())
    }

    /// Makes an attachment, which asks its driver to attach the volume; false if another node has the volume.
    pub(super) async fn attach(&self, node: &str, name: &str, want: &Want) -> Result<bool, Error> {
        let Some(csi) = csi(&want.volume) else { return Ok(true) };
        let volume = want.volume.name_any();
        let elsewhere = || self.of_volume.get(&volume).iter().any(|other| other.spec.node_name != node);
        if is_exclusive(&want.volume) && !self.memory.reserve((node, &volume), name, elsewhere) {
            self.say_refused(node, name, want);
            return Ok(false);
        }
        let new = VolumeAttachment {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
            spec: VolumeAttachmentSpec {
                attacher: csi.driver.clone(),
                node_name: node.to_owned(),
                source: VolumeAttachmentSource { persistent_volume_name: Some(volume), ..Default::default() },
            },
            status: None,
        };
        match self.attachment_api().create(&PostParams::default(), &new).await {
            Err(error) if client::is_already_exists(&error) => Ok(true),
            Err(error) => {
                // Without an answer it may be there all the same.
                if client::is_server_refusal(&error) {
                    self.memory.release(name);
                }
                self.say_failed(node, name, want, &client::message(&error));
                Err(error).attempt(|| format!("create attachment {name}"))
            }
            Ok(_) => Ok(true),
        }
    }
}
