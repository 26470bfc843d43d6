//! Asking a container once how it is.

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{grpc, http};
use crate::engine::Engine;

/// What one look says (upstream: `probe.Result` and its output).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    /// It passed, and something about it is odd.
    Warned(String),
    Failed(String),
    /// Nothing is known: the look itself could not be made.
    Errored(String),
}

impl Outcome {
    /// As metrics call it (`pkg/kubelet/prober/prober_manager.go`).
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Passed | Self::Warned(_) => "successful",
            Self::Failed(_) => "failed",
            Self::Errored(_) => "unknown",
        }
    }
}

/// More of a command's output is not shown (`pkg/probe/exec/exec.go`, `maxReadLength`).
const MOST_OUTPUT: usize = 10 << 10;

/// Whom to ask.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) runtime: Engine,
    /// The container's id.
    pub(crate) id: String,
    pub(crate) container: core::Container,
    pub(crate) pod_ip: String,
}

impl Target {
    pub(crate) async fn probe(&self, probe: &core::Probe, timeout: Duration) -> Outcome {
        if let Some(exec) = &probe.exec {
            self.exec(exec.command.clone().unwrap_or_default(), timeout).await
        } else if let Some(get) = &probe.http_get {
            match self.http(get) {
                Ok(request) => http::probe(&request, timeout).await,
                Err(why) => Outcome::Errored(why),
            }
        } else if let Some(tcp) = &probe.tcp_socket {
            let host = tcp.host.as_deref().filter(|h| !h.is_empty()).unwrap_or(&self.pod_ip);
            match port(&tcp.port, &self.container) {
                Ok(port) => connect(host, port, timeout).await,
                Err(why) => Outcome::Errored(why),
            }
        } else if let Some(rpc) = &probe.grpc {
            let service = rpc.service.as_deref().unwrap_or_default();
            match u16::try_from(rpc.port) {
                Ok(port) => grpc::probe(&self.pod_ip, port, service, timeout).await,
                Err(_) => Outcome::Errored(format!("invalid port number: {}", rpc.port)),
            }
        } else {
            Outcome::Errored("the probe names no handler".into())
        }
    }

    async fn exec(&self, argv: Vec<String>, timeout: Duration) -> Outcome {
        let command = argv.join(" ");
        match self.runtime.exec_sync(&self.id, argv, Some(timeout)).await {
            Ok(output) => {
                let mut said = [output.stdout, output.stderr].concat();
                said.truncate(MOST_OUTPUT);
                let said = String::from_utf8_lossy(&said).into_owned();
                if output.code == 0 { Outcome::Passed } else { Outcome::Failed(said) }
            }
            Err(error) if error.is_timeout() => Outcome::Failed(format!(
                "command timed out: {command:?} timed out after {}s",
                timeout.as_secs()
            )),
            Err(error) => Outcome::Errored(error.to_string()),
        }
    }

    /// The request that a probe or hook describes.
    pub(crate) fn http(&self, get: &core::HTTPGetAction) -> Result<http::Get, String> {
        let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        let path = get.path.clone().unwrap_or_default();
        Ok(http::Get {
            https: get.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
            host: get.host.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| self.pod_ip.clone()),
            port: port(&get.port, &self.container)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers,
        })
    }
}

/// A port by number, or by its name in the container.
pub(crate) fn port(given: &IntOrString, container: &core::Container) -> Result<u16, String> {
    let number = match given {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            match named {
                Some(port) => port.container_port,
                None => name.parse().map_err(|_| format!("port {name} not found"))?,
            }
        }
    };
    u16::try_from(number).ok().filter(|p| *p > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

async fn connect(host: &str, port: u16, timeout: Duration) -> Outcome {
    match dial(host, port, timeout).await {
        Ok(_) => Outcome::Passed,
        Err(why) => Outcome::Failed(why),
    }
}

/// A connection, or why there is none, in the words that people know.
pub(crate) async fn dial(host: &str, port: u16, timeout: Duration) -> Result<tokio::net::TcpStream, String> {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, tokio::net::TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(format!("dial tcp {address}: connect: connection refused"))
        }
        Ok(Err(error)) => Err(format!("dial tcp {address}: {error}")),
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_by_number_and_name() {
        let container: core::Container =
            serde_json::from_value(json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]}))
                .unwrap();
        let of = |port: serde_json::Value| super::port(&serde_json::from_value(port).unwrap(), &container);
        assert_eq!(of(json!(80)), Ok(80));
        assert_eq!(of(json!("web")), Ok(8080));
        assert_eq!(of(json!("81")), Ok(81));
        assert_eq!(of(json!("other")), Err("port other not found".into()));
        assert_eq!(of(json!(0)), Err("invalid port number: 0".into()));
    }

    #[tokio::test]
    async fn connections_that_fail_say_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let limit = Duration::from_secs(5);
        assert_eq!(connect("127.0.0.1", port, limit).await, Outcome::Passed);
        drop(listener);
        let want = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(connect("127.0.0.1", port, limit).await, Outcome::Failed(want));
    }
}
