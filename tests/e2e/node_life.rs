//! Pods that a node runs by itself, nodes without a cluster, nodes that go down, and their certificates.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use serde_json::{Value, json};

use crate::cluster::{Cluster, UNHURRIED};

pub const TESTS: &[crate::Test] = &[
    ("node_life::static_pods_have_mirrors", static_pods_have_mirrors),
    ("node_life::bad_manifests_are_said", bad_manifests_are_said),
    ("node_life::a_node_alone", a_node_alone),
    ("node_life::manifests_come_from_a_url", manifests_come_from_a_url),
    ("node_life::logind_waits_for_pods", logind_waits_for_pods),
    ("node_life::static_pods_do_not_wait_for_the_api", static_pods_do_not_wait_for_the_api),
    ("node_life::a_node_joins_and_rotates_its_certificate", a_node_joins_and_rotates_its_certificate),
    ("node_life::a_shutdown_ends_pods_in_order", a_shutdown_ends_pods_in_order),
];

/// The manifest of a pod of one busybox shell script; `spec` are fields of the pod.
fn manifest(name: &str, script: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 5, {spec}
          containers: [{{name: main, image: 'busybox:1', command: [/bin/busybox, sh, -c], args: [{}]}}]}}\n",
        serde_json::to_string(script).expect("text")
    )
}

const SLEEP: &str = "trap 'exit 0' TERM; echo hello from $HOSTNAME; while :; do busybox sleep 1; done";

/// Writes a file as careful people do: all at once.
fn place(folder: &Path, name: &str, text: &str) {
    let beside = folder.join(format!(".{name}"));
    std::fs::write(&beside, text).expect("writable folder");
    std::fs::rename(&beside, folder.join(name)).expect("writable folder");
}

fn container_of(pod: &Value) -> String {
    pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap_or_default().to_owned()
}

fn try_get(cluster: &Cluster, name: &str) -> Option<Value> {
    let said = cluster.try_kubectl("default", &["get", "pod", name, "-o", "json"]);
    said.ok.then(|| serde_json::from_str(&said.out).expect("JSON"))
}

/// Waits until a pod runs, and gives it.
fn runs(cluster: &Cluster, name: &str, wish: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    cluster.wait_for(&format!("{name} to run"), || {
        found = try_get(cluster, name).unwrap_or_default();
        let ready = found["status"]["containerStatuses"][0]["ready"] == true;
        found["status"]["phase"] == "Running" && ready && wish(&found)
    });
    found
}

