use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::admit::Refusal;
use crate::devices::fake::Plugin;
use crate::reservations::Amounts;
use crate::topology::{TopologyScope, made};

const DEVICE: &str = "example.com/device";

fn settings(folder: &Path) -> ManagerSettings {
    ManagerSettings { kubelet_dir: folder.to_owned(), ..ManagerSettings::default() }
}

/// CPUs and memory are bound; CPU 0 and its sibling, and 100 bytes of each node, are the system's.
fn strict(folder: &Path, policy: TopologyPolicy) -> ManagerSettings {
    let memory = [("memory".to_owned(), 100)];
    ManagerSettings {
        cpu_manager_policy: "static".into(),
        reserved_system_cpus: "0,8".parse().unwrap(),
        memory_manager_policy: "Static".into(),
        reserved_memory: (0..2).map(|node| (node, memory.clone().into())).collect(),
        topology_manager_policy: policy,
        ..settings(folder)
    }
}

/// What a node has of which so much is kept back.
fn room(cpu_millis: u64, memory: u64) -> Room {
    let capacity = Amounts { cpu_millis: 16_000, memory: 1 << 40, ..Amounts::default() };
    Room::split(capacity, Amounts { cpu_millis, memory, ..Amounts::default() }, &[], 0).unwrap()
}

/// Two sockets, each one node with four cores of two threads.
fn open(settings: ManagerSettings) -> Result<Managers, ManagerError> {
    let kept = settings.reserved_memory.values().filter_map(|node| node.get("memory")).sum();
    Managers::open(settings, made::machine(2, 1, 4, 2), room(0, kept), Drain::new())
}

fn pod(uid: &str, inits: Value, resources: Value) -> Pod {
    let main = json!({"name": "main", "resources": {"requests": resources, "limits": resources}});
    let pod = json!({"metadata": {"name": uid, "uid": uid}, "status": {"qosClass": "Guaranteed"},
        "spec": {"initContainers": inits, "containers": [main]}});
    serde_json::from_value(pod).unwrap()
}

fn asks(uid: &str, resources: Value) -> Pod {
    pod(uid, json!([]), resources)
}

fn main(pod: &Pod) -> &Container {
    &pod.spec.as_ref().unwrap().containers[0]
}

async fn refused(managers: &Managers, pod: &Pod) -> (String, String) {
    let Refusal { reason, message } = managers.admit(pod).await.unwrap_err();
    (reason, message)
}

#[tokio::test]
async fn guaranteed_pods_have_cpus_and_memory_of_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let managers = open(strict(folder.path(), TopologyPolicy::SingleNumaNode)).unwrap();
    let first = asks("p", json!({"cpu": "7", "memory": "500"}));
    managers.admit(&first).await.unwrap();
    let edits = managers.edits(&first, main(&first)).await.unwrap();
    let of = |edits: &Edits| (edits.cpus.clone(), edits.mems.clone(), edits.exclusive);
    // Node 0 has six CPUs to give, node 1 eight.
    assert_eq!(of(&edits), (Some("4-7,12-14".into()), Some("1".into()), true));
    // Others share what is left, wherever.
    let shares = asks("q", json!({"cpu": "500m"}));
    managers.admit(&shares).await.unwrap();
    let edits = managers.edits(&shares, main(&shares)).await.unwrap();
    assert_eq!(of(&edits), (Some("0-3,8-11,15".into()), None, false));
    // No node has so much memory, and node 1 serves others alone.
    let (reason, message) = refused(&managers, &asks("r", json!({"cpu": "2", "memory": "900"}))).await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        (
            "UnexpectedAdmissionError",
            "Allocate failed due to [memorymanager] failed to find NUMA nodes to extend the current topology hint, which is unexpected"
        )
    );
    let (reason, message) = refused(&managers, &asks("r", json!({"cpu": "7"}))).await;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("TopologyAffinityError", "Resources cannot be allocated with Topology locality")
    );
    assert_eq!(managers.cpus_of("r", "main"), managers.cpus_of("q", "main"));
    managers.release("p");
    managers.admit(&asks("r", json!({"cpu": "7"}))).await.unwrap();
}

#[tokio::test]
async fn what_was_given_outlives_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let settings = strict(folder.path(), TopologyPolicy::Restricted);
    let given = {
        let managers = open(settings.clone()).unwrap();
        managers.admit(&asks("p", json!({"cpu": "4", "memory": "500"}))).await.unwrap();
        (managers.exclusive_cpus("p", "main"), managers.memory_of("p", "main"))
    };
    let managers = open(settings.clone()).unwrap();
    assert_eq!((managers.exclusive_cpus("p", "main"), managers.memory_of("p", "main")), given);
    assert!(given.0.is_some());
    managers.keep(|uid| uid == "p");
    assert!(managers.exclusive_cpus("p", "main").is_some());
    managers.keep(|_| false);
    assert_eq!((managers.exclusive_cpus("p", "main"), managers.memory_of("p", "main")), (None, vec![]));
    drop(managers);
    open(settings).unwrap();
}

