//! The node and its runtime: both may go and come back, and some things cannot be had.

use std::time::Duration;

use serde_json::Value;

use crate::machine::Machine;
use crate::{Place, SLEEP, describes, gone, main_status, pod};

fn readiness(m: &Machine) -> Value {
    let node = m.get(&["node", "node-1"]);
    let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == "Ready").expect("a condition")
}

pub fn the_node_is_as_ready_as_its_runtime(place: &mut Place) {
    let m = &place.machine;
    let refused = m.gantry(&["up", "--container-runtime-endpoint=tcp://127.0.0.1:1"]);
    assert!(!refused.ok && refused.err.contains("give a socket, such as unix:///"), "{refused:?}");
    place.containerd = Some(m.containerd());
    // As if pods of the built-in runtime were left.
    let left = m.path("run/shims/pod");
    std::fs::create_dir_all(&left).expect("writable folder");
    let refused = m.gantry(&["up", &m.endpoint()]);
    assert!(
        !refused.ok && refused.err.contains("pods of the built-in container runtime still run"),
        "{refused:?}"
    );
    std::fs::remove_dir_all(&left).expect("the folder is there");
    m.does(&["up", &m.endpoint()]);
    let node = m.get(&["node", "node-1"]);
    let version = node["status"]["nodeInfo"]["containerRuntimeVersion"].as_str().unwrap_or_default();
    assert!(version.starts_with("containerd://1.6."), "{version}");
    let ready = readiness(m);
    let message = ready["message"].as_str().unwrap_or_default();
    assert_eq!(ready["status"], "False", "{ready}");
    assert!(message.starts_with("container runtime network not ready: NetworkReady=false"), "{message}");
    m.add_network();
    m.wait_for("the node to be ready", || readiness(m)["status"] == "True");
}

pub fn what_it_cannot_do_is_said(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("users", SLEEP, "", "hostUsers: false,"));
    describes(m, "users", &["FailedCreatePodSandBox", "runtime does not support user namespaces"]);
    let image = "volumes: [{name: files, image: {reference: 'busybox:1'}}],";
    m.apply(&pod("files", SLEEP, "volumeMounts: [{name: files, mountPath: /files}],", image));
    describes(
        m,
        "files",
        &["volume \"files\" is an image, which only the built-in container runtime can mount"],
    );
    let below = "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}],";
    m.apply(&pod("below", SLEEP, below, "volumes: [{name: v, emptyDir: {}}],"));
    describes(m, "below", &["is requested to be mounted recursively read-only"]);
    m.apply(&pod("strict", SLEEP, "", "securityContext: {supplementalGroupsPolicy: Strict},"));
    describes(m, "strict", &["SupplementalGroupsPolicyNotSupported"]);
    gone(m);
}

pub fn images_are_looked_for(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("never", SLEEP, "imagePullPolicy: Never,", "").replace("busybox:1", "nobody.invalid/x:1"));
    describes(m, "never", &["ErrImageNeverPull"]);
    m.apply(&pod("pulls", SLEEP, "", "").replace("busybox:1", "nobody.invalid/x:1"));
    describes(
        m,
        "pulls",
        &["failed to pull image \"nobody.invalid/x:1\": rpc error: code = ", "ImagePullBackOff"],
    );
    // What is here, and cannot be had anew, is used all the same.
    m.apply(&pod("always", SLEEP, "imagePullPolicy: Always,", ""));
    m.ready("always");
    let registry = m.registry();
    let login = ["--docker-server=127.0.0.1:5055", "--docker-username=user", "--docker-password=secret"];
    m.must(&[&["create", "secret", "docker-registry", "key"][..], &login].concat());
    let private = |name: &str, secret: &str| {
        m.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{restartPolicy: Never, {secret}
                containers: [{{name: main, image: '127.0.0.1:5055/private:1'}}]}}}}"
        ));
    };
    private("known", "imagePullSecrets: [{name: key}],");
    m.wait_for("its end", || m.get(&["pod", "known"])["status"]["phase"] == "Succeeded");
    describes(m, "known", &["Pulling image \"127.0.0.1:5055/private:1\"", "Successfully pulled image"]);
    private("unknown", "");
    describes(m, "unknown", &["failed to pull image", "401 Unauthorized"]);
    drop(registry);
    m.apply(&pod("root", SLEEP, "securityContext: {runAsNonRoot: true},", ""));
    describes(m, "root", &["container has runAsNonRoot and image will run as root"]);
    gone(m);
    // What nobody uses goes when there is need of room, but not what no registry has.
    let has = |name: &str| m.ctr(&["images", "ls", "-q"]).out.lines().any(|line| line == name);
    assert!(has("127.0.0.1:5055/private:1"));
    m.kill_and_restart(&[
        "--image-gc-high-threshold=0",
        "--image-gc-low-threshold=0",
        "--minimum-image-ttl-duration=0s",
    ]);
    m.wait_for("the image to go", || !has("127.0.0.1:5055/private:1"));
    assert!(has("docker.io/library/busybox:1") && has("localhost/pause:1"));
    m.kill_and_restart(&[]);
}

