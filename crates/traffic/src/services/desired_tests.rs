use std::time::Duration;

use super::*;
use crate::EndpointPort;

fn config() -> ProxyConfig {
    ProxyConfig { node: "n1".into(), cluster_cidrs: vec!["10.42.0.0/16".parse().expect("cidr")] }
}

fn endpoint(last: u8, node: &str) -> Endpoint {
    Endpoint {
        ip: IpAddr::from([10, 42, 0, last]),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node.into()),
        hostname: None,
        ports: [EndpointPort { name: "".into(), protocol: Protocol::Tcp, port: 8080 }].into(),
    }
}

fn service(endpoints: Vec<Endpoint>) -> Service {
    Service {
        cluster_ips: vec![IpAddr::from([10, 43, 0, 5])],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30080),
        }],
        endpoints,
        ..Service::default()
    }
}

fn rules(service: Service) -> Rules {
    let mut state = ServiceState::new();
    state.insert("default", "web", service);
    desired(&state, &config())
}

const FRONTEND: Frontend = Frontend { ip: Ipv4Addr::new(10, 43, 0, 5), protocol: Protocol::Tcp, port: 80 };
const NODE_PORT: NodePort = NodePort { protocol: Protocol::Tcp, port: 30080 };

fn backends(rules: &Rules) -> Vec<u8> {
    rules.slots.values().map(|b| b.ip.octets()[3]).collect()
}

#[test]
fn a_cluster_ip_leads_to_its_ready_endpoints() {
    let mut starting = endpoint(4, "n1");
    (starting.ready, starting.serving) = (false, false);
    let rules = rules(service(vec![endpoint(3, "n2"), endpoint(2, "n1"), starting]));
    assert_eq!(backends(&rules), [2, 3]);
    let chain = &rules.chains[&rules.frontends[&FRONTEND]];
    assert!(matches!(
        chain,
        Chain::Balance { pool: Pool { count: 2, affinity: None, .. }, mark: Mark::OffCluster }
    ));
    assert_eq!(rules.hairpin, BTreeSet::from([Ipv4Addr::new(10, 42, 0, 2)]), "only the node's own");
    assert!(rules.node_ports.is_empty(), "not of type NodePort");
    assert!(rules.live.is_empty());
}

#[test]
fn terminating_endpoints_serve_when_nothing_else_does() {
    let mut leaving = endpoint(2, "n1");
    (leaving.ready, leaving.terminating) = (false, true);
    assert_eq!(backends(&rules(service(vec![leaving.clone(), endpoint(3, "n1")]))), [3]);
    assert_eq!(backends(&rules(service(vec![leaving.clone()]))), [2]);
    leaving.serving = false;
    let rules = rules(service(vec![leaving]));
    assert_eq!(rules.refused, [(FRONTEND, Refusal::Reject)].into());
}

#[test]
fn headless_and_external_name_are_not_programmed() {
    let headless = Service { cluster_ips: Vec::new(), ..service(vec![endpoint(2, "n1")]) };
    assert_eq!(rules(headless), Rules::default());
    let alias =
        Service { kind: ServiceType::ExternalName("example.org".into()), ..service(vec![endpoint(2, "n1")]) };
    assert_eq!(rules(alias), Rules::default());
}

