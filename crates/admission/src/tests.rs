use std::sync::{Arc, LazyLock};
use std::time::Duration;

use auth::User;
use base::{Ids, SeededIds, Timestamp};
use cel::{AuthzDecision, AuthzRequest};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;
use registry::{Registry, ResourceDef};
use serde_json::{Value, json};
use types::{Reason, Status};

use crate::{Chain, Cluster, Notes, Objects, Operation, Request, Settings, SettingsError, Swap};

/// A cluster of fixed objects, whose users may do what their names say.
struct Fixed {
    objects: Mutex<Vec<(String, Value)>>,
    ids: SeededIds,
}

fn has(object: &Value, namespace: &str, name: &str) -> bool {
    let meta = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    meta("name") == name && meta("namespace") == namespace
}

impl Objects for Fixed {
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects
            .lock()
            .iter()
            .find(|(t, o)| t == table && has(o, namespace, name))
            .map(|(_, o)| o.clone())
    }

    fn list(&self, table: &str) -> Vec<Value> {
        self.objects.lock().iter().filter(|(t, _)| t == table).map(|(_, o)| o.clone()).collect()
    }
}

impl Cluster for Fixed {
    fn last_change(&self, table: &str) -> u64 {
        self.list(table).len() as u64
    }

    fn list_in(&self, table: &str, namespace: &str) -> Vec<Value> {
        let mut all = self.list(table);
        all.retain(|o| o["metadata"]["namespace"] == namespace);
        all
    }

    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn ids(&self) -> &dyn Ids {
        &self.ids
    }

    fn authorize(&self, user: &User, request: &AuthzRequest) -> AuthzDecision {
        AuthzDecision { allowed: user.name == "root" || user.name == request.verb, ..Default::default() }
    }

    fn settle(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }

    fn post<'a>(&'a self, _: &'a Value, _: Vec<u8>, _: Duration) -> BoxFuture<'a, Result<Value, String>> {
        async { Err("nobody is there".to_owned()) }.boxed()
    }

    fn review_images<'a>(&'a self, review: &'a Value) -> BoxFuture<'a, Result<Value, String>> {
        self.post(review, Vec::new(), Duration::ZERO)
    }

    fn convert<'a>(
        &'a self,
        _: &'a ResourceDef,
        _: &'a ResourceDef,
        object: Value,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        async { Ok(object) }.boxed()
    }

    fn refit(&self, _: &ResourceDef, _: &mut Value) -> Result<(), Status> {
        Ok(())
    }

    fn swap<'a>(&'a self, table: &'a str, old: &'a Value, new: Value) -> BoxFuture<'a, Result<Swap, Status>> {
        let mut objects = self.objects.lock();
        let found = objects.iter_mut().find(|(t, o)| t == table && o == old);
        let swap = found.map_or(Swap::Lost, |(_, o)| {
            *o = new;
            Swap::Done
        });
        async { Ok(swap) }.boxed()
    }

    fn make_namespace<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Status>> {
        self.objects.lock().push(("namespaces".into(), json!({"metadata": {"name": name}})));
        async { Ok(()) }.boxed()
    }
}

static REGISTRY: LazyLock<Arc<Registry>> = LazyLock::new(|| {
    // What is off by default has rules, too.
    let switches = "certificates.k8s.io/v1beta1=true".parse().unwrap();
    Arc::new(Registry::serving(&switches).unwrap())
});

/// One cluster and what runs in it.
pub(crate) struct World {
    cluster: Fixed,
    chain: Chain,
    user: User,
}

/// A write, and what it meets.
pub(crate) struct Attempt<'a> {
    /// `group/resource/subresource`.
    resource: &'a str,
    operation: Operation,
    namespace: &'a str,
    object: Value,
    old: Option<Value>,
}

fn create<'a>(resource: &'a str, object: Value) -> Attempt<'a> {
    Attempt { resource, operation: Operation::Create, namespace: "a", object, old: None }
}

pub(crate) fn update<'a>(resource: &'a str, object: Value, old: Value) -> Attempt<'a> {
    Attempt { operation: Operation::Update, old: Some(old), ..create(resource, object) }
}

