//! HTTP requests of probes and hooks (kubernetes/kubernetes, `pkg/probe/http`).

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::check::{Outcome, dial};

/// More of an answer is not read (`maxRespBodyLength`).
const MOST_BODY: usize = 10 << 10;
const MOST_REDIRECTS: usize = 10;

/// A GET request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Get {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Get {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.authority(), self.path)
    }

    /// The request that a redirection asks for; none if it leads to another host.
    fn redirected(&self, location: &str) -> Option<Self> {
        let uri: http::Uri = location.parse().ok()?;
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let Some(host) = uri.host() else { return Some(Self { path, ..self.clone() }) };
        let https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        (host == self.host).then(|| Self { https, port, path, ..self.clone() })
    }
}

/// What a server said.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Follows redirections on the same host; everything from 200 to 399 passes.
pub(crate) async fn probe(get: &Get, timeout: Duration) -> Outcome {
    let follow = async {
        let mut get = get.clone();
        for _ in 0..MOST_REDIRECTS {
            let answer = match send(&get, timeout).await {
                Ok(answer) => answer,
                Err(why) => return Outcome::Failed(why),
            };
            match (answer.status, &answer.location) {
                (301 | 302 | 303 | 307 | 308, Some(location)) => match get.redirected(location) {
                    Some(next) => get = next,
                    None => {
                        let body = String::from_utf8_lossy(&answer.body).into_owned();
                        return Outcome::Warned(format!("Probe terminated redirects, Response body: {body}"));
                    }
                },
                (200..=399, _) => return Outcome::Passed,
                (code, _) => return Outcome::Failed(format!("HTTP probe failed with statuscode: {code}")),
            }
        }
        Outcome::Failed(format!("Get {:?}: stopped after {MOST_REDIRECTS} redirects", get.url()))
    };
    let late = || {
        let url = get.url();
        Outcome::Failed(format!(
            "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        ))
    };
    tokio::time::timeout(timeout, follow).await.unwrap_or_else(|_| late())
}

/// One request and its answer.
pub(crate) async fn send(get: &Get, timeout: Duration) -> Result<Answer, String> {
    let said = |why: &dyn std::fmt::Display| format!("Get {:?}: {why}", get.url());
    let stream = dial(&get.host, get.port, timeout).await.map_err(|e| said(&e))?;
    if get.https {
        let name = ServerName::try_from(get.host.clone()).map_err(|e| said(&e))?;
        let connector = TlsConnector::from(Arc::new(trusting().map_err(|e| said(&e))?));
        let stream = connector.connect(name, stream).await.map_err(|e| said(&e))?;
        exchange(get, stream).await.map_err(|e| said(&e))
    } else {
        exchange(get, stream).await.map_err(|e| said(&e))
    }
}

async fn exchange(
    get: &Get,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(async move {
        // Its failure shows in the answer.
        let _ = connection.await;
    }));
    let mut request = http::Request::get(&get.path);
    let given = |name: &str| get.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    for (name, value) in &get.headers {
        // An empty value takes a header away (`v1.ProbeHandler`, as upstream reads it).
        if !value.is_empty() {
            request = request.header(name, value);
        }
    }
    for (name, value) in
        [(HOST, get.authority()), (USER_AGENT, "kube-probe/1.36".into()), (ACCEPT, "*/*".into())]
    {
        if !given(name.as_str()) {
            request = request.header(name, value);
        }
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
    // What is beyond the limit does not matter.
    let body = Limited::new(response.into_body(), MOST_BODY).collect().await;
    let body = body.map(|b| b.to_bytes().to_vec()).unwrap_or_default();
    drop(connection);
    Ok(Answer { status, location, body })
}

/// Ends a task with whoever waits for it.
pub(super) struct AbortOnDrop(pub(super) tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A TLS client that believes everybody: a probe asks whether somebody answers, not who.
fn trusting() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let verifier = Arc::new(Anybody(provider));
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A server that gives each request the next answer and says what it was asked.
    async fn server(answers: &'static [&'static str]) -> (u16, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = vec![0; 4096];
                let len = stream.read(&mut buffer).await.unwrap();
                asked.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (port, asked)
    }

    fn get(port: u16) -> Get {
        Get {
            https: false,
            host: "127.0.0.1".into(),
            port,
            path: "/x".into(),
            headers: vec![("X-A".into(), "b".into())],
        }
    }

    const LIMIT: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn codes_decide() {
        let (port, asked) = server(&[
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n",
        ])
        .await;
        assert_eq!(probe(&get(port), LIMIT).await, Outcome::Passed);
        let failed = Outcome::Failed("HTTP probe failed with statuscode: 500".into());
        assert_eq!(probe(&get(port), LIMIT).await, failed);
        let asked = asked.await.unwrap();
        for part in ["GET /x HTTP/1.1", "x-a: b", "user-agent: kube-probe/1.36", "host: 127.0.0.1:"] {
            assert!(asked[0].to_lowercase().contains(&part.to_lowercase()), "{part}: {}", asked[0]);
        }
    }

    #[tokio::test]
    async fn redirections_stay_on_the_host() {
        let (port, asked) = server(&[
            "HTTP/1.1 302 Go\r\nlocation: /y\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 302 Go\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 2\r\n\r\nhi",
        ])
        .await;
        let warned = Outcome::Warned("Probe terminated redirects, Response body: hi".into());
        assert_eq!(probe(&get(port), LIMIT).await, warned);
        assert!(asked.await.unwrap()[1].starts_with("GET /y"));
    }

    #[tokio::test]
    async fn silence_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let Outcome::Failed(why) = probe(&get(port), Duration::from_millis(50)).await else { panic!() };
        assert!(why.starts_with("Get \"http://127.0.0.1:") && why.contains("deadline exceeded"), "{why}");
    }
}
