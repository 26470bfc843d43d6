use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::channel::status_of;
use crate::error::RpcError;
use crate::frame::{Frames, frame};

/// A call that sends and receives as long as both sides like. Dropping it ends the call.
pub struct Stream {
    pub(crate) target: String,
    pub(crate) outgoing: mpsc::Sender<Bytes>,
    pub(crate) incoming: Incoming,
    pub(crate) frames: Frames,
    /// Ends the connection, which is this stream's own.
    pub(crate) _connection: Guard,
}

/// Ends a task with its owner.
pub(crate) struct Guard {
    pub(crate) task: tokio::task::AbortHandle,
    /// Its sender is dropped when the connection ends.
    pub(crate) ended: tokio::sync::watch::Receiver<()>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stream {
    /// Sends a message.
    pub async fn send(&self, message: &[u8]) -> Result<(), RpcError> {
        let sent = self.outgoing.send(frame(message)).await;
        sent.map_err(|_| RpcError::Broken { target: self.target.clone(), why: "it is closed".to_owned() })
    }

    /// The next message; the end of the stream is an error too, for no stream here is meant to end. Nothing is
    /// lost if the future is dropped before it is done.
    pub async fn next(&mut self) -> Result<Bytes, RpcError> {
        loop {
            let malformed =
                |why: &str| RpcError::Malformed { target: self.target.clone(), why: why.to_owned() };
            if let Some(message) = self.frames.next().map_err(malformed)? {
                return Ok(message);
            }
            let broken = |why: String| RpcError::Broken { target: self.target.clone(), why };
            match self.incoming.frame().await {
                Some(Ok(piece)) => match piece.into_data() {
                    Ok(data) => self.frames.push(&data),
                    Err(piece) => {
                        let trailers: HeaderMap = piece.into_trailers().unwrap_or_default();
                        return Err(status_of(&self.target, &trailers)
                            .err()
                            .unwrap_or_else(|| broken("it ended".to_owned())));
                    }
                },
                Some(Err(error)) => return Err(broken(error.to_string())),
                None => return Err(broken("it ended".to_owned())),
            }
        }
    }
}
