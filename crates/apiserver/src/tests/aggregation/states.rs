use http::StatusCode;
use serde_json::json;

use super::{
    TOY_SERVICE, TOYS, ToyServer, base64, cluster, condition, register, slice, stand_behind, text, with_toys,
};

#[tokio::test]
async fn what_is_missing_is_named() {
    let (server, proxies) = cluster().await;
    register(&server, json!({"insecureSkipTLSVerify": true})).await;
    let said = condition(&server, "ServiceNotFound").await;
    assert_eq!(said["message"], "service/toys in \"default\" is not present");
    assert_eq!(text(&server, TOYS).await, (503, "service unavailable\n".into()));
    assert_eq!(text(&server, "/apis/toys.example.com/v1").await.0, 503);
    let services = "/api/v1/namespaces/default/services";
    let service = |port: u16| json!({"metadata": {"name": "toys"}, "spec": {"ports": [{"name": "https", "port": port, "targetPort": 8443}]}});
    server.post(services, service(444)).await;
    let said = condition(&server, "ServicePortError").await;
    assert_eq!(said["message"], "service/toys in \"default\" is not listening on port 443");
    server.call(http::Method::DELETE, &format!("{services}/toys"), json!({})).await;
    server.post(services, service(443)).await;
    let said = condition(&server, "EndpointsNotFound").await;
    assert_eq!(said["message"], "cannot find endpointslices for service/toys in \"default\"");
    let toys = ToyServer::start("toys.default.svc", &proxies).await;
    slice(&server, toys.port, false).await;
    let said = condition(&server, "MissingEndpoints").await;
    assert_eq!(
        said["message"],
        "endpointslices for service/toys in \"default\" have no addresses with port name \"https\""
    );
    toys.fail_with(Some(StatusCode::INTERNAL_SERVER_ERROR));
    slice(&server, toys.port, true).await;
    let said = condition(&server, "FailedDiscoveryCheck").await;
    let url = format!("https://127.0.0.1:{}/apis/toys.example.com/v1", toys.port);
    let wanted = format!("failing or missing response from {url}: bad status from {url}: 500");
    assert_eq!((said["status"].as_str(), said["message"].as_str()), (Some("False"), Some(wanted.as_str())));
    toys.fail_with(None);
    server.api.0.aggregation.ask_again();
    let said = condition(&server, "Passed").await;
    assert_eq!(
        (said["status"].as_str(), said["message"].as_str()),
        (Some("True"), Some("all checks passed"))
    );
    assert_eq!(server.get(TOYS).await.0, 200);
}

#[tokio::test]
async fn certificates_must_hold() {
    let (server, proxies) = cluster().await;
    let toys = ToyServer::start("toys.default.svc", &proxies).await;
    let other = ToyServer::start("other.default.svc", &proxies).await;
    stand_behind(&server, toys.port).await;
    // Signed by somebody else than the bundle says.
    register(&server, json!({"caBundle": base64(other.ca.as_bytes())})).await;
    condition(&server, "Passed").await;
    let wanted = "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority\n";
    assert_eq!(text(&server, TOYS).await, (503, wanted.into()));
    // What it says of itself is not believed either.
    let (_, groups) = server.get("/apis/toys.example.com").await;
    assert_eq!(groups["preferredVersion"]["version"], "v1");
    assert!(toys.seen("/openapi").is_empty());
    // For another name.
    slice(&server, other.port, true).await;
    let (code, why) = text(&server, TOYS).await;
    assert!(code == 503 && why.contains("not valid for the name"), "{why}");
    let patch = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    let (code, said) = server.patch(TOY_SERVICE, "application/merge-patch+json", patch).await;
    assert_eq!(code, 200, "{said}");
    server.until(async || server.get(TOYS).await.0 == 200).await;
}

#[tokio::test]
async fn servers_die_and_come_back() {
    let (server, toys) = with_toys().await;
    assert_eq!(server.get(TOYS).await.0, 200);
    toys.die().await;
    let (code, why) = text(&server, TOYS).await;
    let wanted = format!(
        "error trying to reach service: dial tcp 127.0.0.1:{}: connect: connection refused\n",
        toys.port
    );
    assert_eq!((code, why), (503, wanted));
    server.api.0.aggregation.ask_again();
    let said = condition(&server, "FailedDiscoveryCheck").await;
    assert!(said["message"].as_str().unwrap().ends_with("connect: connection refused"), "{said}");
    assert_eq!(text(&server, TOYS).await, (503, "service unavailable\n".into()));
    let (_, table) = server
        .call_as(http::Method::GET, TOY_SERVICE, "application/json", json!(null), Some(&server.admin))
        .await;
    assert_eq!(table["status"]["conditions"][0]["status"], "False");
    let gauge = "aggregator_unavailable_apiservice{name=\"v1.toys.example.com\"} 1";
    let total = "aggregator_unavailable_apiservice_total{name=\"v1.toys.example.com\",reason=\"FailedDiscoveryCheck\"} 1";
    server
        .until(async || {
            let (_, numbers) = text(&server, "/metrics").await;
            numbers.contains(gauge) && numbers.contains(total)
        })
        .await;
    let reborn = toys.rise("toys.default.svc").await;
    server.api.0.aggregation.ask_again();
    condition(&server, "Passed").await;
    assert_eq!(server.get(TOYS).await.0, 200);
    assert_eq!(reborn.seen(TOYS).len(), 1);
    // A connection that has ended while it waited is no reason to fail.
    reborn.die().await;
    let _again = reborn.rise("toys.default.svc").await;
    assert_eq!(server.get(TOYS).await.0, 200);
    // Without its APIService there is nothing.
    server.call(http::Method::DELETE, TOY_SERVICE, json!({})).await;
    assert_eq!(server.get(TOYS).await.0, 404);
}
