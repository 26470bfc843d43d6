//! Identity providers and webhooks, each served over TLS.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use auth::{CertificateRequest, JwtAuthenticator, Pki, Usage, User};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{MAPS, TestServer};
use crate::respond::empty;
use crate::{
    AccessConfig, AuthorizationWebhook, AuthorizationWebhookOptions, AuthorizerConfig, ConfigFile, Issuer,
    Remote, TokenWebhook,
};

/// A server on a port of its own that answers JSON; a number is a code to fail with.
pub(super) struct Https {
    pub(super) url: String,
    pub(super) authority: String,
    asked: Arc<AtomicUsize>,
    _folder: tempfile::TempDir,
}

impl Https {
    pub(super) async fn start(answer: impl Fn(&str, &str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path(), &base::SystemClock).unwrap();
        let pair = pki
            .issue(&CertificateRequest {
                file: "server".into(),
                common_name: "server".into(),
                organization: String::new(),
                names: vec!["127.0.0.1".into()],
                usage: Usage::Server,
            })
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(auth::server_tls(&pair, pki.ca()).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (asked, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let (own, counter) = (url.clone(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer, own, counter) = (tls.clone(), answer.clone(), own.clone(), counter.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (answer, own, counter) = (answer.clone(), own.clone(), counter.clone());
                        async move {
                            counter.fetch_add(1, Ordering::Relaxed);
                            let path = request.uri().path().to_owned();
                            let bytes = request.into_body().collect().await.unwrap().to_bytes();
                            let body = serde_json::from_slice(&bytes).unwrap_or_default();
                            let said = answer(&own, &path, &body);
                            let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
                            if let Some(code) = said.as_u64() {
                                *response.status_mut() = StatusCode::from_u16(code as u16).unwrap();
                            }
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, authority: pki.ca().to_owned(), asked, _folder: folder }
    }

    pub(super) fn remote(&self) -> Remote {
        Remote::new(&self.url, &self.authority).unwrap()
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn who_am_i(server: &TestServer, token: &str) -> (u16, Value) {
    let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(crate::respond::full("{}"))
        .unwrap();
    server.send(request, None).await
}

#[tokio::test]
async fn identity_providers_are_believed() {
    use base64::Engine as _;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let key = rcgen::KeyPair::generate().unwrap();
    let raw = key.public_key_raw().to_vec();
    let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig",
        "x": encode(&raw[1..33]), "y": encode(&raw[33..])}]});
    let provider = Https::start(move |own, path, _| match path {
        "/.well-known/openid-configuration" => json!({"issuer": own, "jwks_uri": format!("{own}/keys")}),
        _ => keys.clone(),
    })
    .await;
    let rules = JwtAuthenticator::read(&json!({
        "issuer": {"url": provider.url, "audiences": ["gantry"], "certificateAuthority": provider.authority},
        "claimMappings": {"username": {"expression": "'idp:' + claims.sub"}, "groups": {"claim": "roles", "prefix": ""}},
        "userValidationRules": [{"expression": "!user.groups.exists(g, g == 'system:masters')", "message": "no"}],
    }))
    .unwrap();
    let access = AccessConfig { issuers: vec![Issuer::new(rules).unwrap()], ..AccessConfig::default() };
    let server = TestServer::with_access(access).await;
    let signer = EncodingKey::from_ec_pem(key.serialize_pem().as_bytes()).unwrap();
    let token = |changes: Value| {
        let mut claims = json!({"iss": provider.url, "aud": "gantry", "sub": "jane", "roles": ["dev"], "exp": 4_000_000_000_i64});
        for (field, value) in changes.as_object().unwrap() {
            claims[field] = value.clone();
        }
        let header = Header { kid: Some("k".into()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &signer).unwrap()
    };
    let (code, known) = who_am_i(&server, &token(json!({}))).await;
    assert_eq!(code, 201, "{known}");
    assert_eq!(known["status"]["userInfo"]["username"], "idp:jane");
    assert_eq!(known["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
    // Its keys were fetched once.
    assert_eq!(who_am_i(&server, &token(json!({"sub": "joe"}))).await.0, 201);
    assert_eq!(provider.asked(), 2);
    for changes in [
        json!({"aud": "other"}),
        json!({"exp": 1}),
        json!({"roles": ["system:masters"]}),
        json!({"iss": "https://x"}),
    ] {
        let (code, refused) = who_am_i(&server, &token(changes)).await;
        assert_eq!((code, refused["message"].as_str()), (401, Some("Unauthorized")));
    }
}

#[tokio::test]
async fn tokens_that_nobody_knows_are_asked_about() {
    let hook = Https::start(|_, _, review| {
        let known = review["spec"]["token"] == "theirs";
        let user = json!({"username": "ext", "groups": ["g"], "uid": "1", "extra": {"k": ["v"]}});
        json!({"status": {"authenticated": known, "user": user}})
    })
    .await;
    let webhook = TokenWebhook::new(hook.remote(), Duration::from_secs(60), true);
    let access = AccessConfig { token_webhook: Some(webhook), ..AccessConfig::default() };
    let server = TestServer::with_access(access).await;
    for _ in 0..3 {
        let (code, known) = who_am_i(&server, "theirs").await;
        assert_eq!(code, 201, "{known}");
        assert_eq!(known["status"]["userInfo"]["extra"]["k"], json!(["v"]));
        assert_eq!(who_am_i(&server, "nobodys").await.0, 401);
    }
    assert_eq!(hook.asked(), 2, "answers hold");
    assert_eq!(who_am_i(&server, "secret").await.0, 201, "our own are not asked about");
    assert_eq!(hook.asked(), 2);
}

#[tokio::test]
async fn somebody_else_may_decide() {
    let hook = Https::start(|_, _, review| {
        let what = &review["spec"]["resourceAttributes"];
        match what["verb"].as_str() {
            Some("get") => json!({"status": {"allowed": true}}),
            Some("delete") => json!({"status": {"allowed": false, "denied": true, "reason": "never"}}),
            _ => json!({"status": {"allowed": false, "reason": "no rule"}}),
        }
    })
    .await;
    let webhook = AuthorizationWebhook::new(hook.remote(), Default::default())
        .with_conditions(&["request.user == 'eve'".to_owned()])
        .unwrap();
    let modes = ["Webhook".to_owned(), "RBAC".to_owned()];
    let authorizers = AuthorizerConfig::parse(&modes, Some(Arc::new(webhook))).unwrap();
    let server = TestServer::with_access(AccessConfig { authorizers, ..AccessConfig::default() }).await;
    server.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    let ask = async |method: Method, path: &str, user: &str| {
        let request = Request::builder().method(method).uri(path).body(empty()).unwrap();
        server.send(request, Some(&User::authenticated(user, []))).await
    };
    let one = format!("{MAPS}/a");
    assert_eq!(ask(Method::GET, &one, "eve").await.0, 200);
    assert_eq!(ask(Method::GET, &one, "eve").await.0, 200);
    assert_eq!(hook.asked(), 1);
    let (code, refused) = ask(Method::DELETE, &one, "eve").await;
    assert_eq!((code, refused["message"].as_str().unwrap().ends_with(": never")), (403, true), "{refused}");
    assert!(ask(Method::GET, MAPS, "eve").await.1["message"].as_str().unwrap().ends_with(": no rule"));
    // The condition keeps others from it.
    assert_eq!(ask(Method::GET, &one, "adam").await.0, 403);
    assert_eq!(hook.asked(), 3);
}

#[tokio::test]
async fn policies_ask_everybody_who_decides() {
    let hook = Https::start(|_, _, review| {
        let what = &review["spec"]["resourceAttributes"];
        json!({"status": {"allowed": what["verb"] == "create" || what["name"] == "mine" || what["name"] == "ours"}})
    })
    .await;
    // Nothing of what it says is remembered: each request asks again.
    let options =
        AuthorizationWebhookOptions { allowed: Duration::ZERO, denied: Duration::ZERO, ..Default::default() };
    let webhook = AuthorizationWebhook::new(hook.remote(), options);
    let modes = ["Webhook".to_owned(), "RBAC".to_owned()];
    let authorizers = AuthorizerConfig::parse(&modes, Some(Arc::new(webhook))).unwrap();
    let server = TestServer::with_access(AccessConfig { authorizers, ..AccessConfig::default() }).await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]});
    let may = |name: &str| {
        format!(
            "authorizer.group('').resource('secrets').namespace('default').name({name}).check('use').allowed()"
        )
    };
    let policy = json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [rule]}, "validations": [
        {"expression": format!("{} && {}", may("'mine'"), may("object.data.needs")), "message": "not yours"}]}});
    assert_eq!(server.post(&format!("{group}/validatingadmissionpolicies"), policy).await.0, 201);
    let binding =
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
    assert_eq!(server.post(&format!("{group}/validatingadmissionpolicybindings"), binding).await.0, 201);
    let eve = User::authenticated("eve", []);
    let make = async |name: &str, needs: &str| {
        let map = json!({"metadata": {"name": name}, "data": {"needs": needs}});
        server.call_as(Method::POST, MAPS, "application/json", map, Some(&eve)).await
    };
    let (code, made) = make("a", "ours").await;
    assert_eq!((code, hook.asked()), (201, 3), "{made}");
    let (code, refused) = make("b", "theirs").await;
    assert_eq!((code, hook.asked()), (422, 6), "{refused}");
    assert!(refused["message"].as_str().unwrap().ends_with("denied request: not yours"), "{refused}");
}

