use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;
use tower::{BoxError, Service};

use client::Transport;

/// Clients whose way to the API can be changed while they are used: whoever is asked next is asked the new way, and what
/// is still being read the old way ends, so that watches begin anew. Clones share everything.
#[derive(Clone)]
pub struct Switch(Arc<watch::Sender<Option<Client>>>);

impl Default for Switch {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Switch {
    /// No way yet: requests wait for the first one.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client that goes the present way. Must be called within a Tokio runtime.
    pub fn client(&self) -> Client {
        Transport::service(Switched(self.0.subscribe())).client()
    }

    /// From now on this way.
    pub fn to(&self, client: Client) {
        self.0.send_replace(Some(client));
    }
}

struct Switched(watch::Receiver<Option<Client>>);

impl Service<Request<Body>> for Switched {
    type Response = Response<Until>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut ways = self.0.clone();
        Box::pin(async move {
            let way = ways.wait_for(Option::is_some).await?.clone();
            ways.mark_unchanged();
            let client = way.ok_or("there is no way to the API yet")?;
            let response = client.send(request).await?;
            Ok(response.map(|body| Until {
                body,
                changed: Box::pin(async move {
                    if ways.changed().await.is_err() {
                        // Nobody is there to change it any more.
                        std::future::pending().await
                    }
                }),
            }))
        })
    }
}

/// A body that ends with the way it comes.
struct Until {
    body: Body,
    changed: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.changed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err("the way to the API has changed".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures::StreamExt;
    use http_body_util::{BodyExt, Full, StreamBody};
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;

    use super::*;

    /// A server that answers everything with a pod of this name; what is watched stays open.
    fn server(name: &'static str) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| async move {
            let pod = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}}}}"#);
            let watched = request.uri().query().is_some_and(|q| q.contains("watch=true"));
            let body = if watched {
                let line = format!("{{\"type\":\"ADDED\",\"object\":{pod}}}\n");
                let first =
                    futures::stream::once(async move { Ok::<_, Infallible>(Frame::data(Bytes::from(line))) });
                StreamBody::new(first.chain(futures::stream::pending())).boxed_unsync()
            } else {
                Full::new(Bytes::from(pod)).boxed_unsync()
            };
            Ok::<_, Infallible>(Response::new(body))
        });
        Transport::service(service).client()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_a_way_and_watches_end_with_it() {
        let switch = Switch::new();
        let api: Api<Pod> = Api::default_namespaced(switch.client());
        let asked = tokio::spawn({
            let api = api.clone();
            async move { api.get("x").await.unwrap().metadata.name.unwrap() }
        });
        // Nobody answers, however long it takes.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!asked.is_finished());
        switch.to(server("first"));
        assert_eq!(asked.await.unwrap(), "first");
        let mut watch = api.watch(&kube::api::WatchParams::default(), "0").await.unwrap().boxed();
        assert!(watch.next().await.unwrap().is_ok());
        switch.to(server("second"));
        // It has ended, with an error or without.
        while let Some(Ok(_)) = watch.next().await {}
        assert_eq!(api.get("x").await.unwrap().metadata.name.as_deref(), Some("second"));
    }
}