impl World {
    pub(crate) fn with(enable: &[&str], more: Vec<(&str, Value)>) -> Self {
        let mut objects = vec![
            ("namespaces", json!({"metadata": {"name": "a"}})),
            (
                "namespaces",
                json!({"metadata": {"name": "going", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ),
            ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "a"}})),
        ];
        objects.extend(more);
        let objects = objects.into_iter().map(|(t, o)| (t.to_owned(), o)).collect();
        let settings = Settings {
            enable: enable.iter().map(|n| (*n).to_owned()).collect(),
            config: json!({"plugins": [
                {"name": "EventRateLimit", "configuration": {"limits": [{"type": "Namespace", "qps": 1, "burst": 2}]}},
                {"name": "PodNodeSelector", "configuration": {"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "zone=z"}}}]}),
            ..Settings::default()
        };
        Self {
            cluster: Fixed { objects: Mutex::new(objects), ids: SeededIds::new(1) },
            chain: Chain::new(&settings).unwrap(),
            user: User { name: "eve".into(), ..User::default() },
        }
    }

    fn named(self, name: &str) -> Self {
        let groups =
            if name.starts_with("system:node:") { vec!["system:nodes".to_owned()] } else { Vec::new() };
        Self { user: User { name: name.into(), groups, ..User::default() }, ..self }
    }

    pub(crate) fn run(&self, attempt: Attempt<'_>) -> (Result<Value, Status>, Notes) {
        let Attempt { resource, operation, namespace, mut object, old } = attempt;
        let parts: Vec<&str> = resource.split('/').collect();
        let versions = ["v1", "v1beta1", "v1alpha1"];
        let def = versions.iter().find_map(|v| REGISTRY.find(parts[0], v, parts[1])).unwrap();
        let namespace = if def.namespaced { namespace } else { "" };
        let name = object["metadata"]["name"].as_str().unwrap_or("p").to_owned();
        let request = Request::new(&REGISTRY, def, operation, &self.user)
            .object(namespace, &name)
            .subresource(parts.get(2).copied().unwrap_or_default());
        let mut notes = Notes::default();
        let (chain, cluster) = (&self.chain, &self.cluster);
        let gone = operation == Operation::Delete;
        let work = async {
            if !gone {
                chain.admit(&request, Some(&mut object), old.as_ref(), cluster, &mut notes).await?;
            }
            let object = (!gone).then_some(&object);
            chain.validate(&request, object, old.as_ref(), cluster, &mut notes).await
        };
        let outcome = work.now_or_never().unwrap();
        (outcome.map(|()| object), notes)
    }

    fn made(&self, attempt: Attempt<'_>) -> Value {
        self.run(attempt).0.unwrap()
    }

    fn refused(&self, attempt: Attempt<'_>) -> String {
        self.run(attempt).0.unwrap_err().message
    }
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec})
}

#[test]
fn a_pod_gets_account_token_tolerations_and_priority() {
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    let world = World::with(&[], vec![("priorityclasses.scheduling.k8s.io", class)]);
    let made = world.made(create("/pods", pod(json!({"priorityClassName": "high"}))));
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["priority"], 1000);
    for (spec, why) in [
        (
            json!({"serviceAccountName": "x"}),
            "pods \"p\" is forbidden: error looking up service account a/x: serviceaccount \"x\" not found",
        ),
        (
            json!({"priorityClassName": "x"}),
            "pods \"p\" is forbidden: no PriorityClass with name x was found",
        ),
        (
            json!({"runtimeClassName": "x"}),
            "pods \"p\" is forbidden: pod rejected: RuntimeClass \"x\" not found",
        ),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pods \"p\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ] {
        assert_eq!(world.refused(create("/pods", pod(spec))), why);
    }
}

#[test]
fn namespaces_end_and_some_never_do() {
    let world = World::with(&[], vec![]);
    let map = || json!({"metadata": {"name": "x"}});
    world.made(create("/configmaps", map()));
    assert_eq!(
        world.refused(Attempt { namespace: "none", ..create("/configmaps", map()) }),
        "namespaces \"none\" not found"
    );
    let going = world.refused(Attempt { namespace: "going", ..create("/configmaps", map()) });
    assert!(going.contains("being terminated"), "{going}");
    let delete = |name: &str| {
        let object = json!({"metadata": {"name": name}});
        Attempt { operation: Operation::Delete, ..create("/namespaces", object) }
    };
    assert!(world.run(delete("kube-system")).0.is_err());
    assert!(world.run(delete("a")).0.is_ok());
}

#[test]
fn limit_ranges_fill_in_and_hold() {
    let range = json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
            "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "10"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}]}});
    let world = World::with(&[], vec![("limitranges", range)]);
    let made = world.made(create("/pods", pod(json!({}))));
    assert_eq!(
        made["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
    );
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let with = |resources: Value| pod(json!({"containers": [{"name": "c", "resources": resources}]}));
    let big = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}});
    assert_eq!(
        world.refused(create("/pods", with(big))),
        "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    let small = json!({"requests": {"cpu": "10m"}, "limits": {"cpu": "1"}});
    assert_eq!(
        world.refused(create("/pods", with(small))),
        "pods \"p\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, cpu max limit to request ratio per Container is 10, but provided ratio is 100.000000]"
    );
    let claim = json!({"metadata": {"name": "p"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    assert!(
        world
            .refused(create("/persistentvolumeclaims", claim))
            .ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi")
    );
}

fn quota(hard: Value) -> Value {
    json!({"metadata": {"name": "q", "namespace": "a", "resourceVersion": "1"}, "spec": {"hard": hard}})
}

#[test]
fn quotas_are_charged_counted_and_held() {
    let world = World::with(&[], vec![("resourcequotas", quota(json!({"pods": "2", "requests.cpu": "1"})))]);
    let with = |name: &str, cpu: &str| {
        let mut pod = pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}));
        pod["metadata"]["name"] = name.into();
        pod
    };
    assert_eq!(
        world.refused(create("/pods", pod(json!({})))),
        "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: c"
    );
    let first = world.made(create("/pods", with("one", "600m")));
    let status =
        |world: &World| world.cluster.get("resourcequotas", "a", "q").unwrap()["status"]["used"].clone();
    assert_eq!(status(&world), json!({"pods": "1", "requests.cpu": "600m"}));
    let over = "pods \"two\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert_eq!(world.refused(create("/pods", with("two", "500m"))), over);
    world.cluster.objects.lock().push(("pods".into(), first));
    assert_eq!(world.refused(create("/pods", with("two", "500m"))), over);
    world.made(create("/pods", with("two", "400m")));
    assert_eq!(status(&world), json!({"pods": "2", "requests.cpu": "1"}));
    // What is gone is free again: before a refusal, everything is counted anew.
    world.cluster.objects.lock().retain(|(t, _)| t != "pods");
    world.made(create("/pods", with("three", "500m")));
    let scoped = json!({"metadata": {"name": "q", "namespace": "a", "resourceVersion": "1"},
        "spec": {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}});
    let world = World::with(&[], vec![("resourcequotas", scoped)]);
    world.made(create("/pods", with("one", "1")));
    assert!(world.refused(create("/pods", pod(json!({})))).contains("exceeded quota: q, requested: pods=1"));
    let counted = World::with(
        &[],
        vec![("resourcequotas", quota(json!({"count/configmaps": "0", "services.nodeports": "1"})))],
    );
    assert!(
        counted
            .refused(create("/configmaps", json!({"metadata": {"name": "m"}})))
            .contains("count/configmaps=1")
    );
    let service =
        |ports: Value| json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": ports}});
    assert!(counted.refused(create("/services", service(json!([{"port": 1}, {"port": 2}])))).contains(
        "requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1"
    ));
}

