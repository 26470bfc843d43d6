use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::Cluster;

use super::*;
use crate::testing::{cluster, config};
use crate::volume::testing::*;

async fn delete_claim(cluster: &Cluster, name: &str) {
    cluster.api::<PersistentVolumeClaim>("default").delete(name, &DeleteParams::default()).await.unwrap();
    cluster.wait_gone::<PersistentVolumeClaim>("default", name).await;
}

async fn patch_volume(cluster: &Cluster, name: &str, patch: serde_json::Value) {
    let patch = Patch::Merge(patch);
    cluster.all::<PersistentVolume>().patch(name, &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test]
async fn a_claim_and_a_volume_find_each_other_in_either_order() {
    let cluster = cluster().await;
    cluster.create("default", &claim("early", json!({}))).await;
    let why = "no persistent volumes available for this claim and no storage class is set";
    wait_for_event(&cluster, "early", "FailedBinding", why).await;
    cluster.create_global(&volume("v", json!({"capacity": {"storage": "5Gi"}}))).await;
    let claim_now = wait_claim(&cluster, "early", "Bound").await;
    assert_eq!(storage::volume_of(&claim_now), "v");
    let marks = claim_now.metadata.annotations.unwrap();
    assert_eq!(
        (marks.len(), &*marks[storage::BIND_COMPLETED], &*marks[storage::BOUND_BY_CONTROLLER]),
        (2, "yes", "yes")
    );
    let status = claim_now.status.unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "5Gi");
    assert_eq!(status.access_modes.unwrap(), ["ReadWriteOnce"]);
    let bound = wait_phase(&cluster, "v", "Bound").await;
    let reference = storage::claim_of(&bound).unwrap();
    assert_eq!(
        (reference.name.as_deref(), reference.kind.as_deref()),
        (Some("early"), Some("PersistentVolumeClaim"))
    );
    assert_eq!(reference.uid, claim_now.metadata.uid);
    assert!(bound.status.unwrap().last_phase_transition_time.is_some());

    cluster.create_global(&volume("w", json!({}))).await;
    wait_phase(&cluster, "w", "Available").await;
    cluster.create("default", &claim("late", json!({}))).await;
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "late", "Bound").await), "w");
}

#[tokio::test]
async fn two_claims_race_for_one_volume() {
    let cluster = cluster().await;
    for name in ["a", "b", "c"] {
        cluster.create("default", &claim(name, json!({}))).await;
    }
    cluster.create_global(&volume("v", json!({}))).await;
    wait_phase(&cluster, "v", "Bound").await;
    cluster.create_global(&volume("w", json!({}))).await;
    wait_phase(&cluster, "w", "Bound").await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let has = cluster
        .wait_for("two claims to be bound", || async {
            let all = claims.list(&Default::default()).await.unwrap().items;
            let bound = all.iter().filter(|c| storage::claim_phase(c) == "Bound");
            let mut has: Vec<String> = bound.map(|c| storage::volume_of(c).to_owned()).collect();
            has.sort();
            (has.len() == 2).then_some(has)
        })
        .await;
    assert_eq!(has, ["v", "w"]);
}

#[tokio::test]
async fn what_is_set_aside_is_respected_either_way() {
    let cluster = cluster().await;
    let reserved =
        json!({"claimRef": {"name": "hers", "namespace": "default"}, "capacity": {"storage": "9Gi"}});
    cluster.create_global(&volume("reserved", reserved)).await;
    wait_phase(&cluster, "reserved", "Available").await;
    cluster.create("default", &claim("his", json!({}))).await;
    wait_claim(&cluster, "his", "Pending").await;
    cluster.create("default", &claim("hers", json!({}))).await;
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "hers", "Bound").await), "reserved");
    let bound = wait_phase(&cluster, "reserved", "Bound").await;
    assert!(storage::annotation(&bound.metadata, storage::BOUND_BY_CONTROLLER).is_none(), "its maker did it");

    cluster.create("default", &claim("picky", json!({"volumeName": "wanted"}))).await;
    wait_claim(&cluster, "picky", "Pending").await;
    cluster.create_global(&volume("wanted", json!({"capacity": {"storage": "1Mi"}}))).await;
    let why = "Cannot bind to requested volume \"wanted\": requested PV is too small";
    wait_for_event(&cluster, "picky", "VolumeMismatch", why).await;
    patch_volume(&cluster, "wanted", json!({"spec": {"capacity": {"storage": "1Gi"}}})).await;
    wait_claim(&cluster, "picky", "Bound").await;
    cluster.create("default", &claim("second", json!({"volumeName": "wanted"}))).await;
    let why = "volume \"wanted\" already bound to a different claim.";
    wait_for_event(&cluster, "second", "FailedBinding", why).await;
}

