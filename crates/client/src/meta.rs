//! Small questions about objects' metadata.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{ControllerRevision, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use types::{Requirement, SelectorError};

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Objects whose labels can be asked for. Not all have them in their metadata: see [`crate::PodView`].
pub trait Labelled {
    /// The labels, if there are any.
    fn labels(&self) -> Option<&Labels>;
}

impl Labelled for ObjectMeta {
    fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }
}

impl Labelled for ControllerRevision {
    fn labels(&self) -> Option<&Labels> {
        self.metadata.labels.as_ref()
    }
}

impl Labelled for ReplicaSet {
    fn labels(&self) -> Option<&Labels> {
        self.metadata.labels.as_ref()
    }
}

/// The owner that manages the object, if any.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the owner with this UID manages the object.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// Whether deletion has begun.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// A typed selector made ready for matching; an empty one selects everything.
pub fn selector(selector: &LabelSelector) -> Result<types::LabelSelector, SelectorError> {
    let mut requirements: Vec<Requirement> = selector
        .match_labels
        .iter()
        .flatten()
        .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
        .collect();
    for e in selector.match_expressions.iter().flatten() {
        let (key, values) = (e.key.clone(), e.values.clone().unwrap_or_default());
        requirements.push(match e.operator.as_str() {
            "In" => Requirement::In(key, values),
            "NotIn" => Requirement::NotIn(key, values),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::NotExists(key),
            other => return Err(SelectorError::Operator(other.to_owned())),
        });
    }
    Ok(types::LabelSelector::of(requirements))
}