#[test]
fn namespaces_ask_for_pod_security() {
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    let world = World::with(&[], vec![]);
    world.cluster.objects.lock()[0].1["metadata"]["labels"] = labels.clone();
    assert_eq!(
        world.refused(create("/pods", pod(json!({"hostPID": true})))),
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"
    );
    let (made, notes) = world.run(create("/pods", pod(json!({}))));
    assert!(made.is_ok());
    assert!(
        notes.warnings[0]
            .starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation")
    );
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": pod(json!({"hostPID": true}))}});
    let (made, notes) = world.run(create("apps/deployments", deployment));
    assert!(made.is_ok() && notes.warnings[0].contains("host namespaces"));
    world.cluster.objects.lock().push(("pods".into(), pod(json!({"hostPID": true}))));
    let namespace = |labels: Value| json!({"metadata": {"name": "a", "labels": labels}});
    let (_, notes) = world.run(update("/namespaces", namespace(labels), namespace(json!({}))));
    assert_eq!(
        notes.warnings,
        [
            "existing pods in namespace \"a\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "p: host namespaces"
        ]
    );
    let bad = namespace(json!({"pod-security.kubernetes.io/enforce": "loose"}));
    assert_eq!(
        world.refused(create("/namespaces", bad)),
        "Namespace \"a\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"loose\": must be one of privileged, baseline, restricted"
    );
}

