//! What a check works with: a namespace of its own, kubectl, and short ways to make pods.

use std::io::Read as _;
use std::ops::Deref;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, Said};

/// One check's way to the cluster.
pub struct Trial<'a> {
    cluster: &'a Cluster,
    /// The check's own namespace; it exists.
    pub ns: String,
}

impl Deref for Trial<'_> {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        self.cluster
    }
}

/// The images that checks need besides busybox.
pub fn prepare(cluster: &Cluster) {
    let speaks = "FROM busybox:1\nENTRYPOINT [\"/bin/busybox\", \"echo\", \"entry\"]\nCMD [\"command\"]\n";
    cluster.build("speaks:1", speaks);
    let program = cluster.program("gantry-demo");
    std::fs::copy(program, cluster.folder("demo-1").join("gantry-demo")).expect("the demo is built");
    cluster.build("demo:1", "FROM scratch\nCOPY gantry-demo /gantry-demo\nENTRYPOINT [\"/gantry-demo\"]\n");
    cluster.build("busybox:2", "FROM busybox:1\nENV VERSION=2\n");
}

impl Drop for Trial<'_> {
    /// Its pods make room for others.
    fn drop(&mut self) {
        self.cluster.try_kubectl("default", &["delete", "namespace", &self.ns, "--wait=false"]);
    }
}

