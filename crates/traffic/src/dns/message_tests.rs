use std::time::Instant;

use hickory_proto::rr::RData;
use proptest::prelude::*;

use super::*;
use crate::{Endpoint, Service, ServiceState, ServiceType};

fn zone(endpoints: u16) -> Zone {
    let mut state = ServiceState::new();
    let endpoints = (0..endpoints).map(|n| Endpoint {
        ip: [10, 42, (n >> 8) as u8, n as u8].into(),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        hostname: None,
        ports: [].into(),
    });
    state.insert("default", "db", Service { endpoints: endpoints.collect(), ..Service::default() });
    let web = Service { cluster_ips: vec![[10, 43, 0, 5].into()], ..Service::default() };
    state.insert("default", "web", web);
    for (name, target) in [
        ("ext", "example.org"),
        ("near", "web.default.svc.cluster.local"),
        ("loop", "loop.default.svc.cluster.local"),
    ] {
        let kind = ServiceType::ExternalName(target.into());
        state.insert("default", name, Service { kind, ..Service::default() });
    }
    Zone::new(state, "cluster.local").expect("zone")
}

fn request(name: &str, kind: RecordType, edns: Option<u16>) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        message.set_edns(edns);
    }
    message.to_vec().expect("encode")
}

fn reply(step: Step) -> (Message, usize) {
    let Step::Reply(bytes) = step else { panic!("no reply") };
    (Message::from_vec(&bytes).expect("decode"), bytes.len())
}

#[test]
fn an_answer_mirrors_its_request() {
    let (message, _) = reply(decide(
        &zone(1),
        &request("WEB.default.svc.cluster.local.", RecordType::A, Some(1232)),
        Transport::Udp,
        0,
    ));
    assert_eq!(message.metadata.id, 4711);
    assert!(
        message.metadata.authoritative
            && message.metadata.recursion_desired
            && message.metadata.recursion_available
    );
    assert_eq!(message.queries[0].name.to_string(), "WEB.default.svc.cluster.local.", "as it was spelled");
    assert_eq!((message.answers.len(), message.answers[0].ttl), (1, 5));
    assert!(message.edns.is_some());
    assert!(matches!(message.answers[0].data, RData::A(_)));
}

