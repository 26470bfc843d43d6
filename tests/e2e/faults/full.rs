//! The disk of the cluster's own data is full: nothing that was acknowledged is lost, pods go on, and everything catches up.

use std::fs;

use serde_json::Value;

use crate::World;
use crate::yard::Yard;

pub const TESTS: &[crate::Test] = &[("full::pods_outlive_a_full_disk", pods_outlive_a_full_disk)];

/// Its beats and its end are written elsewhere.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: out, hostPath: {path: OUT}}]
  containers:
  - name: main
    image: 'busybox:1'
    command: [/bin/busybox, sh, -c]
    args: ['while :; do echo beat >> /out/NAME; [ -e /out/stop-NAME ] && busybox rm /out/stop-NAME && exit 3; busybox sleep 0.1; done']
    volumeMounts: [{name: out, mountPath: /out}]
";

fn pods_outlive_a_full_disk(_: &World) {
    let yard = Yard::new();
    yard.small_disk("96m");
    // The node's own view of a full disk, which ends pods, is another matter.
    let up = || {
        let up = yard.gantry(&["up", "--eviction-hard=memory.available<1Mi"]);
        assert!(up.ok, "{up:?}");
    };
    up();
    let (context, out) = (yard.path("busybox"), yard.path("out"));
    for folder in [&context, &out] {
        fs::create_dir(folder).expect("writable folder");
    }
    fs::copy("/bin/busybox", context.join("busybox")).expect("busybox is installed (make packages)");
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY busybox /bin/busybox\n")
        .expect("writable folder");
    let flag = |name: &str| format!("--{name}-dir={}", yard.path(name).display());
    let context = context.display().to_string();
    let built = yard.gantry(&["build", &flag("data"), &flag("run"), "-t", "busybox:1", &context]);
    assert!(built.ok, "{built:?}");
    for name in ["steady", "brief"] {
        let file = yard.path(&format!("{name}.yaml"));
        let text = POD.replace("NAME", name).replace("OUT", &out.display().to_string());
        fs::write(&file, text).expect("writable folder");
        let made = yard.kubectl(&["apply", "-f", &file.display().to_string()]);
        assert!(made.ok, "{made:?}");
        let ready = yard.kubectl(&["wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=60s"]);
        assert!(ready.ok, "{ready:?}");
    }
    let get = |name: &str| -> Value {
        let said = yard.kubectl(&["get", "pod", name, "-o", "json"]);
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    };
    let container = |name: &str| get(name)["status"]["containerStatuses"][0].clone();
    let beats = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_default().lines().count();
    let before = container("steady");
    assert!(yard.create("kept").ok);

    yard.fill_disk();
    let refused = yard.create("too-much");
    let why = "the store cannot take writes: the disk of the store has";
    assert!(!refused.ok && refused.err.contains(why), "{refused:?}");
    assert!(yard.listed().contains(&"kept".to_owned()), "reading goes on");
    // One ends meanwhile, which cannot be written down; the other one works.
    fs::write(out.join("stop-brief"), "").expect("writable folder");
    yard.wait_for("the brief one to end", || !out.join("stop-brief").exists());
    let beaten = beats("steady");
    yard.wait_for("the steady one to go on", || beats("steady") > beaten + 5);

    yard.free_disk();
    yard.wait_for("writes to work again", || yard.create("after").ok);
    yard.wait_for("the end of the brief one to be told, and its next run", || {
        let brief = container("brief");
        brief["restartCount"] == 1
            && brief["ready"] == true
            && brief["lastState"]["terminated"]["exitCode"] == 3
    });
    assert_eq!(container("steady")["containerID"], before["containerID"]);

    // The power goes while it is full.
    yard.fill_disk();
    let beaten = beats("steady");
    yard.kill();
    yard.wait_for("the steady one to go on", || beats("steady") > beaten + 5);
    yard.free_disk();
    up();
    let listed = yard.listed();
    assert!(["kept", "after"].iter().all(|name| listed.contains(&(*name).to_owned())), "{listed:?}");
    assert!(!listed.contains(&"too-much".to_owned()));
    yard.wait_for("the pods as they were", || {
        let steady = container("steady");
        steady["containerID"] == before["containerID"]
            && steady["ready"] == true
            && container("brief")["ready"] == true
    });
    yard.stop();
    yard.is_clean();
}
