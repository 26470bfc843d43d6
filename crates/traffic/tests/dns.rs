//! The DNS server on real sockets, in a network namespace of its own, with an upstream of our own.

#[path = "../../network/tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Ns, WAIT};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio_util::sync::CancellationToken;
use traffic::dns::{DnsConfig, Server, ServerHandle, Upstreams, Zone};
use traffic::{Service, ServiceState, ServiceType};

const OURS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

struct Dns {
    ns: Ns,
    addr: SocketAddr,
    handle: ServerHandle,
    stop: CancellationToken,
}

fn zone(ip: [u8; 4]) -> Zone {
    let mut state = ServiceState::new();
    state.insert("default", "web", Service { cluster_ips: vec![ip.into()], ..Service::default() });
    let alias = Service { kind: ServiceType::ExternalName("www.example.org".into()), ..Service::default() };
    state.insert("default", "alias", alias);
    Zone::new(state, "cluster.local").expect("zone")
}

impl Dns {
    fn new(ns: Ns, upstreams: Vec<SocketAddr>) -> Self {
        let (send, receive) = std::sync::mpsc::channel();
        ns.background(move || async move {
            let config = DnsConfig {
                listen: vec![(OURS, 0).into()],
                upstreams: Upstreams::Fixed(upstreams),
                aliases: Vec::new(),
            };
            let server = Server::bind(config, zone([10, 43, 0, 5])).await.expect("bind");
            let stop = CancellationToken::new();
            send.send((server.addrs()[0], server.handle(), stop.clone())).expect("test waits");
            server.run(stop).await;
        });
        let (addr, handle, stop) = receive.recv().expect("server started");
        Self { ns, addr, handle, stop }
    }

    fn request(name: &str, kind: RecordType, edns: Option<u16>) -> Message {
        static ID: AtomicUsize = AtomicUsize::new(1);
        let id = ID.fetch_add(1, Ordering::Relaxed) as u16;
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("name"), kind));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message
    }

    fn udp(&self, name: &str, kind: RecordType, edns: Option<u16>) -> Message {
        let request = Self::request(name, kind, edns);
        let socket = self.ns.run(|| UdpSocket::bind((OURS, 0)).expect("bind"));
        socket.set_read_timeout(Some(Duration::from_secs(15))).expect("timeout");
        socket.send_to(&request.to_vec().expect("encode"), self.addr).expect("send");
        let mut buf = vec![0; 65_535];
        let len = socket.recv(&mut buf).expect("answer");
        let reply = Message::from_vec(&buf[..len]).expect("decode");
        assert_eq!(reply.metadata.id, request.metadata.id);
        reply
    }

    fn tcp(&self, names: &[&str]) -> Vec<Message> {
        let mut stream = self.ns.run(|| TcpStream::connect(self.addr).expect("connect"));
        stream.set_read_timeout(Some(WAIT)).expect("timeout");
        names
            .iter()
            .map(|name| {
                let bytes = Self::request(name, RecordType::A, None).to_vec().expect("encode");
                stream.write_all(&(bytes.len() as u16).to_be_bytes()).expect("length");
                stream.write_all(&bytes).expect("request");
                read_framed(&mut stream)
            })
            .collect()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn read_framed(stream: &mut TcpStream) -> Message {
    let mut len = [0; 2];
    stream.read_exact(&mut len).expect("length");
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut bytes).expect("message");
    Message::from_vec(&bytes).expect("decode")
}

