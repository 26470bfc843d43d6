//! One request's trail: what is known of it so far, and the events that are made of that.

use std::collections::BTreeMap;
use std::net::IpAddr;

use auth::User;
use base::Timestamp;
use http::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::policy::{Level, Verdict};
use crate::reviews::user_info;

/// What is known of a request.
#[derive(Default)]
pub(crate) struct Trail(pub(super) Mutex<Facts>);

#[derive(Default)]
pub(super) struct Facts {
    pub(super) verdict: Verdict,
    pub(super) id: String,
    pub(super) received: Option<Timestamp>,
    pub(super) uri: String,
    pub(super) verb: String,
    pub(super) user: User,
    pub(super) impersonated: Option<User>,
    pub(super) source: Vec<String>,
    pub(super) agent: String,
    pub(super) object: Value,
    pub(super) request: Option<Value>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Whether the request lasts: a watch, a stream.
    pub(super) lasts: bool,
}

/// A time with microseconds, as events have it.
pub(super) fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// Where a request comes from, by proxies' word and by the connection (`apimachinery/pkg/util/net`, `SourceIPs`).
pub(super) fn source_ips(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
    let mut ips: Vec<IpAddr> = Vec::new();
    let forwarded = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok()).unwrap_or_default();
    ips.extend(forwarded.split(',').filter_map(parse));
    let real = headers.get("x-real-ip").and_then(|v| v.to_str().ok()).and_then(parse);
    ips.extend(real.filter(|ip| !ips.contains(ip)));
    if let Some(peer) = peer
        && ips.last() != Some(&peer)
    {
        ips.push(peer);
    }
    ips.iter().map(IpAddr::to_string).collect()
}

impl Facts {
    pub(super) fn level(&self) -> Level {
        self.verdict.level
    }

    pub(super) fn wants(&self, stage: &str) -> bool {
        self.level() > Level::None && !self.verdict.omit_stages.iter().any(|s| s == stage)
    }

    /// The event of a stage.
    pub(super) fn event(&self, stage: &str, now: Timestamp, response: Option<&Response>) -> Value {
        let mut event = json!({
            "level": self.level().name(), "auditID": self.id,
            "stage": stage, "requestURI": self.uri, "verb": self.verb, "user": user_info(&self.user),
            "requestReceivedTimestamp": micros(self.received.unwrap_or(now)), "stageTimestamp": micros(now),
        });
        if let Some(user) = &self.impersonated {
            event["impersonatedUser"] = user_info(user);
        }
        if !self.source.is_empty() {
            event["sourceIPs"] = json!(self.source);
        }
        if !self.agent.is_empty() {
            event["userAgent"] = self.agent.as_str().into();
        }
        if !self.object.is_null() {
            event["objectRef"] = self.object.clone();
        }
        if let Some(response) = response {
            event["responseStatus"] = response.status.clone();
            if self.level() == Level::RequestResponse
                && let Some(object) = &response.object
            {
                event["responseObject"] = self.shown(object);
            }
        }
        if self.level() >= Level::Request
            && let Some(request) = &self.request
        {
            event["requestObject"] = self.shown(request);
        }
        if !self.annotations.is_empty() {
            event["annotations"] = json!(self.annotations);
        }
        event
    }

    fn shown(&self, object: &Value) -> Value {
        let mut object = object.clone();
        if self.verdict.omit_managed_fields {
            let strip = |object: &mut Value| {
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields");
                }
            };
            strip(&mut object);
            object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
        }
        object
    }
}

/// What was answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Response {
    pub(super) status: Value,
    pub(super) object: Option<Value>,
}

impl Response {
    /// The status of an answer: of a failure, what it says of itself.
    pub(super) fn of(code: u16, object: Option<Value>) -> Self {
        let mut status = json!({"metadata": {}, "code": code});
        if let Some(said) = object.as_ref().filter(|o| o["kind"] == "Status" && o["apiVersion"] == "v1") {
            for field in ["status", "message", "reason", "details"] {
                if !said[field].is_null() {
                    status[field] = said[field].clone();
                }
            }
        }
        Self { status, object }
    }
}
