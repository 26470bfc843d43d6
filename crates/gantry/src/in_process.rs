//! The API server in this process, as a transport: no sockets, the same pipeline.

pub mod requests;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use apiserver::{ApiServer, Body, BoxError};
use auth::User;
use client::Transport;
use client::kube::client::Body as ClientBody;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::Service;

/// A client that speaks as `user`, who must pass authorization and admission like everybody else.
pub fn client(api: &ApiServer, user: User) -> client::kube::Client {
    // What it changes is put down to the component, by its upstream name.
    let agent = match user.name.strip_prefix("system:") {
        Some(node) if node.starts_with("node:") => "kubelet",
        Some(account) if account.starts_with("serviceaccount:") => "kube-controller-manager",
        Some(component) => component,
        None => &user.name,
    };
    let counted = match agent {
        "kube-controller-manager" => Some([&*requests::OF_CONTROLLERS, &*requests::OF_BOTH]),
        "kube-scheduler" => Some([&*requests::OF_SCHEDULER, &*requests::OF_BOTH]),
        _ => None,
    };
    let agent = HeaderValue::from_str(agent).unwrap_or(HeaderValue::from_static("gantry"));
    Transport::service(InProcess { api: api.clone(), user: Arc::new(user), agent, counted }).client()
}

#[derive(Clone)]
struct InProcess {
    api: ApiServer,
    user: Arc<User>,
    agent: HeaderValue,
    counted: Option<[&'static requests::Requests; 2]>,
}

impl Service<Request<ClientBody>> for InProcess {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ClientBody>) -> Self::Future {
        let this = self.clone();
        let mut request = request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
        request.headers_mut().entry(header::USER_AGENT).or_insert_with(|| this.agent.clone());
        Box::pin(async move {
            let counted = this.counted.map(|all| (all, request.method().clone(), Instant::now()));
            let response = this.api.handle(request, Some(&this.user)).await;
            if let Some((all, method, begun)) = counted {
                let took = begun.elapsed();
                all.iter().for_each(|requests| requests.count(&method, response.status(), took));
            }
            Ok(response)
        })
    }
}
