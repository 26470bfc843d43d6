use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use super::connections::{Connections, Place};
use crate::respond::{Body, BoxError};

/// What another server sends, as it comes. At its end the connection waits for its next use.
pub(super) struct Stream {
    body: Incoming,
    back: Option<(Arc<Connections>, Place, SendRequest<Body>)>,
    /// Ends the stream early.
    until: Option<BoxFuture<'static, ()>>,
}

impl Stream {
    /// Of this body, which comes through that connection.
    pub(super) fn body(
        body: Incoming,
        connections: Arc<Connections>,
        place: Place,
        sender: SendRequest<Body>,
        until: Option<BoxFuture<'static, ()>>,
    ) -> Body {
        Self { body, back: Some((connections, place, sender)), until }.boxed_unsync()
    }
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            self.back = None;
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(None) = polled
            && let Some((connections, place, sender)) = self.back.take()
        {
            connections.keep(place, sender);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(|e| Box::new(e) as BoxError)))
    }
}