pub fn restarts_are_survived(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("stays", SLEEP, "", ""));
    m.apply(&pod("goes", "exec /bin/busybox sleep 1000", "", ""));
    m.ready("stays");
    m.ready("goes");
    let before = main_status(m, "stays")["containerID"].clone();
    m.kill_and_restart(&[]);
    m.ready("stays");
    assert_eq!(main_status(m, "stays")["containerID"], before);
    // The runtime goes, and comes back.
    drop(place.containerd.take());
    m.wait_at_most(Duration::from_secs(90), "the node to say that it is down", || {
        let ready = readiness(m);
        ready["status"] == "False" && ready["message"] == "container runtime is down"
    });
    place.containerd = Some(m.containerd());
    m.wait_for("the node to be ready again", || readiness(m)["status"] == "True");
    m.ready("stays");
    let now = main_status(m, "stays");
    assert_eq!((&now["containerID"], &now["restartCount"]), (&before, &0.into()));
    // What ends behind the agent's back is noticed.
    let id = main_status(m, "goes")["containerID"].as_str().unwrap_or_default().replace("containerd://", "");
    assert!(m.ctr(&["tasks", "kill", "-s", "SIGKILL", &id]).ok);
    m.wait_for("a restart", || main_status(m, "goes")["restartCount"].as_u64() == Some(1));
    assert_eq!(main_status(m, "goes")["lastState"]["terminated"]["exitCode"], 137);
    gone(m);
}

pub fn nothing_is_left(place: &mut Place) {
    let m = &place.machine;
    m.apply(&pod("left", SLEEP, "", ""));
    m.ready("left");
    m.does(&["down", &m.endpoint()]);
    assert_eq!(m.ctr(&["containers", "ls", "-q"]).out, "");
    m.is_clean();
}

pub fn a_node_alone_runs_its_own_pods(place: &mut Place) {
    let m = &place.machine;
    if place.containerd.is_none() {
        place.containerd = Some(m.containerd());
    }
    let manifests = m.path("manifests");
    std::fs::create_dir_all(&manifests).expect("writable folder");
    let script =
        "/bin/busybox mkdir /www; echo alone > /www/index.html; exec /bin/busybox httpd -f -p 8081 -h /www";
    let own = pod("own", script, "", "hostNetwork: true,");
    std::fs::write(manifests.join("own.yaml"), own).expect("writable folder");
    let folder = format!("--pod-manifest-path={}", manifests.display());
    let agent = m.agent(&["--standalone", &m.endpoint(), &folder]);
    m.wait_for("the page", || m.fetch("http://127.0.0.1:8081/").contains("alone"));
    std::fs::remove_file(manifests.join("own.yaml")).expect("the file is there");
    m.wait_for("its end", || m.ctr(&["containers", "ls", "-q"]).out.is_empty());
    drop(agent);
    m.does(&["down", &m.endpoint()]);
    m.is_clean();
}
