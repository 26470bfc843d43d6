//! What kubectl shows of objects.

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("kubectl::lists_what_there_is", lists_what_there_is),
    ("kubectl::creates_and_shows_every_common_kind", creates_and_shows_every_common_kind),
    ("kubectl::applies_and_edits", applies_and_edits),
    ("kubectl::scales_and_exposes", scales_and_exposes),
    ("kubectl::explains", explains),
    ("kubectl::asks_for_rights", asks_for_rights),
    ("kubectl::refuses_wrong_manifests", refuses_wrong_manifests),
    ("kubectl::waits_and_deletes", waits_and_deletes),
];

fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

fn lists_what_there_is(cluster: &Cluster) {
    contains(&cluster.kubectl("default", &["version"]), &["Server Version: v1.36"]);
    contains(&cluster.kubectl("default", &["get", "namespaces"]), &["default", "kube-system", "Active"]);
    contains(
        &cluster.kubectl("default", &["api-resources"]),
        &["deployments", "deploy", "apps/v1", "Deployment"],
    );
    contains(&cluster.kubectl("default", &["api-versions"]), &["apps/v1", "networking.k8s.io/v1"]);
    contains(
        &cluster.kubectl("default", &["get", "services", "-A", "-o", "wide"]),
        &["10.43.0.1", "443/TCP", "kube-dns"],
    );
    contains(
        &cluster.kubectl("default", &["get", "--raw", "/readyz?verbose"]),
        &["[+]store ok", "readyz check passed"],
    );
    contains(&cluster.kubectl("default", &["get", "--raw", "/metrics"]), &["verb=\"LIST\",version=\"v1\""]);
    contains(&cluster.kubectl("default", &["cluster-info"]), &["control plane", "is running at"]);
    let empty = cluster.try_kubectl("kube-public", &["get", "pods"]);
    contains(&empty.err, &["No resources found in kube-public namespace."]);
}

fn creates_and_shows_every_common_kind(cluster: &Cluster) {
    let ns = "common-kinds";
    cluster.namespace(ns);
    for (args, said) in [
        (vec!["create", "configmap", "c", "--from-literal=a=b"], "configmap/c created"),
        (vec!["create", "secret", "generic", "s", "--from-literal=x=y"], "secret/s created"),
        (vec!["create", "serviceaccount", "bob"], "serviceaccount/bob created"),
        (vec!["create", "quota", "q", "--hard=pods=2,memory=1Gi"], "resourcequota/q created"),
        (
            vec!["create", "role", "r", "--verb=get", "--resource=pods"],
            "role.rbac.authorization.k8s.io/r created",
        ),
        (
            vec!["create", "rolebinding", "rb", "--role=r", "--user=u"],
            "rolebinding.rbac.authorization.k8s.io/rb created",
        ),
        (vec!["create", "ingress", "i", "--rule=foo.com/=svc:80"], "ingress.networking.k8s.io/i created"),
        (
            vec!["create", "poddisruptionbudget", "p", "--min-available=1", "--selector=a=b"],
            "poddisruptionbudget.policy/p created",
        ),
        (vec!["create", "cronjob", "cj", "--image=x", "--schedule=0 0 1 1 *"], "cronjob.batch/cj created"),
        (vec!["create", "service", "clusterip", "svc", "--tcp=80:8080"], "service/svc created"),
    ] {
        let out = cluster.kubectl(ns, &args);
        assert_eq!(out.trim(), said);
    }
    assert_eq!(cluster.kubectl(ns, &["get", "configmap", "c", "-o", "jsonpath={.data.a}"]), "b");
    contains(
        &cluster.kubectl(ns, &["get", "configmap", "c", "-o", "yaml"]),
        &["apiVersion: v1", "kind: ConfigMap", "resourceVersion:"],
    );
    assert_eq!(cluster.get(ns, &["secret", "s"])["data"]["x"], "eQ==");
    contains(&cluster.kubectl(ns, &["get", "cronjob", "cj"]), &["0 0 1 1 *", "False", "<none>"]);
    assert_eq!(cluster.kubectl(ns, &["get", "quota", "q", "-o", "jsonpath={.spec.hard.memory}"]), "1Gi");
    contains(&cluster.kubectl(ns, &["get", "ingress", "i"]), &["foo.com", "80"]);
    contains(
        &cluster.kubectl(ns, &["describe", "service", "svc"]),
        &["ClusterIP", "80/TCP", "TargetPort:", "8080/TCP"],
    );
    let again = cluster.try_kubectl(ns, &["create", "configmap", "c"]);
    contains(&again.err, &["configmaps \"c\" already exists"]);
}

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'web:1', ports: [{containerPort: 80}], resources: {limits: {memory: 64Mi}}}
";