#[test]
fn classes_are_chosen_and_claims_grow_where_they_may() {
    let class = |name: &str, created: &str| {
        json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": name == "new"})
    };
    const CLASSES: &str = "storageclasses.storage.k8s.io";
    let world = World::with(
        &["StorageObjectInUseProtection"],
        vec![
            (CLASSES, class("old", "2020-01-01T00:00:00Z")),
            (CLASSES, class("new", "2021-01-01T00:00:00Z")),
        ],
    );
    let claim = |size: &str, class: &str| {
        let mut claim = json!({"metadata": {"name": "c"}, "status": {"phase": "Bound"},
            "spec": {"resources": {"requests": {"storage": size}}}});
        if !class.is_empty() {
            claim["spec"]["storageClassName"] = class.into();
        }
        claim
    };
    let made = world.made(create("/persistentvolumeclaims", claim("1Gi", "")));
    assert_eq!(made["spec"]["storageClassName"], "new");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let grow = |class: &str| update("/persistentvolumeclaims", claim("2Gi", class), claim("1Gi", class));
    world.made(grow("new"));
    assert!(world.refused(grow("old")).contains("only dynamically provisioned pvc can be resized"));
}

#[test]
fn signers_decide_on_certificates() {
    let csr = |name: &str| json!({"metadata": {"name": "c"}, "spec": {"signerName": name}});
    let approve =
        || update("certificates.k8s.io/certificatesigningrequests/approval", csr("a.b/c"), csr("a.b/c"));
    assert_eq!(
        World::with(&[], vec![]).refused(approve()),
        "certificatesigningrequests.certificates.k8s.io \"c\" is forbidden: user not permitted to approve requests with signerName \"a.b/c\""
    );
    World::with(&[], vec![]).named("approve").made(approve());
    let signed = || {
        let mut new = csr("a.b/c");
        new["status"]["certificate"] = "x".into();
        update("certificates.k8s.io/certificatesigningrequests/status", new, csr("a.b/c"))
    };
    assert!(World::with(&[], vec![]).refused(signed()).contains("user not permitted to sign requests"));
    World::with(&[], vec![]).named("sign").made(signed());
}

#[test]
fn signers_answer_pods() {
    let request = |status: Value| json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"signerName": "a.b/c"}, "status": status});
    let change = |status: Value| {
        update("certificates.k8s.io/podcertificaterequests/status", request(status), request(json!({})))
    };
    let issued = json!({"certificateChain": "x", "notBefore": "1970-01-01T00:04:00Z"});
    assert_eq!(
        World::with(&[], vec![]).refused(change(issued.clone())),
        "PodCertificateRequest.certificates.k8s.io \"r\" is invalid: spec.signerName: Forbidden: User \"eve\" is not permitted to \"sign\" for signer \"a.b/c\""
    );
    World::with(&[], vec![]).named("sign").made(change(issued));
    // Who denies need not be able to sign.
    World::with(&[], vec![]).made(change(json!({"conditions": [{"type": "Denied"}]})));
    let early = json!({"certificateChain": "x", "notBefore": "1970-01-01T00:06:00Z"});
    let said = World::with(&[], vec![]).named("sign").refused(change(early));
    assert!(said.contains("must be set to within 5 minutes of kube-apiserver's current time"), "{said}");
}

