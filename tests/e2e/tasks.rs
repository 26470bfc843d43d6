//! The next pages of the tutorials and tasks: a queue of work, configuration that changes, sets with storage, load that
//! brings more pods, and pods that end while they are asked. docs/testing.md lists which test is which page.

use serde_json::Value;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("tasks::jobs_share_a_queue", jobs_share_a_queue),
    ("tasks::configuration_is_updated", configuration_is_updated),
    ("tasks::a_set_keeps_its_storage", a_set_keeps_its_storage),
    ("tasks::endings_are_seen_by_those_who_ask", endings_are_seen_by_those_who_ask),
    ("tasks::load_brings_more_pods", load_brings_more_pods),
];

fn apply(cluster: &Cluster, ns: &str, manifest: &str) {
    let said = cluster.with_manifest(ns, &["apply"], manifest);
    assert!(said.ok, "{said:?}\n{manifest}");
}

/// What a script says inside a pod.
fn inside(cluster: &Cluster, ns: &str, pod: &str, script: &str) -> String {
    cluster.try_kubectl(ns, &["exec", pod, "--", "/bin/busybox", "sh", "-c", script]).out.trim().to_owned()
}

/// A store of work behind a Service: each request takes one item, and no two the same.
const QUEUE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: queue}
spec: {selector: {app: queue}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: queue}
data:
  take: |
    #!/bin/busybox sh
    busybox echo "Content-Type: text/plain"; busybox echo
    for item in /queue/work/*; do
      busybox mv "$item" "/queue/taken/${item##*/}" 2>/dev/null && busybox echo "${item##*/}" && break
    done
---
apiVersion: v1
kind: Pod
metadata: {name: queue, labels: {app: queue}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: queue
    image: busybox:1
    command: [/bin/busybox, sh, -c]
    args:
    - |
      # In one mount: what is moved from one to another is copied, and then two may have it.
      busybox mkdir /queue/work /queue/taken
      for item in apple banana cherry date fig grape lemon melon; do busybox touch /queue/work/$item; done
      busybox mkdir -p /www; busybox ln -s /scripts /www/cgi-bin
      exec busybox httpd -f -p 8080 -h /www
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
    volumeMounts:
    - {name: work, mountPath: /queue}
    - {name: scripts, mountPath: /scripts}
  volumes:
  - {name: work, emptyDir: {}}
  - {name: scripts, configMap: {name: queue, defaultMode: 0755}}
"#;

/// Each pod works until nothing is left; the Job is over when one of them says so and all have ended.
const WORKERS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: workers}
spec:
  parallelism: 2
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - name: worker
        image: busybox:1
        command: [/bin/busybox, sh, -c]
        args:
        - |
          while item=$(busybox wget -q -O - http://queue/cgi-bin/take) && [ -n "$item" ]; do
            busybox echo "worked on $item"
          done
"#;

fn jobs_share_a_queue(cluster: &Cluster) {
    let ns = "queue";
    cluster.namespace(ns);
    apply(cluster, ns, QUEUE);
    cluster.kubectl(ns, &["wait", "--for=condition=Ready", "pod/queue", "--timeout=60s"]);
    apply(cluster, ns, WORKERS);
    cluster.kubectl(ns, &["wait", "--for=condition=Complete", "job/workers", "--timeout=90s"]);
    let logs = cluster.kubectl(ns, &["logs", "-l", "job-name=workers", "--tail=-1"]);
    let mut done: Vec<&str> = logs.lines().filter_map(|line| line.strip_prefix("worked on ")).collect();
    done.sort_unstable();
    assert_eq!(done, ["apple", "banana", "cherry", "date", "fig", "grape", "lemon", "melon"]);
    assert_eq!(cluster.get(ns, &["job", "workers"])["status"]["succeeded"], 2);
}

const SHOP: &str = "
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {word: sesame}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: sport}
data: {sport: football}
---
apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: shop
    image: busybox:1
    command: [/bin/busybox, sleep, '1000000']
    env:
    - {name: SPORT, valueFrom: {configMapKeyRef: {name: sport, key: sport}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: key, key: word}}}
    volumeMounts: [{name: config, mountPath: /etc/config}, {name: key, mountPath: /etc/key}]
  volumes:
  - {name: config, configMap: {name: sport}}
  - {name: key, secret: {secretName: key, defaultMode: 0400}}
