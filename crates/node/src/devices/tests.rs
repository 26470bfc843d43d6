use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Drain;
use proptest::prelude::*;

use super::api::Told;
use super::fake::{Fake, Plugin};
use super::plugin::is_extended;
use super::state::{DeviceState, Share};
use super::*;
use crate::topology::{Hint, made};

const DEVICE: &str = "example.com/device";

fn ids(text: &str) -> Ids {
    text.split_whitespace().map(str::to_owned).collect()
}

fn asker<'a>(uid: &'a str, container: &'a str) -> Asker<'a> {
    Asker { uid, container, ended: &[] }
}

/// Devices `a` and `b` at node 0, `c` and `d` at node 1, `e` that is not well.
fn state() -> DeviceState {
    let told = |id: &str, node: usize| Told { id: id.into(), healthy: id != "e", nodes: Some(vec![node]) };
    let mut state = DeviceState::default();
    state.told(DEVICE, vec![told("a", 0), told("b", 0), told("c", 1), told("d", 1), told("e", 1)]);
    state
}

fn give(state: &mut DeviceState, uid: &str, container: &str, text: &str) {
    state.give(uid, container, DEVICE, Share { ids: ids(text), answer: Vec::new() });
}

#[test]
fn devices_near_by_come_first() {
    let state = state();
    let choose = |asked, node: usize, preferred: &str| {
        let mask = Some(Mask::of([node]));
        let choice = state.plan(asker("p", "c"), DEVICE, asked, mask).unwrap().unwrap();
        choice.choose(&ids(preferred))
    };
    assert_eq!(choose(1, 1, ""), ids("c"));
    assert_eq!(choose(1, 1, "a d"), ids("d"));
    // All that are near, then what the plugin likes.
    assert_eq!(choose(3, 1, "b"), ids("b c d"));
    assert_eq!(choose(4, 0, ""), ids("a b c d"));
}

#[test]
fn what_cannot_be_given_is_said_as_upstream_says_it() {
    let mut state = state();
    let say = |state: &DeviceState, resource: &str, asked| {
        state.plan(asker("p", "c"), resource, asked, None).map_err(|e| e.to_string()).unwrap_err()
    };
    give(&mut state, "q", "c", "a b");
    let why = "requested number of devices unavailable for example.com/device. Requested: 3, Available: 2";
    assert_eq!(say(&state, DEVICE, 3), why);
    assert_eq!(say(&state, "x.com/y", 1), "cannot allocate unregistered device x.com/y");
    let changed = state.plan(asker("q", "c"), DEVICE, 1, None).unwrap_err().to_string();
    assert_eq!(
        changed,
        "pod \"q\" container \"c\" changed request for resource \"example.com/device\" from 2 to 1"
    );
    assert_eq!(state.plan(asker("q", "c"), DEVICE, 2, None), Ok(None));
    state.unwell(DEVICE);
    let why = "no healthy devices present; cannot allocate unhealthy devices example.com/device";
    assert_eq!(say(&state, DEVICE, 1), why);
    state.told(DEVICE, vec![Told { id: "c".into(), healthy: true, nodes: None }]);
    let gone = state.plan(asker("q", "c"), DEVICE, 2, None).unwrap_err().to_string();
    assert_eq!(
        gone,
        "previously allocated devices are no longer healthy; cannot allocate unhealthy devices example.com/device"
    );
}

#[test]
fn what_init_containers_had_is_reused_but_not_what_sidecars_have() {
    let mut state = state();
    give(&mut state, "p", "init", "a b");
    give(&mut state, "p", "side", "a");
    let main = Asker { ended: &["init"], ..asker("p", "main") };
    let choice = state.plan(main, DEVICE, 3, None).unwrap().unwrap();
    assert_eq!((choice.reused.clone(), choice.needed), (ids("b"), 2));
    assert_eq!(choice.choose(&Ids::new()), ids("b c d"));
    // Another pod has none of them.
    let other = Asker { ended: &["init"], ..asker("q", "main") };
    assert_eq!(state.plan(other, DEVICE, 2, None).unwrap().unwrap().choose(&Ids::new()), ids("c d"));
}

