use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// What a call sends: one message, or as many as come.
pub(crate) enum Outgoing {
    Once(Option<Bytes>),
    Many(mpsc::Receiver<Bytes>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Outgoing::Once(message) => Poll::Ready(message.take().map(|m| Ok(Frame::data(m)))),
            Outgoing::Many(messages) => messages.poll_recv(cx).map(|m| m.map(|m| Ok(Frame::data(m)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Outgoing::Once(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Once(message) => SizeHint::with_exact(message.as_ref().map_or(0, |m| m.len() as u64)),
            Outgoing::Many(_) => SizeHint::default(),
        }
    }
}
