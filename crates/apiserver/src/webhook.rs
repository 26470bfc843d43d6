//! Calls to webhooks: one POST over HTTPS to a URL or a service, on a connection that is kept for the next one
//! (kubernetes/kubernetes, `apiserver/pkg/util/webhook/client.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use types::str_at;

use crate::state::Inner;
use crate::subresources::service_address;
use crate::trace;

/// The most a webhook may answer.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// How many connections to one webhook wait for their next use.
const MOST_IDLE: usize = 8;

/// A call that came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebhookError {
    #[error("invalid webhook client configuration: {0}")]
    Config(String),
    #[error("unable to load root certificates: {0}")]
    Roots(String),
    #[error("Post {url:?}: {why}")]
    Connect { url: String, why: String },
    #[error("Post {url:?}: context deadline exceeded")]
    Timeout { url: String },
    #[error("{why}")]
    Refused { why: String },
}

/// Connections to webhooks.
#[derive(Default)]
pub(crate) struct Webhooks {
    idle: Mutex<HashMap<Place, Vec<SendRequest<Full<Bytes>>>>>,
    tls: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

/// Where a webhook is, and whom its certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    address: String,
    name: String,
    authority: String,
}

struct Target {
    place: Place,
    path: String,
    /// As errors show it.
    url: String,
}

impl Webhooks {
    /// Posts JSON to the webhook that a `clientConfig` names, and gives the JSON it answers.
    pub(crate) async fn post(
        &self,
        server: &Inner,
        config: &Value,
        body: Vec<u8>,
        timeout: Duration,
    ) -> Result<Value, WebhookError> {
        let target = target(server, config, timeout)?;
        let attributes = || vec![("url.full", trace::Value::Text(target.url.clone()))];
        let call = async {
            let answer = tokio::time::timeout(timeout, self.exchange(server, &target, body.into())).await;
            answer.unwrap_or_else(|_| Err(WebhookError::Timeout { url: target.url.clone() }))
        };
        let (code, bytes) =
            Box::pin(trace::timed("Call webhook", trace::Kind::Client, attributes, call)).await?;
        if !code.is_success() {
            return Err(WebhookError::Refused { why: refusal(code, &bytes) });
        }
        serde_json::from_slice(&bytes).map_err(|e| WebhookError::Refused {
            why: format!("couldn't get version/kind; json parse error: {e}"),
        })
    }

    async fn exchange(
        &self,
        server: &Inner,
        target: &Target,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), WebhookError> {
        // A connection that has waited may have ended meanwhile; a new one has the last word.
        while let Some(mut sender) = self.take(&target.place) {
            if sender.ready().await.is_ok()
                && let Ok(answer) = self.send(sender, target, body.clone()).await
            {
                return Ok(answer);
            }
        }
        let sender = self.connect(server, target).await?;
        self.send(sender, target, body).await
    }

