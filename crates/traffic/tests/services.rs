//! Services on the real kernel, in namespaces of their own.

#[path = "../../network/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Ns, join};
use network::{Network, NetworkConfig};
use traffic::services::{Applied, Applier, ProxyConfig, Rules, desired};
use traffic::{
    Endpoint, EndpointPort, Protocol, Service, ServicePort, ServiceState, ServiceType, TrafficPolicy,
};

const NODE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VIP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 7);
const NODE_PORT: u16 = 30080;

/// A node with pods, an outside world, and Services.
struct Cluster {
    node: Ns,
    outside: Ns,
    pods: Vec<(Ns, Ipv4Addr)>,
    _dir: tempfile::TempDir,
}

fn config() -> ProxyConfig {
    ProxyConfig { node: "n1".into(), cluster_cidrs: vec!["10.42.0.0/16".parse().expect("cidr")] }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
}

impl Cluster {
    /// Pods `p0`, `p1`, … answer on TCP and UDP port 8080 with their names.
    fn new(pods: usize) -> Self {
        let (node, outside) = (Ns::new(), Ns::new());
        join(&node, &outside);
        let dir = tempfile::tempdir().expect("dir");
        let mut net = NetworkConfig::new(dir.path(), "10.42.0.0/24".parse().expect("cidr"));
        net.service_cidrs = vec!["10.43.0.0/16".parse().expect("cidr")];
        let pods: Vec<Ns> = (0..pods).map(|_| Ns::new()).collect();
        let addrs = node.run(|| {
            runtime().block_on(async {
                let network = Network::open(net).await.expect("open");
                let mut addrs = Vec::new();
                for (n, pod) in pods.iter().enumerate() {
                    addrs.push(network.attach(&format!("p{n}"), pod.path()).await.expect("attach").ip);
                }
                addrs
            })
        });
        for (n, pod) in pods.iter().enumerate() {
            pod.serve_tcp(8080, &format!("p{n}"));
            pod.serve_udp(8080, &format!("p{n}"));
        }
        Self { node, outside, pods: pods.into_iter().zip(addrs).collect(), _dir: dir }
    }

    /// Applies with a fresh applier, as a restarted agent does.
    fn apply(&self, state: &ServiceState) -> Applied {
        self.apply_rules(desired(state, &config()))
    }

    fn apply_rules(&self, rules: Rules) -> Applied {
        self.node.run(|| {
            runtime().block_on(async {
                let mut applier = Applier::open("gantry-test", config()).expect("open");
                applier.apply(Arc::new(rules)).await.expect("apply")
            })
        })
    }

    fn endpoint(&self, pod: usize) -> Endpoint {
        endpoint(self.pods[pod].1)
    }

    fn service(&self, pods: impl IntoIterator<Item = usize>) -> Service {
        Service {
            kind: ServiceType::NodePort,
            cluster_ips: vec![VIP.into()],
            ports: [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]
                .map(|(name, protocol)| ServicePort {
                    name: name.into(),
                    protocol,
                    port: 80,
                    node_port: Some(NODE_PORT),
                })
                .into(),
            endpoints: pods.into_iter().map(|p| self.endpoint(p)).collect(),
            ..Service::default()
        }
    }
}

fn endpoint(ip: Ipv4Addr) -> Endpoint {
    Endpoint {
        ip: ip.into(),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("n1".into()),
        hostname: None,
        ports: [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]
            .map(|(name, protocol)| EndpointPort { name: name.into(), protocol, port: 8080 })
            .into(),
    }
}

fn state(service: Service) -> ServiceState {
    let mut state = ServiceState::new();
    state.insert("default", "web", service);
    state
}

/// Who answers `count` connections.
fn spread(from: &Ns, ip: Ipv4Addr, port: u16, count: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(from.ask_tcp(ip, port).expect("answer").from).or_default() += 1;
    }
    seen
}