fn static_pods_have_mirrors(cluster: &Cluster) {
    let folder = cluster.folder("manifests");
    place(&folder, "web.yaml", &manifest("web", SLEEP, "priorityClassName: system-node-critical,"));
    let first = runs(cluster, "web-node-1", |_| true);
    let annotations = &first["metadata"]["annotations"];
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    let hash = annotations["kubernetes.io/config.hash"].clone();
    assert_eq!(annotations["kubernetes.io/config.mirror"], hash);
    assert!(annotations["kubernetes.io/config.seen"].is_string());
    let owner = &first["metadata"]["ownerReferences"][0];
    let node = cluster.get("default", &["node", "node-1"]);
    assert_eq!((&owner["kind"], &owner["uid"]), (&"Node".into(), &node["metadata"]["uid"]));
    assert_eq!(first["spec"]["priority"], 2_000_001_000);
    assert_eq!(first["spec"]["tolerations"][0]["effect"], "NoExecute");
    cluster.wait_for("its log by the mirror's name", || {
        cluster.kubectl("default", &["logs", "web-node-1"]).contains("hello from web-node-1")
    });
    let said = cluster.kubectl("default", &["exec", "web-node-1", "--", "/bin/busybox", "hostname"]);
    assert_eq!(said.trim(), "web-node-1");
    assert!(
        cluster.kubectl("default", &["describe", "pod", "web-node-1"]).contains("Container started: main")
    );

    // Who deletes the mirror does not hurt the pod, and gets another mirror.
    cluster.kubectl("default", &["delete", "pod", "web-node-1", "--wait=false"]);
    let again = runs(cluster, "web-node-1", |pod| pod["metadata"]["uid"] != first["metadata"]["uid"]);
    assert_eq!(container_of(&again), container_of(&first));
    // Neither does a new agent, which finds it running.
    cluster.kill_and_restart();
    let again = runs(cluster, "web-node-1", |_| true);
    assert_eq!(container_of(&again), container_of(&first));
    assert_eq!(again["status"]["containerStatuses"][0]["restartCount"], 0);

    // A changed manifest is another pod.
    place(&folder, "web.yaml", &manifest("web", &SLEEP.replace("hello", "goodbye"), ""));
    let changed = runs(cluster, "web-node-1", |pod| {
        pod["metadata"]["annotations"]["kubernetes.io/config.hash"] != hash
    });
    assert_ne!(container_of(&changed), container_of(&first));
    cluster.wait_for("the new log", || {
        cluster.kubectl("default", &["logs", "web-node-1"]).contains("goodbye from web-node-1")
    });
    // One that is removed while no agent looks ends as well.
    place(&folder, "brief.json", &manifest("brief", SLEEP, ""));
    runs(cluster, "brief-node-1", |_| true);
    std::fs::remove_file(folder.join("brief.json")).expect("the manifest");
    std::fs::remove_file(folder.join("web.yaml")).expect("the manifest");
    cluster.kill_and_restart();
    for name in ["web-node-1", "brief-node-1"] {
        cluster.wait_for("the mirrors to go", || try_get(cluster, name).is_none());
        assert!(!cluster.log_folders().iter().any(|folder| folder.contains(name)), "{name}");
    }
}

fn bad_manifests_are_said(cluster: &Cluster) {
    let folder = cluster.folder("manifests");
    place(&folder, "good.yaml", &manifest("good", SLEEP, ""));
    place(&folder, "broken.yaml", "{apiVersion: v1, kind: Pod");
    place(&folder, "nameless.yaml", "{apiVersion: v1, kind: Pod, spec: {containers: []}}");
    place(&folder, "empty.yaml", "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}");
    let volume = "volumes: [{name: v, secret: {secretName: s}}],";
    place(&folder, "secretive.yaml", &manifest("secretive", SLEEP, volume));
    let good = runs(cluster, "good-node-1", |_| true);
    for said in [
        "broken.yaml: couldn't parse as pod(",
        "nameless.yaml: invalid pod: name is needed for the pod",
        "empty.yaml: invalid pod: spec.containers: Required value",
        "secretive.yaml: static pods may not reference secrets",
    ] {
        cluster.wait_for(said, || {
            let filter = "--field-selector=reason=InvalidStaticPod,involvedObject.kind=Node";
            cluster.kubectl("default", &["get", "events", filter, "-o", "wide"]).contains(said)
        });
    }
    // A manifest that becomes bad does not end its pod.
    place(&folder, "good.yaml", "{apiVersion: v1, kind: Pod");
    cluster.wait_for("the fault", || {
        let events =
            cluster.kubectl("default", &["get", "events", "--field-selector=reason=InvalidStaticPod"]);
        events.contains("good.yaml")
    });
    assert_eq!(container_of(&runs(cluster, "good-node-1", |_| true)), container_of(&good));
    for name in ["good", "broken", "nameless", "empty", "secretive"] {
        std::fs::remove_file(folder.join(format!("{name}.yaml"))).expect("the manifest");
    }
    cluster.wait_for("the mirror to go", || try_get(cluster, "good-node-1").is_none());
}

/// An agent of its own beside the cluster's, in folders and a network namespace of its own.
struct Agent<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    netns: String,
    address: &'static str,
    child: Child,
    flags: Vec<String>,
}

/// Runs `ip`, which must succeed.
fn ip(args: &[&str]) {
    let said = Command::new("ip").args(args).output().expect("ip is there");
    assert!(said.status.success(), "ip {args:?}: {said:?}");
}

