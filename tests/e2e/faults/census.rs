//! Who is there: what a node has on disk, in the kernel and among its processes, held against the pods of the API.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::World;
use crate::beside::NODE;
use crate::cluster::Cluster;

/// A node, as far as its machine shows it.
struct Place<'a> {
    name: &'a str,
    folder: &'a Path,
    /// The parent of its cgroups, and its network namespace.
    parent: &'a str,
}

fn places(world: &World) -> [(Place<'_>, PathBuf); 2] {
    let cluster = &world.cluster;
    let own = cluster.kubeconfig().parent().and_then(Path::parent).expect("a folder").to_owned();
    let beside = world.beside.folder().to_owned();
    [("node-1", own, cluster.cgroup()), (NODE, beside, world.beside.name())].map(|(name, folder, parent)| {
        // The folder lives as long as the world.
        let place = Place { name, folder: Path::new(""), parent };
        (place, folder)
    })
}

/// Waits until nothing is left on the nodes of pods that the API does not know, and what the API knows is there.
pub fn nothing_is_orphaned(world: &World) {
    let mut found = Vec::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.cluster.wait_at_most(Duration::from_secs(60), "nothing to be orphaned", || {
            found = orphans(world);
            found.is_empty()
        });
    }));
    assert!(outcome.is_ok(), "left behind, or missing:\n{}", found.join("\n"));
}

/// What does not fit, a sentence each.
fn orphans(world: &World) -> Vec<String> {
    let Some(pods) = pods(&world.cluster) else { return vec!["the API does not answer".to_owned()] };
    let mut found = Vec::new();
    for (place, folder) in &places(world) {
        let place = Place { folder, ..*place };
        let known = pods.get(place.name).cloned().unwrap_or_default();
        place.look(&known, &mut found);
    }
    found
}

/// A pod as the API knows it.
#[derive(Clone, Default)]
struct Known {
    /// Its containers that run.
    running: BTreeSet<String>,
    own_network: bool,
    over: bool,
}

/// The pods by node and UID.
fn pods(cluster: &Cluster) -> Option<BTreeMap<String, BTreeMap<String, Known>>> {
    let said = cluster.try_kubectl("default", &["get", "pods", "-A", "-o", "json"]);
    let list: Value = serde_json::from_str(&said.out).ok().filter(|_| said.ok)?;
    let mut found: BTreeMap<String, BTreeMap<String, Known>> = BTreeMap::new();
    for pod in list["items"].as_array()? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lists = ["initContainerStatuses", "containerStatuses"].map(|name| &pod["status"][name]);
        let all = lists.into_iter().filter_map(Value::as_array).flatten();
        let running = all.filter(|c| c["state"]["running"].is_object());
        let known = Known {
            running: running
                .map(|c| text(&c["containerID"]).rsplit('/').next().unwrap_or("").to_owned())
                .collect(),
            own_network: pod["spec"]["hostNetwork"] != true,
            over: ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default()),
        };
        let of_node = found.entry(text(&pod["spec"]["nodeName"])).or_default();
        of_node.insert(text(&pod["metadata"]["uid"]), known);
    }
    Some(found)
}

/// The names in a folder; none if it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Whether a word is a pod's UID.
fn is_uid(word: &str) -> bool {
    let lengths: Vec<usize> = word.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// Whether a word is a container's id.
fn is_id(word: &str) -> bool {
    word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit())
}

