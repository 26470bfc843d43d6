//! A node's network on the real kernel, in namespaces of its own.

mod common;

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::{Ns, eventually, join};
use network::{Attachment, HostPort, Network, NetworkConfig, NetworkError, Protocol};
use nlink::netlink::{Connection, Route};

/// A node; every call opens the network afresh, as a restarted agent does.
struct Node {
    ns: Ns,
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self { ns: Ns::new(), dir: tempfile::tempdir().expect("dir") }
    }

    fn config(&self) -> NetworkConfig {
        NetworkConfig::new(self.dir.path(), "10.42.0.0/24".parse().expect("cidr"))
    }

    fn with<T: Send>(&self, f: impl AsyncFnOnce(Network) -> T + Send) -> T {
        let config = self.config();
        self.ns.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async { f(Network::open(config).await.expect("open")).await })
        })
    }

    fn attach(&self, id: &str, pod: &Ns) -> Attachment {
        let (id, path) = (id.to_owned(), pod.path().to_owned());
        self.with(async move |net| net.attach(&id, &path).await.expect("attach"))
    }

    fn links(&self) -> Vec<String> {
        self.ns.block_on(async {
            let conn = Connection::<Route>::new().expect("netlink");
            let links = conn.get_links().await.expect("links");
            links.iter().map(|l| l.name_or("?").to_owned()).collect()
        })
    }
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 1);

