//! What pods say of their containers, and what comes of it on the node.

use std::path::Path;

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("podspec::runtime_classes_choose_who_runs_a_pod", runtime_classes_choose_who_runs_a_pod),
    ("podspec::pods_have_users_of_their_own", pods_have_users_of_their_own),
    ("podspec::images_are_volumes_and_files_are_variables", images_are_volumes_and_files_are_variables),
    ("podspec::containers_say_when_they_are_restarted", containers_say_when_they_are_restarted),
    ("podspec::what_the_node_cannot_give_is_refused", what_the_node_cannot_give_is_refused),
    ("podspec::a_pod_has_limits_as_a_whole", a_pod_has_limits_as_a_whole),
    ("podspec::images_are_for_those_who_may_pull_them", images_are_for_those_who_may_pull_them),
];

fn apply(cluster: &Cluster, ns: &str, manifest: &str) {
    let applied = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(applied.ok, "{applied:?}");
}

fn ends(cluster: &Cluster, ns: &str, pod: &str) -> String {
    let phase = || cluster.get(ns, &["pod", pod])["status"]["phase"].as_str().unwrap_or_default().to_owned();
    cluster.wait_for(&format!("{pod} to end"), || matches!(phase().as_str(), "Succeeded" | "Failed"));
    let said = cluster.kubectl(ns, &["logs", pod]);
    assert_eq!(phase(), "Succeeded", "{said}");
    said
}

fn event(cluster: &Cluster, ns: &str, pod: &str, reason: &str) -> String {
    let mut found = String::new();
    cluster.wait_for(&format!("{reason} of {pod}"), || {
        let field = format!("--field-selector=involvedObject.name={pod},reason={reason}");
        let events = cluster.get(ns, &["events", &field]);
        let message = events["items"][0]["message"].as_str().map(str::to_owned);
        message.map(|message| found = message).is_some()
    });
    found
}

fn runtime_classes_choose_who_runs_a_pod(cluster: &Cluster) {
    let ns = "classes";
    cluster.namespace(ns);
    let class = |name: &str, more: &str| {
        format!(
            "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\nhandler: {name}\n{more}---\n"
        )
    };
    apply(
        cluster,
        ns,
        &(class("runc", "overhead: {podFixed: {memory: 16Mi}}\n") + &class("crun", "") + &class("kata", "")),
    );
    let node = cluster.get(ns, &["node", "node-1"]);
    let handlers = node["status"]["runtimeHandlers"].as_array().cloned().unwrap_or_default();
    assert!(
        handlers.iter().any(|h| h["name"] == "runc") && handlers.iter().any(|h| h["name"] == ""),
        "{handlers:?}"
    );
    for (name, program) in [("runc", "/usr/sbin/runc"), ("crun", "/usr/bin/crun")] {
        // Debian's crun refuses machines with the old cgroups whose new tree has controllers, too.
        let unified =
            std::fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
        if !Path::new(program).exists() || (name == "crun" && !unified.trim().is_empty()) {
            eprintln!("skipped: {program} is not there or does not work on this machine");
            continue;
        }
        apply(
            cluster,
            ns,
            &format!(
                "
apiVersion: v1
kind: Pod
metadata: {{name: by-{name}}}
spec:
  runtimeClassName: {name}
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'echo began; busybox wget -qO- http://127.0.0.1:1 2>&1; exec busybox sleep 1000']
    readinessProbe: {{exec: {{command: [/bin/busybox, 'true']}}, periodSeconds: 1}}
    volumeMounts: [{{name: v, mountPath: /v}}]
  volumes: [{{name: v, emptyDir: {{}}}}]
"
            ),
        );
        let pod = format!("by-{name}");
        cluster.kubectl(ns, &["wait", &format!("pod/{pod}"), "--for=condition=Ready", "--timeout=60s"]);
        assert!(cluster.kubectl(ns, &["logs", &pod]).starts_with("began\n"));
        let inside = [
            "exec",
            &pod,
            "--",
            "/bin/busybox",
            "sh",
            "-c",
            "busybox id -u; busybox touch /v/x; busybox hostname",
        ];
        assert_eq!(cluster.kubectl(ns, &inside), format!("0\n{pod}\n"));
        // It is really somebody else who made it.
        let uid = cluster.get(ns, &["pod", &pod])["metadata"]["uid"].as_str().expect("a uid").to_owned();
        let state = cluster.folder("run").join("shims").join(&uid).join("oci");
        assert_eq!(
            std::fs::read_dir(&state).expect("the runtime's records").count(),
            1,
            "{}",
            state.display()
        );
        cluster.kubectl(ns, &["delete", "pod", &pod, "--timeout=60s"]);
        assert!(!state.exists());
    }
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: lost}\nspec:\n  runtimeClassName: kata\n  containers: [{name: c, image: 'busybox:1'}]\n";
    apply(cluster, ns, pod);
    assert_eq!(
        event(cluster, ns, "lost", "FailedCreatePodSandBox"),
        "Failed to create pod sandbox: failed to get sandbox runtime: no runtime for \"kata\" is configured"
    );
    cluster.kubectl(ns, &["delete", "pod", "lost", "--timeout=60s"]);
    cluster.kubectl(ns, &["delete", "runtimeclass", "runc", "crun", "kata"]);
}

