use std::sync::Arc;

use client::k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use client::k8s_openapi::api::core::v1::{
    Namespace, Node, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service,
};
use client::k8s_openapi::api::policy::v1::PodDisruptionBudget;
use client::k8s_openapi::api::scheduling::v1alpha2::PodGroup;
use client::k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment,
};
use client::{Change, Informer, Informers, Key, Object, PodView};
use kube::Resource;
use tokio::sync::mpsc;

use crate::preempt::Budget;
use crate::view::CONTROLLERS;

use super::binding::{Bound, Preempted};
use super::claims::Prepared;
use super::devices::{DeviceInput, Granted};
use super::extenders::{Bargained, Consulted};
use super::watched::{Kind, Watched};

/// All that the loop hears of.
pub(super) enum Input {
    Node(Change<Node>),
    Pod(Change<PodView>),
    /// Gone, if there is no object.
    Namespace(Key, Option<Arc<Watched<Namespace>>>),
    Service(Key, Option<Arc<Watched<Service>>>),
    /// A controller's selector, by its kind.
    Controller(&'static str, Key, Option<types::LabelSelector>),
    Budget(Key, Option<Budget>),
    /// A claim, or something else that its volume depends on.
    Storage(Storage),
    Group(Key, Option<Arc<PodGroup>>),
    Bound(Bound),
    Prepared(Prepared),
    /// A claim of devices, or what it depends on.
    Device(DeviceInput),
    Granted(Granted),
    Consulted(Consulted),
    Bargained(Bargained),
    Preempted(Preempted),
}

/// Gone, if there is no object.
pub(super) enum Storage {
    Claim(Key, Option<Arc<PersistentVolumeClaim>>),
    Volume(Key, Option<Arc<PersistentVolume>>),
    Class(Key, Option<Arc<StorageClass>>),
    Node(Key, Option<Arc<CSINode>>),
    Driver(Key, Option<Arc<CSIDriver>>),
    Capacity(Key, Option<Arc<CSIStorageCapacity>>),
    Attachment(Key, Option<Arc<VolumeAttachment>>),
}

pub(super) type Sender = mpsc::UnboundedSender<Input>;

impl Input {
    /// What happens, as upstream calls it (kubernetes/kubernetes, `pkg/scheduler/framework/events.go`).
    pub(super) fn event(&self) -> &'static str {
        match self {
            Self::Node(Change::Added(_)) => "NodeAdd",
            Self::Node(Change::Updated { .. }) => "NodeUpdate",
            Self::Node(Change::Deleted(_)) => "NodeDelete",
            Self::Pod(change) => {
                let assigned = change.object().node_name.is_some();
                match (change, assigned) {
                    (Change::Added(_), false) => "UnscheduledPodAdd",
                    (Change::Updated { .. }, false) => "UnscheduledPodUpdate",
                    (Change::Deleted(_), false) => "UnscheduledPodDelete",
                    (Change::Added(_), true) => "AssignedPodAdd",
                    (Change::Updated { .. }, true) => "AssignedPodUpdate",
                    (Change::Deleted(_), true) => "AssignedPodDelete",
                }
            }
            Self::Namespace(..) => "NamespaceUpdate",
            Self::Service(..) => "ServiceUpdate",
            Self::Storage(Storage::Claim(..)) => "PersistentVolumeClaimUpdate",
            Self::Storage(Storage::Volume(..)) => "PersistentVolumeUpdate",
            Self::Storage(Storage::Class(..)) => "StorageClassUpdate",
            Self::Storage(Storage::Node(..)) => "CSINodeUpdate",
            Self::Storage(Storage::Driver(..)) => "CSIDriverUpdate",
            Self::Storage(Storage::Capacity(..)) => "CSIStorageCapacityUpdate",
            Self::Storage(Storage::Attachment(..)) => "VolumeAttachmentDelete",
            Self::Group(..) => "PodGroupUpdate",
            Self::Device(DeviceInput::Claim(..)) => "ResourceClaimUpdate",
            Self::Device(DeviceInput::Class(..)) => "DeviceClassUpdate",
            Self::Device(DeviceInput::Slice(..)) => "ResourceSliceUpdate",
            Self::Device(DeviceInput::Rule(..)) => "DeviceTaintRuleUpdate",
            Self::Bound(_) | Self::Prepared(_) | Self::Granted(_) | Self::Consulted(_) => {
                "ScheduleAttemptFailure"
            }
            Self::Bargained(_) | Self::Preempted(_) => "ForceActivate",
            Self::Controller(..) | Self::Budget(..) => "",
        }
    }
}

