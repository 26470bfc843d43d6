//! Over TLS, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;

use auth::{CertificateRequest, Pki, Usage};
use base::Drain;
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::server::{Limits, Tls};

struct Wire {
    server: TestServer,
    address: SocketAddr,
    authority: String,
    _folder: tempfile::TempDir,
}

impl Wire {
    async fn start(limits: Limits) -> Self {
        let (server, folder) = (TestServer::start().await, tempfile::tempdir().unwrap());
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
        let mut tls = Tls::new(&pair, pki.ca()).unwrap();
        tls.limits = limits;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server.api.clone().serve(listener, tls, Drain::new()));
        Self { server, address, authority: pki.ca().to_owned(), _folder: folder }
    }

    async fn dial(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        use rustls_pki_types::pem::PemObject as _;
        for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(self.authority.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// What comes back until the other side is done, or says nothing for longer than a busy machine would.
    async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
        let mut all = Vec::new();
        let mut piece = [0; 16 * 1024];
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(MOST, stream.read(&mut piece)).await {
            all.extend_from_slice(&piece[..n]);
        }
        all
    }

    /// Others are served as ever.
    async fn is_well(&self) {
        let mut stream = self.dial(b"http/1.1").await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let answer = Self::rest(&mut stream).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let _ = &self.server;
    }
}

/// Ends by itself within the time, one way or the other.
async fn ends(stream: &mut TlsStream<TcpStream>) {
    let mut piece = [0; 16 * 1024];
    let over = async { while let Ok(1..) = stream.read(&mut piece).await {} };
    assert!(tokio::time::timeout(MOST, over).await.is_ok(), "the connection stays open");
}

fn quick() -> Limits {
    Limits {
        idle: Duration::from_millis(300),
        ping: Duration::from_millis(100),
        pong: Duration::from_millis(100),
    }
}