#[test]
fn nodes_ask_for_certificates_of_their_own_pods() {
    let meta = |name: &str, uid: &str| json!({"name": name, "namespace": "a", "uid": uid});
    let on = |name: &str, node: &str| json!({"metadata": meta(name, name), "spec": {"nodeName": node, "serviceAccountName": "s"}});
    let mut mirror = on("mirror", "n");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let objects = vec![
        ("nodes", json!({"metadata": {"name": "n", "uid": "n-uid"}})),
        ("serviceaccounts", json!({"metadata": meta("s", "s-uid")})),
        ("pods", on("own", "n")),
        ("pods", on("other", "m")),
        ("pods", mirror),
    ];
    let world = World::with(&["NodeRestriction"], objects).named("system:node:n");
    let ask = |change: Value| {
        let mut spec = json!({"signerName": "a.b/c", "podName": "own", "podUID": "own", "serviceAccountName": "s",
            "serviceAccountUID": "s-uid", "nodeName": "n", "nodeUID": "n-uid"});
        types::patch::merge_patch(&mut spec, change);
        create(
            "certificates.k8s.io/podcertificaterequests",
            json!({"metadata": {"name": "r", "namespace": "a"}, "spec": spec}),
        )
    };
    world.made(ask(json!({})));
    for (change, why) in [
        (json!({"nodeName": "m"}), "which is not the requesting node \"n\""),
        (json!({"nodeUID": "x"}), "NodeUID is not the UID of node \"n\""),
        (json!({"podName": "gone"}), "which does not exist"),
        (json!({"podUID": "x"}), "PodUID is not the UID of pod \"own\""),
        (json!({"podName": "other", "podUID": "other"}), "which is not on node \"n\""),
        (json!({"podName": "mirror", "podUID": "mirror"}), "which is a mirror pod"),
        (json!({"serviceAccountName": "t"}), "which pod \"own\" has not"),
        (json!({"serviceAccountUID": "x"}), "is not the UID of service account \"s\""),
    ] {
        let said = world.refused(ask(change));
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn plugins_on_request() {
    let world = World::with(&["AlwaysPullImages", "ExtendedResourceToleration", "PodNodeSelector"], vec![]);
    let made = world.made(create(
        "/pods",
        pod(json!({"containers": [{"name": "c", "imagePullPolicy": "Never", "resources": {"requests": {"example.com/gpu": "1"}}}]})),
    ));
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["nodeSelector"], json!({"zone": "z"}));
    assert!(made["spec"]["tolerations"].as_array().unwrap().iter().any(|t| t["key"] == "example.com/gpu"));
    let clash = pod(json!({"nodeSelector": {"zone": "y"}}));
    assert!(
        world.refused(create("/pods", clash)).ends_with("conflicts with its namespace node label selector")
    );

    let world = World::with(&["LimitPodHardAntiAffinityTopology", "DenyServiceExternalIPs"], vec![]);
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}});
    assert!(
        world
            .refused(create("/pods", pod(apart)))
            .contains("has TopologyKey zone but only key kubernetes.io/hostname is allowed")
    );
    let service = json!({"metadata": {"name": "s"}, "spec": {"externalIPs": ["1.2.3.4"]}});
    assert!(world.refused(create("/services", service.clone())).contains("Use of external IPs is denied"));
    world.made(update("/services", service.clone(), service));

    let world = World::with(&["EventRateLimit"], vec![]);
    let event = || create("/events", json!({"metadata": {"name": "e"}}));
    world.made(event());
    world.made(event());
    let status = world.run(event()).0.unwrap_err();
    assert_eq!(
        (status.reason, status.message.as_str()),
        (Some(Reason::TooManyRequests), "limit reached on type Namespace for key a")
    );

    let world = World::with(&["NamespaceAutoProvision"], vec![]);
    world.made(Attempt { namespace: "fresh", ..create("/configmaps", json!({"metadata": {"name": "m"}})) });
}

#[test]
fn owners_are_set_by_those_who_may() {
    let owned = || {
        json!({"metadata": {"name": "m", "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "o",
            "uid": "1", "blockOwnerDeletion": true}]}})
    };
    let world = World::with(&["OwnerReferencesPermissionEnforcement"], vec![]);
    assert!(world.refused(create("/configmaps", owned())).contains(
        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on"
    ));
    let bare = json!({"metadata": {"name": "m"}});
    assert!(
        world
            .refused(update("/configmaps", owned(), bare))
            .contains("cannot set an ownerRef on a resource you can't delete")
    );
    World::with(&["OwnerReferencesPermissionEnforcement"], vec![])
        .named("root")
        .made(create("/configmaps", owned()));
}

#[test]
fn nodes_keep_to_their_own() {
    let world = World::with(&["NodeRestriction"], vec![]).named("system:node:n");
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": {}});
    assert!(
        world
            .refused(update("/nodes", node("other", json!({})), node("other", json!({}))))
            .contains("node \"n\" is not allowed to modify node \"other\"")
    );
    let labels = json!({"node-restriction.kubernetes.io/x": "1", "kubernetes.io/hostname": "n", "own": "1"});
    assert_eq!(
        world.refused(create("/nodes", node("n", labels))),
        "nodes \"n\" is forbidden: node \"n\" is not allowed to set the following labels: node-restriction.kubernetes.io/x"
    );
    assert!(world.refused(create("/pods", pod(json!({})))).contains("can only create mirror pods"));
    let of = |node: &str| pod(json!({"nodeName": node}));
    world.made(update("/pods/status", of("n"), of("n")));
    assert!(
        world
            .refused(update("/pods/status", of("m"), of("m")))
            .contains("can only update pod status for pods with spec.nodeName set to itself")
    );
    assert!(
        world
            .refused(create("/serviceaccounts/token", json!({"metadata": {"name": "default"}, "spec": {}})))
            .contains("node requested token not bound to a pod")
    );
}