/// A command in a network namespace.
fn inside(netns: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg(program);
    command
}

impl<'a> Agent<'a> {
    /// One that the cluster is out of reach for.
    fn start(cluster: &'a Cluster, name: &'static str, more: &[String]) -> Self {
        Self::start_at(cluster, name, "127.0.0.1", more, |_| {})
    }

    /// One that has a link to the cluster.
    fn start_beside(cluster: &'a Cluster, name: &'static str, more: &[String]) -> Self {
        Self::start_at(cluster, name, "10.99.0.2", more, |netns| {
            let peer = cluster.cgroup();
            ip(&["-n", netns, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", peer]);
            for (netns, link, address) in [(netns, "up0", "10.99.0.2/24"), (peer, "down0", "10.99.0.1/24")] {
                ip(&["-n", netns, "address", "add", address, "dev", link]);
                ip(&["-n", netns, "link", "set", link, "up"]);
            }
        })
    }

    fn start_at(
        cluster: &'a Cluster,
        name: &'static str,
        address: &'static str,
        more: &[String],
        join: impl FnOnce(&str),
    ) -> Self {
        let netns = format!("{}-{name}", cluster.cgroup());
        ip(&["netns", "add", &netns]);
        ip(&["-n", &netns, "link", "set", "lo", "up"]);
        join(&netns);
        let path = |part: &str| cluster.folder(&format!("{name}/{part}")).display().to_string();
        let mut flags = vec![
            format!("--data-dir={}", path("data")),
            format!("--run-dir={}", path("run")),
            format!("--log-dir={}", path("logs")),
            format!("--cgroup-parent={netns}"),
            format!("--node-name={name}"),
            format!("--node-ip={address}"),
            format!("--pod-manifest-path={}", path("manifests")),
        ];
        flags.extend_from_slice(more);
        let child = Self::spawn(cluster, name, &netns, &flags);
        Self { cluster, name, netns, address, child, flags }
    }

    fn spawn(cluster: &Cluster, name: &str, netns: &str, flags: &[String]) -> Child {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(cluster.folder(name).join("log"))
            .expect("writable folder");
        let mut command = inside(netns, cluster.program("gantry"));
        let bus = format!("unix:path={}", cluster.folder(name).join("bus").display());
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus).envs(UNHURRIED);
        command.arg("agent").args(flags).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("the agent starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let ready = out.lines().map_while(Result::ok).any(|line| line == "ready");
        let log = std::fs::read_to_string(cluster.folder(name).join("log")).unwrap_or_default();
        assert!(ready, "the agent {name} ended:\n{log}");
        child
    }

    fn path(&self, part: &str) -> PathBuf {
        self.cluster.folder(&format!("{}/{part}", self.name))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.folder(self.name).join("log")).unwrap_or_default()
    }

    fn wait_for(&self, what: &str, holds: impl FnMut() -> bool) {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.cluster.wait_for(what, holds)));
        if let Err(panic) = outcome {
            println!("--- the log of {}\n{}", self.name, self.log());
            std::panic::resume_unwind(panic);
        }
    }

    fn signal(&mut self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill is there");
        assert!(sent.success());
        self.child.wait().expect("it was ours");
    }

    fn restart(&mut self) {
        self.child = Self::spawn(self.cluster, self.name, &self.netns, &self.flags);
    }

    /// What its server says, asked with a certificate of its administrator's or with none.
    fn ask(&self, known: bool, path: &str) -> String {
        let script = "import ssl,sys,urllib.request as u\n\
            c=ssl.create_default_context(cafile=sys.argv[1]+'/ca.crt')\n\
            if sys.argv[3]=='known': c.load_cert_chain(sys.argv[1]+'/admin.crt',sys.argv[1]+'/admin.key')\n\
            try: print(u.urlopen(sys.argv[2], timeout=5, context=c).read().decode())\n\
            except Exception as e: print(e)";
        let pki = self.path("data/pki/agent").display().to_string();
        let url = format!("https://{}:10250{path}", self.address);
        let who = if known { "known" } else { "unknown" };
        let mut command = inside(&self.netns, "python3");
        let said = command.args(["-c", script, &pki, &url, who]).output().expect("python3 is there");
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// The pods that it runs.
    fn pods(&self) -> Value {
        serde_json::from_str::<Value>(&self.ask(true, "/pods")).unwrap_or_default()["items"].take()
    }

    /// What its pods' containers have said.
    fn said(&self) -> String {
        let mut text = String::new();
        for pod in std::fs::read_dir(self.path("logs")).expect("a folder").flatten() {
            for file in ["main/0.log", "main/1.log"] {
                text += &std::fs::read_to_string(pod.path().join(file)).unwrap_or_default();
            }
        }
        text
    }

    fn add_image(&self) {
        let flag = |name: &str, folder: &str| format!("--{name}-dir={}", self.path(folder).display());
        let mut command = inside(&self.netns, self.cluster.program("gantry"));
        let context = self.cluster.folder("busybox");
        let built = command
            .args(["build", &flag("data", "data"), &flag("run", "run"), "-t", "busybox:1"])
            .arg(context)
            .output()
            .expect("gantry is there");
        assert!(built.status.success(), "{built:?}");
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it ran goes with it, and its networks and cgroups.
        let down =
            inside(&self.netns, self.cluster.program("gantry")).arg("down").args(&self.flags[..6]).output();
        match down {
            Ok(down) if down.status.success() => {}
            other => eprintln!("{} does not go down: {other:?}", self.name),
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.netns]).status();
    }
}

