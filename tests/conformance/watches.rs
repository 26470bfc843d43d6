//! What watchers are told, and in which order.

use serde_json::{Value, json};

use crate::trial::{Going, Trial};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    several_see_what_they_ask_for: "watch-configmaps-with-multiple-watchers";
    from_a_version_on: "watch-configmaps-from-resource-version";
    where_another_left_off: "watch-configmaps-closed-and-restarted";
    a_label_that_goes_is_a_deletion: "watch-configmaps-label-changed";
    all_in_the_same_order: "watch-consistency";
];

/// One line for each event.
type Told = Vec<Value>;

/// Watches maps from now on, or from a version of the query's.
fn watch(t: &Trial, query: &str) -> Going {
    let mut path = format!("/api/v1/namespaces/{}/configmaps?watch=1{query}", t.ns);
    if !query.contains("resourceVersion") {
        // The watch may begin late; what it tells may not.
        let list: Value =
            t.kubectl(&["get", "--raw", &path.replace("watch=1", "limit=1")]).parse().expect("a list");
        let now = list["metadata"]["resourceVersion"].as_str().expect("a version");
        path.push_str(&format!("&resourceVersion={now}"));
    }
    t.start(&["get", "--raw", &path])
}

fn events(told: &str) -> Told {
    // The last line may not be whole yet.
    told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Each event's type, object, and how often it was changed.
fn short(told: &Told) -> Vec<String> {
    let part = |event: &Value| {
        let object = &event["object"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        [&event["type"], &object["metadata"]["name"], &object["data"]["mutation"]].map(text).join(" ")
    };
    told.iter().map(part).map(|words| words.trim().to_owned()).collect()
}

/// Waits until exactly this was told.
fn until(watch: &Going, wanted: &[&str]) -> Told {
    // More than is wanted ends the waiting too, and is a fault.
    let told = events(&watch.until(|told| events(told).len() >= wanted.len()));
    assert_eq!(short(&told), wanted);
    told
}

fn version(event: &Value) -> String {
    event["object"]["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

fn make(t: &Trial, name: &str, label: &str) -> String {
    let meta = json!({"name": name, "labels": {"watch-this-configmap": label}});
    t.create(&[json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})]);
    t.get(&["configmap", name])["metadata"]["resourceVersion"].as_str().expect("a version").to_owned()
}

/// Changes a map, and gives its new version.
fn mutate(t: &Trial, name: &str, mutation: u32) -> String {
    let patch = json!({"data": {"mutation": mutation.to_string()}}).to_string();
    let template = "jsonpath={.metadata.resourceVersion}";
    t.kubectl(&["patch", "configmap", name, "--type=merge", "-p", &patch, "-o", template])
}

fn relabel(t: &Trial, name: &str, label: &str) {
    t.kubectl(&["label", "--overwrite", "configmap", name, &format!("watch-this-configmap={label}")]);
}

fn selecting(label: &str) -> String {
    format!("&labelSelector=watch-this-configmap+in+({label})")
}

fn several_see_what_they_ask_for(t: &Trial) {
    let [a, b, both] = ["a", "b", "a,b"].map(|label| watch(t, &selecting(label)));
    make(t, "of-a", "a");
    mutate(t, "of-a", 1);
    mutate(t, "of-a", 2);
    t.kubectl(&["delete", "configmap", "of-a"]);
    let first = ["ADDED of-a", "MODIFIED of-a 1", "MODIFIED of-a 2", "DELETED of-a 2"];
    until(&a, &first);
    until(&both, &first);
    make(t, "of-b", "b");
    t.kubectl(&["delete", "configmap", "of-b"]);
    let second = ["ADDED of-b", "DELETED of-b"];
    until(&b, &second);
    until(&both, &[&first[..], &second[..]].concat());
    // By now it would have been told of the other's too.
    until(&a, &first);
}

fn from_a_version_on(t: &Trial) {
    make(t, "m", "from");
    let first = mutate(t, "m", 1);
    mutate(t, "m", 2);
    t.kubectl(&["delete", "configmap", "m"]);
    let later = watch(t, &format!("{}&resourceVersion={first}", selecting("from")));
    until(&later, &["MODIFIED m 2", "DELETED m 2"]);
}

fn where_another_left_off(t: &Trial) {
    let first = watch(t, &selecting("again"));
    make(t, "m", "again");
    mutate(t, "m", 1);
    let told = until(&first, &["ADDED m", "MODIFIED m 1"]);
    drop(first);
    mutate(t, "m", 2);
    let last = version(told.last().expect("two events"));
    let second = watch(t, &format!("{}&resourceVersion={last}", selecting("again")));
    t.kubectl(&["delete", "configmap", "m"]);
    until(&second, &["MODIFIED m 2", "DELETED m 2"]);
}

fn a_label_that_goes_is_a_deletion(t: &Trial) {
    let watch = watch(t, &selecting("seen"));
    make(t, "m", "seen");
    mutate(t, "m", 1);
    relabel(t, "m", "unseen");
    let mut wanted = vec!["ADDED m", "MODIFIED m 1", "DELETED m 1"];
    until(&watch, &wanted);
    mutate(t, "m", 2);
    relabel(t, "m", "seen");
    mutate(t, "m", 3);
    t.kubectl(&["delete", "configmap", "m"]);
    wanted.extend(["ADDED m 2", "MODIFIED m 3", "DELETED m 3"]);
    until(&watch, &wanted);
}

/// How many changes are followed, and how many begin to follow on the way.
const CHANGES: u32 = 40;
const FOLLOWERS: usize = 8;

fn all_in_the_same_order(t: &Trial) {
    let first = watch(t, "");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..CHANGES {
                let name = format!("m{}", i % 5);
                if i < 5 {
                    make(t, &name, "order");
                } else {
                    mutate(t, &name, i);
                }
            }
            t.kubectl(&["delete", "configmap", "m0"]);
        });
        // Each begins at another of the events, while there are more to come.
        let mut followers = Vec::new();
        for i in 1..=FOLLOWERS {
            let told = events(&first.until(|told| own(events(told)).len() >= i * 3));
            let from = version(&own(told)[i * 3 - 1]);
            followers.push((i * 3, watch(t, &format!("&resourceVersion={from}"))));
        }
        let over = |told: &str| short(&events(told)).iter().any(|e| e.starts_with("DELETED m0"));
        let versions = |told: Told| own(told).iter().map(version).collect::<Vec<_>>();
        let all = versions(events(&first.until(over)));
        assert_eq!(all.len(), CHANGES as usize + 1);
        for (skipped, follower) in &followers {
            let seen = versions(events(&follower.until(over)));
            assert_eq!(seen, all[*skipped..], "from the event {skipped} on");
        }
    });
}

/// Without the maps that every namespace has.
fn own(told: Told) -> Told {
    let is_own = |event: &Value| {
        event["object"]["metadata"]["name"].as_str().is_some_and(|name| name != "kube-root-ca.crt")
    };
    told.into_iter().filter(is_own).collect()
}