#[test]
fn hints_know_where_devices_are() {
    let machine = made::machine(2, 1, 2, 1);
    let mut state = state();
    let hint =
        |nodes: &[usize], preferred| Hint { affinity: Some(Mask::of(nodes.iter().copied())), preferred };
    let hints = |state: &DeviceState, asked| state.hints(&machine, asker("p", "c"), DEVICE, asked);
    assert_eq!(hints(&state, 2), Some(vec![hint(&[0], true), hint(&[1], true), hint(&[0, 1], false)]));
    // Node 1 has three devices, one of which is not well: on an empty machine one node would do.
    assert_eq!(hints(&state, 3), Some(vec![hint(&[0, 1], false)]));
    assert_eq!(hints(&state, 5), Some(vec![]));
    give(&mut state, "p", "c", "d");
    assert_eq!(hints(&state, 1), Some(vec![hint(&[1], true), hint(&[0, 1], false)]));
    state.told(DEVICE, vec![Told { id: "x".into(), healthy: true, nodes: None }]);
    assert_eq!(hints(&state, 1), None);
}

#[test]
fn only_extended_resources_are_plugins() {
    assert!(is_extended("example.com/device") && is_extended("nvidia.com/gpu.shared"));
    for name in ["cpu", "kubernetes.io/x", "a.kubernetes.io/x", "requests.x/y", "x.com/", "x.com/y/z", ""] {
        assert!(!is_extended(name), "{name}");
    }
}

proptest! {
    #[test]
    fn nothing_is_given_twice(steps in prop::collection::vec((0usize..4, 0usize..4, prop::option::of(0usize..2), "[a-e ]{0,4}"), 1..20)) {
        let mut state = state();
        for (pod, asked, node, preferred) in steps {
            let uid = pod.to_string();
            if asked == 0 {
                state.pods.remove(&uid);
                continue;
            }
            let preferred: Ids = preferred.chars().filter(|c| *c != ' ').map(String::from).collect();
            if let Ok(Some(choice)) = state.plan(asker(&uid, "c"), DEVICE, asked, node.map(|n| Mask::of([n]))) {
                let chosen = choice.choose(&preferred);
                prop_assert_eq!(chosen.len(), asked);
                prop_assert!(!chosen.contains("e") && state.in_use(DEVICE).is_disjoint(&chosen));
                state.give(&uid, "c", DEVICE, Share { ids: chosen, answer: vec![1] });
            }
        }
        let text = serde_json::to_string(&state.saved()).unwrap();
        let restored = DeviceState::restored(serde_json::from_str(&text).unwrap());
        prop_assert_eq!(restored.pods, state.pods);
    }
}

const THREE: [Fake; 3] = [("a", true, None), ("b", true, None), ("c", false, None)];

fn open(folder: &Path) -> (Arc<Devices>, Drain) {
    let drain = Drain::new();
    let devices = Devices::open(folder.to_owned(), Arc::new(made::machine(2, 1, 2, 1)), drain.clone());
    devices.serve().unwrap();
    (devices, drain)
}

async fn until(devices: &Devices, what: &str, holds: impl Fn(&BTreeMap<String, Count>) -> bool) {
    let mut changes = devices.changes();
    let waiting = async {
        while !holds(&devices.counts()) {
            changes.changed().await.unwrap();
        }
    };
    let patience = Duration::from_secs(30);
    assert!(tokio::time::timeout(patience, waiting).await.is_ok(), "{what}: {:?}", devices.counts());
}

fn counts(capacity: usize, allocatable: usize) -> BTreeMap<String, Count> {
    [(DEVICE.to_owned(), Count { capacity, allocatable })].into()
}

#[tokio::test]
async fn a_plugin_tells_what_it_has_and_hands_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let (devices, drain) = open(folder.path());
    let plugin = Plugin::start(folder.path(), "fake.sock", THREE.to_vec());
    plugin.register(DEVICE, Some((true, true))).await.unwrap();
    until(&devices, "devices", |c| *c == counts(3, 2)).await;
    *plugin.prefers.lock() = vec!["b"];
    devices.allocate(asker("p", "c"), DEVICE, 1, None).await.unwrap();
    assert_eq!(devices.of("p", "c")[DEVICE], ids("b"));
    let (edits, cdi) = devices.prepare("p", "c").await.unwrap();
    assert_eq!((edits.env, cdi), (vec![("DEVICES".to_owned(), "b".to_owned())], vec![]));
    let calls: Vec<String> =
        plugin.calls.lock().iter().map(|(method, ids)| format!("{method} {}", ids.join(","))).collect();
    assert_eq!(calls, ["GetPreferredAllocation ", "Allocate b", "PreStartContainer b"]);
    *plugin.refuses.lock() = Some("it smokes");
    let refused = devices.allocate(asker("q", "c"), DEVICE, 1, None).await.unwrap_err();
    assert_eq!(refused.to_string(), "rpc error: code = Unknown desc = it smokes");
    assert!(devices.of("q", "c").is_empty());
    let health = |uid: &str| -> Vec<(String, String)> {
        let all = devices.health(uid, "c");
        assert!(all.iter().all(|of| of.name == DEVICE));
        let each = all.into_iter().flat_map(|of| of.resources.unwrap_or_default());
        each.map(|r| (r.resource_id, r.health.unwrap_or_default())).collect()
    };
    assert_eq!(health("p"), [("b".to_owned(), "Healthy".to_owned())]);
    assert!(health("q").is_empty());
    // One falls ill, another gets well.
    plugin.devices.send(vec![("a", false, None), ("b", true, None), ("c", true, None)]).unwrap();
    until(&devices, "another one", |_| devices.all()[DEVICE]["c"].healthy).await;
    plugin.devices.send(vec![("a", false, None), ("b", false, None), ("c", true, None)]).unwrap();
    until(&devices, "illness", |_| !devices.all()[DEVICE]["b"].healthy).await;
    assert_eq!(health("p"), [("b".to_owned(), "Unhealthy".to_owned())]);
    drop(plugin);
    until(&devices, "the plugin's end", |c| *c == counts(3, 0)).await;
    drain.drain().await;
}