#[tokio::test]
async fn a_volume_outlives_its_claim_as_its_policy_says() {
    let cluster = cluster().await;
    for (name, policy) in [("kept", "Retain"), ("emptied", "Recycle"), ("deleted", "Delete")] {
        cluster.create_global(&volume(name, json!({"persistentVolumeReclaimPolicy": policy}))).await;
        cluster.create("default", &claim(name, json!({"volumeName": name}))).await;
        wait_claim(&cluster, name, "Bound").await;
    }
    let made = json!({"persistentVolumeReclaimPolicy": "Delete", "claimRef": {"name": "made", "namespace": "default"}});
    let mut made = volume("made", made);
    storage::annotate(&mut made.metadata, storage::PROVISIONED_BY, "x.io/y");
    cluster.create_global(&made).await;
    cluster.create("default", &claim("made", json!({}))).await;
    wait_claim(&cluster, "made", "Bound").await;
    for name in ["kept", "emptied", "deleted", "made"] {
        delete_claim(&cluster, name).await;
    }
    wait_phase(&cluster, "kept", "Released").await;
    wait_phase(&cluster, "made", "Released").await;
    let failed = wait_phase(&cluster, "emptied", "Failed").await;
    assert_eq!(failed.status.unwrap().message.as_deref(), Some("No recycler plugin found for the volume!"));
    wait_phase(&cluster, "deleted", "Failed").await;
    let why =
        "error getting deleter volume plugin for volume \"deleted\": no deletable volume plugin matched";
    wait_for_event(&cluster, "deleted", "VolumeFailedDelete", why).await;

    // What is released is nobody's, also not for another claim of the same name, until somebody says so.
    cluster.create("default", &claim("kept", json!({}))).await;
    wait_for_event(
        &cluster,
        "kept",
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )
    .await;
    patch_volume(&cluster, "kept", json!({"spec": {"claimRef": null}})).await;
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "kept", "Bound").await), "kept");
}

#[tokio::test]
async fn a_claim_whose_volume_vanishes_is_lost() {
    let cluster = cluster().await;
    cluster.create_global(&volume("v", json!({}))).await;
    cluster.create("default", &claim("c", json!({}))).await;
    wait_claim(&cluster, "c", "Bound").await;
    let volumes = cluster.all::<PersistentVolume>();
    volumes.delete("v", &DeleteParams::default()).await.unwrap();
    let going = wait_volume(&cluster, "v", "to be going", |v| v.metadata.deletion_timestamp.is_some()).await;
    assert_eq!(going.metadata.finalizers.unwrap(), ["kubernetes.io/pv-protection"], "it is in use");
    patch_volume(&cluster, "v", json!({"metadata": {"finalizers": null}})).await;
    let lost = wait_claim(&cluster, "c", "Lost").await.status.unwrap();
    assert_eq!((lost.capacity, lost.access_modes), (None, None));
    let why = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
    wait_for_event(&cluster, "c", "ClaimLost", why).await;
}

#[tokio::test]
async fn what_was_cut_short_is_finished() {
    let cluster = Cluster::start().await;
    let account: k8s_openapi::api::core::v1::ServiceAccount =
        testkit::object(json!({"metadata": {"name": "default"}}));
    cluster.create("default", &account).await;
    // The volume was written, and then the one who did it died.
    let made = cluster.create("default", &claim("c", json!({}))).await;
    let mut half = volume("half", json!({}));
    half.spec.as_mut().unwrap().claim_ref = Some(storage::reference_to(&made));
    storage::annotate(&mut half.metadata, storage::BOUND_BY_CONTROLLER, "yes");
    cluster.create_global(&half).await;
    cluster.create_global(&volume("better", json!({"capacity": {"storage": "1Gi"}}))).await;
    // Another one was written for a claim that has another volume by now, and one for a claim that is gone.
    let elsewhere = json!({"claimRef": {"name": "c", "namespace": "default", "uid": made.metadata.uid}});
    let mut stray = volume("stray", elsewhere);
    storage::annotate(&mut stray.metadata, storage::BOUND_BY_CONTROLLER, "yes");
    let gone = json!({"claimRef": {"name": "gone", "namespace": "default", "uid": "x"}});
    cluster.create_global(&volume("widow", gone)).await;
    crate::run(&config(&cluster));
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "c", "Bound").await), "half");
    wait_phase(&cluster, "better", "Available").await;
    wait_phase(&cluster, "widow", "Released").await;
    cluster.create_global(&stray).await;
    let free = wait_volume(&cluster, "stray", "to be let go", |v| storage::claim_of(v).is_none()).await;
    assert!(storage::annotation(&free.metadata, storage::BOUND_BY_CONTROLLER).is_none());
    wait_phase(&cluster, "stray", "Available").await;
}

