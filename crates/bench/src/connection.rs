//! One connection of one client: HTTP/1.1 over TLS.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Outcome;
use crate::server::Server;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Patches with `force` are configurations to apply.
fn media_type(method: &Method, path: &str) -> &'static str {
    match (method, path.contains("force=")) {
        (&Method::PATCH, true) => "application/apply-patch+yaml",
        (&Method::PATCH, false) => "application/merge-patch+json",
        _ => "application/json",
    }
}

/// A TLS connection on which nothing was said yet.
pub async fn dial(server: &Server) -> Outcome<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(server.tls.clone()).connect(name, stream).await?)
}

pub struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub async fn open(server: &Server) -> Outcome<Self> {
        let stream = dial(server).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Outcome<Response<Incoming>> {
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", media_type(&method, path))
            .header("accept", if path.contains("protobuf=") { PROTOBUF } else { "application/json" })
            .header("user-agent", "bench/1")
            .body(Full::new(body))?;
        self.0.ready().await?;
        Ok(self.0.send_request(request).await?)
    }

    /// Sends a request and reads the whole answer; gives its size.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        want: StatusCode,
    ) -> Outcome<usize> {
        let mut response = self.send(method, path, body).await?;
        let mut size = 0;
        while let Some(frame) = response.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        if response.status() == want {
            Ok(size)
        } else {
            Err(format!("{path}: {}", response.status()).into())
        }
    }
}
