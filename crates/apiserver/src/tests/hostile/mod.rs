//! Input that means harm, against a whole server: bombs, tricks, floods, and questions of those who may not ask.

mod bodies;
mod connections;
mod expressions;
mod paths;
mod secrecy;
mod short;

use std::time::{Duration, Instant};

use http::{Method, Request};
use serde_json::Value;

use super::{MAPS, TestServer};
use crate::respond::full;

/// How long anything may take here. Optimised code, on a machine of one's own, is many times faster.
const MOST: Duration = Duration::from_secs(5);

impl TestServer {
    /// Sends bytes, and makes sure that the answer is no trouble: it is quick, and a status if it is a refusal.
    async fn throw(
        &self,
        method: Method,
        path: &str,
        media: &str,
        bytes: impl Into<bytes::Bytes>,
    ) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let begun = Instant::now();
        let (code, answer) = self.send(request.body(full(bytes)).unwrap(), Some(&self.admin)).await;
        assert!(begun.elapsed() < MOST, "{path} took {:?}", begun.elapsed());
        assert!(code < 500, "{path}: {code} {answer}");
        if code >= 400 {
            assert_eq!(answer["kind"], "Status", "{path}: {answer}");
        }
        (code, answer)
    }
}