#[tokio::test]
async fn provisioners_are_asked_and_their_volumes_bound() {
    let cluster = cluster().await;
    cluster.create("default", &claim("c", json!({"storageClassName": "fast"}))).await;
    wait_for_event(&cluster, "c", "ProvisioningFailed", "storageclass.storage.k8s.io \"fast\" not found")
        .await;
    cluster.create_global(&class("fast", "x.io/y", false)).await;
    let asked = |c: &PersistentVolumeClaim| {
        storage::annotation(&c.metadata, storage::PROVISIONER) == Some("x.io/y")
            && storage::annotation(&c.metadata, storage::BETA_PROVISIONER) == Some("x.io/y")
    };
    let waiting = cluster.wait_until("default", "c", "to name its provisioner", asked).await;
    let why = "Waiting for a volume to be created either by the external provisioner 'x.io/y' or manually by the system \
               administrator. If volume creation is delayed, please verify that the provisioner is running and correctly \
               registered.";
    wait_for_event(&cluster, "c", "ExternalProvisioning", why).await;
    let mut made = volume("made", json!({"storageClassName": "fast"}));
    made.spec.as_mut().unwrap().claim_ref = Some(storage::reference_to(&waiting));
    cluster.create_global(&made).await;
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "c", "Bound").await), "made");
}

#[tokio::test]
async fn a_delayed_claim_waits_for_its_pods_node() {
    let cluster = cluster().await;
    cluster.create_global(&class("later", "x.io/y", true)).await;
    cluster.create("default", &claim("c", json!({"storageClassName": "later"}))).await;
    cluster.create_global(&volume("v", json!({"storageClassName": "later"}))).await;
    let why = "waiting for first consumer to be created before binding";
    wait_for_event(&cluster, "c", "WaitForFirstConsumer", why).await;
    cluster.create("default", &pod("p", &["c"])).await;
    wait_for_event(&cluster, "c", "WaitForPodScheduled", "waiting for pod p to be scheduled").await;
    let choose = Patch::Merge(json!({"metadata": {"annotations": {storage::SELECTED_NODE: "n"}}}));
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    claims.patch("c", &PatchParams::default(), &choose).await.unwrap();
    let asked = |c: &PersistentVolumeClaim| storage::annotation(&c.metadata, storage::PROVISIONER).is_some();
    cluster.wait_until("default", "c", "to name its provisioner", asked).await;
    assert!(storage::claim_of(&wait_phase(&cluster, "v", "Available").await).is_none());
}

#[tokio::test]
async fn a_claim_without_a_class_gets_the_default_one_when_it_comes() {
    let cluster = cluster().await;
    // Every cluster begins with a default class.
    cluster.all::<StorageClass>().delete("local", &DeleteParams::default()).await.unwrap();
    cluster.create("default", &claim("c", json!({"storageClassName": null}))).await;
    cluster.create("default", &claim("none", json!({}))).await;
    wait_for_event(
        &cluster,
        "c",
        "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )
    .await;
    let mut class = class("standard", "x.io/y", false);
    storage::annotate(&mut class.metadata, "storageclass.kubernetes.io/is-default-class", "true");
    cluster.create_global(&class).await;
    let given = |c: &PersistentVolumeClaim| storage::class_of_claim(c) == "standard";
    cluster.wait_until("default", "c", "to get the class", given).await;
    let none = cluster.api::<PersistentVolumeClaim>("default").get("none").await.unwrap();
    assert_eq!(storage::class_of_claim(&none), "");
}

#[tokio::test]
async fn why_a_claim_waits_is_said_again_and_again() {
    let cluster = cluster().await;
    cluster.create("default", &claim("c", json!({}))).await;
    let why = "no persistent volumes available for this claim and no storage class is set";
    let said = wait_for_event(&cluster, "c", "FailedBinding", why).await;
    assert_eq!(said.count, Some(1));
    let events = cluster.api::<k8s_openapi::api::core::v1::Event>("default");
    let name = said.metadata.name.unwrap();
    for times in [2, 3] {
        tokio::time::pause();
        tokio::time::advance(VolumeSettings::default().sync_period).await;
        tokio::time::resume();
        let told = || async { events.get(&name).await.ok().filter(|event| event.count >= Some(times)) };
        cluster.wait_for("the event to be told again", told).await;
    }
}

#[tokio::test]
async fn nobody_is_asked_for_volumes_where_that_is_off() {
    let cluster = Cluster::start().await;
    let mut config = config(&cluster);
    config.tuning.volumes.provisioning = false;
    crate::run(&config);
    cluster.create_global(&class("fast", "x.io/y", false)).await;
    cluster.create("default", &claim("c", json!({"storageClassName": "fast"}))).await;
    // The binder has been past it when it has told one that came later that it waits.
    cluster.create("default", &claim("later", json!({}))).await;
    let why = "no persistent volumes available for this claim and no storage class is set";
    wait_for_event(&cluster, "later", "FailedBinding", why).await;
    let waits = cluster.api::<PersistentVolumeClaim>("default").get("c").await.unwrap();
    assert!(storage::annotation(&waits.metadata, storage::PROVISIONER).is_none());
    // What is made by hand is bound all the same.
    cluster.create_global(&volume("v", json!({"storageClassName": "fast"}))).await;
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "c", "Bound").await), "v");
}