const OWN_USERS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
data: {key: value}
---
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  hostUsers: false
  restartPolicy: Never
  containers:
  - name: c
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c]
    args:
    - |
      alias stat='busybox stat -c' cat='busybox cat'
      busybox id -u
      cat /proc/self/uid_map
      cat /config/key
      stat '%n %u:%g' /etc/motd /etc/hosts /config/key /scratch /memory /var/run/secrets/kubernetes.io/serviceaccount/token
      busybox touch /scratch/mine /memory/mine && stat '%n %u:%g' /scratch/mine /memory/mine
      echo done > /dev/termination-log
    volumeMounts:
    - {name: config, mountPath: /config}
    - {name: scratch, mountPath: /scratch}
    - {name: memory, mountPath: /memory}
  volumes:
  - {name: config, configMap: {name: c}}
  - {name: scratch, emptyDir: {}}
  - {name: memory, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Pod
metadata: {name: group}
spec:
  hostUsers: false
  restartPolicy: Never
  securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, supplementalGroups: [3000]}
  containers:
  - name: c
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c]
    args:
    - |
      busybox id
      busybox cat /proc/self/uid_map
      busybox touch /scratch/mine && busybox stat -c '%n %u:%g' /scratch /scratch/mine
      busybox sleep 2
    volumeMounts: [{name: scratch, mountPath: /scratch}]
  volumes: [{name: scratch, emptyDir: {}}]
";

fn pods_have_users_of_their_own(cluster: &Cluster) {
    let ns = "users";
    cluster.namespace(ns);
    apply(cluster, ns, OWN_USERS);
    let own = ends(cluster, ns, "own");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount/token 0:0";
    for line in [
        "0\n",
        "value",
        "/etc/motd 0:0",
        "/etc/hosts 0:0",
        "/config/key 0:0",
        "/scratch 0:0",
        "/memory 0:0",
        token,
        "/scratch/mine 0:0",
        "/memory/mine 0:0",
    ] {
        assert!(own.contains(line), "{line:?} not in:\n{own}");
    }
    let pod = cluster.get(ns, &["pod", "own"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"], "done\n");
    let group = ends(cluster, ns, "group");
    for line in ["uid=1000 gid=1000 groups=2000,3000", "/scratch 0:2000", "/scratch/mine 1000:2000"] {
        assert!(group.contains(line), "{line:?} not in:\n{group}");
    }
    let first = |said: &str| -> u32 {
        let map = said.lines().find(|line| line.trim_end().ends_with(" 65536")).expect("a map of users");
        map.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    assert!(first(&own) >= 65_536 && first(&own) != first(&group), "{own}{group}");
    let user = &cluster.get(ns, &["pod", "group"])["status"]["containerStatuses"][0]["user"]["linux"];
    assert_eq!((&user["uid"], &user["gid"]), (&1000.into(), &1000.into()), "{user}");
}

const VOLUMES: &str = "
apiVersion: v1
kind: Pod
metadata: {name: reads}
spec:
  hostnameOverride: me.example.org
  subdomain: ignored
  restartPolicy: Never
  initContainers:
  - name: writes
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c]
    args: [\"printf \\\"# of the init container\\nPLAIN=1 2\\nQUOTED='a # b'\\n\\\" > /shared/file.env\"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: c
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c]
    args:
    - |
      echo \"plain=$PLAIN quoted=$QUOTED optional=$OPTIONAL.\"
      busybox cat /image/etc/motd /motd
      busybox touch /image/x 2>&1
      busybox hostname
    env:
    - {name: PLAIN, valueFrom: {fileKeyRef: {volumeName: shared, path: file.env, key: PLAIN}}}
    - {name: QUOTED, valueFrom: {fileKeyRef: {volumeName: shared, path: file.env, key: QUOTED}}}
    - {name: OPTIONAL, valueFrom: {fileKeyRef: {volumeName: shared, path: file.env, key: NONE, optional: true}}}
    volumeMounts:
    - {name: image, mountPath: /image, readOnly: true, recursiveReadOnly: IfPossible}
    - {name: image, mountPath: /motd, subPath: etc/motd}
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: image, image: {reference: 'busybox:1', pullPolicy: Never}}
---
apiVersion: v1
kind: Pod
metadata: {name: misses}
spec:
  containers:
  - name: c
    image: 'busybox:1'
    env: [{name: A, valueFrom: {fileKeyRef: {volumeName: shared, path: none.env, key: A}}}]
  - name: d
    image: 'busybox:1'
    volumeMounts: [{name: image, mountPath: /image}]
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: image, image: {reference: 'nowhere:1', pullPolicy: Never}}
";