#[test]
fn local_policies_use_the_nodes_own_endpoints() {
    let local = |internal, external, endpoints| {
        rules(Service {
            kind: ServiceType::LoadBalancer,
            internal_policy: internal,
            external_policy: external,
            load_balancer_ips: vec![IpAddr::from([203, 0, 113, 1])],
            external_ips: vec![IpAddr::from([203, 0, 113, 2])],
            ..service(endpoints)
        })
    };
    let both = vec![endpoint(2, "n1"), endpoint(3, "n2")];
    let elsewhere = vec![endpoint(3, "n2")];
    use TrafficPolicy::{Cluster, Local};

    let rules = local(Local, Cluster, both.clone());
    assert!(matches!(
        rules.chains[&rules.frontends[&FRONTEND]],
        Chain::Balance { pool: Pool { count: 1, .. }, .. }
    ));
    assert!(matches!(
        rules.chains[&rules.node_ports[&NODE_PORT]],
        Chain::Balance { pool: Pool { count: 2, .. }, mark: Mark::Always }
    ));
    assert_eq!(rules.frontends.len(), 3);

    let rules = local(Local, Cluster, elsewhere.clone());
    assert_eq!(rules.refused.get(&FRONTEND), Some(&Refusal::Drop), "others have endpoints");

    let rules = local(Cluster, Local, both);
    assert!(matches!(
        rules.chains[&rules.node_ports[&NODE_PORT]],
        Chain::Local { pool: Some(Pool { count: 1, .. }), .. }
    ));
    let rules = local(Cluster, Local, elsewhere);
    assert!(matches!(rules.chains[&rules.node_ports[&NODE_PORT]], Chain::Local { pool: None, .. }));
    let rules = local(Cluster, Local, Vec::new());
    assert_eq!(rules.refused_node_ports, [(NODE_PORT, Refusal::Reject)].into());
    assert_eq!(rules.refused.len(), 3);
}

#[test]
fn source_ranges_guard_only_the_load_balancer() {
    let rules = rules(Service {
        kind: ServiceType::LoadBalancer,
        load_balancer_ips: vec![IpAddr::from([203, 0, 113, 1])],
        load_balancer_sources: vec!["198.51.100.0/24".parse().expect("net")],
        ..service(vec![endpoint(2, "n1")])
    });
    let guarded: Vec<_> = rules
        .frontends
        .iter()
        .filter(|(_, chain)| matches!(rules.chains[*chain], Chain::Sources { .. }))
        .map(|(f, _)| f.ip)
        .collect();
    assert_eq!(guarded, [Ipv4Addr::new(203, 0, 113, 1)]);
    assert!(matches!(rules.chains[&rules.node_ports[&NODE_PORT]], Chain::Balance { .. }));
}

#[test]
fn affinity_remembers_live_endpoints_only() {
    let rules =
        rules(Service { affinity: Some(Duration::from_secs(10800)), ..service(vec![endpoint(2, "n1")]) });
    assert_eq!(rules.live.len(), 1);
    let name = &rules.frontends[&FRONTEND];
    assert!(name.ends_with("-1-10800s"), "{name}");
}

#[test]
fn one_services_rollout_leaves_the_others_alone() {
    let mut state = ServiceState::new();
    for n in 0..20u8 {
        let mut service = service(vec![endpoint(2 * n, "n1"), endpoint(2 * n + 1, "n1")]);
        service.cluster_ips = vec![IpAddr::from([10, 43, 1, n])];
        state.insert("default", &format!("svc{n}"), service);
    }
    let before = desired(&state, &config());
    let mut service = (*state.services[&ServiceName::new("default", "svc7")]).clone();
    service.endpoints[1] = endpoint(200, "n1");
    state.insert("default", "svc7", service);
    let after = desired(&state, &config());
    assert_eq!(before.chains, after.chains);
    assert_eq!(before.frontends, after.frontends);
    let changed = before.slots.iter().filter(|(k, v)| after.slots.get(k) != Some(v)).count();
    assert_eq!(changed, 1);
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let mut web = service(Vec::new());
    let port =
        |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: None };
    web.ports = vec![
        port("dns", Protocol::Udp, 53),
        port("dns-tcp", Protocol::Tcp, 53),
        port("metrics", Protocol::Tcp, 9),
    ];
    let ports = [("dns", Protocol::Udp, 1053), ("dns-tcp", Protocol::Tcp, 1053)];
    let ports = ports.map(|(n, protocol, port)| EndpointPort { name: n.into(), protocol, port });
    web.endpoints = vec![Endpoint { ports: ports.into(), ..endpoint(2, "n1") }];
    let rules = rules(web);
    assert_eq!((rules.frontends.len(), rules.refused.len()), (2, 1));
    assert!(rules.slots.values().all(|b| b.port == 1053));
    assert_eq!(rules.udp_frontends.len(), 1);
}