impl<'a> Trial<'a> {
    /// Makes the namespace: the check's name, without what all have in common.
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        let (_, own) = name.split_once("::").expect("a module's path");
        let ns: String = own.replace("::", "-").replace('_', "-").chars().take(60).collect();
        let ns = ns.trim_end_matches('-').to_owned();
        cluster.namespace(&ns);
        Self { cluster, ns }
    }

    /// `kubectl …`, which must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.cluster.kubectl(&self.ns, args)
    }

    /// `kubectl …`, whatever it says.
    pub fn attempt(&self, args: &[&str]) -> Said {
        self.cluster.try_kubectl(&self.ns, args)
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, what: &[&str]) -> Value {
        self.cluster.get(&self.ns, what)
    }

    /// Makes objects.
    pub fn create(&self, objects: &[Value]) {
        let said = self.submit("create", objects);
        assert!(said.ok, "{said:?}");
    }

    /// Makes or changes objects.
    pub fn apply(&self, objects: &[Value]) {
        let said = self.submit("apply", objects);
        assert!(said.ok, "{said:?}");
    }

    /// Tries to make objects.
    pub fn submit(&self, verb: &str, objects: &[Value]) -> Said {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.with_manifest(&self.ns, &[verb], &list.to_string())
    }

    /// A ConfigMap.
    pub fn config_map(&self, name: &str, data: Value) {
        self.create(&[
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}),
        ]);
    }

    /// A Secret.
    pub fn secret(&self, name: &str, data: Value) {
        let meta = json!({"name": name});
        self.create(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data})]);
    }

    /// Makes a pod, waits until it has ended, and gives what its container said.
    pub fn says(&self, pod: &PodShape) -> String {
        let name = pod.name();
        self.create(&[pod.object()]);
        self.until_phase(&name, &["Succeeded", "Failed"]);
        self.kubectl(&["logs", &name])
    }

    /// Makes a pod and waits until it is ready. Gives its address.
    pub fn ready(&self, pod: &PodShape) -> String {
        self.create(&[pod.object()]);
        self.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &format!("pod/{}", pod.name())]);
        self.address(&pod.name())
    }

    /// A pod's address.
    pub fn address(&self, pod: &str) -> String {
        self.get(&["pod", pod])["status"]["podIP"].as_str().expect("an address").to_owned()
    }

    /// Waits until a pod is in one of the phases.
    pub fn until_phase(&self, pod: &str, phases: &[&str]) -> Value {
        self.until(&["pod", pod], &format!("to be {phases:?}"), |pod| {
            pod["status"]["phase"].as_str().is_some_and(|phase| phases.contains(&phase))
        })
    }

    /// Waits until something about an object (or a list) holds, and gives it.
    pub fn until(&self, what: &[&str], wanted: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_within(Duration::from_secs(60), what, wanted, holds)
    }

    fn until_within(
        &self,
        limit: Duration,
        what: &[&str],
        wanted: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = Value::Null;
        self.wait_at_most(limit, &format!("{what:?} {wanted} in {}", self.ns), || {
            let said = self.attempt(&[&["get", "-o", "json"], what].concat());
            last = serde_json::from_str(&said.out).unwrap_or_default();
            holds(&last)
        });
        last
    }

    /// Waits until an object is gone.
    pub fn until_gone(&self, what: &[&str]) {
        self.wait_for(&format!("{what:?} to go from {}", self.ns), || {
            let said = self.attempt(&[&["get"], what].concat());
            !said.ok && said.err.contains("NotFound")
        });
    }

    /// The names of all objects of a kind that have a label.
    pub fn names(&self, kind: &str, selector: &str) -> Vec<String> {
        let said = self.kubectl(&["get", kind, "-l", selector, "-o", "jsonpath={.items[*].metadata.name}"]);
        said.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits until so many pods with a label are ready.
    pub fn until_ready(&self, selector: &str, count: usize) -> Value {
        self.until(&["pods", "-l", selector], &format!("to be {count} that are ready"), |list| {
            let all = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            all.len() == count && all.iter().all(|pod| is(pod, "Ready"))
        })
    }

    /// Waits until a script says something inside a pod.
    pub fn until_inside(&self, pod: &str, script: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        self.wait_for(&format!("{script:?} in {}/{pod} to say what it must", self.ns), || {
            last = self.inside_pod(pod, script).out;
            holds(&last)
        });
        last
    }

    /// Waits until a pod has logged something.
    pub fn until_logged(&self, pod: &str, text: &str) {
        self.wait_for(&format!("{pod} to log {text:?}"), || self.kubectl(&["logs", pod]).contains(text));
    }

    /// As `until`, for what takes minutes.
    pub fn until_late(&self, what: &[&str], wanted: &str, holds: impl Fn(&Value) -> bool) {
        self.until_within(Duration::from_secs(300), what, wanted, holds);
    }

    /// What the server answers to objects that are questions.
    pub fn ask(&self, question: &Value) -> Value {
        let mut command = self.cluster.kubectl_command(&self.ns, &["create", "-o", "json", "-f", "-"]);
        let said = self.cluster.told(&mut command, &question.to_string());
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    /// `kubectl …` in another namespace.
    pub fn cluster_kubectl(&self, namespace: &str, args: &[&str]) -> String {
        self.cluster.kubectl(namespace, args)
    }

    /// `kubectl …` that goes on until it is dropped.
    pub fn start(&self, args: &[&str]) -> Going {
        let mut command = self.cluster.kubectl_command(&self.ns, args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("kubectl starts");
        let mut out = child.stdout.take().expect("it is piped");
        let told = Arc::new(Mutex::new(String::new()));
        let sink = told.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut bytes) {
                sink.lock().expect("no panic here").push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        });
        Going { child, told, what: format!("kubectl {args:?}") }
    }

    /// What the API answers to a request, head and body, as the administrator.
    pub fn request(&self, method: &str, path: &str, accept: &str, body: &str) -> String {
        self.raw(&["request", method, path, accept, body])
    }

    /// All that comes over a WebSocket until it is closed, as the administrator.
    pub fn websocket(&self, path: &str, protocol: &str) -> String {
        self.raw(&["websocket", path, protocol])
    }

    fn raw(&self, args: &[&str]) -> String {
        let folder = self.cluster.folder(&self.ns);
        let config = self.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let path = folder.join("config.json");
        std::fs::write(&path, config).expect("writable folder");
        let mut all = vec![path.display().to_string()];
        all.extend(args.iter().map(|a| (*a).to_owned()));
        let said = self.cluster.python(include_str!("raw.py"), &all).wait_with_output().expect("an answer");
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    /// What a script says inside a pod.
    pub fn inside_pod(&self, pod: &str, script: &str) -> Said {
        self.attempt(&["exec", pod, "--", "/bin/busybox", "sh", "-c", script])
    }
}

/// A command that goes on.
pub struct Going {
    child: Child,
    told: Arc<Mutex<String>>,
    what: String,
}

impl Going {
    /// Waits until what it has said is as it must be, and gives it.
    pub fn until(&self, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let told = self.told.lock().expect("no panic while it is held").clone();
            if holds(&told) {
                return told;
            }
            assert!(Instant::now() < deadline, "{} said only: {told}", self.what);
            std::thread::yield_now();
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a condition is true.
pub fn is(object: &Value, condition: &str) -> bool {
    let mut all = object["status"]["conditions"].as_array().into_iter().flatten();
    all.any(|c| c["type"] == condition && c["status"] == "True")
}

/// How many there are in a list.
pub fn count(list: &Value) -> usize {
    list["items"].as_array().map_or(usize::MAX, Vec::len)
}

/// A pod with one container.
#[derive(Clone)]
pub struct PodShape(Value);

/// A pod named `p` whose container `c` runs a shell script, once.
pub fn sh(script: &str) -> PodShape {
    PodShape(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "busybox:1", "command": ["/bin/busybox", "sh", "-c", script]}],
        },
    }))
}