#[test]
fn negative_answers_tell_apart_no_name_and_no_data() {
    for (name, kind, code) in [
        ("web.default.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
        ("nope.default.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
    ] {
        let (message, _) = reply(decide(&zone(1), &request(name, kind, None), Transport::Udp, 0));
        assert_eq!((message.metadata.response_code, message.answers.len()), (code, 0));
        let RData::SOA(soa) = &message.authorities[0].data else { panic!("SOA") };
        assert_eq!((soa.minimum, message.authorities[0].ttl), (5, 5));
    }
}

#[test]
fn answers_are_cut_to_what_the_client_takes() {
    let zone = zone(100);
    let ask = |edns, transport| {
        reply(decide(&zone, &request("db.default.svc.cluster.local.", RecordType::A, edns), transport, 0))
    };
    for (edns, limit) in [(None, 512), (Some(100), 512), (Some(1232), 1232)] {
        let (message, len) = ask(edns, Transport::Udp);
        assert!(message.metadata.truncation && len <= limit);
        assert!(len > limit - 20, "as many as fit: {len} of {limit}");
    }
    let (message, len) = ask(Some(4096), Transport::Udp);
    assert!(!message.metadata.truncation, "{len} bytes, {} answers", message.answers.len());
    let (message, _) = ask(None, Transport::Tcp);
    assert_eq!((message.metadata.truncation, message.answers.len()), (false, 100));
}

#[test]
fn more_endpoints_than_any_message_holds() {
    let request = request("db.default.svc.cluster.local.", RecordType::A, None);
    let (message, _) = reply(decide(&zone(6000), &request, Transport::Tcp, 0));
    assert!(message.metadata.truncation && message.answers.len() > 1000);
}

#[test]
fn odd_requests_get_the_right_refusal() {
    let code = |bytes: &[u8]| reply(decide(&zone(1), bytes, Transport::Udp, 0)).0.metadata.response_code;
    let plain = request("web.default.svc.cluster.local.", RecordType::A, None);
    let mut update = plain.clone();
    update[2] |= 4 << 3;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut none = plain[..12].to_vec();
    none[5] = 0;
    assert_eq!(code(&none), ResponseCode::FormErr);
    assert_eq!(code(&plain[..20]), ResponseCode::FormErr);
    assert_eq!(code(&request("cluster.local.", RecordType::AXFR, None)), ResponseCode::Refused);
    let mut future = request("web.default.svc.cluster.local.", RecordType::A, Some(1232));
    let version = future.len() - 5;
    future[version] = 1;
    assert_eq!(u16::from(code(&future)), 16, "BADVERS");
    let mut response = plain.clone();
    response[2] |= 0x80;
    assert!(matches!(decide(&zone(1), &response, Transport::Udp, 0), Step::Ignore), "no ping-pong");
    assert!(matches!(decide(&zone(1), &plain[..11], Transport::Udp, 0), Step::Ignore));
    let foreign = request("example.org.", RecordType::A, Some(4096));
    assert!(matches!(decide(&zone(1), &foreign, Transport::Udp, 0), Step::Forward { limit: 4096 }));
}

#[test]
fn a_question_costs_microseconds() {
    let (zone, bytes) = (zone(3), request("web.default.svc.cluster.local.", RecordType::A, Some(1232)));
    let start = Instant::now();
    for turn in 0..2000 {
        assert!(matches!(decide(&zone, &bytes, Transport::Udp, turn), Step::Reply(_)));
    }
    let each = start.elapsed() / 2000;
    println!("a question: {each:?} (unoptimised build)");
    assert!(each.as_micros() < 2000, "{each:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let zone = zone(2);
        let _ = decide(&zone, &bytes, Transport::Udp, 0);
        let _ = failure(&bytes);
    }

    #[test]
    fn nor_does_a_damaged_request(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        edns in prop::option::of(any::<u16>()),
    ) {
        let zone = zone(40);
        let mut bytes = request("_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV, edns);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Step::Reply(reply) = decide(&zone, &bytes, Transport::Udp, 1) {
            prop_assert!(Message::from_vec(&reply).is_ok());
            prop_assert_eq!(&reply[..2], &bytes[..2]);
        }
        let _ = failure(&bytes);
    }

    #[test]
    fn whatever_is_asked_the_answer_is_well_formed(
        labels in prop::collection::vec("web|db|default|kube-system|svc|pod|_http|_tcp|_sql|10-42-0-1|10|43|0|5|ext|near|loop|\\*|[a-z]{1,63}", 0..7),
        root in prop::sample::select(vec!["cluster.local.", "svc.cluster.local.", "default.svc.cluster.local.", "in-addr.arpa.", "ip6.arpa.", "example.org.", "."]),
        kind in prop::sample::select(vec![RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR, RecordType::CNAME,
            RecordType::TXT, RecordType::SOA, RecordType::NS, RecordType::ANY, RecordType::MX, RecordType::Unknown(65280)]),
        edns in prop::option::of(any::<u16>()),
        tcp: bool,
        turn: u32,
        upstream in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let name = format!("{}.{root}", labels.join("."));
        let name = if labels.is_empty() { root.to_owned() } else if root == "." { format!("{}.", labels.join(".")) } else { name };
        prop_assume!(Name::from_ascii(&name).is_ok_and(|n| n.len() < 250));
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let (zone, bytes) = (zone(40), request(&name, kind, edns));
        let limit = if tcp { 65_535 } else { usize::from(edns.unwrap_or(0)).max(512) };
        let ours = name.ends_with("cluster.local.");
        let step = match decide(&zone, &bytes, transport, turn) {
            Step::Chase(chase) => {
                prop_assert!(Message::from_vec(&chase.question).is_ok_and(|q| q.queries.len() == 1));
                chase.finish(Some([&bytes[..], &upstream].concat()))
            }
            Step::Forward { limit: most } => {
                prop_assert!(!ours && most == limit, "{name} is the cluster's own");
                return Ok(());
            }
            step => step,
        };
        let Step::Reply(reply) = step else { return Err(TestCaseError::fail("every question has an answer")) };
        prop_assert!(reply.len() <= limit);
        let message = Message::from_vec(&reply).unwrap();
        prop_assert_eq!(message.metadata.id, 4711);
        prop_assert_eq!(message.metadata.message_type, MessageType::Response);
        prop_assert_eq!(&message.queries, &Message::from_vec(&bytes).unwrap().queries);
        prop_assert_eq!(message.edns.is_some(), edns.is_some());
        // Each record answers the question, or what an alias before it leads to.
        let mut expected = vec![message.queries[0].name.clone()];
        for record in &message.answers {
            prop_assert!(expected.contains(&record.name), "{} in the answer to {name}", record.name);
            if let RData::CNAME(target) = &record.data {
                expected.push(target.0.clone());
            }
        }
        if message.metadata.response_code == ResponseCode::NXDomain || message.answers.is_empty() {
            prop_assert!(message.metadata.truncation || message.authorities.iter().any(|r| r.record_type() == RecordType::SOA));
        }
        let Step::Reply(failed) = failure(&bytes) else { return Err(TestCaseError::fail("a failure is told")) };
        prop_assert!(wire_ok(&failed, &bytes));
    }

    #[test]
    fn a_cut_reply_is_still_one(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let asked = request("db.default.svc.cluster.local.", RecordType::A, Some(4096));
        let Step::Reply(mut reply) = decide(&zone(60), &asked, Transport::Udp, 0) else { return Ok(()) };
        for (at, byte) in damage {
            let at = at.index(reply.len());
            reply[at] = byte;
        }
        if crate::dns::wire::answers(&reply, &asked) && let Some(short) = crate::dns::wire::cut(&reply) {
            let message = Message::from_vec(&short).unwrap();
            prop_assert!(message.metadata.truncation && message.answers.is_empty() && short.len() <= 512);
            prop_assert!(wire_ok(&short, &asked));
        }
    }
}

/// A response with the request's id and question.
fn wire_ok(reply: &[u8], request: &[u8]) -> bool {
    crate::dns::wire::answers(reply, request) && Message::from_vec(reply).is_ok()
}

#[test]
fn an_asterisk_is_a_label() {
    for name in ["*.cluster.local.", "*.web.default.svc.cluster.local.", "*.default.svc.cluster.local."] {
        let (message, _) = reply(decide(&zone(1), &request(name, RecordType::A, None), Transport::Udp, 0));
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
}