/// Follows everything; the future that comes back ends when all that exists has been told. Groups of pods are followed only
/// if they are served.
pub(super) fn follow(informers: &Informers, groups: bool, to: &Sender) -> impl Future<Output = ()> + use<> {
    let (nodes, pods) = (informers.of::<Node>(), informers.of::<PodView>());
    // Should the loop be gone, nobody needs to know.
    let sender = to.clone();
    nodes.on_change(move |change| drop(sender.send(Input::Node(change.clone()))));
    let sender = to.clone();
    pods.on_change(move |change| drop(sender.send(Input::Pod(change.clone()))));
    let namespaces = watch(informers, to, Input::Namespace);
    let services = watch(informers, to, Input::Service);
    let [plain, sets, stateful] = CONTROLLERS;
    let first = watch::<ReplicationController>(informers, to, move |key, c| controller(plain, key, c));
    let second = watch::<ReplicaSet>(informers, to, move |key, c| controller(sets, key, c));
    let third = watch::<StatefulSet>(informers, to, move |key, c| controller(stateful, key, c));
    let budgets = informers.of::<PodDisruptionBudget>();
    let sender = to.clone();
    budgets.on_change(move |change| {
        let budget = now(change).and_then(|budget| Budget::new(&budget));
        drop(sender.send(Input::Budget(Key::of(&**change.object()), budget)));
    });
    let groups = groups.then(|| {
        let (informer, sender) = (informers.of::<PodGroup>(), to.clone());
        informer.on_change(move |change| {
            drop(sender.send(Input::Group(Key::of(&**change.object()), now(change))));
        });
        informer
    });
    let claims = store(informers, to, Storage::Claim);
    let volumes = store(informers, to, Storage::Volume);
    let classes = store(informers, to, Storage::Class);
    let csi_nodes = store(informers, to, Storage::Node);
    let drivers = store(informers, to, Storage::Driver);
    let capacities = store(informers, to, Storage::Capacity);
    let attachments = store(informers, to, Storage::Attachment);
    async move {
        claims.ready().await;
        volumes.ready().await;
        classes.ready().await;
        csi_nodes.ready().await;
        drivers.ready().await;
        capacities.ready().await;
        attachments.ready().await;
        nodes.ready().await;
        pods.ready().await;
        namespaces.ready().await;
        services.ready().await;
        first.ready().await;
        second.ready().await;
        third.ready().await;
        budgets.ready().await;
        if let Some(groups) = groups {
            groups.ready().await;
        }
    }
}

fn watch<K: Kind>(
    informers: &Informers,
    to: &Sender,
    input: impl Fn(Key, Option<Arc<Watched<K>>>) -> Input + Send + 'static,
) -> Informer<Watched<K>> {
    let (informer, sender) = (informers.of::<Watched<K>>(), to.clone());
    informer.on_change(move |change| drop(sender.send(input(Key::of(&**change.object()), now(change)))));
    informer
}

fn store<K: Object + Resource<DynamicType = ()>>(
    informers: &Informers,
    to: &Sender,
    input: fn(Key, Option<Arc<K>>) -> Storage,
) -> Informer<K> {
    store_as(informers, to, move |key, object| Input::Storage(input(key, object)))
}

/// Follows whole objects.
pub(super) fn store_as<K: Object + Resource<DynamicType = ()>>(
    informers: &Informers,
    to: &Sender,
    input: impl Fn(Key, Option<Arc<K>>) -> Input + Send + 'static,
) -> Informer<K> {
    let (informer, sender) = (informers.of::<K>(), to.clone());
    informer.on_change(move |change| drop(sender.send(input(Key::of(&**change.object()), now(change)))));
    informer
}

fn controller<K>(kind: &'static str, key: Key, object: Option<Arc<Watched<K>>>) -> Input {
    let selector = object.as_ref().and_then(|o| client::selector(o.selector.as_ref()?).ok());
    Input::Controller(kind, key, selector)
}

/// The object, unless it is gone.
fn now<K: Resource>(change: &Change<K>) -> Option<Arc<K>> {
    match change {
        Change::Deleted(_) => None,
        Change::Added(object) | Change::Updated { new: object, .. } => Some(object.clone()),
    }
}
