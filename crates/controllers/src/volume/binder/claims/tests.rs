use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::volume::testing::{claim, class, volume};

#[derive(Default)]
struct Fake {
    volumes: BTreeMap<String, Volume>,
    classes: BTreeMap<String, Arc<StorageClass>>,
    default: Option<String>,
    waiting: Vec<String>,
}

impl Fake {
    fn with(volumes: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        let available = |(name, spec)| {
            let mut volume = volume(name, spec);
            volume.status = testkit::object(json!({"phase": "Available"}));
            (name.to_owned(), Arc::new(volume))
        };
        Self { volumes: volumes.into_iter().map(available).collect(), ..Self::default() }
    }

    fn class(mut self, class: StorageClass) -> Self {
        self.classes.insert(class.metadata.name.clone().unwrap(), Arc::new(class));
        self
    }
}

impl World for Fake {
    fn volume_named(&self, name: &str) -> Option<Volume> {
        self.volumes.get(name).cloned()
    }
    fn candidates(&self, _: &PersistentVolumeClaim) -> Vec<Volume> {
        self.volumes.values().cloned().collect()
    }
    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(name).cloned()
    }
    fn default_class(&self) -> Option<String> {
        self.default.clone()
    }
    fn waiting_pods(&self, _: &PersistentVolumeClaim) -> Vec<String> {
        self.waiting.clone()
    }
}

fn marked(name: &str, spec: Value, annotations: Value) -> PersistentVolumeClaim {
    let mut claim = claim(name, spec);
    claim.metadata.uid = Some("u".into());
    claim.metadata.annotations = testkit::object(annotations);
    claim
}

fn done(spec: Value) -> PersistentVolumeClaim {
    marked("c", spec, json!({storage::BIND_COMPLETED: "yes"}))
}

fn decide(claim: &PersistentVolumeClaim, world: &Fake) -> ClaimStep {
    step(claim, world).unwrap()
}

#[test]
fn takes_what_suits_or_waits() {
    let world = Fake::with([("v", json!({}))]);
    assert!(
        matches!(decide(&claim("c", json!({})), &world), ClaimStep::Bind(v) if v.metadata.name.as_deref() == Some("v"))
    );
    let large = claim("c", json!({"resources": {"requests": {"storage": "2Gi"}}}));
    assert_eq!(decide(&large, &world), ClaimStep::Wait(Some(say::NOTHING_AVAILABLE)));
    let unclassed =
        claim("c", json!({"storageClassName": null, "resources": {"requests": {"storage": "2Gi"}}}));
    let world = Fake { default: Some("standard".into()), ..world };
    assert_eq!(decide(&unclassed, &world), ClaimStep::Take("standard".into()));
    assert_eq!(decide(&large, &world), ClaimStep::Wait(Some(say::NOTHING_AVAILABLE)), "it will have none");
}

#[test]
fn classes_say_who_makes_volumes_and_when() {
    let of = |class: &str| claim("c", json!({"storageClassName": class}));
    let world = Fake::default()
        .class(class("now", "x.io/y", false))
        .class(class("later", "x.io/y", true))
        .class(class("by-hand", storage::NO_PROVISIONER, false));
    assert_eq!(decide(&of("now"), &world), ClaimStep::Provision("x.io/y".into()));
    assert_eq!(decide(&of("none"), &world), ClaimStep::Say(say::no_class("none")));
    assert_eq!(decide(&of("by-hand"), &world), ClaimStep::Say(say::no_plugin(storage::NO_PROVISIONER)));
    assert_eq!(decide(&of("later"), &world), ClaimStep::Wait(Some(say::delayed(&[]))));
    let world = Fake { waiting: vec!["p".into(), "q".into()], ..world };
    let ClaimStep::Wait(Some(saying)) = decide(&of("later"), &world) else { panic!("it waits") };
    assert_eq!(
        (saying.reason, &*saying.message),
        ("WaitForPodScheduled", "waiting for pods p,q to be scheduled")
    );
    let chosen = marked("c", json!({"storageClassName": "later"}), json!({storage::SELECTED_NODE: "n"}));
    assert_eq!(decide(&chosen, &world), ClaimStep::Provision("x.io/y".into()));
}

#[test]
fn a_delayed_claim_takes_only_what_is_set_aside_for_it() {
    let free = json!({"storageClassName": "later"});
    let mut reserved = free.clone();
    reserved["claimRef"] = json!({"name": "c", "namespace": "default"});
    let claim = claim("c", json!({"storageClassName": "later"}));
    let world = |spec| Fake::with([("v", spec)]).class(class("later", "x.io/y", true));
    assert_eq!(decide(&claim, &world(free)), ClaimStep::Wait(Some(say::delayed(&[]))));
    assert!(matches!(decide(&claim, &world(reserved)), ClaimStep::Bind(_)));
}

#[test]
fn a_named_volume_is_the_only_one() {
    let named = claim("c", json!({"volumeName": "v"}));
    let other = json!({"claimRef": {"name": "other", "namespace": "default", "uid": "o"}});
    assert_eq!(decide(&named, &Fake::with([("w", json!({}))])), ClaimStep::Wait(None));
    assert!(matches!(decide(&named, &Fake::with([("v", json!({}))])), ClaimStep::Bind(_)));
    let small = Fake::with([("v", json!({"capacity": {"storage": "1Mi"}}))]);
    let why = say::misfit("v", "requested PV is too small");
    assert_eq!(decide(&named, &small), ClaimStep::Wait(Some(why)));
    let taken = Fake::with([("v", other)]);
    assert_eq!(decide(&named, &taken), ClaimStep::Wait(Some(say::taken("v"))));
    let ours = marked("c", json!({"volumeName": "v"}), json!({storage::BOUND_BY_CONTROLLER: "yes"}));
    assert!(matches!(decide(&ours, &taken), ClaimStep::Misbound { by, .. } if by == "default/other"));
}

#[test]
fn what_was_bound_is_bound_or_lost() {
    let reference = |uid: &str| json!({"claimRef": {"name": "c", "namespace": "default", "uid": uid}});
    let named = || done(json!({"volumeName": "v"}));
    assert_eq!(decide(&done(json!({})), &Fake::default()), ClaimStep::Lose(say::LOST_REFERENCE));
    assert_eq!(decide(&named(), &Fake::default()), ClaimStep::Lose(say::LOST_VOLUME));
    assert_eq!(decide(&named(), &Fake::with([("v", reference("o"))])), ClaimStep::Lose(say::MISBOUND));
    assert!(matches!(decide(&named(), &Fake::with([("v", reference("u"))])), ClaimStep::Bind(_)));
    assert!(matches!(decide(&named(), &Fake::with([("v", json!({}))])), ClaimStep::Bind(_)), "bound anew");
}