fn a_node_alone(cluster: &Cluster) {
    let flags = ["--standalone".to_owned(), "--shutdown-grace-period=10s".to_owned()];
    let mut agent = Agent::start(cluster, "alone", &flags);
    agent.add_image();
    place(&agent.path("manifests"), "web.yaml", &manifest("web", SLEEP, ""));
    let pod = || agent.pods()[0].clone();
    agent.wait_for("the pod to run", || pod()["status"]["phase"] == "Running");
    let first = pod();
    assert_eq!(first["metadata"]["name"], "web-alone");
    assert_eq!(agent.ask(true, "/healthz").trim(), "ok");
    agent.wait_for("its log", || {
        agent.ask(true, "/containerLogs/default/web-alone/main").contains("hello from web-alone")
    });
    assert!(agent.ask(false, "/pods").contains("401"), "{}", agent.ask(false, "/pods"));
    let shown = agent.ask(true, "/configz");
    assert!(shown.contains("\"shutdownGracePeriod\":\"10s\""), "{shown}");
    // A new agent finds it running.
    agent.signal("-9");
    agent.restart();
    let pod = || agent.pods()[0].clone();
    agent.wait_for("the pod to run", || pod()["status"]["phase"] == "Running");
    assert_eq!(container_of(&pod()), container_of(&first));
    std::fs::remove_file(agent.path("manifests").join("web.yaml")).expect("the manifest");
    agent.wait_for("the pod to go", || pod().is_null());
}

