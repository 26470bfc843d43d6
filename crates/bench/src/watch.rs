//! A watch, as far as the figures need it.

use std::collections::HashSet;

use bytes::BytesMut;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::Outcome;
use crate::connection::Connection;
use crate::server::Server;

/// What happened to an object.
#[derive(Debug, Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    pub object: Object,
}

/// As much of a pod, node or workload as is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub name: String,
    pub generation: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Spec {
    #[serde(rename = "nodeName")]
    pub node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub phase: String,
    pub conditions: Vec<Condition>,
    pub observed_generation: i64,
    pub replicas: usize,
    pub updated_replicas: usize,
    pub ready_replicas: usize,
    pub available_replicas: usize,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
}

pub struct Watch {
    response: hyper::Response<Incoming>,
    buffer: BytesMut,
    _connection: Connection,
}

impl Watch {
    /// Everything that is there, then everything that happens.
    pub async fn open(server: &Server, path: &str) -> Outcome<Self> {
        let mut connection = Connection::open(server).await?;
        let response = connection.send(Method::GET, &format!("{path}?watch=1"), Default::default()).await?;
        if !response.status().is_success() {
            return Err(format!("watch of {path}: {}", response.status()).into());
        }
        Ok(Self { response, buffer: BytesMut::new(), _connection: connection })
    }

    pub async fn next(&mut self) -> Outcome<Event> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|b| *b == b'\n') {
                let line = self.buffer.split_to(searched + at + 1);
                return Ok(serde_json::from_slice(&line)?);
            }
            searched = self.buffer.len();
            let frame = self.response.frame().await.ok_or("the watch ended")??;
            self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |d| d));
        }
    }

    /// Waits until so many different objects have been in a state.
    pub async fn until(&mut self, count: usize, mut holds: impl FnMut(&Event) -> bool) -> Outcome<()> {
        let mut seen = HashSet::new();
        while seen.len() < count {
            let event = self.next().await?;
            if holds(&event) {
                seen.insert(event.object.metadata.name);
            }
        }
        Ok(())
    }
}
