use std::sync::Arc;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_never_exceed_a_quota() {
    let server = Arc::new(TestServer::start().await);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"configmaps": "10"}}});
    server.made("/api/v1/namespaces/default/resourcequotas", quota).await;
    let before = server.get(MAPS).await.1["items"].as_array().unwrap().len();
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let server = server.clone();
            tokio::spawn(async move { server.post(MAPS, map(&format!("m{i}"), json!({}))).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        let (code, said) = task.await.unwrap();
        match code {
            201 => made += 1,
            _ => assert!(
                said["message"].as_str().unwrap().contains("exceeded quota: q, requested: configmaps=1"),
                "{said}"
            ),
        }
    }
    assert_eq!(made + before, 10);
    let (_, quota) = server.get("/api/v1/namespaces/default/resourcequotas/q").await;
    assert_eq!(quota["status"]["used"]["configmaps"], "10");
}

#[tokio::test]
async fn what_goes_is_counted_no_more() {
    const QUOTA: &str = "/api/v1/namespaces/default/resourcequotas/q";
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let server = TestServer::start().await;
    server.made("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let before = server.get(MAPS).await.1["items"].as_array().unwrap().len();
    server.made(MAPS, map("a", json!({}))).await;
    let hard = json!({"configmaps": "10", "pods": "2", "requests.cpu": "1", "limits.cpu": "4"});
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": hard}});
    server.made("/api/v1/namespaces/default/resourcequotas", quota).await;
    let used_is = |resource: &'static str, amount: String| {
        let (server, amount) = (&server, amount.clone());
        move || {
            let amount = amount.clone();
            async move { server.get(QUOTA).await.1["status"]["used"][resource] == amount.as_str() }
        }
    };
    // Nothing was written since the quota came.
    server.until(used_is("configmaps", (before + 1).to_string())).await;
    server.until(used_is("pods", "0".into())).await;
    server.gone(&format!("{MAPS}/a")).await;
    server.until(used_is("configmaps", before.to_string())).await;

    // It was charged a moment ago.
    server.made(MAPS, map("b", json!({}))).await;
    server.gone(&format!("{MAPS}/b")).await;
    server.clock.advance(std::time::Duration::from_secs(4));
    server.until(used_is("configmaps", before.to_string())).await;

    let resources = json!({"requests": {"cpu": "400m"}, "limits": {"cpu": "2"}});
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "i", "resources": resources}]}})
    };
    server.made(PODS, pod("p")).await;
    server.made(PODS, pod("q")).await;
    server.until(used_is("requests.cpu", "800m".into())).await;
    let over = json!({"status": {"phase": "Succeeded"}});
    server.patch(&format!("{PODS}/p/status"), "application/merge-patch+json", over).await;
    server.until(used_is("requests.cpu", "400m".into())).await;
    server.until(used_is("pods", "1".into())).await;

    let wider = json!({"spec": {"hard": {"pods": "5", "secrets": "3"}}});
    server.patch(QUOTA, "application/merge-patch+json", wider).await;
    server.until(used_is("secrets", "0".into())).await;
    assert_eq!(server.get(QUOTA).await.1["status"]["hard"]["pods"], "5");
}