#[test]
fn services_are_reached_from_pods_node_and_outside() {
    let cluster = Cluster::new(3);
    cluster.apply(&state(cluster.service([0, 1])));
    let (client, client_ip) = &cluster.pods[2];

    let seen = spread(client, VIP, 80, 60);
    assert_eq!(seen.len(), 2);
    assert!(seen.values().all(|n| *n >= 10), "random spread: {seen:?}");
    assert_eq!(client.ask_tcp(VIP, 80).expect("pod").saw, client_ip.to_string(), "source kept");
    assert!(client.ask_udp(VIP, 80).expect("pod, udp").from.starts_with('p'));

    assert!(cluster.node.ask_tcp(VIP, 80).expect("node").from.starts_with('p'));
    for ip in [NODE_IP, Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 42, 0, 1)] {
        assert!(
            cluster.node.ask_tcp(ip, NODE_PORT).expect("node port from the node").from.starts_with('p'),
            "{ip}"
        );
    }
    assert!(cluster.node.ask_udp(Ipv4Addr::LOCALHOST, NODE_PORT).expect("udp").from.starts_with('p'));
    assert!(client.ask_tcp(NODE_IP, NODE_PORT).expect("node port from a pod").from.starts_with('p'));

    let seen = spread(&cluster.outside, NODE_IP, NODE_PORT, 30);
    assert_eq!(seen.len(), 2, "{seen:?}");
    let answer = cluster.outside.ask_tcp(NODE_IP, NODE_PORT).expect("outside");
    assert_ne!(answer.saw, OUTSIDE_IP.to_string(), "policy Cluster replaces the source");
    let answer = cluster.outside.ask_tcp(VIP, 80).expect("cluster IP from outside");
    assert_ne!(answer.saw, OUTSIDE_IP.to_string());
}

#[test]
fn a_pod_reaches_itself() {
    let cluster = Cluster::new(1);
    cluster.apply(&state(cluster.service([0])));
    let (pod, ip) = &cluster.pods[0];
    let answer = pod.ask_tcp(VIP, 80).expect("hairpin");
    assert_eq!(answer.from, "p0");
    assert_ne!(answer.saw, ip.to_string());
    assert_eq!(pod.ask_udp(VIP, 80).expect("hairpin, udp").from, "p0");
    assert_eq!(pod.ask_tcp(NODE_IP, NODE_PORT).expect("hairpin by node port").from, "p0");
}

#[test]
fn no_endpoints_means_refused() {
    let cluster = Cluster::new(1);
    cluster.apply(&state(cluster.service([])));
    for (from, ip, port) in [
        (&cluster.pods[0].0, VIP, 80),
        (&cluster.node, VIP, 80),
        (&cluster.outside, NODE_IP, NODE_PORT),
        (&cluster.node, Ipv4Addr::LOCALHOST, NODE_PORT),
    ] {
        let error = from.ask_tcp(ip, port).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "not only silence: {ip}:{port}");
        let error = from.ask_udp(ip, port).expect_err("refused, udp");
        // The node's own datagrams are refused by the send itself, with another error.
        let kinds = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
        assert!(kinds.contains(&error.kind()), "udp {ip}:{port}: {error}");
    }
    cluster.apply(&state(cluster.service([0])));
    assert_eq!(cluster.pods[0].0.ask_tcp(VIP, 80).expect("back").from, "p0");
}

#[test]
fn affinity_keeps_a_client_until_its_endpoint_goes() {
    let cluster = Cluster::new(5);
    let sticky = |pods: &[usize]| {
        let affinity = Some(Duration::from_secs(10800));
        state(Service { affinity, ..cluster.service(pods.iter().copied()) })
    };
    cluster.apply(&sticky(&[0, 1, 2, 3]));
    let client = &cluster.pods[4].0;
    let seen = spread(client, VIP, 80, 20);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let chosen: usize = seen.keys().next().expect("one")[1..].parse().expect("number");

    // Others come and go: it stays, over a restart as well.
    let others: Vec<_> = (0..4).filter(|n| *n == chosen || *n % 2 == 0).collect();
    cluster.apply(&sticky(&others));
    assert_eq!(spread(client, VIP, 80, 10), BTreeMap::from([(format!("p{chosen}"), 10)]));

    // Its own goes: another is chosen, and kept.
    let others: Vec<_> = (0..4).filter(|n| *n != chosen).collect();
    cluster.apply(&sticky(&others));
    let seen = spread(client, VIP, 80, 20);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(!seen.contains_key(&format!("p{chosen}")));
}