fn kubeconfig(hook: &Https) -> Value {
    use base64::Engine as _;
    let ca = base64::engine::general_purpose::STANDARD.encode(&hook.authority);
    json!({"current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "h"}}],
        "clusters": [{"name": "h", "cluster": {"server": hook.url, "certificate-authority-data": ca}}]})
}

#[tokio::test]
async fn files_say_who_decides_and_are_read_again() {
    let hook = Https::start(|_, _, review| {
        let spec = &review["spec"];
        let beta = review["apiVersion"] == "authorization.k8s.io/v1beta1" && spec["group"].is_array();
        json!({"status": {"allowed": beta && spec["resourceAttributes"]["verb"] == "list"}})
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (config, path) = (folder.path().join("hook.kubeconfig"), folder.path().join("authorization.yaml"));
    std::fs::write(&config, kubeconfig(&hook).to_string()).unwrap();
    let file = |condition: &str, policy: &str| {
        json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
            {"type": "Webhook", "name": "first", "webhook": {"timeout": "3s", "subjectAccessReviewVersion": "v1beta1", "failurePolicy": policy,
                "matchConditionSubjectAccessReviewVersion": "v1", "matchConditions": [{"expression": condition}],
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": config}}},
            {"type": "RBAC", "name": "rbac"}]})
        .to_string()
    };
    std::fs::write(
        &path,
        file("has(request.resourceAttributes) && request.resourceAttributes.namespace == 'default'", "Deny"),
    )
    .unwrap();
    let every = Duration::from_millis(5);
    let access = AccessConfig {
        authorization_file: Some(ConfigFile { path: path.clone(), every }),
        ..AccessConfig::default()
    };
    let server = TestServer::with_access(access).await;
    let list = async || {
        let request = Request::get(MAPS).body(empty()).unwrap();
        server.send(request, Some(&User::authenticated("eve", []))).await.0
    };
    assert_eq!(list().await, 200);
    let nodes = Request::get("/api/v1/nodes").body(empty()).unwrap();
    assert_eq!(server.send(nodes, Some(&User::authenticated("eve", []))).await.0, 403);
    assert_eq!(hook.asked(), 1);
    // Nonsense changes nothing.
    std::fs::write(&path, file("request.nothing", "Deny")).unwrap();
    let reloads = async |status: &str| {
        let name = format!(
            "apiserver_authorization_config_controller_automatic_reloads_total{{status=\"{status}\"}}"
        );
        server.get("/metrics").await.1.as_str().unwrap().contains(&name)
    };
    server.until(|| reloads("failure")).await;
    assert_eq!(list().await, 200);
    // A condition that fails refuses, if that is the policy.
    std::fs::write(&path, file("request.extra['x'][0] == ''", "Deny")).unwrap();
    server.until(|| reloads("success")).await;
    assert_eq!(list().await, 500);
    std::fs::write(&path, file("request.extra['x'][0] == '' && false", "NoOpinion")).unwrap();
    server.until(async || list().await == 403).await;
}

#[tokio::test]
async fn files_say_who_is_known_and_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authentication.yaml");
    let file = |anonymous: &str| {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {anonymous}\n"
        )
    };
    std::fs::write(&path, file("{enabled: true, conditions: [{path: /livez}]}")).unwrap();
    let every = Duration::from_millis(5);
    let access = AccessConfig {
        authentication_file: Some(ConfigFile { path: path.clone(), every }),
        ..AccessConfig::default()
    };
    let server = TestServer::with_access(access).await;
    let get = async |path: &str| server.send(Request::get(path).body(empty()).unwrap(), None).await.0;
    assert_eq!((get("/livez").await, get("/version").await), (200, 401));
    std::fs::write(&path, file("{enabled: true}")).unwrap();
    server.until(async || get("/version").await == 200).await;
    std::fs::write(&path, file("{enabled: false}")).unwrap();
    server.until(async || get("/livez").await == 401).await;
}

