use auth::User;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{PATIENCE, TOYS, text, with_toys};
use crate::respond::{empty, full};

#[tokio::test]
async fn go_to_the_server_that_is_responsible() {
    let (server, toys) = with_toys().await;
    let toy = json!({"apiVersion": "toys.example.com/v1", "kind": "Toy", "metadata": {"name": "a"}});
    let request = Request::post(format!("{TOYS}?fieldManager=me"))
        .header("content-type", "application/json")
        .header("x-remote-user", "forged")
        .header("x-remote-extra-scopes", "forged")
        .header("connection", "x-private")
        .header("x-private", "1")
        .body(full(toy.to_string()))
        .unwrap();
    let mut user = User::authenticated("jane", [User::MASTERS.to_owned()]);
    user.uid = "u-1".into();
    user.extra.insert("example.com/scopes".into(), vec!["all".into()]);
    let (code, made) = server.send(request, Some(&user)).await;
    assert_eq!((code, &made), (201, &toy));
    let (code, list) = server.get(TOYS).await;
    assert_eq!((code, &list["items"][0]), (200, &toy));
    let seen = toys.seen(TOYS).remove(0);
    let header =
        |name: &str| seen.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(header("x-remote-user"), ["jane"]);
    assert_eq!(header("x-remote-uid"), ["u-1"]);
    assert_eq!(header("x-remote-group"), ["system:masters", "system:authenticated"]);
    assert_eq!(header("x-remote-extra-example.com%2fscopes"), ["all"]);
    assert!(header("x-remote-extra-scopes").is_empty() && header("x-private").is_empty());
    assert_eq!(header("host"), ["toys.default.svc"]);
    assert!(seen.known, "it shows a front proxy's certificate");
    // Whatever the path and query are, they arrive as they were.
    let (code, echo) = server.get("/apis/toys.example.com/v1/odd/a%2Fb/c?x=%20y&watch=0").await;
    assert_eq!((code, echo["path"].as_str()), (200, Some("/apis/toys.example.com/v1/odd/a%2Fb/c")));
    assert_eq!(echo["query"], "x=%20y&watch=0");
}

#[tokio::test]
async fn watches_come_as_they_happen() {
    let (server, _toys) = with_toys().await;
    let request = Request::get(format!("{TOYS}?watch=true")).body(empty()).unwrap();
    let mut body = server.api.handle(request, Some(&server.admin)).await.into_body();
    for name in ["a", "b"] {
        server.post(TOYS, json!({"metadata": {"name": name}})).await;
        let frame = timeout(PATIENCE, body.frame()).await.unwrap().unwrap().unwrap();
        let event: Value = serde_json::from_slice(&frame.into_data().unwrap()).unwrap();
        assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
    }
    // They end with the server.
    server.api.0.drain.start();
    assert!(timeout(PATIENCE, body.frame()).await.unwrap().is_none());
}

#[tokio::test]
async fn those_without_rights_do_not_get_there() {
    let (server, toys) = with_toys().await;
    let eve = User::authenticated("eve", []);
    let (code, refused) =
        server.call_as(Method::GET, TOYS, "application/json", Value::Null, Some(&eve)).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "toys.toys.example.com is forbidden: User \"eve\" cannot list resource \"toys\" in API group \"toys.example.com\" in the namespace \"default\""
    );
    let (code, _) = server
        .call_as(Method::GET, "/apis/toys.example.com/v1/x/y", "application/json", Value::Null, Some(&eve))
        .await;
    assert_eq!(code, 403);
    assert!(toys.seen(TOYS).is_empty());
    let role = json!({"metadata": {"name": "toys"}, "rules":
        [{"apiGroups": ["toys.example.com"], "resources": ["toys"], "verbs": ["list"]}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await;
    let binding = json!({"metadata": {"name": "toys"}, "subjects": [{"kind": "User", "name": "eve"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "toys"}});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await;
    assert_eq!(server.call_as(Method::GET, TOYS, "application/json", Value::Null, Some(&eve)).await.0, 200);
    assert_eq!(toys.seen(TOYS)[0].headers["x-remote-user"], "eve");
}

#[tokio::test]
async fn redirects_are_not_passed_on() {
    let (server, _toys) = with_toys().await;
    let (code, why) = text(&server, &format!("{TOYS}/a/moved")).await;
    let wanted = "the backend attempted to redirect this request, which is not permitted";
    assert_eq!((code, why.as_str()), (502, wanted));
}

/// A connection to the API that speaks TLS.
pub(super) async fn connect(server: &super::TestServer) -> tokio_rustls::client::TlsStream<TcpStream> {
    let folder = tempfile::tempdir().unwrap();
    let pki = auth::Pki::open(folder.path(), &base::SystemClock).unwrap();
    let request = auth::CertificateRequest {
        file: "api".into(),
        common_name: "api".into(),
        organization: String::new(),
        names: vec!["localhost".into()],
        usage: auth::Usage::Both,
    };
    let pair = pki.issue(&request).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = crate::Tls::new(&pair, pki.ca()).unwrap();
    tokio::spawn(server.api.clone().serve(listener, tls, server.api.0.drain.clone()));
    let config = std::sync::Arc::new(auth::client_tls(&pair, pki.ca()).unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    tokio_rustls::TlsConnector::from(config).connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// Asks for another protocol, and says something in it.
pub(super) async fn echo(server: &super::TestServer, path: &str) {
    let role = json!({"metadata": {"name": "api"}, "subjects": [{"kind": "User", "name": "api"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", role).await;
    let mut stream = connect(server).await;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(timeout(PATIENCE, stream.read_u8()).await.unwrap().unwrap());
    }
    let said = String::from_utf8(said).unwrap();
    assert!(said.starts_with("HTTP/1.1 101"), "{said}");
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn other_protocols_pass_through() {
    let (server, toys) = with_toys().await;
    let path = format!("{TOYS}/a/exec?command=ls");
    echo(&server, &path).await;
    let seen = toys.seen(&format!("{TOYS}/a/exec")).remove(0);
    assert_eq!(seen.headers["x-remote-user"], "api");
    assert_eq!(
        (&seen.headers["upgrade"], &seen.headers["connection"]),
        (&"echo".parse().unwrap(), &"Upgrade".parse().unwrap())
    );
}