fn waiting(cluster: &Cluster, ns: &str, pod: &str, container: &str) -> Value {
    let pod = cluster.get(ns, &["pod", pod]);
    let all = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|c| c["name"] == container).unwrap_or_default()["state"]["waiting"].clone()
}

fn images_are_volumes_and_files_are_variables(cluster: &Cluster) {
    let ns = "sources";
    cluster.namespace(ns);
    apply(cluster, ns, VOLUMES);
    let said = ends(cluster, ns, "reads");
    let want = "plain=1 2 quoted=a # b optional=.\nwelcome\nwelcome\ntouch: /image/x: Read-only file system\nme.example.org\n";
    assert_eq!(said, want);
    let pod = cluster.get(ns, &["pod", "reads"]);
    let mounts =
        pod["status"]["containerStatuses"][0]["volumeMounts"].as_array().cloned().unwrap_or_default();
    let image = mounts.iter().find(|m| m["mountPath"] == "/image").expect("the mount's status");
    assert_eq!(image["recursiveReadOnly"], "Enabled");
    assert!(
        image["volumeStatus"]["image"]["imageRef"].as_str().is_some_and(|id| id.contains("sha256:")),
        "{image}"
    );
    cluster.wait_for("the reason of what misses something", || {
        waiting(cluster, ns, "misses", "c")["reason"] == "CreateContainerConfigError"
    });
    assert_eq!(waiting(cluster, ns, "misses", "c")["message"], "couldn't parse env file");
    cluster.kubectl(ns, &["delete", "pod", "misses", "--timeout=60s"]);
}

const RULES: &str = "
apiVersion: v1
kind: Pod
metadata: {name: again}
spec:
  restartPolicy: Never
  containers:
  - name: c
    image: 'busybox:1'
    restartPolicy: Never
    restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]
    command: [/bin/busybox, sh, -c, 'if [ -e /s/x ]; then exit 0; fi; busybox touch /s/x; exit 42']
    volumeMounts: [{name: s, mountPath: /s}]
  volumes: [{name: s, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Always
  containers:
  - {name: c, image: 'busybox:1', restartPolicy: Never, command: [/bin/busybox, sh, -c, 'exit 7']}
---
apiVersion: v1
kind: Pod
metadata: {name: anew}
spec:
  restartPolicy: Never
  initContainers:
  - name: i
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c, 'echo init >> /s/order']
    volumeMounts: [{name: s, mountPath: /s}]
  containers:
  - name: c
    image: 'busybox:1'
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [88]}}]
    command: [/bin/busybox, sh, -c, 'echo main >> /s/order; if [ $(busybox wc -l < /s/order) -lt 4 ]; then exit 88; fi; busybox cat /s/order']
    volumeMounts: [{name: s, mountPath: /s}]
  volumes: [{name: s, emptyDir: {}}]