/// An upstream: `big.*` has 100 addresses and is cut over UDP, `bad.*` fails, `gone.*` does not exist, the rest is
/// 192.0.2.9. Returns how many questions came.
fn upstream(ns: &Ns, ip: Ipv4Addr) -> Arc<AtomicUsize> {
    let (udp, tcp) =
        ns.run(|| (UdpSocket::bind((ip, 53)).expect("udp"), TcpListener::bind((ip, 53)).expect("tcp")));
    let count = Arc::new(AtomicUsize::new(0));
    let answer = |request: &Message, whole: bool| {
        let mut reply = Message::response(request.metadata.id, OpCode::Query);
        reply.queries = request.queries.clone();
        let name = request.queries[0].name.clone();
        let record =
            |n: u8| Record::from_rdata(name.clone(), 300, RData::A(Ipv4Addr::new(192, 0, 2, n).into()));
        match name.to_string() {
            n if n.starts_with("bad.") => reply.metadata.response_code = ResponseCode::ServFail,
            n if n.starts_with("gone.") => reply.metadata.response_code = ResponseCode::NXDomain,
            n if n.starts_with("big.") && !whole => reply.metadata.truncation = true,
            n if n.starts_with("big.") => reply.answers = (0..100).map(record).collect(),
            _ => reply.answers = vec![record(9)],
        }
        reply.to_vec().expect("encode")
    };
    let counter = count.clone();
    std::thread::spawn(move || {
        let mut buf = [0; 4096];
        while let Ok((len, peer)) = udp.recv_from(&mut buf) {
            counter.fetch_add(1, Ordering::SeqCst);
            let request = Message::from_vec(&buf[..len]).expect("request");
            let _ = udp.send_to(&answer(&request, false), peer);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let bytes = answer(&read_framed(&mut stream), true);
            let _ = stream.write_all(&(bytes.len() as u16).to_be_bytes());
            let _ = stream.write_all(&bytes);
        }
    });
    count
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[test]
fn cluster_names_over_udp_and_tcp_and_after_a_change() {
    let dns = Dns::new(Ns::new(), Vec::new());
    let name = "web.default.svc.cluster.local.";
    assert_eq!(addresses(&dns.udp(name, RecordType::A, None)), ["10.43.0.5"]);
    let replies = dns.tcp(&[name, "nope.default.svc.cluster.local.", name]);
    assert_eq!(addresses(&replies[0]), ["10.43.0.5"]);
    assert_eq!(replies[1].metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(addresses(&replies[2]), ["10.43.0.5"], "many questions on one connection");
    dns.handle.set_zone(zone([10, 43, 0, 6]));
    assert_eq!(addresses(&dns.udp(name, RecordType::A, None)), ["10.43.0.6"]);
}

#[test]
fn the_rest_comes_from_upstream_and_is_remembered() {
    let ns = Ns::new();
    let count = upstream(&ns, UPSTREAM);
    let dns = Dns::new(ns, vec![(OURS, 53).into(), (UPSTREAM, 53).into()]);
    for _ in 0..3 {
        let reply = dns.udp("www.example.org.", RecordType::A, None);
        assert_eq!(addresses(&reply), ["192.0.2.9"]);
        assert!(reply.answers[0].ttl <= 300 && reply.answers[0].ttl >= 290);
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "asked once");
    assert_eq!(addresses(&dns.tcp(&["other.example.org."])[0]), ["192.0.2.9"]);
    assert_eq!(
        dns.udp("gone.example.org.", RecordType::A, None).metadata.response_code,
        ResponseCode::NXDomain
    );
    let reply = dns.udp("bad.example.org.", RecordType::A, None);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn large_upstream_answers_are_fetched_by_tcp() {
    let ns = Ns::new();
    upstream(&ns, UPSTREAM);
    let dns = Dns::new(ns, vec![(UPSTREAM, 53).into()]);
    assert_eq!(dns.udp("big.example.org.", RecordType::A, Some(4096)).answers.len(), 100);
    let reply = dns.udp("big.example.org.", RecordType::A, None);
    assert!(reply.metadata.truncation, "it does not fit");
    assert_eq!(dns.tcp(&["big.example.org."])[0].answers.len(), 100);
}

#[test]
fn aliases_are_followed_upstream() {
    let ns = Ns::new();
    upstream(&ns, UPSTREAM);
    let dns = Dns::new(ns, vec![(UPSTREAM, 53).into()]);
    let reply = dns.udp("alias.default.svc.cluster.local.", RecordType::A, None);
    assert_eq!(addresses(&reply), ["www.example.org.", "192.0.2.9"]);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent_or_fails() {
    let ns = Ns::new();
    // Nobody listens on the first; the second one answers.
    upstream(&ns, UPSTREAM);
    let dns = Dns::new(ns, vec![(Ipv4Addr::new(127, 0, 0, 3), 53).into(), (UPSTREAM, 53).into()]);
    assert_eq!(addresses(&dns.udp("www.example.org.", RecordType::A, None)), ["192.0.2.9"]);
}

#[test]
fn without_upstream_the_rest_fails_at_once() {
    // Itself is no upstream: that would be a circle.
    let dns = Dns::new(Ns::new(), vec![(OURS, 53).into()]);
    let reply = dns.udp("www.example.org.", RecordType::A, None);
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(addresses(&dns.udp("web.default.svc.cluster.local.", RecordType::A, None)), ["10.43.0.5"]);
}

#[test]
fn noise_does_not_hurt_it() {
    let dns = Dns::new(Ns::new(), Vec::new());
    let socket = dns.ns.run(|| UdpSocket::bind((OURS, 0)).expect("bind"));
    for len in 0..200usize {
        let bytes: Vec<u8> = (0..len).map(|n| (n * 31 + len) as u8 & 0x7f).collect();
        socket.send_to(&bytes, dns.addr).expect("send");
    }
    let mut stream = dns.ns.run(|| TcpStream::connect(dns.addr).expect("connect"));
    let _ = stream.write_all(&[0, 3, 1, 2, 3]);
    assert_eq!(addresses(&dns.udp("web.default.svc.cluster.local.", RecordType::A, None)), ["10.43.0.5"]);
}
