use futures::future::join_all;
use serde_json::{Value, json};

use super::TestServer;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
const MERGE: &str = "application/merge-patch+json";

async fn start() -> TestServer {
    let server = TestServer::start().await;
    server.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    server
}

/// A running pod, ready or not.
async fn run(server: &TestServer, name: &str, ready: bool) {
    let pod = json!({"metadata": {"name": name, "labels": {"a": "b"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(server.post(PODS, pod).await.0, 201);
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    assert_eq!(server.patch(&format!("{PODS}/{name}/status"), MERGE, status).await.0, 200);
}

/// A budget about which its controller says this.
async fn budget(server: &TestServer, name: &str, spec: Value, status: Value) {
    let mut budget = json!({"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"a": "b"}}}});
    budget["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    assert_eq!(server.post(BUDGETS, budget).await.0, 201);
    let (code, said) =
        server.patch(&format!("{BUDGETS}/{name}/status"), MERGE, json!({"status": status})).await;
    assert_eq!(code, 200, "{said}");
}

async fn evict(server: &TestServer, pod: &str) -> (u16, String) {
    let (code, said) = server.post(&format!("{PODS}/{pod}/eviction"), eviction(pod)).await;
    let cause = said["details"]["causes"][0]["message"].as_str();
    (code, cause.or(said["message"].as_str()).unwrap_or_default().to_owned())
}

fn eviction(pod: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}})
}

#[tokio::test]
async fn a_budget_pays_for_each_eviction_once() {
    let server = start().await;
    for name in ["p", "q", "r"] {
        run(&server, name, true).await;
    }
    budget(&server, "b", json!({"minAvailable": 2}), json!({})).await;
    let in_work = (429, "The disruption budget b is still being processed by the server.".to_owned());
    assert_eq!(evict(&server, "p").await, in_work);
    let counted = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 3,
        "desiredHealthy": 2, "expectedPods": 3}});
    server.patch(&format!("{BUDGETS}/b/status"), MERGE, counted).await;

    let mut dry = eviction("p");
    dry["deleteOptions"] = json!({"dryRun": ["All"]});
    assert_eq!(server.post(&format!("{PODS}/p/eviction"), dry).await.0, 201);
    let mut outcomes = join_all(["p", "q", "r"].map(|pod| evict(&server, pod))).await;
    outcomes.sort();
    let none_left = (429, "The disruption budget b does not allow evicting pods currently".to_owned());
    assert_eq!(outcomes[0].0, 201, "{outcomes:?}");
    assert_eq!(outcomes[1..], [none_left.clone(), none_left]);

    let (_, paid) = server.get(&format!("{BUDGETS}/b")).await;
    let status = &paid["status"];
    assert_eq!(status["disruptionsAllowed"], 0);
    let (gone, _) = status["disruptedPods"].as_object().unwrap().iter().next().unwrap();
    let condition = &status["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("DisruptionAllowed"), &json!("False")));
    let (_, pod) = server.get(&format!("{PODS}/{gone}")).await;
    assert!(!pod["metadata"]["deletionTimestamp"].is_null(), "{pod}");
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&why["status"], &why["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    assert_eq!((&why["message"], &why["observedGeneration"]), (&json!("Eviction API: evicting"), &json!(1)));
    assert_eq!(evict(&server, gone).await.0, 201, "it is on its way already");
}

#[tokio::test]
async fn what_is_not_healthy_may_go() {
    let server = start().await;
    run(&server, "unready", false).await;
    let pending = json!({"metadata": {"name": "pending", "labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    server.post(PODS, pending).await;
    let none_allowed = json!({"observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1,
        "desiredHealthy": 2, "expectedPods": 3});
    budget(&server, "b", json!({"minAvailable": 2}), none_allowed).await;
    assert_eq!(evict(&server, "pending").await.0, 201);
    let refused = (429, "The disruption budget b needs 2 healthy pods and has 1 currently".to_owned());
    assert_eq!(evict(&server, "unready").await, refused, "the others are too few");
    let enough = json!({"status": {"currentHealthy": 2}});
    server.patch(&format!("{BUDGETS}/b/status"), MERGE, enough).await;
    assert_eq!(evict(&server, "unready").await.0, 201);
    let (_, untouched) = server.get(&format!("{BUDGETS}/b")).await;
    assert!(untouched["status"].get("disruptedPods").is_none(), "{untouched}");
}

#[tokio::test]
async fn an_unhealthy_pod_may_always_go_if_the_budget_says_so() {
    let server = start().await;
    run(&server, "p", false).await;
    let spec = json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow"});
    budget(
        &server,
        "b",
        spec,
        json!({"observedGeneration": 1, "disruptionsAllowed": 0,
        "currentHealthy": 0, "desiredHealthy": 2, "expectedPods": 2}),
    )
    .await;
    assert_eq!(evict(&server, "p").await.0, 201);
}

#[tokio::test]
async fn evictions_that_make_no_sense_are_refused() {
    let server = start().await;
    run(&server, "p", true).await;
    let (code, said) = server.post(&format!("{PODS}/p/eviction"), eviction("other")).await;
    assert_eq!((code, &said["message"]), (400, &json!("name in URL does not match name in Eviction object")));
    assert_eq!(evict(&server, "nobody").await, (404, "pods \"nobody\" not found".into()));
    for name in ["a", "b"] {
        let allowed = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 1,
            "desiredHealthy": 0, "expectedPods": 1});
        budget(&server, name, json!({"minAvailable": 0}), allowed).await;
    }
    let (code, why) = evict(&server, "p").await;
    assert_eq!(code, 500);
    assert!(why.starts_with("This pod has more than one PodDisruptionBudget"), "{why}");
    let failed = json!({"status": {"disruptionsAllowed": 0, "conditions": [{"type": "DisruptionAllowed", "status": "False",
        "reason": "SyncFailed", "message": "no scale", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    server.patch(&format!("{BUDGETS}/b/status"), MERGE, failed).await;
    server.call(http::Method::DELETE, &format!("{BUDGETS}/a"), Value::Null).await;
    let (code, why) = evict(&server, "p").await;
    let wanted =
        "The disruption budget b does not allow evicting pods currently because it failed sync: no scale";
    assert_eq!((code, why.as_str()), (429, wanted));
}
