//! Containers that cannot be started, and what that means for their pods.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("starts::a_program_that_is_not_there_has_ended", a_program_that_is_not_there_has_ended),
    ("starts::one_bad_container_holds_nobody_back", one_bad_container_holds_nobody_back),
    ("starts::a_refused_pod_says_why", a_refused_pod_says_why),
    ("starts::what_has_ended_is_shown_while_others_end", what_has_ended_is_shown_while_others_end),
    ("starts::what_a_node_says_of_itself", what_a_node_says_of_itself),
];

fn make(cluster: &Cluster, ns: &str, manifest: &str) {
    let made = cluster.with_manifest(ns, &["create"], manifest);
    assert!(made.ok, "{made:?}\n{manifest}");
}

fn statuses(cluster: &Cluster, ns: &str, pod: &str) -> Vec<Value> {
    let status = cluster.get(ns, &["pod", pod])["status"]["containerStatuses"].clone();
    status.as_array().cloned().unwrap_or_default()
}

fn a_program_that_is_not_there_has_ended(cluster: &Cluster) {
    let ns = "starts";
    cluster.namespace(ns);
    cluster
        .kubectl(ns, &["run", "once", "--image=busybox:1", "--restart=Never", "--command", "--", "/no/such"]);
    cluster.wait_for("the pod to fail", || cluster.get(ns, &["pod", "once"])["status"]["phase"] == "Failed");
    let ended = statuses(cluster, ns, "once")[0]["state"]["terminated"].clone();
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&"StartError".into(), &128.into()));
    assert!(ended["message"].as_str().is_some_and(|m| m.contains("/no/such")), "{ended}");
    assert!(cluster.kubectl(ns, &["get", "pod", "once"]).contains("StartError"));

    // A job gives up as with any other failure.
    let job =
        "{apiVersion: batch/v1, kind: Job, metadata: {name: job}, spec: {backoffLimit: 0, template: {spec: {
        restartPolicy: Never, containers: [{name: a, image: 'busybox:1', command: [/no/such]}]}}}}";
    make(cluster, ns, job);
    cluster.kubectl(ns, &["wait", "job/job", "--for=condition=Failed", "--timeout=60s"]);

    // One that is to go on is tried again, ever later.
    cluster.kubectl(ns, &["run", "again", "--image=busybox:1", "--command", "--", "/no/such"]);
    cluster.wait_for("a restart", || {
        let status = statuses(cluster, ns, "again").pop().unwrap_or_default();
        status["restartCount"].as_i64() > Some(0)
            && status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && status["lastState"]["terminated"]["reason"] == "StartError"
    });
    let events =
        cluster.kubectl(ns, &["get", "events", "--field-selector=involvedObject.name=again", "-o", "wide"]);
    assert!(events.contains("BackOff") && events.contains("/no/such"), "{events}");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn one_bad_container_holds_nobody_back(cluster: &Cluster) {
    let ns = "bad-neighbours";
    cluster.namespace(ns);
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {terminationGracePeriodSeconds: 0, containers: [
        {name: absent, image: 'no-such-image:1', imagePullPolicy: Never},
        {name: broken, image: 'busybox:1', command: [/no/such]},
        {name: odd, image: 'busybox:1', env: [{name: X, valueFrom: {secretKeyRef: {name: none, key: k}}}]},
        {name: good, image: 'busybox:1', command: [/bin/busybox, sleep, '1000']}]}}";
    make(cluster, ns, pod);
    cluster.wait_for("the good one to run", || {
        statuses(cluster, ns, "p").iter().any(|c| c["name"] == "good" && c["ready"] == true)
    });
    let waits = |name: &str| {
        let all = statuses(cluster, ns, "p");
        let status = all.iter().find(|c| c["name"] == name).cloned().unwrap_or_default();
        status["state"]["waiting"]["reason"].as_str().unwrap_or_default().to_owned()
    };
    for (name, why) in [
        ("absent", "ErrImageNeverPull"),
        ("broken", "CrashLoopBackOff"),
        ("odd", "CreateContainerConfigError"),
    ] {
        cluster.wait_for(&format!("{name} to say {why}"), || waits(name) == why);
    }
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn a_refused_pod_says_why(cluster: &Cluster) {
    let ns = "refused-pods";
    cluster.namespace(ns);
    for (name, spec, why) in [
        ("big", "containers: [{name: a, image: 'busybox:1', resources: {requests: {cpu: 1000}}}]", "OutOfcpu"),
        ("windows", "os: {name: windows}, containers: [{name: a, image: 'busybox:1'}]", "PodOSNotSupported"),
        ("sysctl", "securityContext: {sysctls: [{name: kernel.shmmax, value: '1'}, {name: net.core.somaxconn, value: '1'}]},
            containers: [{name: a, image: 'busybox:1'}]", "SysctlForbidden"),
    ] {
        // Past the scheduler, which would not have it come here.
        make(cluster, ns, &format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: node-1, {spec}}}}}"));
        cluster.wait_for(&format!("{name} to be refused"), || {
            cluster.get(ns, &["pod", name])["status"]["phase"] == "Failed"
        });
        let shown = cluster.kubectl(ns, &["get", "pod", name, "--no-headers"]);
        assert!(shown.split_whitespace().nth(2) == Some(why), "{shown}");
    }
}