#[tokio::test]
async fn who_has_what_outlives_agent_and_plugin() {
    let folder = tempfile::tempdir().unwrap();
    let (devices, drain) = open(folder.path());
    let plugin = Plugin::start(folder.path(), "fake.sock", THREE.to_vec());
    // It is asked what it can when it does not say.
    plugin.register(DEVICE, None).await.unwrap();
    until(&devices, "devices", |c| *c == counts(3, 2)).await;
    devices.allocate(asker("p", "c"), DEVICE, 1, None).await.unwrap();
    let had = devices.of("p", "c");
    drain.drain().await;
    drop((devices, plugin));

    let (devices, drain) = open(folder.path());
    assert!(!folder.path().join("fake.sock").exists(), "an old socket tells plugins nothing");
    assert_eq!((devices.of("p", "c"), devices.counts()), (had.clone(), counts(0, 0)));
    let plugin = Plugin::start(folder.path(), "other.sock", THREE.to_vec());
    plugin.register(DEVICE, Some((false, false))).await.unwrap();
    until(&devices, "devices again", |c| *c == counts(3, 2)).await;
    let (edits, _) = devices.prepare("p", "c").await.unwrap();
    let one = had[DEVICE].iter().next().unwrap().clone();
    assert_eq!(edits.env, [("DEVICES".to_owned(), one.clone())]);
    let why = "requested number of devices unavailable for example.com/device. Requested: 2, Available: 1";
    assert_eq!(devices.allocate(asker("q", "c"), DEVICE, 2, None).await.unwrap_err().to_string(), why);
    devices.release("p");
    devices.allocate(asker("q", "c"), DEVICE, 2, None).await.unwrap();
    assert_eq!(devices.of("q", "c")[DEVICE], BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    drain.drain().await;
}

#[tokio::test]
async fn a_corrupted_checkpoint_is_as_good_as_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(CHECKPOINT), "{\"data\":{").unwrap();
    let (devices, drain) = open(folder.path());
    assert!(devices.counts().is_empty());
    drain.drain().await;
}

#[tokio::test]
async fn who_cannot_be_a_plugin_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (_devices, drain) = open(folder.path());
    let plugin = Plugin::start(folder.path(), "fake.sock", THREE.to_vec());
    let error = plugin.register("cpu", None).await.unwrap_err();
    assert!(error.ends_with("the ResourceName \"cpu\" is invalid"), "{error}");
    let channel = Channel::new(grpc::Target::Unix(folder.path().join("kubelet.sock")));
    for (fields, why) in [
        (
            [&b"v9"[..], b"x.sock", b"e.com/x"],
            "requested API version \"v9\" is not supported by kubelet. Supported version is \"v1beta1\"",
        ),
        ([b"v1beta1", b"../x.sock", b"e.com/x"], "the endpoint \"../x.sock\" is no name of a socket"),
    ] {
        let mut writer = grpc::Writer::new();
        writer.bytes(1, fields[0]).bytes(2, fields[1]).bytes(3, fields[2]);
        let error =
            channel.unary("/v1beta1.Registration/Register", &writer.finish(), LIMIT).await.unwrap_err();
        assert!(error.to_string().ends_with(why), "{error}");
    }
    // Two agents at one socket are one too many.
    let error = crate::sockets::prepare(&folder.path().join("kubelet.sock")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    drain.drain().await;
}