/// Says what it is asked for with the right word, and nothing without.
const KIOSK: &str = r#"
import http.server,sys
class Kiosk(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        good = self.headers.get("X-Word") == "please"
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(open(sys.argv[1], "rb").read() if good else b"no")
http.server.HTTPServer(("127.0.0.1", 8000), Kiosk).serve_forever()
"#;

/// A pod that says when it is asked to end.
const POLITE: &str = "trap 'echo bye; exit 0' TERM; echo hello; while :; do busybox sleep 0.1; done";

fn manifests_come_from_a_url(cluster: &Cluster) {
    let folder = cluster.folder("fetching");
    let config = folder.join("config");
    let text =
        "{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, httpCheckFrequency: 1s,
        shutdownGracePeriod: 10s, staticPodURLHeader: {X-Word: [please]}}";
    std::fs::write(&config, text).expect("writable folder");
    let flags = [
        "--standalone".to_owned(),
        "--manifest-url=http://127.0.0.1:8000/pods".to_owned(),
        format!("--node-config={}", config.display()),
        "--shutdown-on-sigterm".to_owned(),
    ];
    let mut agent = Agent::start(cluster, "fetching", &flags);
    agent.add_image();
    place(&folder, "pods.yaml", &manifest("fetched", POLITE, ""));
    let pods = folder.join("pods.yaml").display().to_string();
    let mut kiosk = inside(&agent.netns, "python3");
    let mut kiosk = kiosk.args(["-c", KIOSK, &pods]).stderr(Stdio::null()).spawn().expect("python3 is there");
    let pod = || agent.pods()[0].clone();
    agent.wait_for("the pod to run", || pod()["status"]["phase"] == "Running");
    assert_eq!(pod()["metadata"]["annotations"]["kubernetes.io/config.source"], "http");
    assert_eq!(pod()["metadata"]["name"], "fetched-fetching");
    // Who is told that the node goes down ends its pods before it ends.
    agent.wait_for("its first word", || agent.said().contains("hello"));
    agent.signal("-TERM");
    assert!(agent.said().contains("bye"), "{}", agent.log());
    kiosk.kill().and_then(|()| kiosk.wait()).expect("it was ours");
}

/// A message bus with a logind on it, as far as an agent asks; notes what becomes of locks.
const LOGIND: &str = r#"
import os,socket,struct,sys,threading
server = socket.socket(socket.AF_UNIX); server.bind(sys.argv[1]); server.listen(1)
c, _ = server.accept()
def note(what):
    with open(sys.argv[2], "a") as out: print(what, file=out)
def line():
    b = b""
    while not b.endswith(b"\r\n"): b += c.recv(1)
line(); c.sendall(b"OK 00\r\n"); line(); c.sendall(b"AGREE_UNIX_FD\r\n"); line()
serial = [100]
def pad(b, n): return b + bytes(-len(b) % n)
def message(kind, fields, body):
    serial[0] += 1
    f = b""
    for code, sig, val in fields:
        f = pad(f, 8) + bytes([code, 1]) + sig + b"\0"
        if sig == b"u": f = pad(f, 4) + struct.pack("<I", val)
        elif sig == b"g": f += bytes([len(val)]) + val + b"\0"
        else: f = pad(f, 4) + struct.pack("<I", len(val)) + val + b"\0"
    return pad(struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), serial[0], len(f)) + f, 8) + body
def read(n):
    b = b""
    while len(b) < n:
        d = c.recv(n - len(b))
        if not d: os._exit(0)
        b += d
    return b
def held(lock):
    os.read(lock, 1); note("released")
def signals():
    for word in sys.stdin:
        place = [(1, b"o", b"/org/freedesktop/login1"), (2, b"s", b"org.freedesktop.login1.Manager")]
        fields = place + [(3, b"s", b"PrepareForShutdown"), (8, b"g", b"b")]
        c.sendall(message(4, fields, struct.pack("<I", word.strip() == "down")))