/// The binder's state over caches that stand still, once they know these.
async fn frozen(cluster: &Cluster, volumes: &[&str], claims: &[&str]) -> State {
    let state = State::new(
        &Context::new(&config(cluster)).acting_as("persistent-volume-binder"),
        VolumeSettings::default(),
    );
    let look = || async {
        let knows = volumes.iter().all(|name| {
            let volume = state.volumes.store().by_name("", name);
            volume.is_some_and(|volume| storage::volume_phase(&volume) == "Available")
        });
        let knows =
            knows && claims.iter().all(|name| state.claims.store().by_name("default", name).is_some());
        (knows && state.classes.is_ready()).then_some(())
    };
    cluster.wait_for("the caches", look).await;
    state.volumes.stop();
    state.claims.stop();
    state
}

async fn available(cluster: &Cluster, name: &str) {
    cluster.create_global(&volume(name, json!({}))).await;
    let free = Patch::Merge(json!({"status": {"phase": "Available"}}));
    cluster.all::<PersistentVolume>().patch_status(name, &PatchParams::default(), &free).await.unwrap();
}

#[tokio::test]
async fn what_was_given_away_stays_so_with_a_cache_that_lags() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.create("default", &claim(name, json!({}))).await;
    }
    available(&cluster, "v").await;
    let state = frozen(&cluster, &["v"], &["a", "b"]).await;
    let (a, b, v) = (Key::new("default", "a"), Key::new("default", "b"), Key::new("", "v"));
    state.look_at_claim(&a).await.unwrap();
    let revision = cluster.api.store().revision();
    for key in [&b, &a] {
        state.look_at_claim(key).await.unwrap();
    }
    state.look_at_volume(&v).await.unwrap();
    assert_eq!(storage::volume_of(&wait_claim(&cluster, "a", "Bound").await), "v");
    let other = cluster.api::<PersistentVolumeClaim>("default").get("b").await.unwrap();
    assert_eq!((storage::claim_phase(&other), storage::volume_of(&other)), ("Pending", ""));
    let volume = wait_phase(&cluster, "v", "Bound").await;
    let written: u64 = volume.metadata.resource_version.unwrap().parse().unwrap();
    assert!(written <= revision, "nothing is done twice");
}

#[tokio::test]
async fn a_claim_that_goes_while_it_is_bound_leaves_a_released_volume() {
    let cluster = Cluster::start().await;
    cluster.create("default", &claim("c", json!({}))).await;
    available(&cluster, "v").await;
    let state = frozen(&cluster, &["v"], &["c"]).await;
    let claims = cluster.api::<PersistentVolumeClaim>("default");
    let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    claims.patch("c", &PatchParams::default(), &none).await.unwrap();
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    let error = state.look_at_claim(&Key::new("default", "c")).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot bind claim default/c"), "{error}");
    // Whoever begins anew sees what is so.
    let informers = client::Informers::new(cluster.client.clone(), cluster.drain.clone());
    crate::run(&crate::Config { informers, ..config(&cluster) });
    wait_phase(&cluster, "v", "Released").await;
}

#[tokio::test]
async fn a_volume_written_by_somebody_else_meanwhile_is_not_overwritten() {
    let cluster = Cluster::start().await;
    cluster.create("default", &claim("c", json!({}))).await;
    available(&cluster, "v").await;
    let state = frozen(&cluster, &["v"], &["c"]).await;
    let reference = json!({"spec": {"claimRef": {"name": "other", "namespace": "default"}}});
    patch_volume(&cluster, "v", reference).await;
    state.look_at_claim(&Key::new("default", "c")).await.unwrap_err();
    let volume = cluster.all::<PersistentVolume>().get("v").await.unwrap();
    assert_eq!(storage::claim_of(&volume).unwrap().name.as_deref(), Some("other"));
    let claim = cluster.api::<PersistentVolumeClaim>("default").get("c").await.unwrap();
    assert_eq!(storage::volume_of(&claim), "");
}