#[test]
fn connections_live_through_updates_and_restarts() {
    let cluster = Cluster::new(3);
    assert!(cluster.apply(&state(cluster.service([0, 1]))).replaced, "first time");
    let mut from_pod = cluster.pods[2].0.open_tcp(VIP, 80).expect("pod");
    let mut from_outside = cluster.outside.open_tcp(NODE_IP, NODE_PORT).expect("outside");
    let mut from_node = cluster.node.open_tcp(Ipv4Addr::LOCALHOST, NODE_PORT).expect("node");
    let mut talk = |what: &str| {
        for connection in [&mut from_pod, &mut from_outside, &mut from_node] {
            connection.say("hello").unwrap_or_else(|e| panic!("{what}: {e}"));
        }
    };
    talk("start");
    assert_eq!(cluster.apply(&state(cluster.service([0, 1]))), Applied::default(), "taken over as it is");
    talk("restart");
    let applied = cluster.apply(&state(cluster.service([0, 1, 2])));
    assert!(!applied.replaced && applied.elements_added > 0);
    talk("scale up");
    cluster.apply(&state(cluster.service([2])));
    talk("endpoints replaced: existing connections stay where they are");
    assert_eq!(spread(&cluster.pods[2].0, VIP, 80, 5), BTreeMap::from([("p2".to_owned(), 5)]));
    // Another version's table, or a damaged one, is replaced in one step.
    cluster.node.block_on(async {
        let nft = network::nft::connect().expect("nft");
        nft.flush_table("gantry-test", nlink::netlink::nftables::Family::Ip).await.expect("flush");
        nft.del_table("gantry-test", nlink::netlink::nftables::Family::Ip).await.expect("delete");
    });
    assert!(cluster.apply(&state(cluster.service([0, 1]))).replaced);
    talk("table made anew");
}

#[test]
fn there_is_no_moment_without_rules() {
    let cluster = Cluster::new(2);
    cluster.apply(&state(cluster.service([0])));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                cluster.pods[1].0.ask_tcp(VIP, 80).expect("answered, whatever goes on");
                asked += 1;
            }
            asked
        });
        for round in 0..30 {
            // Another configuration each time, so that the whole table is made anew.
            let mut config = config();
            if round % 2 == 0 {
                config.cluster_cidrs.push("10.99.0.0/16".parse().expect("cidr"));
            }
            let rules = Arc::new(desired(&state(cluster.service([0])), &config));
            cluster.node.run(|| {
                runtime().block_on(async {
                    let mut applier = Applier::open("gantry-test", config).expect("open");
                    assert!(applier.apply(rules).await.expect("apply").replaced);
                });
            });
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(asker.join().expect("no failure") > 0);
    });
}

/// It can run on a runtime with many threads.
#[allow(dead_code)]
fn futures_are_send(applier: &mut Applier, rules: Arc<Rules>) {
    fn send<T: Send>(_: T) {}
    send(applier.apply(rules));
}

#[test]
fn a_running_applier_mends_a_table_that_vanished() {
    let cluster = Cluster::new(2);
    let one = Arc::new(desired(&state(cluster.service([0])), &config()));
    let two = Arc::new(desired(&state(cluster.service([0, 1])), &config()));
    cluster.node.run(|| {
        runtime().block_on(async {
            let mut applier = Applier::open("gantry-test", config()).expect("open");
            applier.apply(one.clone()).await.expect("apply");
            assert_eq!(applier.apply(one.clone()).await.expect("apply"), Applied::default());
            network::nft::connect().expect("nft").flush_ruleset().await.expect("flush");
            assert!(applier.apply(two.clone()).await.expect("mended").replaced);
        });
    });
    assert_eq!(spread(&cluster.pods[0].0, VIP, 80, 20).len(), 2);
}

#[test]
fn local_policy_keeps_the_source_and_spares_other_nodes() {
    let cluster = Cluster::new(2);
    let elsewhere = Endpoint { node: Some("n2".into()), ..endpoint(Ipv4Addr::new(10, 42, 9, 9)) };
    let mut service = Service { external_policy: TrafficPolicy::Local, ..cluster.service([0]) };
    service.endpoints.push(elsewhere.clone());
    cluster.apply(&state(service.clone()));
    for _ in 0..10 {
        let answer = cluster.outside.ask_tcp(NODE_IP, NODE_PORT).expect("outside");
        assert_eq!((answer.from.as_str(), answer.saw), ("p0", OUTSIDE_IP.to_string()));
    }
    service.external_policy = TrafficPolicy::Cluster;
    service.internal_policy = TrafficPolicy::Local;
    cluster.apply(&state(service));
    assert_eq!(spread(&cluster.pods[1].0, VIP, 80, 10), BTreeMap::from([("p0".to_owned(), 10)]));
}

