//! What the templates of a set have been: a ControllerRevision for each (kubernetes/kubernetes,
//! `pkg/controller/history/controller_history.go`).

use std::fmt::Debug;
use std::sync::Arc;

use client::{Informer, PodView};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use types::LabelSelector;

use super::claim::{claim_all, owner_reference};
use super::hash::short_hash;
use super::owned::Owned;
use crate::context::Context;
use crate::error::{Attempt, Error};

/// The label of pods that names the revision they are of.
pub(crate) const REVISION: &str = "controller-revision-hash";

/// The revision that a pod is of.
pub(crate) fn revision_of(pod: &PodView) -> Option<&str> {
    pod.labels.as_ref()?.get(REVISION).map(String::as_str)
}

/// Names are cut so that they have room for a hash.
const LONGEST_PREFIX: usize = 223;

/// A revision, shared as informers do.
pub(crate) type Revision = Arc<ControllerRevision>;

/// Finds, makes and deletes the revisions of sets.
pub(crate) struct History {
    ctx: Context,
    owned: Owned<ControllerRevision>,
    /// The label of a revision that holds its hash.
    label: &'static str,
}

/// What a set's history says of a template.
#[derive(Debug, PartialEq)]
enum Known {
    Latest(Revision),
    /// It has been the set's before, and becomes the latest again under this number.
    Earlier(Revision, i64),
    /// It would have this number.
    Unknown(i64),
}

impl History {
    pub(crate) fn new(ctx: &Context, revisions: &Informer<ControllerRevision>, label: &'static str) -> Self {
        Self { ctx: ctx.clone(), owned: Owned::new(revisions), label }
    }

    /// The set's revisions, the oldest first.
    pub(crate) async fn of<O>(&self, owner: &O, selector: &LabelSelector) -> Result<Vec<Revision>, Error>
    where
        O: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let candidates = self.owned.candidates(owner.meta());
        let mut all = claim_all(&self.ctx.client(), owner, selector, candidates).await?;
        sort(&mut all);
        Ok(all)
    }

    /// The revision of the present template, made or renumbered if need be. When its name is taken by another one, the
    /// number of collisions goes up and is part of the next name.
    pub(crate) async fn present<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        template: &PodTemplateSpec,
        all: &[Revision],
        collisions: &mut Option<i32>,
    ) -> Result<Revision, Error> {
        let data = data(template);
        let api = self.ctx.api::<ControllerRevision>(owner.meta().namespace.as_deref().unwrap_or_default());
        let number = match find(all, &data) {
            Known::Latest(revision) => return Ok(revision),
            Known::Earlier(revision, number) => {
                let name = revision.name_any();
                let version = &revision.metadata.resource_version;
                let change = json!({"metadata": {"resourceVersion": version}, "revision": number});
                let changed = api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await;
                return changed.map(Arc::new).attempt(|| format!("renumber revision {name}"));
            }
            Known::Unknown(number) => number,
        };
        loop {
            let new = self.new_revision(owner, template, &data, number, *collisions);
            let name = new.name_any();
            match api.create(&PostParams::default(), &new).await {
                Err(error) if client::is_already_exists(&error) => {
                    let taken = api.get(&name).await.attempt(|| format!("look at revision {name}"))?;
                    if content(&taken) == Some(&data) {
                        return Ok(Arc::new(taken));
                    }
                    *collisions = Some(collisions.unwrap_or(0) + 1);
                }
                outcome => return outcome.map(Arc::new).attempt(|| format!("create revision {name}")),
            }
        }
    }

    fn new_revision<O: Resource<DynamicType = ()>>(
        &self,
        owner: &O,
        template: &PodTemplateSpec,
        data: &Value,
        number: i64,
        collisions: Option<i32>,
    ) -> ControllerRevision {
        let salt = collisions.unwrap_or(0);
        let salt = if salt > 0 { salt.to_string() } else { String::new() };
        let hash = short_hash(data.to_string().into_bytes().into_iter().chain(salt.into_bytes()));
        let name = owner.meta().name.as_deref().unwrap_or_default();
        let name = &name[..name.len().min(LONGEST_PREFIX)];
        let mut labels = template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(self.label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{hash}")),
                labels: Some(labels),
                annotations: owner.meta().annotations.clone(),
                owner_references: Some(vec![owner_reference(owner)]),
                ..Default::default()
            },
            data: Some(RawExtension(data.clone())),
            revision: number,
        }
    }

    /// A revision's hash.
    pub(crate) fn hash(&self, revision: &ControllerRevision) -> String {
        revision
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get(self.label))
            .cloned()
            .unwrap_or_else(|| revision.name_any())
    }

    /// Deletes the oldest revisions that nobody uses, so that at most `limit` of those stay.
    pub(crate) async fn truncate(
        &self,
        all: &[Revision],
        is_used: impl Fn(&ControllerRevision) -> bool,
        limit: Option<i32>,
    ) -> Result<(), Error> {
        for revision in superfluous(all, is_used, limit) {
            let name = revision.name_any();
            let namespace = revision.metadata.namespace.as_deref().unwrap_or_default();
            let api = self.ctx.api::<ControllerRevision>(namespace);
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if client::is_not_found(&error) => {}
                outcome => drop(outcome.attempt(|| format!("delete revision {name}"))?),
            }
        }
        Ok(())
    }
}

