//! What the scheduler looks at besides nodes and pods, in part: a cluster may have many of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;

use client::Labels;
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, ReplicationController, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// The name and the selector of an object of kind `K`; of a namespace, its labels.
#[derive(Debug)]
pub(super) struct Watched<K> {
    pub(super) metadata: ObjectMeta,
    pub(super) labels: Option<Labels>,
    pub(super) selector: Option<LabelSelector>,
    kind: PhantomData<fn() -> K>,
}

/// Kinds whose selector is a plain map.
pub(super) trait Kind: Resource<DynamicType = ()> + Debug + 'static {
    const PLAIN: bool;
    /// Whether labels are looked at.
    const LABELS: bool;
}

macro_rules! kinds {
    ($($kind:ty: $plain:literal $labels:literal;)*) => {
        $(impl Kind for $kind {
            const PLAIN: bool = $plain;
            const LABELS: bool = $labels;
        })*
    };
}

kinds! {
    Namespace: true true;
    ReplicaSet: false false;
    ReplicationController: true false;
    Service: true false;
    StatefulSet: false false;
}

impl<K> Clone for Watched<K> {
    fn clone(&self) -> Self {
        Self {
            metadata: self.metadata.clone(),
            labels: self.labels.clone(),
            selector: self.selector.clone(),
            kind: PhantomData,
        }
    }
}

#[derive(Deserialize)]
struct Text<S> {
    metadata: Meta,
    spec: Option<Spec<S>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    labels: Option<Labels>,
}

#[derive(Deserialize)]
struct Spec<S> {
    selector: Option<S>,
}

impl<'de, K: Kind> Deserialize<'de> for Watched<K> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (meta, selector) = if K::PLAIN {
            let text = Text::<BTreeMap<String, String>>::deserialize(from)?;
            let map = text.spec.and_then(|spec| spec.selector);
            (text.metadata, map.map(|map| LabelSelector { match_labels: Some(map), match_expressions: None }))
        } else {
            let text = Text::<LabelSelector>::deserialize(from)?;
            (text.metadata, text.spec.and_then(|spec| spec.selector))
        };
        let metadata = ObjectMeta {
            name: meta.name,
            namespace: meta.namespace,
            resource_version: meta.resource_version,
            ..ObjectMeta::default()
        };
        let labels = meta.labels.filter(|_| K::LABELS);
        Ok(Self { metadata, labels, selector, kind: PhantomData })
    }
}

impl<K: Kind> Resource for Watched<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group(_: &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version(_: &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural(_: &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