";

fn configuration_is_updated(cluster: &Cluster) {
    let ns = "shop";
    cluster.namespace(ns);
    apply(cluster, ns, SHOP);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    kubectl(&["wait", "--for=condition=Ready", "pod/shop", "--timeout=60s"]);
    let shop = |script: &str| inside(cluster, ns, "shop", script);
    assert_eq!(shop("busybox echo $SPORT $WORD; busybox cat /etc/config/sport"), "football sesame\nfootball");
    assert_eq!(shop("busybox cat /etc/key/word; busybox stat -Lc ' %a' /etc/key/word"), "sesame 400");
    kubectl(&["patch", "configmap", "sport", "--type=merge", "-p", r#"{"data":{"sport":"cricket"}}"#]);
    cluster.wait_at_most(std::time::Duration::from_secs(120), "the file to follow", || {
        shop("busybox cat /etc/config/sport") == "cricket"
    });
    assert_eq!(shop("busybox echo $SPORT"), "football", "an environment stays as it was");
    kubectl(&["patch", "configmap", "sport", "--type=merge", "-p", r#"{"immutable":true}"#]);
    let change = ["patch", "configmap", "sport", "--type=merge", "-p", r#"{"data":{"sport":"chess"}}"#];
    let refused = cluster.try_kubectl(ns, &change);
    assert!(!refused.ok && refused.err.contains("field is immutable when `immutable` is set"), "{refused:?}");
}

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: nginx}
spec: {clusterIP: None, selector: {app: nginx}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: nginx
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: nginx
        image: busybox:1
        command: [/bin/busybox, sh, -c, 'exec busybox httpd -f -p 8080 -h /www']
        volumeMounts: [{name: www, mountPath: /www}]
  volumeClaimTemplates:
  - metadata: {name: www}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
";

fn a_set_keeps_its_storage(cluster: &Cluster) {
    let ns = "basics";
    cluster.namespace(ns);
    apply(cluster, ns, WEB);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    let rolled_out = || kubectl(&["rollout", "status", "statefulset/web", "--timeout=120s"]);
    rolled_out();
    assert_eq!(kubectl(&["get", "pvc", "-o", "name"]).lines().count(), 2);
    for pod in ["web-0", "web-1"] {
        inside(cluster, ns, pod, "busybox hostname > /www/index.html");
    }
    kubectl(&["delete", "pod", "-l", "app=nginx"]);
    rolled_out();
    let page = |pod: &str| inside(cluster, ns, pod, "busybox wget -q -O - http://127.0.0.1:8080/");
    cluster.wait_for("the pages of the pods before", || {
        (page("web-0"), page("web-1")) == ("web-0".into(), "web-1".into())
    });
    kubectl(&["scale", "statefulset/web", "--replicas=3"]);
    rolled_out();
    // A canary: only the last gets the new version.
    let partition = r#"{"spec":{"updateStrategy":{"type":"RollingUpdate","rollingUpdate":{"partition":2}}}}"#;
    kubectl(&["patch", "statefulset", "web", "-p", partition]);
    kubectl(&["set", "image", "statefulset/web", "nginx=busybox:1", "--record=false"]);
    kubectl(&["set", "env", "statefulset/web", "VERSION=2"]);
    let version = |pod: &str| inside(cluster, ns, pod, "busybox echo $VERSION");
    cluster.wait_for("the canary", || version("web-2") == "2");
    assert_eq!((version("web-0"), version("web-1")), (String::new(), String::new()));
    kubectl(&["patch", "statefulset", "web", "-p", &partition.replace(":2}", ":0}")]);
    rolled_out();
    assert_eq!(version("web-0"), "2");
    // Without its pods, and taken up again by another of its name.
    kubectl(&["delete", "statefulset", "web", "--cascade=orphan"]);
    let before = cluster.get(ns, &["pod", "web-0"])["metadata"]["uid"].clone();
    let again = WEB
        .replace("replicas: 2", "replicas: 1")
        .replace("image: busybox:1", "image: busybox:1\n        env: [{name: VERSION, value: '2'}]");
    apply(cluster, ns, &again);
    cluster.wait_for("one pod to be left", || kubectl(&["get", "pods", "-o", "name"]).trim() == "pod/web-0");
    assert_eq!(cluster.get(ns, &["pod", "web-0"])["metadata"]["uid"], before, "it was taken up");
    assert_eq!(page("web-0"), "web-0");
    kubectl(&["delete", "statefulset", "web"]);
    assert_eq!(kubectl(&["get", "pvc", "-o", "name"]).lines().count(), 3, "what was stored stays");
    kubectl(&["delete", "pvc", "--all", "--timeout=60s"]);
    cluster.wait_for("the volumes to go", || !kubectl(&["get", "pv"]).contains("basics/"));
}

const SLOW: &str = "
apiVersion: v1
kind: Service
metadata: {name: slow}
spec: {selector: {app: slow}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow}
spec:
  replicas: 1
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec:
      terminationGracePeriodSeconds: 60
      containers:
      - name: web
        image: busybox:1
        command: [/bin/busybox, sh, -c, 'busybox mkdir /www; busybox echo here > /www/index.html; exec busybox httpd -f -p 8080 -h /www']
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {exec: {command: [/bin/busybox, sh, -c, 'while ! [ -e /go ]; do busybox sleep 0.1; done']}}}
";

fn endings_are_seen_by_those_who_ask(cluster: &Cluster) {
    let ns = "endings";
    cluster.namespace(ns);
    apply(cluster, ns, SLOW);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    kubectl(&["rollout", "status", "deployment/slow", "--timeout=60s"]);
    let pod = kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    kubectl(&["scale", "deployment/slow", "--replicas=0"]);
    let conditions = || -> Value {
        let slices = cluster.get(ns, &["endpointslices", "-l", "kubernetes.io/service-name=slow"]);
        slices["items"][0]["endpoints"][0]["conditions"].clone()
    };
    let ending = serde_json::json!({"ready": false, "serving": true, "terminating": true});
    cluster.wait_for("the endpoint to be terminating", || conditions() == ending);
    // Nobody else is there, so those who ask are still led to it.
    let address =
        cluster.get(ns, &["service", "slow"])["spec"]["clusterIP"].as_str().expect("one").to_owned();
    cluster.wait_for("an answer from the one that ends", || {
        cluster.fetch(&format!("http://{address}/")).trim() == "here"
    });
    inside(cluster, ns, &pod, "busybox touch /go");
    cluster.wait_for("the endpoint to go", || conditions().is_null());
    kubectl(&["delete", "deployment", "slow"]);
}

const APACHE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: php-apache}
spec:
  replicas: 1
  selector: {matchLabels: {run: php-apache}}
  template:
    metadata: {labels: {run: php-apache}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: php-apache
        image: busybox:1
        # Works as long as it is asked to.
        command: [/bin/busybox, sh, -c, 'while :; do if [ -e /config/busy ]; then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else busybox sleep 0.2; fi; done']
        resources: {requests: {cpu: 20m}, limits: {cpu: 100m}}
        volumeMounts: [{name: config, mountPath: /config}]
      volumes: [{name: config, configMap: {name: load, optional: true}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: php-apache}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: php-apache}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}
";

fn load_brings_more_pods(cluster: &Cluster) {
    let ns = "load";
    cluster.namespace(ns);
    let kubectl = |args: &[&str]| cluster.kubectl(ns, args);
    kubectl(&["create", "configmap", "load", "--from-literal=busy=yes"]);
    apply(cluster, ns, APACHE);
    let late = std::time::Duration::from_secs(240);
    let replicas = || cluster.get(ns, &["deployment", "php-apache"])["status"]["replicas"].clone();
    cluster.wait_at_most(late, "load to bring more pods", || replicas() == 3);
    let shown = kubectl(&["get", "hpa", "php-apache"]);
    assert!(shown.contains("Deployment/php-apache") && shown.contains("/50%"), "{shown}");
    let told = kubectl(&["describe", "hpa", "php-apache"]);
    assert!(told.contains("SuccessfulRescale") && told.contains("ScalingLimited"), "{told}");
    kubectl(&["delete", "configmap", "load"]);
    kubectl(&["create", "configmap", "load"]);
    cluster.wait_at_most(late, "rest to take them away", || replicas() == 1);
    kubectl(&["delete", "-n", ns, "hpa,deployment", "--all"]);
}
