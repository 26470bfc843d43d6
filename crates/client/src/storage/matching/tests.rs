use serde_json::{Value, json};

use super::*;

fn claim(more: Value) -> PersistentVolumeClaim {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}});
    types::patch::merge_patch(&mut spec, more);
    serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"}, "spec": spec}))
        .unwrap()
}

fn volume(name: &str, size: &str, more: Value) -> Arc<PersistentVolume> {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}});
    types::patch::merge_patch(&mut spec, more);
    let labels = json!({"tier": name});
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec,
            "status": {"phase": "Available"}}))
        .unwrap(),
    )
}

fn best(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> Option<String> {
    let search = Search::new(claim).unwrap();
    search.best(volumes.iter().cloned(), false)?.metadata.name.clone()
}

#[test]
fn the_smallest_that_is_large_enough() {
    let plain = json!({});
    let volumes =
        [("small", "4Gi"), ("large", "20Gi"), ("right", "6Gi")].map(|(n, s)| volume(n, s, plain.clone()));
    assert_eq!(best(&claim(json!({})), &volumes).as_deref(), Some("right"));
    assert_eq!(best(&claim(json!({"resources": {"requests": {"storage": "1Ti"}}})), &volumes), None);
    let picky = claim(json!({"selector": {"matchLabels": {"tier": "large"}}}));
    assert_eq!(best(&picky, &volumes).as_deref(), Some("large"));
}

#[test]
fn fewer_accesses_come_before_size() {
    let volumes = [
        volume("wide", "5Gi", json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"]})),
        volume("narrow", "9Gi", json!({})),
    ];
    assert_eq!(best(&claim(json!({})), &volumes).as_deref(), Some("narrow"));
    let many = claim(json!({"accessModes": ["ReadWriteMany"]}));
    assert_eq!(best(&many, &volumes).as_deref(), Some("wide"));
    let neither = claim(json!({"accessModes": ["ReadWriteMany", "ReadOnlyMany"]}));
    assert_eq!(best(&neither, &volumes), None);
}

#[test]
fn what_is_set_aside_comes_first_and_is_nobody_elses() {
    let reserved = |name: &str, uid: Option<&str>| json!({"claimRef": {"name": name, "namespace": "n", "uid": uid}, "storageClassName": "any"});
    let volumes = [
        volume("free", "5Gi", json!({})),
        volume("other", "5Gi", reserved("other", None)),
        volume("former", "5Gi", reserved("c", Some("v"))),
        volume("mine", "50Gi", reserved("c", None)),
    ];
    assert_eq!(best(&claim(json!({})), &volumes).as_deref(), Some("mine"));
    assert_eq!(best(&claim(json!({})), &volumes[..3]).as_deref(), Some("free"));
    let small = [volume("mine", "1Gi", reserved("c", None))];
    assert_eq!(best(&claim(json!({})), &small), None);
}

#[test]
fn class_mode_phase_and_attributes_count() {
    let mut pending = PersistentVolume::clone(&volume("pending", "5Gi", json!({})));
    pending.status = None;
    let volumes = [
        volume("classed", "5Gi", json!({"storageClassName": "fast"})),
        volume("block", "5Gi", json!({"volumeMode": "Block"})),
        volume("gold", "5Gi", json!({"volumeAttributesClassName": "gold"})),
        Arc::new(pending),
    ];
    for (more, expected) in [
        (json!({}), None),
        (json!({"storageClassName": "fast"}), Some("classed")),
        (json!({"volumeMode": "Block"}), Some("block")),
        (json!({"volumeAttributesClassName": "gold"}), Some("gold")),
    ] {
        assert_eq!(best(&claim(more), &volumes).as_deref(), expected);
    }
}

#[test]
fn a_delayed_claim_is_for_the_scheduler_who_looks_at_nodes() {
    let on = |host: &str| {
        json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]}]}}})
    };
    let volumes = [volume("near", "9Gi", on("a")), volume("far", "5Gi", on("b"))];
    let claim = claim(json!({}));
    let search = Search::new(&claim).unwrap();
    assert!(search.best(volumes.iter().cloned(), true).is_none());
    let labels: Labels = [("host".to_owned(), "a".to_owned())].into();
    let all = search.candidates(volumes.iter().cloned());
    assert_eq!(all.on(&labels, |_| false).unwrap().metadata.name.as_deref(), Some("near"));
    assert!(all.on(&labels, |volume| volume.metadata.name.as_deref() == Some("near")).is_none());

    let mut reserved = PersistentVolume::clone(&volumes[1]);
    reserved.spec.as_mut().unwrap().claim_ref = Some(super::super::reference_to(&claim));
    let reserved = Arc::new(reserved);
    let all = search.candidates([volumes[0].clone(), reserved.clone()]);
    assert!(all.on(&labels, |_| false).is_none(), "its volume is elsewhere");
    assert!(search.best([reserved], true).is_some(), "what is set aside is bound at once");
}

#[test]
fn says_why_a_named_volume_will_not_do() {
    for (more, why) in [
        (json!({}), None),
        (json!({"capacity": {"storage": "1Gi"}}), Some("requested PV is too small")),
        (json!({"storageClassName": "x"}), Some("storageClassName does not match")),
        (json!({"volumeMode": "Block"}), Some("incompatible volumeMode")),
        (json!({"accessModes": ["ReadOnlyMany"]}), Some("incompatible accessMode")),
    ] {
        assert_eq!(misfit(&claim(json!({})), &volume("v", "5Gi", more)).as_deref(), why);
    }
}
