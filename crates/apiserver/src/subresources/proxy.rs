use std::net::IpAddr;
use std::sync::Arc;

use admission::Objects;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use types::{Reason, Status, str_at};

use super::endpoints::{Nowhere, join, service_addresses};
use super::node::{exchange, internal_address, to_node};
use crate::pipeline::Call;
use crate::request::ResourceRequest;
use crate::respond::{self, Body};
use crate::state::Inner;
use crate::{admit, aggregation};

/// `pods|services|nodes/{[scheme:]name[:port]}/proxy/…`: HTTP to what is behind the name (kubernetes/kubernetes,
/// `pkg/registry/core/{pod,service,node}/…/ResourceLocation`; `apimachinery/pkg/util/proxy`).
pub(super) async fn forward(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    let asked = Asked::parse(&r.name)
        .ok_or_else(|| Status::bad_request(format!("invalid {} request {:?}", singular(r), r.name)))?;
    admit::connect(server, r, &call.user).await?;
    let path = call.http.uri().path().to_owned();
    let (prefix, rest) = split(&path, r);
    let query = if r.query.raw.is_empty() { String::new() } else { format!("?{}", r.query.raw) };
    let upgrade = call.http.headers().contains_key(header::UPGRADE);
    if rest.is_empty() && !upgrade && matches!(*call.http.method(), Method::GET | Method::HEAD) {
        // Relative links in what is shown there lead nowhere without the slash.
        return Ok(moved(&format!("{path}/{query}")));
    }
    let below = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    let (prefix, mut http) = (prefix.to_owned(), call.http);
    announce(&mut http, &path);
    let address = match &*r.def.resource {
        "nodes" => other_port(server, &asked)?,
        "pods" => Some(pod(server, r, &asked)?),
        _ => Some(service(server, r, &asked)?),
    };
    let mut response = match address {
        None => to_node(server, asked.name, &below, http).await?,
        Some(address) if !is_proxyable(&address, server.config.advertise.0.is_loopback()) => {
            return Err(Status::bad_request("address not allowed"));
        }
        Some(address) => reach(&address, asked.is_tls(), below, http).await?,
    };
    keep_within(response.headers_mut(), &prefix);
    Ok(response)
}

/// What a name in a path asks for (`apimachinery/pkg/util/net/util.go`, `SplitSchemeNamePort`).
struct Asked<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme @ ("" | "http" | "https"), name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn is_tls(&self) -> bool {
        self.scheme == "https"
    }
}

fn singular(r: &ResourceRequest) -> &'static str {
    match &*r.def.resource {
        "nodes" => "node",
        "pods" => "pod",
        _ => "service",
    }
}

/// The part of a path up to `proxy`, and what follows it, as it was written.
fn split<'a>(path: &'a str, r: &ResourceRequest) -> (&'a str, &'a str) {
    let mut parts = if r.namespace.is_empty() { 5 } else { 7 };
    let mut inside = false;
    for (at, byte) in path.bytes().enumerate() {
        match byte {
            b'/' if inside => {
                inside = false;
                parts -= 1;
                if parts == 0 {
                    return path.split_at(at);
                }
            }
            b'/' => {}
            _ => inside = true,
        }
    }
    (path, "")
}

fn moved(to: &str) -> Response<Body> {
    let mut response = Response::new(respond::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// Tells where the request came in.
fn announce(http: &mut http::Request<Body>, path: &str) {
    let host = http.headers().get(header::HOST).cloned();
    let host = host.or_else(|| HeaderValue::from_str(http.uri().authority()?.as_str()).ok());
    let headers = http.headers_mut();
    if let Some(host) = host {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host.clone());
        headers.insert(header::HOST, host);
    }
    headers.insert(HeaderName::from_static("x-forwarded-proto"), HeaderValue::from_static("https"));
    if let Ok(path) = HeaderValue::from_str(path) {
        headers.insert(HeaderName::from_static("x-forwarded-uri"), path);
    }
}

/// Redirects to places on the same server stay behind the proxy (`proxy/transport.go`, `rewriteURL`).
fn keep_within(headers: &mut HeaderMap, prefix: &str) {
    let Some(to) = headers.get(header::LOCATION).and_then(|v| v.to_str().ok()) else { return };
    if !to.starts_with('/') || to.starts_with("//") || to.starts_with(prefix) || to.parse::<Uri>().is_err() {
        return;
    }
    if let Ok(to) = HeaderValue::from_str(&format!("{prefix}{to}")) {
        headers.insert(header::LOCATION, to);
    }
}

async fn reach(
    address: &str,
    is_tls: bool,
    path: String,
    mut http: http::Request<Body>,
) -> Result<Response<Body>, Status> {
    let unreachable = |why: String| {
        Status::new(Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
    };
    let upgrade = http.headers().contains_key(header::UPGRADE);
    aggregation::without_hops(http.headers_mut(), upgrade);
    let stream = TcpStream::connect(address).await.map_err(|e| {
        let refused = e.kind() == std::io::ErrorKind::ConnectionRefused;
        let why = if refused { "connection refused".to_owned() } else { e.to_string() };
        unreachable(format!("dial tcp {address}: connect: {why}"))
    })?;
    let _ = stream.set_nodelay(true);
    let answer = if is_tls {
        // Pods are called by their addresses, which no certificate names.
        let tls = aggregation::unverified().map_err(unreachable)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|e| unreachable(e.to_string()))?;
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await;
        exchange(stream.map_err(|e| unreachable(format!("tls: {e}")))?, path, http).await
    } else {
        exchange(stream, path, http).await
    };
    answer.map_err(|e| unreachable(e.to_string()))
}

/// Whether an address may be called for somebody else: not this machine itself, nor what only this machine sees
/// (`pkg/proxy/util`, `IsProxyableIP`). A cluster that lives on the loopback device has nothing else.
fn is_proxyable(address: &str, on_loopback: bool) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            !ip.is_link_local() && !ip.is_unspecified() && (on_loopback || !ip.is_loopback())
        }
        Ok(IpAddr::V6(ip)) => {
            !ip.is_unicast_link_local() && !ip.is_unspecified() && (on_loopback || !ip.is_loopback())
        }
        Err(_) => false,
    }
}