#[test]
fn a_node_takes_its_finalizer_off_its_volumes_and_changes_nothing_else() {
    let world = World::with(&["NodeRestriction"], vec![]).named("system:node:n");
    let volume = |node: &str, finalizers: Value, more: Value| {
        let mut volume = json!({"metadata": {"name": "v", "finalizers": finalizers}, "spec": {
            "csi": {"driver": "local.gantry.io", "volumeHandle": "v", "volumeAttributes": {"node": node}}}});
        types::patch::merge_patch(&mut volume, more);
        volume
    };
    let both = json!(["kubernetes.io/pv-protection", "local.gantry.io/data"]);
    let other = json!(["kubernetes.io/pv-protection"]);
    let change = |node: &str, from: &Value, to: &Value, more: Value| {
        let from = volume(node, from.clone(), json!({}));
        update("/persistentvolumes", volume(node, to.clone(), more), from)
    };
    world.made(change("n", &both, &other, json!({})));
    world.made(change("n", &json!(["local.gantry.io/data"]), &Value::Null, json!({})));
    assert!(world.refused(change("m", &both, &other, json!({}))).contains("whose data it keeps"));
    let only = "may only take the finalizer \"local.gantry.io/data\" off";
    assert!(world.refused(change("n", &both, &json!(["local.gantry.io/data"]), json!({}))).contains(only));
    assert!(world.refused(change("n", &other, &both, json!({}))).contains(only));
    let larger = json!({"spec": {"capacity": {"storage": "1Ti"}}});
    assert!(world.refused(change("n", &both, &other, larger)).contains(only));
}

#[test]
fn settings_name_plugins() {
    let settings = |enable: &[&str], disable: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Settings { enable: all(enable), disable: all(disable), ..Settings::default() }
    };
    assert_eq!(
        Chain::new(&settings(&["Nothing"], &[])).err(),
        Some(SettingsError::Unknown("Nothing".into()))
    );
    assert_eq!(
        Chain::new(&settings(&["PodSecurity"], &["PodSecurity"])).err(),
        Some(SettingsError::Both("PodSecurity".into()))
    );
    let chain = Chain::new(&settings(&["AlwaysPullImages"], &["LimitRanger"])).unwrap();
    let names: Vec<_> = chain.names().collect();
    assert!(names.contains(&"AlwaysPullImages") && !names.contains(&"LimitRanger"));
}

fn policies(expression: &str) -> Vec<(&'static str, Value)> {
    let rules = json!({"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]});
    let policy = |field: &str, value: Value| {
        let mut spec = json!({"matchConstraints": rules, "variables": [{"name": "v", "expression": expression}],
            "matchConditions": [{"name": "m", "expression": expression}]});
        spec[field] = value;
        json!({"metadata": {"name": "p"}, "spec": spec})
    };
    let binding =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    vec![
        (
            "validatingadmissionpolicies.admissionregistration.k8s.io",
            policy("validations", json!([{"expression": expression, "messageExpression": expression}])),
        ),
        ("validatingadmissionpolicybindings.admissionregistration.k8s.io", binding.clone()),
        (
            "mutatingadmissionpolicies.admissionregistration.k8s.io",
            policy("mutations", json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}])),
        ),
        ("mutatingadmissionpolicybindings.admissionregistration.k8s.io", binding),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_policy_panics(expression in "[a-zA-Z.()'+<=&|! 0-9\\[\\]?:,{}]{0,40}", name in ".{0,8}", data in ".{0,8}") {
        let world = World::with(&[], policies(&expression));
        let _ = world.run(create("/configmaps", json!({"metadata": {"name": name}, "data": {"k": data}})));
        let world = World::with(&[], policies("object.data['k'] == 'x' || variables.v"));
        let _ = world.run(create("/configmaps", json!({"metadata": {"name": name}, "data": data})));
    }

    #[test]
    fn no_pod_panics(fields in proptest::collection::vec(("[a-zA-Z]{1,12}", 0..6usize), 0..6)) {
        let mut spec = json!({});
        for (name, kind) in fields {
            spec[name.as_str()] = [json!(null), json!([]), json!({}), json!("x"), json!(-1), json!([{"name": 1}])][kind].clone();
        }
        let world = World::with(&["AlwaysPullImages", "NodeRestriction", "PodNodeSelector"], vec![]).named("system:node:n");
        let _ = world.run(create("/pods", json!({"metadata": {"name": "p"}, "spec": spec})));
    }
}