#[tokio::test]
async fn connections_that_say_nothing_end() {
    let wire = Wire::start(quick()).await;
    for begin in
        [&b""[..], b"GET", b"GET / HTTP/1.1\r\nhost: a\r\n", b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"]
    {
        let mut stream = wire.dial(b"http/1.1").await;
        stream.write_all(begin).await.unwrap();
        ends(&mut stream).await;
    }
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    for begin in [vec![], b"PRI * HT".to_vec(), [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()]
    {
        let mut stream = wire.dial(b"h2").await;
        stream.write_all(&begin).await.unwrap();
        ends(&mut stream).await;
    }
    // A watch is no silence.
    wire.server.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    let mut stream = wire.dial(b"http/1.1").await;
    let grant = json!({"metadata": {"name": "all"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]});
    wire.server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", grant).await;
    let head = format!(
        "GET {MAPS}?watch=1&timeoutSeconds=2 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    ends(&mut stream).await;
    assert!(begun.elapsed() > Duration::from_millis(1_500), "{:?}", begun.elapsed());
    wire.is_well().await;
}

#[tokio::test]
async fn one_request_is_one_request() {
    let wire = Wire::start(quick()).await;
    let hidden = "GET /version HTTP/1.1\r\nhost: a\r\n\r\n";
    let length = hidden.len();
    for head in [
        format!("content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("content-length: {length}\r\ncontent-length: 0\r\n\r\n{hidden}"),
        format!(
            "content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{hidden}\r\n0\r\n\r\n"
        ),
        format!(
            "transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n{length:x};ext=\"\n\"\r\n{hidden}\r\n0\r\n\r\n"
        ),
        format!("transfer-encoding: xchunked\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("transfer-encoding: chunked, identity\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("transfer-encoding : chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("transfer-encoding:\x0bchunked\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("x: y\r\n transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        format!("content-length: +{length}\r\n\r\n{hidden}"),
        format!("content-length: -1\r\n\r\n{hidden}"),
        format!("content-length: {length},{length}\r\n\r\n{hidden}"),
        format!("content-length: 99999999999999999999\r\n\r\n{hidden}"),
        format!("content-length: 0x10\r\n\r\n{hidden}"),
        format!("transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{hidden}"),
        format!("transfer-encoding: chunked\r\n\r\n-1\r\n{hidden}"),
        format!("content-length\0: 0\r\n\r\n{hidden}"),
        format!("x: a\0b\r\ncontent-length: {length}\r\n\r\n{hidden}"),
    ] {
        let mut stream = wire.dial(b"http/1.1").await;
        let whole = format!("POST /healthz HTTP/1.1\r\nhost: a\r\n{head}");
        stream.write_all(whole.as_bytes()).await.unwrap();
        let answer = String::from_utf8_lossy(&Wire::rest(&mut stream).await).into_owned();
        assert!(!answer.contains("gitVersion"), "{head:?}: {answer}");
    }
    wire.is_well().await;
}

#[tokio::test]
async fn floods_of_headers_are_cut_off() {
    let wire = Wire::start(quick()).await;
    let long = format!("x: {}\r\n", "a".repeat(2 << 20));
    let many: String = (0..20_000).map(|n| format!("x{n}: y\r\n")).collect();
    let path = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(2 << 20));
    for head in [
        format!("GET / HTTP/1.1\r\nhost: a\r\n{long}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
        path,
    ] {
        let mut stream = wire.dial(b"http/1.1").await;
        // The other side may be gone before all of it is written.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = Wire::rest(&mut stream).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    wire.is_well().await;
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// GET https://a/ as HPACK writes it.
const GET: &[u8] = &[0x82, 0x84, 0x87, 0x41, 0x01, b'a'];

#[tokio::test]
async fn streams_begun_and_reset_end_the_connection() {
    let wire = Wire::start(Limits::default()).await;
    let mut stream = wire.dial(b"h2").await;
    stream.write_all(PREFACE).await.unwrap();
    let mut sent = 0;
    'all: for batch in 0..200_u32 {
        let mut out = Vec::new();
        for n in 0..100 {
            let id = 2 * (batch * 100 + n) + 1;
            out.extend(frame(1, 5, id, GET));
            out.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        }
        if stream.write_all(&out).await.is_err() || stream.flush().await.is_err() {
            break 'all;
        }
        sent += 100;
    }
    let answer = Wire::rest(&mut stream).await;
    // A GOAWAY, or no connection any more.
    let gone = answer.windows(4).any(|w| w[0] == 7 && w[1] == 0 && w[2] == 0 && w[3] == 0);
    assert!(gone || sent < 20_000, "{sent} streams");
    wire.is_well().await;
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let wire = Wire::start(Limits::default()).await;
    let mut stream = wire.dial(b"h2").await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(1, 1, 1, GET)).await.unwrap();
    // Literal fields that are not kept: `x: aaaa…`.
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x06][..], &[b'a'; 896]].concat();
    let flood = async {
        loop {
            if stream.write_all(&frame(9, 0, 1, &field.repeat(16))).await.is_err()
                || stream.flush().await.is_err()
            {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(MOST * 4, flood).await.is_ok(), "the flood goes on");
    wire.is_well().await;
}

/// Many watches of one user take nothing from others, and leave nothing behind.
#[tokio::test]
async fn thousands_of_watches_leave_room() {
    let server = TestServer::start().await;
    server.post(MAPS, json!({"metadata": {"name": "a"}})).await;
    let grant = json!({"metadata": {"name": "all"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}]});
    server.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", grant).await;
    let (eve, adam) = (auth::User::authenticated("eve", []), auth::User::authenticated("adam", []));
    let mut open = Vec::new();
    for _ in 0..3_000 {
        let request = Request::get(format!("{MAPS}?watch=1")).body(full("")).unwrap();
        let response = server.api.handle(request, Some(&eve)).await;
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(server.call_as(Method::GET, "/version", "", Value::Null, Some(&adam)).await.0, 200);
    }
    assert_eq!(server.post(MAPS, json!({"metadata": {"name": "b"}})).await.0, 201);
    assert!(begun.elapsed() < MOST, "{:?}", begun.elapsed());
    drop(open);
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap().to_owned();
    let busy: Vec<_> = metrics
        .lines()
        .filter(|l| l.starts_with("apiserver_longrunning_requests{") && !l.ends_with(" 0"))
        .collect();
    assert!(busy.is_empty(), "{busy:?}");
}

#[tokio::test]
async fn heads_alone_have_no_body_in_either_protocol() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let wire = Wire::start(Limits::default()).await;
    let request = |method: &str| {
        let uri = format!("https://{}/version", wire.address);
        http::Request::builder().method(method).uri(uri).body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    let stream = TokioIo::new(wire.dial(b"h2").await);
    let (mut second, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let stream = TokioIo::new(wire.dial(b"http/1.1").await);
    let (mut first, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sizes = Vec::new();
    for response in [
        second.send_request(request("HEAD")).await.unwrap(),
        first.send_request(request("HEAD")).await.unwrap(),
    ] {
        sizes.push(response.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap());
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    assert!(sizes[0] > 0 && sizes[0] == sizes[1], "{sizes:?}");
    // The connections are still good.
    assert_eq!(second.send_request(request("GET")).await.unwrap().status(), 200);
}