#[test]
fn pods_reach_each_other_the_node_and_the_world() {
    let (node, outside, a, b) = (Node::new(), Ns::new(), Ns::new(), Ns::new());
    join(&node.ns, &outside);
    let (at_a, at_b) = (node.attach("a", &a), node.attach("b", &b));
    assert_eq!((at_a.ip, at_a.gateway), (Ipv4Addr::new(10, 42, 0, 2), GATEWAY));
    b.serve_tcp(80, "b");
    a.serve_udp(53, "a");
    node.ns.serve_tcp(81, "node");
    outside.serve_tcp(82, "outside");

    let seen = a.ask_tcp(at_b.ip, 80).expect("pod to pod");
    assert_eq!((seen.from.as_str(), seen.saw), ("b", at_a.ip.to_string()), "under its own address");
    assert_eq!(b.ask_udp(at_a.ip, 53).expect("pod to pod, udp").saw, at_b.ip.to_string());
    assert_eq!(a.ask_tcp(GATEWAY, 81).expect("pod to node").saw, at_a.ip.to_string());
    assert_eq!(node.ns.ask_tcp(at_b.ip, 80).expect("node to pod").saw, GATEWAY.to_string());
    let seen = a.ask_tcp(Ipv4Addr::new(192, 0, 2, 2), 82).expect("pod to the world");
    assert_eq!(seen.saw, "192.0.2.1", "under the node's address");
    assert_eq!(
        a.ask_tcp(Ipv4Addr::LOCALHOST, 80).expect_err("lo is up").kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

#[test]
fn attach_is_idempotent_and_survives_restarts_and_new_namespaces() {
    let (node, a, b) = (Node::new(), Ns::new(), Ns::new());
    let first = node.attach("a", &a);
    let at_b = node.attach("b", &b);
    a.serve_tcp(80, "a");
    let mut open = b.open_tcp(first.ip, 80).expect("connect");
    assert_eq!(node.attach("a", &a), first, "attached again");
    open.say("still here").expect("the connection lives through it");

    let reborn = Ns::new();
    assert_eq!(node.attach("a", &reborn), first, "same id, new namespace");
    reborn.serve_tcp(80, "reborn");
    assert_eq!(b.ask_tcp(first.ip, 80).expect("connect").from, "reborn");

    let list = node.with(async |net| net.attached().await);
    assert_eq!(
        list.iter().map(|a| (a.id.as_str(), a.ip)).collect::<Vec<_>>(),
        [("a", first.ip), ("b", at_b.ip)]
    );
}

#[test]
fn detach_gc_and_destroy_leave_nothing() {
    let node = Node::new();
    let before = node.links();
    let pods: Vec<Ns> = (0..4).map(|_| Ns::new()).collect();
    let at: Vec<_> = pods.iter().enumerate().map(|(n, pod)| node.attach(&format!("pod{n}"), pod)).collect();
    node.with(async |net| {
        net.detach("pod0").await.expect("detach");
        net.detach("pod0").await.expect("detach again");
        net.detach("never").await.expect("detach unknown");
    });
    assert!(!node.links().contains(&at[0].host_if));

    // A namespace that is gone takes its interfaces with it.
    let mut pods = pods.into_iter();
    drop((pods.next(), pods.next()));
    eventually("interface of the dead namespace is gone", || !node.links().contains(&at[1].host_if));
    node.with(async |net| net.detach("pod1").await.expect("detach after the namespace died"));

    let keep = HashSet::from(["pod3".to_owned()]);
    let gone = node.with(async |net| net.gc(&keep).await.expect("gc"));
    assert_eq!(gone, ["pod2"]);
    assert!(node.links().contains(&at[3].host_if));

    node.with(async |net| net.destroy().await.expect("destroy"));
    assert_eq!(node.links(), before);
    let tables = node
        .ns
        .block_on(async { network::nft::connect().expect("nft").list_tables().await.expect("tables") });
    assert!(tables.is_empty(), "{tables:?}");
    assert_eq!(std::fs::read_dir(node.dir.path().join("ipam")).expect("dir").count(), 0);
}

#[test]
fn a_broken_bridge_is_mended() {
    let (node, a, b) = (Node::new(), Ns::new(), Ns::new());
    let at = node.attach("a", &a);
    node.attach("b", &b);
    a.serve_tcp(80, "a");
    node.ns.block_on(async {
        let conn = Connection::<Route>::new().expect("netlink");
        conn.set_link_down("gantry0").await.expect("down");
        conn.del_address("gantry0", GATEWAY.into(), 24).await.expect("address");
        conn.add_address_by_name("gantry0", Ipv4Addr::new(10, 99, 0, 1).into(), 24)
            .await
            .expect("foreign address");
        network::nft::connect().expect("nft").flush_ruleset().await.expect("flush");
    });
    node.with(async |_| ());
    assert_eq!(b.ask_tcp(at.ip, 80).expect("mended").from, "a");
}

#[test]
fn published_ports_lead_inside_from_everywhere() {
    let (node, outside, a, b) = (Node::new(), Ns::new(), Ns::new(), Ns::new());
    join(&node.ns, &outside);
    let (at_a, _) = (node.attach("a", &a), node.attach("b", &b));
    a.serve_tcp(80, "a");
    a.serve_udp(80, "a");
    let port = |protocol, host_port| HostPort { protocol, host_ip: None, host_port, container_port: 80 };
    let ports = [port(Protocol::Tcp, 8080), port(Protocol::Udp, 8080)];
    node.with(async |net| net.publish("a", &ports).await.expect("publish"));

    let node_ip = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(outside.ask_tcp(node_ip, 8080).expect("from outside").saw, "192.0.2.2", "source kept");
    assert_eq!(outside.ask_udp(node_ip, 8080).expect("from outside, udp").from, "a");
    assert_eq!(node.ns.ask_tcp(node_ip, 8080).expect("from the node").from, "a");
    assert_eq!(node.ns.ask_tcp(Ipv4Addr::LOCALHOST, 8080).expect("from localhost").from, "a");
    assert_eq!(b.ask_tcp(node_ip, 8080).expect("from another pod").from, "a");
    assert_eq!(a.ask_tcp(node_ip, 8080).expect("from itself").from, "a");

    // A restarted agent knows them, refuses a clash, and replaces only what differs.
    node.with(async |net| {
        assert_eq!(net.attached().await[0].ports.len(), 2);
        let clash = net.publish("b", &[port(Protocol::Tcp, 8080)]).await;
        assert!(matches!(clash, Err(NetworkError::PortTaken { port: 8080, owner, .. }) if owner == at_a.ip));
        let one = HostPort { host_ip: Some(node_ip), ..port(Protocol::Tcp, 8081) };
        net.publish("a", &[port(Protocol::Tcp, 8080), one]).await.expect("publish");
    });
    assert_eq!(outside.ask_tcp(node_ip, 8081).expect("one address").from, "a");
    assert!(b.ask_tcp(GATEWAY, 8081).is_err(), "only on that address");
    assert!(outside.ask_udp(node_ip, 8080).is_err(), "no longer published");
    node.with(async |net| net.detach("a").await.expect("detach"));
    assert!(outside.ask_tcp(node_ip, 8080).is_err());
}

#[test]
fn pods_cannot_reach_services_on_the_nodes_loopback() {
    let (node, a) = (Node::new(), Ns::new());
    node.attach("a", &a);
    node.ns.serve_tcp(9999, "private");
    a.block_on(async {
        // What a hostile pod with NET_ADMIN would do: send 127.0.0.1 to the gateway.
        let conn = Connection::<Route>::new().expect("netlink");
        conn.del_address("lo", Ipv4Addr::LOCALHOST.into(), 8).await.expect("address");
        let index = conn.get_link_by_name("eth0").await.expect("get").expect("eth0").ifindex();
        let settings = [(nlink::netlink::devconf::Ipv4Devconf::RouteLocalnet, 1)];
        conn.set_ipv4_devconf_by_index(index, &settings).await.expect("route_localnet");
        let route = nlink::netlink::route::Ipv4Route::new(Ipv4Addr::new(127, 0, 0, 0), 8);
        conn.add_route(route.gateway(GATEWAY).dev("eth0")).await.expect("route");
    });
    let stream = a.run(|| {
        std::net::TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, 9999).into(), Duration::from_millis(300))
    });
    assert!(stream.is_err());
}