    fn take(&self, place: &Place) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().get_mut(place)?.pop()
    }

    async fn connect(
        &self,
        server: &Inner,
        target: &Target,
    ) -> Result<SendRequest<Full<Bytes>>, WebhookError> {
        let place = &target.place;
        let broken = |why: String| WebhookError::Connect { url: target.url.clone(), why };
        let tls = self.tls(server, &place.authority)?;
        let stream = TcpStream::connect(&place.address)
            .await
            .map_err(|e| broken(format!("dial tcp {}: connect: {}", place.address, lower(&e))))?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(place.name.clone()).map_err(|e| broken(e.to_string()))?;
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await;
        let stream = stream.map_err(|e| broken(format!("tls: {e}")))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broken(e.to_string()))?;
        // It ends when the sender is dropped or the other side has had enough.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn send(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        target: &Target,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), WebhookError> {
        let broken = |why: String| WebhookError::Connect { url: target.url.clone(), why };
        let request = Request::builder()
            .method(Method::POST)
            .uri(&target.path)
            .header(header::HOST, &target.place.name)
            .header(header::CONTENT_TYPE, crate::respond::JSON)
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, concat!("gantry/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body));
        let mut request = request.map_err(|e| broken(e.to_string()))?;
        trace::inject(request.headers_mut());
        let response = sender.send_request(request).await.map_err(|e| broken(e.to_string()))?;
        let (parts, body) = response.into_parts();
        let bytes = Limited::new(body, MOST_BYTES).collect().await.map_err(|e| broken(e.to_string()))?;
        let mut idle = self.idle.lock();
        let waiting = idle.entry(target.place.clone()).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push(sender);
        }
        Ok((parts.status, bytes.to_bytes()))
    }

    /// TLS settings that trust the given authorities (PEM), or without any the public ones and the cluster's own.
    fn tls(&self, server: &Inner, authority: &str) -> Result<Arc<ClientConfig>, WebhookError> {
        if let Some(config) = self.tls.lock().get(authority) {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore::empty();
        let pem = if authority.is_empty() {
            roots.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
            server.config.ca_pem.as_str()
        } else {
            authority
        };
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|e| WebhookError::Roots(e.to_string()))?;
            roots.add(certificate).map_err(|e| WebhookError::Roots(e.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| WebhookError::Roots(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        self.tls.lock().insert(authority.to_owned(), config.clone());
        Ok(config)
    }
}

fn target(server: &Inner, config: &Value, timeout: Duration) -> Result<Target, WebhookError> {
    let authority = match str_at(config, &["caBundle"]) {
        Some(text) => types::decode_base64(text)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| WebhookError::Roots("the bundle is not PEM in base64".into()))?,
        None => String::new(),
    };
    let query = format!("timeout={}s", timeout.as_secs());
    if let Some(url) = str_at(config, &["url"]) {
        let uri: http::Uri = url.parse().map_err(|e| WebhookError::Config(format!("url {url:?}: {e}")))?;
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(WebhookError::Config(format!("url {url:?} is no https URL")));
        };
        let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(443));
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        let url = format!("https://{}{path}?{query}", uri.authority().map_or(host, |a| a.as_str()));
        let place = Place { address, name, authority };
        return Ok(Target { place, path: format!("{path}?{query}"), url });
    }
    let service = &config["service"];
    let (Some(namespace), Some(service_name)) = (str_at(service, &["namespace"]), str_at(service, &["name"]))
    else {
        return Err(WebhookError::Config("neither a URL nor a service is named".into()));
    };
    let port = service["port"].as_u64().unwrap_or(443);
    let path = format!("/{}", str_at(service, &["path"]).unwrap_or_default().trim_start_matches('/'));
    let name = format!("{service_name}.{namespace}.svc");
    let url = format!("https://{name}:{port}{path}?{query}");
    let address = service_address(server, namespace, service_name, &port.to_string());
    let address = address.ok_or_else(|| WebhookError::Connect {
        url: url.clone(),
        why: match server.store.get("services", &crate::object::key(namespace, service_name)) {
            Some(_) => format!("no endpoints available for service {service_name:?}"),
            None => format!("service {service_name:?} not found"),
        },
    })?;
    Ok(Target { place: Place { address, name, authority }, path: format!("{path}?{query}"), url })
}

/// What a client makes of an answer that is no success (upstream: `client-go/rest/request.go`,
/// `newUnstructuredResponseError`).
fn refusal(code: StatusCode, bytes: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(bytes)
        && status["kind"] == "Status"
        && let Some(message) = str_at(&status, &["message"])
    {
        return message.to_owned();
    }
    match code {
        StatusCode::NOT_FOUND => "the server could not find the requested resource".into(),
        StatusCode::BAD_REQUEST => "the server rejected our request for an unknown reason".into(),
        code if code.is_server_error() => format!(
            "an error on the server ({:?}) has prevented the request from succeeding",
            String::from_utf8_lossy(bytes).trim()
        ),
        code => format!(
            "the server responded with the status code {} but did not return more information",
            code.as_u16()
        ),
    }
}

fn lower(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}