fn what_a_node_says_of_itself(cluster: &Cluster) {
    let status = cluster.get("default", &["node", "node-1"])["status"].clone();
    let features = [
        "GuaranteedQoSPodCPUResize",
        "InPlacePodLevelResourcesVerticalScaling",
        "RestartAllContainersOnContainerExits",
    ];
    assert_eq!(status["declaredFeatures"], serde_json::json!(features));
    assert!(status["nodeInfo"]["systemUUID"].as_str().is_some_and(|uuid| !uuid.is_empty()), "{status}");
    // An image that is new is told of before long.
    cluster.build("told:1", "FROM busybox:1\nCOPY Dockerfile /made-for-this\n");
    cluster.wait_for("the node to tell of its images", || {
        let images = cluster.get("default", &["node", "node-1"])["status"]["images"].clone();
        let all = images.as_array().cloned().unwrap_or_default();
        let named = |image: &Value, name: &str| {
            image["names"].as_array().is_some_and(|names| names.iter().any(|n| n == name))
        };
        all.iter()
            .any(|image| named(image, "docker.io/library/told:1") && image["sizeBytes"].as_u64() > Some(0))
    });
    // The built-in runtime says what it cannot do.
    let ns = "checkpoints";
    cluster.namespace(ns);
    cluster
        .kubectl(ns, &["run", "p", "--image=busybox:1", "--command", "--", "/bin/busybox", "sleep", "1000"]);
    cluster.kubectl(ns, &["wait", "pod/p", "--for=condition=Ready", "--timeout=60s"]);
    let ask = |container: &str| {
        let path = format!("/api/v1/nodes/node-1/proxy/checkpoint/{ns}/p/{container}");
        cluster.with_manifest(ns, &["create", "--raw", &path], "{}").err
    };
    let why = "takes no checkpoints, which would need CRIU";
    assert!(ask("p").contains(why), "{}", ask("p"));
    assert!(!ask("other").contains(why), "{}", ask("other"));
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}

fn what_has_ended_is_shown_while_others_end(cluster: &Cluster) {
    let ns = "slow-sidecars";
    cluster.namespace(ns);
    // The sidecar takes no notice of being asked to end.
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 600,
        initContainers: [{name: beside, image: 'busybox:1', restartPolicy: Always, command: [/bin/busybox, sleep, '1000']}],
        containers: [{name: main, image: 'busybox:1', command: [/bin/busybox, 'true']}]}}";
    make(cluster, ns, pod);
    cluster.wait_for("the end of the first to be shown", || {
        let main = statuses(cluster, ns, "p").pop().unwrap_or_default();
        main["state"]["terminated"]["reason"] == "Completed" && main["ready"] == false
    });
    assert_eq!(cluster.get(ns, &["pod", "p"])["status"]["phase"], "Running");
    cluster.kubectl(ns, &["delete", "pods", "--all", "--now"]);
}