fn sort(revisions: &mut [Revision]) {
    revisions.sort_by_key(|r| {
        (r.revision, r.metadata.creation_timestamp.as_ref().map(|t| t.0), r.metadata.name.clone())
    });
}

/// The patch that brings a template back; clients apply it when they roll back, and show what is in it.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

fn content(revision: &ControllerRevision) -> Option<&Value> {
    revision.data.as_ref().map(|data| &data.0)
}

/// The template that a revision holds.
pub(crate) fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = content(revision)?.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

fn find(all: &[Revision], data: &Value) -> Known {
    let Some(latest) = all.last() else { return Known::Unknown(1) };
    match all.iter().rev().find(|r| content(r) == Some(data)) {
        None => Known::Unknown(latest.revision + 1),
        Some(equal) if Arc::ptr_eq(equal, latest) => Known::Latest(equal.clone()),
        Some(equal) => Known::Earlier(equal.clone(), latest.revision + 1),
    }
}

fn superfluous(
    all: &[Revision],
    is_used: impl Fn(&ControllerRevision) -> bool,
    limit: Option<i32>,
) -> Vec<Revision> {
    let mut unused: Vec<_> = all.iter().filter(|r| !is_used(r)).cloned().collect();
    let limit = limit.unwrap_or(10);
    // All are kept when the limit is below zero.
    let surplus = usize::try_from(limit).map_or(0, |limit| unused.len().saturating_sub(limit));
    unused.truncate(surplus);
    unused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64, image: &str) -> Revision {
        let template = testkit::object(json!({"spec": {"containers": [{"name": "c", "image": image}]}}));
        Arc::new(ControllerRevision {
            metadata: ObjectMeta { name: Some(format!("r-{number}")), ..Default::default() },
            data: Some(RawExtension(data(&template))),
            revision: number,
        })
    }

    #[test]
    fn a_template_that_comes_back_gets_a_new_number() {
        let all = [revision(3, "a"), revision(4, "b")];
        let template = template(&all[0]).unwrap();
        assert_eq!(template.spec.as_ref().unwrap().containers[0].image.as_deref(), Some("a"));
        assert_eq!(find(&all, &data(&template)), Known::Earlier(all[0].clone(), 5));
        assert_eq!(find(&all[..1], &data(&template)), Known::Latest(all[0].clone()));
        assert_eq!(find(&all[1..], &data(&template)), Known::Unknown(5));
        assert_eq!(find(&[], &data(&template)), Known::Unknown(1));
    }

    #[test]
    fn only_the_unused_beyond_the_limit_go() {
        let all: Vec<_> = (1..=5).map(|n| revision(n, &n.to_string())).collect();
        let is_used = |r: &ControllerRevision| r.revision == 1 || r.revision == 5;
        assert_eq!(superfluous(&all, is_used, Some(1)), [all[1].clone(), all[2].clone()]);
        assert!(superfluous(&all, is_used, Some(3)).is_empty());
        assert!(superfluous(&all, is_used, Some(-1)).is_empty());
    }
}