#[tokio::test]
async fn somebody_else_may_know_of_images() {
    let hook = Https::start(|_, _, review| {
        let images = review["spec"]["containers"].as_array().unwrap();
        let asked =
            review["apiVersion"] == "imagepolicy.k8s.io/v1alpha1" && review["spec"]["namespace"] == "default";
        if images.iter().any(|c| c["image"] == "broken") {
            return json!(400);
        }
        let good = asked && images.iter().all(|c| c["image"] == "good");
        json!({"status": {"allowed": good, "reason": "not of ours", "auditAnnotations": {"seen": "yes"}}})
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images.kubeconfig");
    std::fs::write(&path, kubeconfig(&hook).to_string()).unwrap();
    let start = async |open: bool| {
        let config = json!({"imagePolicy": {"kubeConfigFile": path, "defaultAllow": open}});
        let settings = admission::Settings {
            enable: vec!["ImagePolicyWebhook".into()],
            config: json!({"plugins": [{"name": "ImagePolicyWebhook", "configuration": config}]}),
            ..Default::default()
        };
        let server = TestServer::with_admission(AccessConfig::default(), settings).await;
        let account = json!({"metadata": {"name": "default"}});
        server.post("/api/v1/namespaces/default/serviceaccounts", account).await;
        server
    };
    let server = start(false).await;
    let make = async |server: &TestServer, name: &str, image: &str| {
        let pod =
            json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": image}]}});
        server.post("/api/v1/namespaces/default/pods", pod).await
    };
    let (code, made) = make(&server, "a", "good").await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(make(&server, "b", "good").await.0, 201);
    assert_eq!(hook.asked(), 1, "answers hold");
    let (code, refused) = make(&server, "c", "bad").await;
    let why = "pods \"c\" is forbidden: image policy webhook backend denied one or more images: not of ours";
    assert_eq!((code, refused["message"].as_str()), (403, Some(why)));
    assert_eq!(make(&server, "d", "broken").await.0, 403);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "bad"}]}});
    let path = "/api/v1/namespaces/default/pods/a/ephemeralcontainers";
    assert_eq!(server.patch(path, "application/strategic-merge-patch+json", debug).await.0, 403);
    let server = start(true).await;
    let (code, made) = make(&server, "d", "broken").await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["metadata"]["annotations"]["alpha.image-policy.k8s.io/failed-open"], "true");
}