#[tokio::test]
async fn another_policy_than_the_files_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(strict(folder.path(), TopologyPolicy::None)).unwrap());
    let error = open(settings(folder.path())).err().unwrap().to_string();
    let path = folder.path().join("cpu_manager_state");
    assert_eq!(
        error,
        format!(
            "could not restore state from checkpoint: configured policy \"none\" differs from state checkpoint policy \"static\", please drain this node and delete the CPU manager checkpoint file {path:?} before restarting"
        )
    );
    std::fs::write(&path, "{}").unwrap();
    let error = open(strict(folder.path(), TopologyPolicy::None)).err().unwrap().to_string();
    assert!(error.contains("is corrupted") && error.contains("CPU manager checkpoint file"), "{error}");
    std::fs::remove_file(path).unwrap();
    let error = open(settings(folder.path())).err().unwrap().to_string();
    assert!(error.contains("\"None\" differs from state checkpoint policy \"Static\""), "{error}");
    let mut more = strict(folder.path(), TopologyPolicy::None);
    more.reserved_memory.insert(0, [("memory".to_owned(), 200)].into());
    let error = open(more).err().unwrap().to_string();
    assert!(error.contains("the expected machine state is different from the real one"), "{error}");
}

#[tokio::test]
async fn settings_must_fit_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |change: fn(&mut ManagerSettings)| {
        let mut settings = strict(folder.path(), TopologyPolicy::None);
        change(&mut settings);
        open(settings).err().unwrap().to_string()
    };
    assert!(
        fails(|s| s.reserved_system_cpus = "0,77".parse().unwrap())
            .contains("are not all CPUs of this machine")
    );
    assert!(fails(|s| s.reserved_system_cpus = CpuSet::default()).contains("set --reserved-cpus"));
    assert!(fails(|s| s.reserved_memory = BTreeMap::new()).contains("set --reserved-memory"));
    assert!(
        fails(|s| s.reserved_memory = [(7, [("memory".into(), 1)].into())].into()).contains("NUMA node 7")
    );
    assert!(fails(|s| s.cpu_manager_policy = "dynamic".into()).contains("unknown CPU manager policy"));
    let mut many = settings(folder.path());
    many.topology_manager_policy = TopologyPolicy::BestEffort;
    let error =
        Managers::open(many, made::machine(3, 3, 1, 1), room(0, 0), Drain::new()).err().unwrap().to_string();
    assert!(error.contains("more than 8 NUMA nodes"), "{error}");
}

#[tokio::test]
async fn what_is_reserved_is_taken_from_cpus_and_memory() {
    let folder = tempfile::tempdir().unwrap();
    let machine = || made::machine(2, 1, 4, 2);
    let mut settings = strict(folder.path(), TopologyPolicy::None);
    settings.reserved_system_cpus = CpuSet::default();
    let managers = Managers::open(settings.clone(), machine(), room(1500, 200), Drain::new()).unwrap();
    // Two whole CPUs, of one core.
    let (free, _) = managers.allocatable();
    assert_eq!(machine().all().without(&free).to_string(), "0,8");
    let error = Managers::open(settings, machine(), room(1500, 300), Drain::new()).err().unwrap().to_string();
    assert!(error.contains("\"200\" of type \"memory\" is not equal to the value \"300\""), "{error}");
}

#[tokio::test]
async fn whole_cores_are_asked_for_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = strict(folder.path(), TopologyPolicy::None);
    settings.cpu_manager_policy_options = [("full-pcpus-only".to_owned(), "true".to_owned())].into();
    let managers = open(settings).unwrap();
    let want = (
        "SMTAlignmentError".to_owned(),
        "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2".to_owned(),
    );
    assert_eq!(refused(&managers, &asks("p", json!({"cpu": "3"}))).await, want);
}

#[tokio::test]
async fn init_containers_leave_their_cpus_and_sidecars_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let managers = open(strict(folder.path(), TopologyPolicy::None)).unwrap();
    let init = |name: &str, policy: Value| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": "4"}}});
    let inits = json!([init("init", json!(null)), init("side", json!("Always"))]);
    managers.admit(&pod("p", inits, json!({"cpu": "6"}))).await.unwrap();
    let of = |name: &str| managers.exclusive_cpus("p", name).unwrap();
    // The sidecar begins when the first has ended, and the main container has what is left of both.
    assert_eq!((of("init"), of("side").len(), of("main").len()), (of("side"), 4, 6));
    assert!(of("side").and(&of("main")).is_empty());
}