/// A pod named `p` that runs until it is told to end.
pub fn sleeps() -> PodShape {
    sh("exec busybox sleep 1000000")
}

/// A pod that serves its name on port 8080, and says what it is asked for.
pub fn serves(name: &str) -> PodShape {
    let script = "busybox mkdir /www; busybox hostname > /www/index.html; echo ok > /www/healthz; \
                  exec busybox httpd -f -vv -p 8080 -h /www";
    sh(script).named(name)
}

impl PodShape {
    /// Another name.
    pub fn named(mut self, name: &str) -> Self {
        self.0["metadata"]["name"] = name.into();
        self
    }

    /// Metadata's fields.
    pub fn meta(mut self, fields: Value) -> Self {
        merge(&mut self.0["metadata"], fields);
        self
    }

    /// The container's fields.
    pub fn with(mut self, fields: Value) -> Self {
        merge(&mut self.0["spec"]["containers"][0], fields);
        self
    }

    /// The specification's fields.
    pub fn spec(mut self, fields: Value) -> Self {
        merge(&mut self.0["spec"], fields);
        self
    }

    /// One more volume, mounted at a path.
    pub fn volume(self, path: &str, source: Value) -> Self {
        self.mount(json!({"mountPath": path}), source)
    }

    /// One more volume, mounted in a certain way.
    pub fn mount(mut self, mount: Value, source: Value) -> Self {
        let list = |value: &mut Value| {
            if value.is_null() {
                *value = json!([]);
            }
        };
        list(&mut self.0["spec"]["volumes"]);
        list(&mut self.0["spec"]["containers"][0]["volumeMounts"]);
        let volumes = self.0["spec"]["volumes"].as_array_mut().expect("a list");
        let name = format!("v{}", volumes.len());
        let mut volume = json!({"name": name});
        merge(&mut volume, source);
        volumes.push(volume);
        let mut entry = json!({"name": name});
        merge(&mut entry, mount);
        let mounts = self.0["spec"]["containers"][0]["volumeMounts"].as_array_mut();
        mounts.expect("a list").push(entry);
        self
    }

    /// The pod's name.
    pub fn name(&self) -> String {
        self.0["metadata"]["name"].as_str().expect("a name").to_owned()
    }

    /// The whole object.
    pub fn object(&self) -> Value {
        self.0.clone()
    }

    /// A template of such pods with a label, which run again when they end.
    pub fn template(&self, app: &str) -> Value {
        let mut spec = self.0["spec"].clone();
        spec["restartPolicy"] = "Always".into();
        json!({"metadata": {"labels": {"app": app}}, "spec": spec})
    }
}

/// Puts fields into an object.
pub fn merge(into: &mut Value, fields: Value) {
    let (Value::Object(into), Value::Object(fields)) = (into, fields) else { panic!("objects") };
    into.extend(fields);
}