impl Place<'_> {
    fn look(&self, known: &BTreeMap<String, Known>, found: &mut Vec<String>) {
        let mut say = |what: String| found.push(format!("{}: {what}", self.name));
        let shims = self.folder.join("run/shims");
        let sandboxes = names(&shims);
        let containers: BTreeSet<String> =
            sandboxes.iter().flat_map(|uid| names(&shims.join(uid).join("c"))).collect();
        let gone = |uid: &str| !known.contains_key(uid);

        // Files.
        let logs = names(&self.folder.join("logs"));
        let logs = logs.iter().map(|name| name.rsplit('_').next().unwrap_or_default().to_owned()).collect();
        let ipam = self.folder.join("data/ipam");
        let addresses = names(&ipam).into_iter().filter_map(|name| fs::read_link(ipam.join(name)).ok());
        let addresses = addresses.map(|id| id.display().to_string()).collect();
        // What begins with a dot is half written, by somebody who was killed; it goes when it is old.
        let holds = names(&self.folder.join("data/content/holds"));
        let holds = holds.into_iter().filter(|name| !name.starts_with('.')).collect();
        for (what, uids) in [
            ("sandbox", sandboxes.clone()),
            ("network namespace", names(&self.folder.join("run/netns"))),
            ("folder", names(&self.folder.join("data/pods"))),
            ("logs", logs),
            ("hold of an image", holds),
            ("address", addresses),
        ] {
            uids.iter()
                .filter(|uid| gone(uid))
                .for_each(|uid| say(format!("{what} of pod {uid}, which is gone")));
        }
        let layers = names(&self.folder.join("data/containers"));
        layers
            .iter()
            .filter(|id| !containers.contains(*id))
            .for_each(|id| say(format!("writable layer of {id}")));

        // The kernel's.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let (run, data) = (self.folder.join("run"), self.folder.join("data"));
        for target in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            let path = Path::new(target);
            let lost =
                |part: &str| (is_uid(part) && gone(part)) || (is_id(part) && !containers.contains(part));
            if (path.starts_with(&run) || path.starts_with(&data)) && target.split('/').any(lost) {
                say(format!("mount {target}"));
            }
        }
        let netns = names(&self.folder.join("run/netns")).len();
        let links =
            Command::new("ip").args(["-n", self.parent, "-o", "link", "show", "type", "veth"]).output();
        let links = String::from_utf8_lossy(&links.expect("ip is there").stdout).into_owned();
        let ours = |line: &&str| !line.contains(": up0@") && !line.contains(": down0@");
        let pairs = links.lines().filter(ours).count();
        if pairs != netns {
            say(format!("{pairs} pairs of interfaces for {netns} network namespaces:\n{links}"));
        }
        for group in groups(self.parent) {
            let pod =
                group.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("pod"));
            pod.filter(|uid| is_uid(uid) && gone(uid))
                .iter()
                .for_each(|_| say(format!("cgroup {}", group.display())));
        }

        // Processes.
        let mut shims_of: BTreeMap<String, usize> = BTreeMap::new();
        for process in processes(self.parent) {
            let of = process.words.iter().find(|word| is_uid(word)).cloned().unwrap_or_default();
            if gone(&of) {
                say(format!("process {} of no pod: {:?}", process.pid, process.command));
            }
            if process.command.contains("shims/") {
                *shims_of.entry(of).or_default() += 1;
            }
        }

        // Who is over holds nothing but his logs and records.
        for (uid, _) in known.iter().filter(|(_, pod)| pod.over) {
            if self.folder.join("run/netns").join(uid).exists() {
                say(format!("network of pod {uid}, which is over"));
            }
            if shims_of.contains_key(uid) {
                say(format!("shim of pod {uid}, which is over"));
            }
            if mounts.lines().filter_map(|line| line.split(' ').nth(4)).any(|target| target.contains(uid)) {
                say(format!("mounts of pod {uid}, which is over"));
            }
        }

        // And the other way round: what the API says of pods that run.
        for (uid, pod) in known.iter().filter(|(_, pod)| !pod.over && !pod.running.is_empty()) {
            if shims_of.get(uid) != Some(&1) {
                say(format!("{:?} shims of the running pod {uid}", shims_of.get(uid)));
            }
            if pod.own_network && !self.folder.join("run/netns").join(uid).exists() {
                say(format!("no network of the running pod {uid}"));
            }
            for id in &pod.running {
                let folder = shims.join(uid).join("c").join(id);
                if !folder.join("started.json").exists() || folder.join("exit.json").exists() {
                    say(format!("container {id} of {uid} does not run, and the API says so"));
                }
            }
        }
    }
}

/// All cgroups below this parent, in all hierarchies.
fn groups(parent: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut found: Vec<PathBuf> = names(root).iter().map(|name| root.join(name).join(parent)).collect();
    found.push(root.join(parent));
    found.retain(|path| path.is_dir());
    let mut place = 0;
    while place < found.len() {
        let below: Vec<PathBuf> = names(&found[place]).iter().map(|name| found[place].join(name)).collect();
        found.extend(below.into_iter().filter(|path| path.is_dir()));
        place += 1;
    }
    found
}

/// A process in a cgroup of the cluster's.
struct Process {
    pid: u32,
    command: String,
    /// The parts of its cgroups' paths and of its command.
    words: Vec<String>,
}

fn processes(parent: &str) -> Vec<Process> {
    let mut found = Vec::new();
    for pid in names(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<u32>().ok()) {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        // One that has ended has no command line; it waits for its parent to take note.
        if command.is_empty() || !groups.lines().any(|line| line.contains(&format!("/{parent}/"))) {
            continue;
        }
        let parts = groups.split(['/', '\n']).chain(command.split(['/', ' ']));
        let words = parts.map(|part| part.strip_prefix("pod").unwrap_or(part).to_owned()).collect();
        found.push(Process { pid, command, words });
    }
    found
}