#[test]
fn external_and_load_balancer_addresses_lead_in() {
    let cluster = Cluster::new(1);
    let (lb, external) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2));
    let service = |sources: &str| Service {
        kind: ServiceType::LoadBalancer,
        load_balancer_ips: vec![lb.into()],
        external_ips: vec![external.into()],
        load_balancer_sources: vec![sources.parse().expect("net")],
        ..cluster.service([0])
    };
    cluster.apply(&state(service("192.0.2.0/24")));
    for ip in [lb, external] {
        assert_eq!(cluster.outside.ask_tcp(ip, 80).expect("outside").from, "p0", "{ip}");
        assert_eq!(cluster.pods[0].0.ask_tcp(external, 80).expect("pod").from, "p0");
    }
    cluster.apply(&state(service("198.51.100.0/24")));
    let stream = cluster
        .outside
        .run(|| std::net::TcpStream::connect_timeout(&(lb, 80).into(), Duration::from_millis(300)));
    assert!(stream.is_err(), "not in the source ranges");
    assert!(cluster.outside.ask_tcp(external, 80).is_ok(), "the ranges are the load balancer's");
}

#[test]
fn udp_clients_are_led_to_new_endpoints() {
    let cluster = Cluster::new(3);
    cluster.apply(&state(cluster.service([0])));
    let client = &cluster.pods[2].0;
    let socket = client.run(|| std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"));
    socket.set_read_timeout(Some(common::WAIT)).expect("timeout");
    let ask = || {
        socket.send_to(b"?", (VIP, 80)).expect("send");
        let mut buf = [0; 64];
        let n = socket.recv(&mut buf).expect("answer");
        String::from_utf8_lossy(&buf[..2.min(n)]).into_owned()
    };
    assert_eq!(ask(), "p0");
    let applied = cluster.apply(&state(cluster.service([1])));
    assert!(applied.flows_ended >= 1, "{applied:?}");
    assert_eq!(ask(), "p1", "from the same port");
}

#[test]
fn a_local_server_stands_behind_a_service() {
    let cluster = Cluster::new(1);
    let gateway = Ipv4Addr::new(10, 42, 0, 1);
    cluster.node.serve_udp(1053, "dns");
    cluster.node.serve_tcp(1053, "dns");
    let mut state = state(cluster.service([]));
    state.add_local("default", "web", "n1", gateway.into(), 1053);
    cluster.apply(&state);
    for from in [&cluster.pods[0].0, &cluster.node] {
        assert_eq!(from.ask_udp(VIP, 80).expect("udp").from, "dns");
        assert_eq!(from.ask_tcp(VIP, 80).expect("tcp").from, "dns");
    }
}

#[test]
fn a_thousand_services() {
    let cluster = Cluster::new(1);
    let mut state = ServiceState::new();
    for n in 0..1000u32 {
        let addr = |base: u32, n: u32| Ipv4Addr::from(base + n);
        let endpoints = (0..10).map(|e| endpoint(addr(0x0a2a_0100, (n * 10 + e) % 50_000))).collect();
        let service = Service {
            cluster_ips: vec![IpAddr::V4(addr(0x0a2b_1000, n))],
            ports: vec![ServicePort {
                name: "tcp".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: None,
            }],
            endpoints,
            ..Service::default()
        };
        state.insert("default", &format!("svc{n}"), service);
    }
    state.insert("default", "real", cluster.service([0]));
    let start = Instant::now();
    let rules = Arc::new(desired(&state, &config()));
    let decided = start.elapsed();
    let mut changed = state.clone();
    let mut service = cluster.service([0]);
    service.endpoints.push(endpoint(Ipv4Addr::new(10, 42, 200, 1)));
    changed.insert("default", "real", service);
    let rules2 = Arc::new(desired(&changed, &config()));
    cluster.node.run(|| {
        runtime().block_on(async {
            let mut applier = Applier::open("gantry-test", config()).expect("open");
            let start = Instant::now();
            applier.apply(rules.clone()).await.expect("from empty");
            let full = start.elapsed();
            let start = Instant::now();
            let applied = applier.apply(rules2.clone()).await.expect("one change");
            let one = start.elapsed();
            let mut again = Applier::open("gantry-test", config()).expect("open");
            let start = Instant::now();
            assert_eq!(again.apply(rules2.clone()).await.expect("adopt"), Applied::default());
            println!(
                "1,000 services x 10 endpoints: decided {decided:?}, from empty {full:?}, one change {one:?} \
                 ({applied:?}), taken over {:?}",
                start.elapsed()
            );
            assert!(applied.elements_added < 20 && !applied.replaced, "{applied:?}");
        });
    });
}