---
apiVersion: v1
kind: Pod
metadata: {name: signal}
spec:
  os: {name: linux}
  restartPolicy: Never
  terminationGracePeriodSeconds: 30
  containers:
  - name: c
    image: 'busybox:1'
    lifecycle: {stopSignal: SIGUSR1}
    command: [/bin/busybox, sh, -c, \"trap 'exit 3' USR1; echo ready; while :; do busybox sleep 0.1; done\"]
    readinessProbe: {exec: {command: [/bin/busybox, 'true']}, periodSeconds: 1}
";

fn containers_say_when_they_are_restarted(cluster: &Cluster) {
    let ns = "rules";
    cluster.namespace(ns);
    apply(cluster, ns, RULES);
    ends(cluster, ns, "again");
    assert_eq!(cluster.get(ns, &["pod", "again"])["status"]["containerStatuses"][0]["restartCount"], 1);
    cluster.wait_for("what never runs again to fail", || {
        cluster.get(ns, &["pod", "once"])["status"]["phase"] == "Failed"
    });
    assert_eq!(cluster.get(ns, &["pod", "once"])["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(ends(cluster, ns, "anew"), "init\nmain\ninit\nmain\n");
    cluster.kubectl(ns, &["wait", "pod/signal", "--for=condition=Ready", "--timeout=60s"]);
    let pod = cluster.get(ns, &["pod", "signal"]);
    assert_eq!(pod["status"]["containerStatuses"][0]["stopSignal"], "SIGUSR1");
    // Another signal would take all of the grace period.
    cluster.kubectl(ns, &["delete", "pod", "signal", "--timeout=20s"]);
}

fn what_the_node_cannot_give_is_refused(cluster: &Cluster) {
    let ns = "refused";
    cluster.namespace(ns);
    let pod = |name: &str, more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  securityContext: {{{more}}}\n  \
             containers: [{{name: c, image: 'busybox:1', command: [/bin/busybox, cat, /proc/sys/net/ipv4/tcp_syncookies, /proc/sys/kernel/msgmax]}}]\n---\n"
        )
    };
    let all = [
        pod("sysctl", "sysctls: [{name: net.core.somaxconn, value: '100'}]"),
        pod(
            "allowed",
            "sysctls: [{name: kernel.msgmax, value: '7777'}, {name: net.ipv4.tcp_syncookies, value: '0'}]",
        ),
        pod("profile", "seccompProfile: {type: Localhost, localhostProfile: none.json}"),
        pod("root", "runAsNonRoot: true"),
        pod("armour", "appArmorProfile: {type: RuntimeDefault}"),
    ];
    apply(cluster, ns, &all.concat());
    cluster.wait_for("the pod to be refused", || {
        cluster.get(ns, &["pod", "sysctl"])["status"]["reason"] == "SysctlForbidden"
    });
    let status = cluster.get(ns, &["pod", "sysctl"])["status"].clone();
    let why = "Pod was rejected: forbidden sysctl: \"net.core.somaxconn\" not allowlisted";
    assert_eq!((&status["phase"], &status["message"]), (&"Failed".into(), &why.into()));
    assert_eq!(ends(cluster, ns, "allowed"), "0\n7777\n");
    let wait_reason = |pod: &str, reason: &str| {
        cluster.wait_for(&format!("{pod} to say {reason}"), || {
            waiting(cluster, ns, pod, "c")["reason"] == reason
        });
        waiting(cluster, ns, pod, "c")["message"].as_str().unwrap_or_default().to_owned()
    };
    let why = wait_reason("profile", "CreateContainerError");
    assert!(why.starts_with("cannot load seccomp profile \""), "{why}");
    let why = wait_reason("root", "CreateContainerConfigError");
    assert!(
        why.starts_with("container has runAsNonRoot and image will run as root (pod: \"root_refused("),
        "{why}"
    );
    if !Path::new("/sys/module/apparmor").exists() {
        cluster.wait_for("AppArmor to be missed", || {
            cluster.get(ns, &["pod", "armour"])["status"]["reason"] == "AppArmor"
        });
        let message = cluster.get(ns, &["pod", "armour"])["status"]["message"].clone();
        assert_eq!(message, "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host");
    }
    // A profile that is there is used.
    let folder = cluster.folder("data").join("seccomp");
    std::fs::create_dir_all(&folder).expect("writable folder");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#;
    std::fs::write(folder.join("no-mkdir.json"), profile).expect("writable folder");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: filtered}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: c\n    image: 'busybox:1'\n    command: [/bin/busybox, sh, -c, 'busybox mkdir /x 2>&1; busybox touch /y && echo touched']\n    securityContext: {seccompProfile: {type: Localhost, localhostProfile: no-mkdir.json}}\n";
    apply(cluster, ns, pod);
    assert_eq!(
        ends(cluster, ns, "filtered"),
        "mkdir: can't create directory '/x': Operation not permitted\ntouched\n"
    );
}

const WHOLE: &str = "
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 0
  resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}
  containers:
  - {name: a, image: 'busybox:1', command: [/bin/busybox, sleep, '1000']}
  - {name: b, image: 'busybox:1', command: [/bin/busybox, sleep, '1000']}