threading.Thread(target=signals, daemon=True).start()
while True:
    body, asked, length = struct.unpack("<III", read(16)[4:])
    rest = read(-(-length // 8) * 8 + body)
    reply = [(5, b"u", asked)]
    if b"\x07\0\0\0Inhibit\0" in rest:
        lock, given = os.pipe()
        socket.send_fds(c, [message(2, reply + [(8, b"g", b"h"), (9, b"u", 1)], struct.pack("<I", 0))], [given])
        os.close(given); note("locked")
        threading.Thread(target=held, args=(lock,), daemon=True).start()
    elif b"InhibitDelayMaxUSec" in rest:
        c.sendall(message(2, reply + [(8, b"g", b"v")], b"\x01t" + bytes(6) + struct.pack("<Q", 60000000)))
    else:
        c.sendall(message(2, reply, b""))
"#;

fn logind_waits_for_pods(cluster: &Cluster) {
    use std::io::Write;
    let folder = cluster.folder("logged");
    let (bus, notes) = (folder.join("bus"), folder.join("notes"));
    std::fs::write(&notes, "").expect("writable folder");
    let mut logind = Command::new("python3")
        .args(["-c", LOGIND])
        .args([&bus, &notes])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 is there");
    cluster.wait_for("the bus", || bus.exists());
    let noted = || std::fs::read_to_string(&notes).expect("notes");
    let flags = ["--standalone".to_owned(), "--shutdown-grace-period=10s".to_owned()];
    let agent = Agent::start(cluster, "logged", &flags);
    agent.add_image();
    agent.wait_for("a lock", || noted() == "locked\n");
    place(&agent.path("manifests"), "polite.yaml", &manifest("polite", POLITE, ""));
    agent.wait_for("its first word", || agent.said().contains("hello"));
    let mut tell = logind.stdin.take().expect("piped");
    writeln!(tell, "down").expect("it listens");
    agent.wait_for("the lock to be given back", || noted() == "locked\nreleased\n");
    assert!(agent.said().contains("bye"), "logind went on before the pod had ended");
    assert_eq!(agent.pods()[0]["status"]["reason"], "Terminated");
    writeln!(tell, "up").expect("it listens");
    agent.wait_for("another lock", || noted() == "locked\nreleased\nlocked\n");
    drop(agent);
    logind.wait().expect("it ends with the agent");
}

fn static_pods_do_not_wait_for_the_api(cluster: &Cluster) {
    let ca = cluster.kubeconfig().with_file_name("pki").join("ca.crt");
    let flags = [
        // Nobody is there.
        "--server=https://127.0.0.1:9".to_owned(),
        "--token=abcdef.0123456789abcdef".to_owned(),
        format!("--ca-file={}", ca.display()),
    ];
    let agent = Agent::start(cluster, "early", &flags);
    agent.add_image();
    place(&agent.path("manifests"), "web.yaml", &manifest("web", SLEEP, ""));
    agent.wait_for("the pod to speak", || agent.said().contains("hello from web-early"));
}

/// Who has asked for certificates of a sort, by name: who was first is not to be seen within a second.
fn askers(cluster: &Cluster, signer: &str) -> Vec<String> {
    let all = cluster.get("default", &["csr"]);
    let all = all["items"].as_array().expect("a list").iter();
    let of = all.filter(|csr| csr["spec"]["signerName"].as_str().unwrap_or_default().ends_with(signer));
    let mut names: Vec<String> =
        of.map(|csr| csr["spec"]["username"].as_str().unwrap_or_default().to_owned()).collect();
    names.sort_unstable();
    names
}

fn a_node_joins_and_rotates_its_certificate(cluster: &Cluster) {
    let made = cluster.with_manifest("kube-system", &["apply"], e2e::JOINING);
    assert!(made.ok, "{made:?}");
    let pki = cluster.kubeconfig().with_file_name("pki");
    let config = cluster.folder("joined").join("config");
    std::fs::write(
        &config,
        "{apiVersion: kubelet.config.k8s.io/v1beta1, kind: KubeletConfiguration, rotateCertificates: true,
          serverTLSBootstrap: true, nodeLeaseDurationSeconds: 20}",
    )
    .expect("writable folder");
    let flags = [
        "--server=https://10.99.0.1:6443".to_owned(),
        "--token=abcdef.0123456789abcdef".to_owned(),
        format!("--ca-file={}", pki.join("ca.crt").display()),
        format!("--node-config={}", config.display()),
        "--node-labels=disk=ssd,topology.kubernetes.io/zone=a".to_owned(),
        "--register-with-taints=dedicated=guests:NoSchedule".to_owned(),
    ];
    let mut agent = Agent::start_beside(cluster, "joined", &flags);
    agent.add_image();
    agent.wait_for("the node to be Ready", || {
        cluster.try_kubectl("default", &["get", "node", "joined"]).out.contains(" Ready")
    });
    let labelled = cluster.get("default", &["nodes", "-l", "disk=ssd,topology.kubernetes.io/zone=a"]);
    assert_eq!(labelled["items"][0]["metadata"]["name"], "joined");
    let taint = json!([{"key": "dedicated", "value": "guests", "effect": "NoSchedule"}]);
    assert_eq!(labelled["items"][0]["spec"]["taints"], taint);
    let lease = cluster.get("kube-node-lease", &["lease", "joined"]);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 20);
    let client = "kube-apiserver-client-kubelet";
    assert_eq!(askers(cluster, client), ["system:bootstrap:abcdef"]);
    let current = agent.path("data/pki").join("kubelet-client-current.pem");
    let first = std::fs::read_link(&current).expect("a certificate");

    // A certificate for serving is for people to decide on; until then its own will do.
    let serving = "kubelet-serving";
    agent.wait_for("the request for serving", || !askers(cluster, serving).is_empty());
    let all = cluster.get("default", &["csr"]);
    for csr in all["items"].as_array().expect("a list") {
        if csr["spec"]["signerName"].as_str().unwrap_or_default().ends_with(serving) {
            cluster.kubectl(
                "default",
                &["certificate", "approve", csr["metadata"]["name"].as_str().expect("a name")],
            );
        }
    }
    agent.wait_for("the certificate for serving", || {
        agent.path("data/pki").join("kubelet-server-current.pem").exists()
    });

    // A pod of the API's runs there, and is reached by its log.
    let pod = manifest("guest", SLEEP, "nodeName: joined,");
    let made = cluster.with_manifest("default", &["apply"], &pod);
    assert!(made.ok, "{made:?}");
    agent.wait_for("the pod's log", || {
        cluster.try_kubectl("default", &["logs", "guest"]).out.contains("hello from guest")
    });

    // An agent that begins with a certificate of which most has passed asks for another at once, as itself.
    agent.signal("-TERM");
    let now =
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).expect("now").as_secs()).expect("now");
    let old = short_certificate(&pki, now);
    std::fs::write(agent.path("data/pki").join(&first), &old).expect("writable folder");
    agent.restart();
    // It may have the old one's name: they are called after the second in which they came.
    agent.wait_for("another certificate", || std::fs::read_to_string(&current).is_ok_and(|now| now != old));
    assert_eq!(askers(cluster, client), ["system:bootstrap:abcdef", "system:node:joined"]);
    // What it says from then on it says with that one: the old one has ended.
    agent.wait_for("a heartbeat after the end of the old certificate", || {
        let lease = cluster.get("kube-node-lease", &["lease", "joined"]);
        let renewed = lease["spec"]["renewTime"].as_str().unwrap_or_default().to_owned();
        renewed.parse::<base::Timestamp>().is_ok_and(|at| at.as_second() > now + SHORT)
    });
    cluster.kubectl("default", &["delete", "pod", "guest", "--now"]);
    drop(agent);
    cluster.kubectl("default", &["delete", "node", "joined"]);
}