async fn with_plugin(policy: TopologyPolicy, scope: TopologyScope) -> (tempfile::TempDir, Managers, Plugin) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = strict(folder.path(), policy);
    settings.topology_manager_scope = scope;
    let managers = open(settings).unwrap();
    managers.devices.serve().unwrap();
    let devices = vec![("a", true, Some(vec![0])), ("b", true, Some(vec![1])), ("c", true, Some(vec![1]))];
    let plugin = Plugin::start(&folder.path().join("device-plugins"), "fake.sock", devices);
    let mut changes = managers.devices.changes();
    plugin.register(DEVICE, Some((false, false))).await.unwrap();
    let told = async {
        while managers.extended().get(DEVICE).is_none_or(|count| count.allocatable != 3) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("the plugin's devices");
    (folder, managers, plugin)
}

#[tokio::test]
async fn devices_and_cpus_lie_together() {
    let (_folder, managers, plugin) =
        with_plugin(TopologyPolicy::SingleNumaNode, TopologyScope::Container).await;
    let first = asks("p", json!({"cpu": "2", "memory": "10", DEVICE: "2"}));
    managers.admit(&first).await.unwrap();
    let edits = managers.edits(&first, main(&first)).await.unwrap();
    assert_eq!((edits.cpus.unwrap(), edits.mems.unwrap()), ("4,12".into(), "1".into()));
    assert_eq!(edits.env, [("DEVICES".to_owned(), "b,c".to_owned())]);
    // One device is left, at node 0, where six CPUs are to be had.
    let (reason, _) = refused(&managers, &asks("q", json!({"cpu": "8", DEVICE: "1"}))).await;
    assert_eq!(reason, "TopologyAffinityError");
    // What was refused has taken nothing.
    managers.admit(&asks("q", json!({"cpu": "6", DEVICE: "1"}))).await.unwrap();
    let node: Node = serde_json::from_value(json!({"status": {"allocatable": {DEVICE: "0"}}})).unwrap();
    let sane = managers.with_devices(&node).status.unwrap().allocatable.unwrap();
    assert_eq!(sane[DEVICE].0, "3");
    *plugin.refuses.lock() = Some("no");
    managers.release("p");
    let (reason, message) = refused(&managers, &first).await;
    assert_eq!(reason, "UnexpectedAdmissionError");
    assert_eq!(message, "Allocate failed due to rpc error: code = Unknown desc = no, which is unexpected");
    // The CPUs were never given to it.
    assert_eq!(managers.exclusive_cpus("p", "main"), None);
}

#[tokio::test]
async fn a_pod_as_a_whole_lies_together() {
    let two = || {
        let mut two = asks("p", json!({"cpu": "4"}));
        let spec = two.spec.as_mut().unwrap();
        let more = Container { name: "more".into(), ..spec.containers[0].clone() };
        spec.containers.push(more);
        two
    };
    let (_folder, managers, _plugin) = with_plugin(TopologyPolicy::SingleNumaNode, TopologyScope::Pod).await;
    managers.admit(&two()).await.unwrap();
    let cpus = |name: &str| managers.exclusive_cpus("p", name).unwrap();
    assert_eq!(cpus("main").or(&cpus("more")).to_string(), "4-7,12-15");
    // Nine do not fit on any node, though each part would.
    managers.release("p");
    let mut large = two();
    large.spec.as_mut().unwrap().containers[0] = main(&asks("p", json!({"cpu": "5"}))).clone();
    let (reason, _) = refused(&managers, &large).await;
    assert_eq!(reason, "TopologyAffinityError");
    let (_folder, managers, _plugin) =
        with_plugin(TopologyPolicy::SingleNumaNode, TopologyScope::Container).await;
    managers.admit(&large).await.unwrap();
}

#[tokio::test]
async fn more_devices_than_there_are() {
    let (_folder, managers, _plugin) = with_plugin(TopologyPolicy::None, TopologyScope::Container).await;
    let (reason, message) = refused(&managers, &asks("p", json!({DEVICE: "4"}))).await;
    assert_eq!(reason, "UnexpectedAdmissionError");
    assert_eq!(
        message,
        "Allocate failed due to requested number of devices unavailable for example.com/device. Requested: 4, Available: 3, which is unexpected"
    );
    // What no plugin has to do with is no manager's business.
    managers.admit(&asks("p", json!({"example.com/other": "4"}))).await.unwrap();
}

#[tokio::test]
async fn what_is_ones_own_keeps_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let managers = open(strict(folder.path(), TopologyPolicy::None)).unwrap();
    let size = |cpu: &str, memory: &str| asks("p", json!({"cpu": cpu, "memory": memory}));
    let why = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
    assert_eq!(managers.bars_resize(&size("1", "10"), &size("2", "10")).as_deref(), Some(why));
    let why = "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\"";
    assert_eq!(managers.bars_resize(&size("1", "10"), &size("1", "20")).as_deref(), Some(why));
    assert_eq!(managers.bars_resize(&size("1", "10"), &size("1000m", "10")), None);
}