";

fn a_pod_has_limits_as_a_whole(cluster: &Cluster) {
    let ns = "whole";
    cluster.namespace(ns);
    apply(cluster, ns, WHOLE);
    cluster.kubectl(ns, &["wait", "pod/whole", "--for=condition=Ready", "--timeout=60s"]);
    let pod = cluster.get(ns, &["pod", "whole"]);
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let below = format!("{}/burstable/pod{uid}", cluster.cgroup());
    let read = |v1: &str, v2: &str| {
        let of = |path: String| std::fs::read_to_string(path).ok();
        let found = of(format!("/sys/fs/cgroup/{v1}").replace("POD", &below));
        found
            .or_else(|| of(format!("/sys/fs/cgroup/{below}/{v2}")))
            .expect("the pod's cgroup")
            .trim()
            .to_owned()
    };
    assert_eq!(read("memory/POD/memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    let quota = read("cpu/POD/cpu.cfs_quota_us", "cpu.max");
    assert!(quota.starts_with("50000"), "{quota}");
    cluster.kubectl(ns, &["delete", "pod", "whole", "--timeout=60s"]);
}

/// A registry that shows the images of an OCI archive to whoever knows the password.
const REGISTRY: &str = include_str!("registry.py");

fn images_are_for_those_who_may_pull_them(cluster: &Cluster) {
    use std::io::BufRead;
    let ns = "private";
    cluster.namespace(ns);
    let archive = cluster.folder("private").join("image.tar");
    let data = format!("--data-dir={}", cluster.folder("data").display());
    let path = archive.display().to_string();
    // Another image than that of all other tests: this one nobody has imported.
    cluster.build(
        "private:1",
        "FROM busybox:1\nCOPY Dockerfile /made-for-this\nCMD [\"/bin/busybox\", \"true\"]\n",
    );
    let image = |args: &[&str]| {
        let mut command = cluster.client(cluster.program("gantry"));
        let said = command.args(["image", args[0], &data]).args(&args[1..]).output().expect("gantry runs");
        assert!(said.status.success(), "{said:?}");
    };
    image(&["export", "--oci", "--output", &path, "private:1"]);
    image(&["rm", "private:1"]);
    let mut registry = cluster.python(REGISTRY, std::slice::from_ref(&path));
    let mut ready = String::new();
    std::io::BufReader::new(registry.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
    assert_eq!(ready, "ready\n");
    let login = ["--docker-server=127.0.0.1:5055", "--docker-username=user"];
    for (name, password) in [("good", "secret"), ("same", "secret"), ("bad", "wrong")] {
        let password = format!("--docker-password={password}");
        cluster.kubectl(
            ns,
            &[&["create", "secret", "docker-registry", name][..], &login, &[&password]].concat(),
        );
    }
    let run = |name: &str, policy: &str, secret: &str| {
        let secrets = if secret.is_empty() { String::new() } else { format!("{{name: {secret}}}") };
        apply(
            cluster,
            ns,
            &format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  imagePullSecrets: [{secrets}]\n  \
             containers: [{{name: c, image: '127.0.0.1:5055/private:1', imagePullPolicy: {policy}}}]\n"
            ),
        );
    };
    let fails = |pod: &str, reasons: &[&str]| {
        cluster.wait_for(&format!("{pod} to have no image"), || {
            waiting(cluster, ns, pod, "c")["reason"].as_str().is_some_and(|reason| reasons.contains(&reason))
        });
    };
    run("first", "IfNotPresent", "good");
    ends(cluster, ns, "first");
    assert_eq!(event(cluster, ns, "first", "Pulling"), "Pulling image \"127.0.0.1:5055/private:1\"");
    // Who has no key, or a bad one, does not get what somebody else has pulled.
    run("none", "IfNotPresent", "");
    run("wrong", "IfNotPresent", "bad");
    run("never", "Never", "");
    fails("none", &["ErrImagePull", "ImagePullBackOff"]);
    fails("wrong", &["ErrImagePull", "ImagePullBackOff"]);
    fails("never", &["ErrImageNeverPull"]);
    // The registry is not needed by those who have the key.
    registry.kill().expect("a process of ours");
    registry.wait().expect("its end");
    for (name, policy, secret) in [("again", "IfNotPresent", "good"), ("other", "Never", "same")] {
        run(name, policy, secret);
        ends(cluster, ns, name);
    }
    cluster.kubectl(ns, &["delete", "pods", "--all", "--timeout=60s"]);
}
