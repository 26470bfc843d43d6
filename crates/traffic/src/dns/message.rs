//! From a request's bytes to what to do, and from an answer to bytes that fit.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

use super::zone::{Answer, Zone};

/// Largest UDP answer without EDNS.
const PLAIN_UDP: usize = 512;
/// What we say we take over UDP.
const OUR_UDP: u16 = 1232;

/// What to do with a request.
pub(super) enum Step {
    /// Nothing: no request, or none that could be answered.
    Ignore,
    /// Send this.
    Reply(Vec<u8>),
    /// Ask upstream, and let the answer be no larger than `limit`.
    Forward { limit: usize },
    /// Ask upstream for the rest of an answer that an alias begins.
    Chase(Box<Chase>),
}

/// An answer that ends outside the cluster.
pub(super) struct Chase {
    reply: Message,
    limit: usize,
    /// The question for upstream.
    pub(super) question: Vec<u8>,
}

/// Over which transport a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Decides about a request. Pure but for the clock of `turn`.
pub(super) fn decide(zone: &Zone, bytes: &[u8], transport: Transport, turn: u32) -> Step {
    if bytes.len() < super::wire::HEADER || super::wire::is_response(bytes) {
        return Step::Ignore;
    }
    let Ok(request) = Message::from_vec(bytes) else {
        let id = u16::from_be_bytes([bytes[0], bytes[1]]);
        return finish(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr), PLAIN_UDP);
    };
    let limit = limit(&request, transport);
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.checking_disabled = request.metadata.checking_disabled;
    reply.metadata.recursion_available = true;
    reply.queries = request.queries.clone();
    if let Some(edns) = &request.edns {
        let mut ours = Edns::new();
        ours.set_max_payload(OUR_UDP).set_dnssec_ok(edns.flags().dnssec_ok);
        reply.set_edns(ours);
        if edns.version() != 0 {
            return refuse(reply, ResponseCode::BADVERS, limit);
        }
    }
    if request.metadata.op_code != OpCode::Query {
        return refuse(reply, ResponseCode::NotImp, limit);
    }
    let [query] = &request.queries[..] else { return refuse(reply, ResponseCode::FormErr, limit) };
    if query.query_class != DNSClass::IN || matches!(query.query_type, RecordType::AXFR | RecordType::IXFR) {
        return refuse(reply, ResponseCode::Refused, limit);
    }
    let Some(answer) = zone.answer(&query.name, query.query_type, turn) else {
        return Step::Forward { limit };
    };
    reply.metadata.authoritative = true;
    match answer {
        Answer::Records { answers, additionals, chase } => {
            (reply.answers, reply.additionals) = (answers, additionals);
            if let Some(target) = chase
                && let Some(question) = question(target, query.query_type)
            {
                return Step::Chase(Box::new(Chase { reply, limit, question }));
            }
        }
        Answer::NoData => reply.authorities = vec![zone.soa().clone()],
        Answer::NoName => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities = vec![zone.soa().clone()];
        }
    }
    finish(reply, limit)
}

impl Chase {
    /// The whole answer, with what upstream said, if anything.
    pub(super) fn finish(mut self, upstream: Option<Vec<u8>>) -> Step {
        match upstream.as_deref().map(Message::from_vec) {
            Some(Ok(message)) => {
                self.reply.answers.extend(message.answers);
                self.reply.authorities = message.authorities;
            }
            _ => self.reply.metadata.response_code = ResponseCode::ServFail,
        }
        finish(self.reply, self.limit)
    }
}

/// The answer when nobody upstream answers.
pub(super) fn failure(bytes: &[u8]) -> Step {
    let Ok(request) = Message::from_vec(bytes) else { return Step::Ignore };
    let mut reply = Message::error_msg(request.metadata.id, request.metadata.op_code, ResponseCode::ServFail);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries = request.queries;
    finish(reply, PLAIN_UDP)
}

fn question(target: Name, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(0, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(target, kind));
    message.to_vec().ok()
}

fn limit(request: &Message, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => {
            request.edns.as_ref().map_or(PLAIN_UDP, |e| usize::from(e.max_payload()).max(PLAIN_UDP))
        }
    }
}

fn refuse(mut reply: Message, code: ResponseCode, limit: usize) -> Step {
    reply.metadata.response_code = code;
    if let (ResponseCode::BADVERS, Some(edns)) = (code, &mut reply.edns) {
        edns.set_rcode_high(1);
    }
    finish(reply, limit)
}

/// Smallest record: a pointer to the name, type, class, time to live, length.
const LEAST_RECORD: usize = 12;

/// Writes a reply that fits: first without additional records, then with as many answers as there is room for,
/// marked as cut.
fn finish(mut reply: Message, limit: usize) -> Step {
    let fitting = |reply: &Message| reply.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    if let Some(bytes) = fitting(&reply) {
        return Step::Reply(bytes);
    }
    reply.additionals.clear();
    if let Some(bytes) = fitting(&reply) {
        return Step::Reply(bytes);
    }
    reply.metadata.truncation = true;
    reply.authorities.clear();
    let answers: Vec<Record> = std::mem::take(&mut reply.answers);
    let mut best = fitting(&reply);
    let (mut fits, mut too_many) = (0, answers.len().min(limit / LEAST_RECORD));
    while too_many - fits > 1 {
        let middle = fits + (too_many - fits) / 2;
        reply.answers = answers[..middle].to_vec();
        match fitting(&reply) {
            Some(bytes) => (fits, best) = (middle, Some(bytes)),
            None => too_many = middle,
        }
    }
    best.map_or(Step::Ignore, Step::Reply)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