/// Where a node is asked for something else than its agent.
fn other_port(server: &Inner, asked: &Asked<'_>) -> Result<Option<String>, Status> {
    let node =
        server.get("nodes", "", asked.name).ok_or_else(|| Status::not_found("", "nodes", asked.name))?;
    let agent = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(10250);
    if asked.port.is_empty() || asked.port == agent.to_string() {
        return Ok(None);
    }
    let host = internal_address(&node)
        .ok_or_else(|| Status::bad_request(format!("node {} has no address yet", asked.name)))?;
    Ok(Some(join(host, asked.port)))
}

fn pod(server: &Inner, r: &ResourceRequest, asked: &Asked<'_>) -> Result<String, Status> {
    let name = asked.name;
    let pod = server.get("pods", &r.namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
    let ip = str_at(&pod, &["status", "podIP"])
        .ok_or_else(|| Status::bad_request(format!("pod {name} has no address yet")))?;
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let number = |port: &Value| port["containerPort"].as_u64();
    let port = match asked.port {
        "" => ports.find_map(number),
        text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        text => ports.find(|p| p["name"] == text).and_then(number),
    };
    if port.is_none() && !asked.port.is_empty() {
        return Err(Status::bad_request(format!("pod {name} has no port {:?}", asked.port)));
    }
    Ok(join(ip, port.unwrap_or(if asked.is_tls() { 443 } else { 80 })))
}

fn service(server: &Inner, r: &ResourceRequest, asked: &Asked<'_>) -> Result<String, Status> {
    let (name, port) = (asked.name, asked.port);
    let known = server.get("services", &r.namespace, name);
    // Names of the outside are for those who configure the cluster; here anybody with a Service could choose one.
    let outside = known.is_some_and(|service| service["spec"]["type"] == "ExternalName");
    let found = match outside {
        true => Err(Nowhere::Endpoints),
        false => service_addresses(server, &r.namespace, name, port),
    };
    let found = found.map_err(|why| match why {
        Nowhere::Service => Status::not_found("", "services", name),
        Nowhere::Port => Status::new(
            Reason::ServiceUnavailable,
            format!("no service port {port} found for service {name:?}"),
        ),
        Nowhere::Endpoints => Status::new(
            Reason::ServiceUnavailable,
            format!("no endpoints available for service {:?}", r.name),
        ),
    })?;
    let chance = usize::try_from(server.config.ids.bits() & 0xffff).unwrap_or_default();
    Ok(found[chance % found.len()].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_schemes_and_ports() {
        let parts = |text| Asked::parse(text).map(|a| (a.scheme, a.name, a.port));
        assert_eq!(parts("a"), Some(("", "a", "")));
        assert_eq!(parts("a:http"), Some(("", "a", "http")));
        assert_eq!(parts("https:a:8443"), Some(("https", "a", "8443")));
        assert_eq!(parts("https:a:"), Some(("https", "a", "")));
        assert_eq!(parts(":a:1"), Some(("", "a", "1")));
        for bad in ["", ":1", "ftp:a:1", "http:a:1:2", "https::1"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_machine_itself_is_not_to_be_had() {
        for bad in [
            "127.0.0.1:80",
            "[::1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[::ffff:127.0.0.1]:80",
            "0.0.0.0:1",
        ] {
            assert!(!is_proxyable(bad, false), "{bad}");
        }
        assert!(is_proxyable("10.42.0.2:80", false) && is_proxyable("[fd00::1]:80", false));
        assert!(is_proxyable("127.0.0.1:80", true) && !is_proxyable("169.254.169.254:80", true));
    }

    #[test]
    fn redirects_stay_behind_the_proxy() {
        let after = |to: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_str(to).unwrap());
            keep_within(&mut headers, "/api/v1/nodes/n/proxy");
            headers[header::LOCATION].to_str().unwrap().to_owned()
        };
        assert_eq!(after("/login/?a=b"), "/api/v1/nodes/n/proxy/login/?a=b");
        for same in ["https://other.example/x", "//other.example/x", "x/y", "/api/v1/nodes/n/proxy/x"] {
            assert_eq!(after(same), same);
        }
    }
}