#[test]
fn a_released_id_loses_its_interfaces_with_its_namespace_or_after_a_while() {
    let (node, held, first, again) = (Node::new(), Ns::new(), Ns::new(), Ns::new());
    let (at_held, at_first) = (node.attach("held", &held), node.attach("reborn", &first));
    node.with(async |net| {
        tokio::time::pause();
        net.release("held").await.expect("release");
        net.release("reborn").await.expect("release");
        assert_eq!(net.address("held"), None);
        net.attach("reborn", again.path()).await.expect("attach again");
        let conn = Connection::<Route>::new().expect("netlink");
        let there = async |name: &str| conn.get_link_by_name(name).await.expect("look up").is_some();
        assert!(there(&at_held.host_if).await, "its namespace lives");
        // Time passes as fast as nobody has anything to do.
        tokio::time::timeout(Duration::from_secs(60), async {
            while there(&at_held.host_if).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .expect("it is removed");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(there(&at_first.host_if).await, "who has come back keeps the new ones");
    });
}

/// Everything can run on a runtime with many threads.
#[allow(dead_code)]
fn futures_are_send(net: &Network, keep: &HashSet<String>) {
    fn send<T: Send>(_: T) {}
    send(Network::open(net.config().clone()));
    send(net.attach("a", "/x".as_ref()));
    send(net.detach("a"));
    send(net.release("a"));
    send(net.publish("a", &[]));
    send(net.attached());
    send(net.gc(keep));
    send(net.destroy());
}

#[test]
fn failures_are_sentences_and_leave_nothing() {
    let node = Node::new();
    node.with(async |net| {
        let error = net.attach("a", "/nonexistent/ns".as_ref()).await.expect_err("no such namespace");
        assert!(error.to_string().contains("/nonexistent/ns"), "{error}");
        assert!(net.attached().await.is_empty(), "the address is free again");
        let error = net.publish("a", &[]).await.expect_err("not attached");
        assert_eq!(error.to_string(), "a is not attached to the network");
    });
}
