//! Subresources. `status` goes the way of every write; the others have a file each.

mod approval;
mod binding;
mod endpoints;
mod eviction;
mod node;
mod pod_parts;
mod proxy;
mod scale;
mod token;

use std::sync::Arc;

use http::Response;
use registry::Verb;
use types::Status;

use crate::pipeline::Call;
use crate::respond::Body;
use crate::state::Inner;
use crate::verbs::{self, Part};

pub(crate) use binding::bind;
pub(crate) use endpoints::{Nowhere, has_slices, service_address, service_addresses};

/// Hands a call to its subresource. That the verb exists has been checked.
pub(crate) async fn dispatch(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    match (&*r.def.resource, r.subresource.as_str()) {
        (_, "scale") => scale::serve(server, call).await,
        ("pods", "binding") => binding::bind(server, call).await,
        ("pods", "eviction") => eviction::evict(server, call).await,
        ("pods", "log" | "exec" | "attach" | "portforward") => node::forward(server, call).await,
        ("pods" | "services" | "nodes", "proxy") => proxy::forward(server, call).await,
        ("serviceaccounts", "token") => token::issue(server, call).await,
        (_, _) if r.verb == Verb::Get => verbs::get(server, call).await,
        (_, "status") if r.verb == Verb::Update => verbs::update(server, call, Part::Status).await,
        (_, "status") => verbs::patch(server, call, Part::Status).await,
        ("namespaces", "finalize") => approval::finalize(server, call).await,
        ("certificatesigningrequests", "approval") => approval::approve(server, call).await,
        ("pods", "ephemeralcontainers" | "resize") => pod_parts::write(server, call).await,
        _ => Err(Status::no_such_resource()),
    }
}