/// How long the short certificate is still good, in seconds.
const SHORT: i64 = 15;

/// A key and a certificate of the node's, signed by the cluster, of whose life little is left.
fn short_certificate(pki: &Path, now: i64) -> String {
    let asked = auth::KeyAndRequest::new("system:node:joined", "system:nodes", &[]).expect("a request");
    let body: String = asked.request.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).expect("PEM");
    let authority = auth::Pki::open(pki, &base::SystemClock).expect("the cluster's authority");
    let order = auth::SigningOrder {
        request: &der,
        usages: &["digital signature".to_owned(), "client auth".to_owned()],
        not_before: now - 100 * SHORT,
        not_after: now + SHORT,
    };
    format!("{}{}", authority.sign(&order).expect("a certificate"), asked.key)
}

fn a_shutdown_ends_pods_in_order(cluster: &Cluster) {
    let ns = "shutdown";
    cluster.namespace(ns);
    let out = tempfile::tempdir().expect("temporary folder");
    // The one that is to go first takes its time: were both asked at once, it would be the last.
    let script = |name: &str, slowness: u32| {
        format!(
            "trap 'busybox sleep {slowness}; busybox cat /proc/uptime > /out/{name}; exit 0' TERM
             busybox touch /out/up-{name}; while :; do busybox sleep 0.1; done"
        )
    };
    let volume = format!("volumes: [{{name: out, hostPath: {{path: {}}}}}],", out.path().display());
    let with_out = |text: String| {
        text.replace(
            "image: 'busybox:1',",
            "image: 'busybox:1', volumeMounts: [{name: out, mountPath: /out}],",
        )
    };
    let plain = with_out(manifest("plain", &script("plain", 1), &volume));
    let critical = with_out(manifest(
        "critical",
        &script("critical", 0),
        &format!("{volume} priorityClassName: system-cluster-critical,"),
    ));
    for text in [&plain, &critical] {
        let made = cluster.with_manifest(ns, &["apply"], text);
        assert!(made.ok, "{made:?}");
    }
    cluster.wait_for("both to be up", || {
        ["plain", "critical"].iter().all(|name| out.path().join(format!("up-{name}")).exists())
    });
    let run = format!("--run-dir={}", cluster.folder("run").display());
    let ask = |more: &[&str]| {
        let mut command = cluster.client(cluster.program("gantry"));
        let said = command.args(["node", "shutdown", &run]).args(more).output().expect("gantry is there");
        assert!(said.status.success(), "{said:?}");
    };
    ask(&[]);
    for name in ["plain", "critical"] {
        let mut pod = Value::Null;
        cluster.wait_for("the pod's end", || {
            pod = cluster.get(ns, &["pod", name]);
            pod["status"]["phase"] == "Failed"
        });
        assert_eq!(pod["status"]["reason"], "Terminated");
        let why = "Pod was terminated in response to imminent node shutdown.";
        assert_eq!(pod["status"]["message"], why);
        let conditions = pod["status"]["conditions"].as_array().expect("conditions");
        let disrupted =
            conditions.iter().find(|c| c["type"] == "DisruptionTarget").expect("it was disrupted");
        assert_eq!(disrupted["reason"], "TerminationByKubelet");
    }
    let ended = |name: &str| -> f64 {
        let text = std::fs::read_to_string(out.path().join(name)).expect("it has ended in order");
        text.split_whitespace().next().and_then(|seconds| seconds.parse().ok()).expect("a time")
    };
    assert!(ended("plain") <= ended("critical"));
    let ready = || {
        let node = cluster.get("default", &["node", "node-1"]);
        let conditions = node["status"]["conditions"].as_array().expect("conditions").clone();
        conditions.into_iter().find(|c| c["type"] == "Ready").expect("a Ready condition")
    };
    cluster.wait_for("the node to say so", || ready()["message"] == "node is shutting down");
    assert_eq!((&ready()["status"], &ready()["reason"]), (&"False".into(), &"KubeletNotReady".into()));
    let late = manifest("late", SLEEP, "nodeName: node-1, tolerations: [{operator: Exists}],");
    assert!(cluster.with_manifest(ns, &["apply"], &late).ok);
    cluster.wait_for("the late one to be refused", || {
        cluster.get(ns, &["pod", "late"])["status"]["reason"] == "NodeShutdown"
    });
    let refused = cluster.get(ns, &["pod", "late"]);
    let why = "Pod was rejected: Pod was rejected as the node is shutting down.";
    assert_eq!(refused["status"]["message"], why);
    // Called off, all is as before.
    ask(&["--cancel"]);
    cluster.wait_for("the node to be Ready", || ready()["status"] == "True");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
    assert!(cluster.with_manifest(ns, &["apply"], &late.replace("late", "later")).ok);
    cluster.kubectl(ns, &["wait", "pod/later", "--for=condition=Ready", "--timeout=30s"]);
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}
