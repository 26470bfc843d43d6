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
