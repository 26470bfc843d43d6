use std::sync::Arc;

use admission::Objects;
use http::Response;
use tokio::net::TcpStream;
use types::{Reason, Status, str_at};

use super::node::{exchange, to_node};
use crate::admit;
use crate::pipeline::Call;
use crate::request::ResourceRequest;
use crate::respond::Body;
use crate::state::Inner;

/// `pods|services|nodes/{[scheme:]name[:port]}/proxy/…`: plain HTTP to what is behind the name
/// (kubernetes/kubernetes, `pkg/registry/core/service/proxy`, `ResourceLocation`).
pub(super) async fn forward(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    admit::connect(server, r, &call.user).await?;
    let query = if r.query.raw.is_empty() { String::new() } else { format!("?{}", r.query.raw) };
    let path = format!("/{}{query}", r.rest);
    let (name, port) = name_and_port(&r.name);
    if &*r.def.resource == "nodes" {
        return to_node(server, name, &path, call.http).await;
    }
    let address = if &*r.def.resource == "pods" {
        pod(server, r, name, port)?
    } else {
        service(server, r, name, port)?
    };
    let unreachable = |why: String| {
        Status::new(Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
    };
    let stream =
        TcpStream::connect(&address).await.map_err(|e| unreachable(format!("dial tcp {address}: {e}")))?;
    exchange(stream, path, call.http).await.map_err(|e| unreachable(e.to_string()))
}

fn name_and_port(text: &str) -> (&str, &str) {
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [_scheme, name, port] => (name, port),
        [name, port] => (name, port),
        _ => (text, ""),
    }
}

fn pod(server: &Inner, r: &ResourceRequest, name: &str, port: &str) -> Result<String, Status> {
    let pod = server.get("pods", &r.namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
    let ip = str_at(&pod, &["status", "podIP"])
        .ok_or_else(|| Status::bad_request(format!("pod {name} has no address yet")))?;
    let first = &pod["spec"]["containers"][0]["ports"][0]["containerPort"];
    let port = if port.is_empty() { first.as_u64().unwrap_or(80).to_string() } else { port.to_owned() };
    Ok(format!("{ip}:{port}"))
}

fn service(server: &Inner, r: &ResourceRequest, name: &str, port: &str) -> Result<String, Status> {
    if server.get("services", &r.namespace, name).is_none() {
        return Err(Status::not_found("", "services", name));
    }
    service_address(server, &r.namespace, name, port).ok_or_else(|| {
        Status::new(Reason::ServiceUnavailable, format!("no endpoints available for service {name:?}"))
    })
}

/// Where a service is answered now: the address and port of one of its endpoints.
pub(crate) fn service_address(server: &Inner, namespace: &str, name: &str, port: &str) -> Option<String> {
    let service = server.get("services", namespace, name)?;
    let wanted = service["spec"]["ports"].as_array().into_iter().flatten().find(|p| {
        port.is_empty() || p["name"] == port || p["port"].as_u64().is_some_and(|n| port.parse() == Ok(n))
    });
    let port_name = wanted.and_then(|p| p["name"].as_str()).unwrap_or_default();
    for slice in server.list("endpointslices.discovery.k8s.io") {
        if slice["metadata"]["namespace"] != namespace
            || slice["metadata"]["labels"]["kubernetes.io/service-name"] != name
        {
            continue;
        }
        let number = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let ready =
            slice["endpoints"].as_array().into_iter().flatten().find(|e| e["conditions"]["ready"] != false);
        if let (Some(port), Some(ip)) =
            (number.and_then(|p| p["port"].as_u64()), ready.and_then(|e| e["addresses"][0].as_str()))
        {
            return Some(format!("{ip}:{port}"));
        }
    }
    None
}