fn applies_and_edits(cluster: &Cluster) {
    let ns = "applies";
    cluster.namespace(ns);
    let applied = cluster.with_manifest(ns, &["apply"], WEB);
    assert_eq!(applied.out.trim(), "deployment.apps/web created", "{}", applied.err);
    assert_eq!(cluster.with_manifest(ns, &["apply"], WEB).out.trim(), "deployment.apps/web unchanged");
    let changed = cluster.with_manifest(ns, &["apply"], &WEB.replace("web:1", "web:2"));
    assert_eq!(changed.out.trim(), "deployment.apps/web configured", "{}", changed.err);
    let web = cluster.get(ns, &["deployment", "web"]);
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "web:2");
    assert_eq!(web["metadata"]["generation"], 2);
    contains(&cluster.kubectl(ns, &["get", "deployment", "-o", "wide"]), &["CONTAINERS", "web:2", "app=web"]);
    cluster.kubectl(ns, &["label", "deployment", "web", "tier=front"]);
    cluster.kubectl(ns, &["annotate", "deployment", "web", "note=x"]);
    cluster.kubectl(ns, &["set", "image", "deployment/web", "web=web:3"]);
    cluster.kubectl(ns, &["set", "env", "deployment/web", "COLOUR=blue"]);
    cluster.kubectl(ns, &["patch", "deployment", "web", "-p", r#"{"spec":{"minReadySeconds":3}}"#]);
    cluster.kubectl(
        ns,
        &[
            "patch",
            "deployment",
            "web",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/metadata/annotations/note"}]"#,
        ],
    );
    let web = cluster.get(ns, &["deployment", "web"]);
    assert_eq!(web["metadata"]["labels"]["tier"], "front");
    assert_eq!(web["metadata"]["annotations"].get("note"), None);
    let container = &web["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (container["image"].as_str(), container["env"][0]["value"].as_str()),
        (Some("web:3"), Some("blue"))
    );
    assert_eq!(web["spec"]["minReadySeconds"], 3);
    contains(
        &cluster.kubectl(ns, &["describe", "deployment", "web"]),
        &["web:3", "COLOUR:", "RollingUpdateStrategy:"],
    );
    contains(
        &cluster.kubectl(ns, &["get", "deployments", "-l", "tier=front", "-o", "name"]),
        &["deployment.apps/web"],
    );
    cluster.kubectl(ns, &["rollout", "pause", "deployment/web"]);
    assert_eq!(cluster.get(ns, &["deployment", "web"])["spec"]["paused"], true);
    cluster.kubectl(ns, &["rollout", "resume", "deployment/web"]);
}

fn scales_and_exposes(cluster: &Cluster) {
    let ns = "scales";
    cluster.namespace(ns);
    cluster.with_manifest(ns, &["apply"], WEB);
    contains(
        &cluster.kubectl(ns, &["scale", "deployment", "web", "--replicas=0"]),
        &["deployment.apps/web scaled"],
    );
    contains(
        &cluster.kubectl(ns, &["expose", "deployment", "web", "--type=NodePort", "--port=80"]),
        &["service/web exposed"],
    );
    let service = cluster.get(ns, &["service", "web"]);
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().expect("a node port");
    assert!((30000..=32767).contains(&port), "{port}");
    assert_eq!(service["spec"]["selector"]["app"], "web");
    cluster.kubectl(ns, &["autoscale", "deployment", "web", "--min=1", "--max=3", "--cpu=80%"]);
    contains(&cluster.kubectl(ns, &["get", "hpa", "web"]), &["Deployment/web", "1", "3"]);
}

fn explains(cluster: &Cluster) {
    contains(
        &cluster.kubectl("default", &["explain", "pod.spec.containers"]),
        &["FIELD: containers <[]Container>", "image"],
    );
    contains(
        &cluster.kubectl("default", &["explain", "deployment", "--recursive"]),
        &["GROUP:", "apps", "strategy"],
    );
}

fn asks_for_rights(cluster: &Cluster) {
    let ns = "rights";
    cluster.namespace(ns);
    assert_eq!(cluster.kubectl(ns, &["auth", "can-i", "create", "pods"]).trim(), "yes");
    assert_eq!(cluster.try_kubectl(ns, &["auth", "can-i", "create", "pods", "--as=eve"]).out.trim(), "no");
    cluster.kubectl(ns, &["create", "rolebinding", "eve", "--clusterrole=view", "--user=eve"]);
    assert_eq!(cluster.kubectl(ns, &["auth", "can-i", "list", "pods", "--as=eve"]).trim(), "yes");
    let refused = cluster.try_kubectl(ns, &["create", "configmap", "x", "--as=eve"]);
    contains(
        &refused.err,
        &["User \"eve\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"rights\""],
    );
    contains(&cluster.kubectl(ns, &["auth", "whoami"]), &["kubernetes-admin", "system:masters"]);
    contains(&cluster.kubectl(ns, &["auth", "can-i", "--list", "--as=eve"]), &["pods"]);
    cluster.kubectl(ns, &["create", "serviceaccount", "bob"]);
    let token = cluster.kubectl(ns, &["create", "token", "bob"]);
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
}

fn refuses_wrong_manifests(cluster: &Cluster) {
    let ns = "wrong";
    cluster.namespace(ns);
    for (manifest, message) in [
        (WEB.replace("replicas: 0", "replica: 0"), "strict decoding error: unknown field \"spec.replica\""),
        (
            WEB.replace("replicas: 0", "replicas: many"),
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            WEB.replace("{app: web}}\n    spec", "{app: other}}\n    spec"),
            "`selector` does not match template `labels`",
        ),
        (
            WEB.replace("name: web, labels", "name: Web_1, labels"),
            "a lowercase RFC 1123 subdomain must consist of",
        ),
        (WEB.replace("64Mi", "much"), "quantities must match the regular expression"),
        (WEB.replace("Deployment", "Deploymint"), "no matches for kind \"Deploymint\""),
    ] {
        let said = cluster.with_manifest(ns, &["apply"], &manifest);
        assert!(!said.ok, "{manifest}");
        contains(&said.err, &[message]);
    }
}

fn waits_and_deletes(cluster: &Cluster) {
    let ns = "waits";
    cluster.namespace(ns);
    cluster.kubectl(ns, &["create", "configmap", "a"]);
    cluster.kubectl(ns, &["create", "configmap", "b"]);
    contains(
        &cluster.kubectl(ns, &["delete", "configmap", "a", "b"]),
        &["configmap \"a\" deleted", "configmap \"b\" deleted"],
    );
    let gone = cluster.try_kubectl(ns, &["get", "configmap", "a"]);
    contains(&gone.err, &["Error from server (NotFound): configmaps \"a\" not found"]);
    cluster.kubectl(ns, &["create", "configmap", "c"]);
    cluster.kubectl(ns, &["wait", "configmap/c", "--for=jsonpath={.metadata.name}=c", "--timeout=10s"]);
}
