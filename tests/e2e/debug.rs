//! Pods that change while they run: containers that look into them, and resources that are resized.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[("debug::a_running_pod_is_looked_into", a_running_pod_is_looked_into)];

fn a_running_pod_is_looked_into(cluster: &Cluster) {
    let ns = "debug";
    cluster.namespace(ns);
    cluster.kubectl(
        ns,
        &["run", "web", "--image=busybox:1", "--command", "--", "/bin/busybox", "sleep", "3600"],
    );
    cluster.kubectl(ns, &["wait", "pod/web", "--for=condition=Ready", "--timeout=60s"]);
    let look = |name: &str, target: &[&str], command: &[&str]| {
        let own = format!("--container={name}");
        let args =
            [&["debug", "web", "--image=busybox:1", &own], target, &["--", "/bin/busybox"], command].concat();
        cluster.kubectl(ns, &args);
    };
    let status = |name: &str| {
        let pod = cluster.get(ns, &["pod", "web"]);
        let all = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["name"] == name).unwrap_or_default()
    };
    look("beside", &["--target=web"], &["ps"]);
    look("alone", &[], &["ps"]);
    look("broken", &[], &["false"]);
    for (name, code) in [("beside", 0), ("alone", 0), ("broken", 1)] {
        cluster
            .wait_for(&format!("{name} to end"), || status(name)["state"]["terminated"]["exitCode"] == code);
        assert_eq!(status(name)["restartCount"], 0);
    }
    let seen = |name: &str| cluster.kubectl(ns, &["logs", "web", "--container", name]);
    assert!(seen("beside").contains("sleep 3600"), "{}", seen("beside"));
    assert!(!seen("alone").contains("sleep 3600"), "{}", seen("alone"));

    let talk = ["debug", "web", "--image=busybox:1", "-i", "--container=talk", "--", "/bin/busybox", "sh"];
    let said = cluster.told(&mut cluster.kubectl_command(ns, &talk), "echo hello-$((40+2))\n");
    assert!(said.out.contains("hello-42"), "{said:?}");
    look("stays", &["--target=web"], &["sleep", "3601"]);
    cluster.wait_for("the last one to run", || status("stays")["state"]["running"].is_object());
    let inside = ["exec", "web", "--container=stays", "--", "/bin/busybox", "ps"];
    assert!(cluster.kubectl(ns, &inside).contains("sleep 3600"));
    let events =
        cluster.kubectl(ns, &["get", "events", "-o", "jsonpath={.items[*].involvedObject.fieldPath}"]);
    assert!(events.contains("spec.ephemeralContainers{stays}"), "{events}");

    // The pod is as it was.
    let pod = cluster.get(ns, &["pod", "web"]);
    let own = &pod["status"]["containerStatuses"][0];
    assert_eq!((&pod["status"]["phase"], &own["restartCount"]), (&Value::from("Running"), &Value::from(0)));
    assert_eq!(own["ready"], true);
    cluster.kubectl(ns, &["delete", "pod", "web", "--now", "--timeout=60s"]);
}
