use std::sync::Arc;

use super::*;
use crate::{EndpointPort, Protocol, ServicePort};

fn port(name: &str, protocol: Protocol, port: u16) -> ServicePort {
    ServicePort { name: name.into(), protocol, port, node_port: None }
}

fn endpoint(ip: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
    Endpoint {
        ip: ip.parse().expect("ip"),
        ready,
        serving: ready,
        terminating: false,
        node: None,
        hostname: hostname.map(Arc::from),
        ports: [EndpointPort { name: "sql".into(), protocol: Protocol::Tcp, port: 5432 }].into(),
    }
}

fn zone() -> Zone {
    let mut state = ServiceState::new();
    let web = Service {
        cluster_ips: vec!["10.43.0.5".parse().expect("ip")],
        ports: vec![port("http", Protocol::Tcp, 80), port("metrics", Protocol::Tcp, 9090)],
        endpoints: vec![endpoint("10.42.0.9", Some("web-0"), true)],
        ..Service::default()
    };
    state.insert("default", "web", web.clone());
    let dual = Service {
        cluster_ips: vec!["10.43.0.6".parse().expect("v4"), "fd00::6".parse().expect("v6")],
        ..web.clone()
    };
    state.insert("default", "dual", dual);
    let db = Service {
        ports: vec![port("sql", Protocol::Tcp, 5432)],
        endpoints: vec![
            endpoint("10.42.0.2", Some("db-0"), true),
            endpoint("10.42.0.3", Some("db-1"), true),
            endpoint("10.42.0.4", None, true),
            endpoint("10.42.0.5", Some("db-2"), false),
        ],
        ..Service::default()
    };
    state.insert("prod", "db", db.clone());
    state.insert("prod", "early", Service { publish_not_ready: true, ..db });
    state.insert(
        "prod",
        "empty",
        Service { ports: vec![port("sql", Protocol::Tcp, 5432)], ..Service::default() },
    );
    let alias = |to: &str| Service { kind: ServiceType::ExternalName(to.into()), ..Service::default() };
    state.insert("prod", "outside", alias("www.example.org"));
    state.insert("prod", "inside", alias("web.default.svc.cluster.local"));
    state.insert("prod", "circle", alias("circle.prod.svc.cluster.local"));
    Zone::new(state, "cluster.local").expect("zone")
}

/// The records' data as text; `-` for a name without such records, `!` for no such name.
fn ask(name: &str, kind: RecordType) -> String {
    let name = Name::from_ascii(name).expect("name");
    match zone().answer(&name, kind, 0).expect("the cluster's") {
        Answer::Records { answers, .. } => {
            let mut all: Vec<String> = answers.iter().map(|r| r.data.to_string()).collect();
            all.sort();
            all.join(" | ")
        }
        Answer::NoData => "-".into(),
        Answer::NoName => "!".into(),
    }
}

use RecordType as T;

#[test]
fn services_have_addresses() {
    assert_eq!(ask("web.default.svc.cluster.local.", T::A), "10.43.0.5");
    assert_eq!(ask("WEB.Default.SVC.cluster.LOCAL.", T::A), "10.43.0.5");
    assert_eq!(ask("web.default.svc.cluster.local.", T::AAAA), "-");
    assert_eq!(ask("web.default.svc.cluster.local.", T::MX), "-");
    assert_eq!(ask("dual.default.svc.cluster.local.", T::AAAA), "fd00::6");
    assert_eq!(ask("web.other.svc.cluster.local.", T::A), "!");
    assert_eq!(ask("nope.default.svc.cluster.local.", T::A), "!");
    assert_eq!(ask("web-0.web.default.svc.cluster.local.", T::A), "!", "only headless endpoints have names");
}

#[test]
fn headless_services_are_their_ready_endpoints() {
    assert_eq!(ask("db.prod.svc.cluster.local.", T::A), "10.42.0.2 | 10.42.0.3 | 10.42.0.4");
    assert_eq!(ask("db-1.db.prod.svc.cluster.local.", T::A), "10.42.0.3");
    assert_eq!(ask("db-1.db.prod.svc.cluster.local.", T::AAAA), "-");
    assert_eq!(ask("10-42-0-4.db.prod.svc.cluster.local.", T::A), "10.42.0.4");
    assert_eq!(ask("db-2.db.prod.svc.cluster.local.", T::A), "!", "not ready");
    assert_eq!(ask("db-2.early.prod.svc.cluster.local.", T::A), "10.42.0.5", "published all the same");
    assert_eq!(ask("empty.prod.svc.cluster.local.", T::A), "-");
}

#[test]
fn ports_have_srv_records() {
    assert_eq!(
        ask("_http._tcp.web.default.svc.cluster.local.", T::SRV),
        "0 100 80 web.default.svc.cluster.local."
    );
    assert_eq!(
        ask("_sql._tcp.db.prod.svc.cluster.local.", T::SRV),
        "0 100 5432 10-42-0-4.db.prod.svc.cluster.local. | 0 100 5432 db-0.db.prod.svc.cluster.local. | \
         0 100 5432 db-1.db.prod.svc.cluster.local."
    );
    assert_eq!(ask("web.default.svc.cluster.local.", T::SRV).split(" | ").count(), 2);
    assert_eq!(ask("_http._udp.web.default.svc.cluster.local.", T::SRV), "!");
    assert_eq!(ask("_nope._tcp.web.default.svc.cluster.local.", T::SRV), "!");
    assert_eq!(ask("_http._tcp.web.default.svc.cluster.local.", T::A), "-");
    assert_eq!(ask("_tcp.web.default.svc.cluster.local.", T::A), "-", "there are names below it");
    let name = Name::from_ascii("_sql._tcp.db.prod.svc.cluster.local.").expect("name");
    let Some(Answer::Records { additionals, .. }) = zone().answer(&name, T::SRV, 0) else {
        panic!("records")
    };
    assert_eq!(additionals.len(), 3);
}

#[test]
fn external_names_are_aliases() {
    assert_eq!(ask("outside.prod.svc.cluster.local.", T::CNAME), "www.example.org.");
    let name = Name::from_ascii("outside.prod.svc.cluster.local.").expect("name");
    let Some(Answer::Records { answers, chase, .. }) = zone().answer(&name, T::A, 3) else {
        panic!("records")
    };
    assert_eq!((answers.len(), chase.map(|n| n.to_string())), (1, Some("www.example.org.".into())));
    assert_eq!(ask("inside.prod.svc.cluster.local.", T::A), "10.43.0.5 | web.default.svc.cluster.local.");
    assert_eq!(ask("circle.prod.svc.cluster.local.", T::A), "circle.prod.svc.cluster.local.", "ends");
}

#[test]
fn pods_and_the_schema_version_have_names() {
    assert_eq!(ask("1-2-3-4.default.pod.cluster.local.", T::A), "1.2.3.4");
    assert_eq!(ask("1-2-3-4.default.pod.cluster.local.", T::AAAA), "-");
    assert_eq!(ask("fd00--1.default.pod.cluster.local.", T::AAAA), "fd00::1");
    assert_eq!(ask("1-2-3.default.pod.cluster.local.", T::A), "!");
    assert!(ask("dns-version.cluster.local.", T::TXT).contains("1.1.0"));
    assert_eq!(ask("dns-version.cluster.local.", T::A), "-");
}

#[test]
fn names_between_exist_without_records() {
    for name in ["cluster.local.", "svc.cluster.local.", "default.svc.cluster.local.", "pod.cluster.local."] {
        assert_eq!(ask(name, T::A), "-", "{name}");
    }
    for name in ["other.svc.cluster.local.", "x.cluster.local.", "a.b.web.default.svc.cluster.local."] {
        assert_eq!(ask(name, T::A), "!", "{name}");
    }
    assert!(ask("cluster.local.", T::SOA).starts_with("ns.dns.cluster.local."));
    assert_eq!(ask("cluster.local.", T::NS), "ns.dns.cluster.local.");
}

#[test]
fn addresses_have_names() {
    assert_eq!(ask("5.0.43.10.in-addr.arpa.", T::PTR), "web.default.svc.cluster.local.");
    assert!(ask("2.0.42.10.in-addr.arpa.", T::PTR).contains("db-0.db.prod.svc.cluster.local."));
    assert_eq!(ask("5.0.43.10.in-addr.arpa.", T::A), "-");
    let v6 = format!("6.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
    assert_eq!(ask(&v6, T::PTR), "dual.default.svc.cluster.local.");
    for foreign in
        ["8.8.8.8.in-addr.arpa.", "8.8.in-addr.arpa.", "9.0.42.10.in-addr.arpa.", "example.org.", "local."]
    {
        let name = Name::from_ascii(foreign).expect("name");
        assert_eq!(zone().answer(&name, T::PTR, 0), None, "{foreign} is for upstream");
    }
}

#[test]
fn turns_change_who_comes_first() {
    let (zone, name) = (zone(), Name::from_ascii("db.prod.svc.cluster.local.").expect("name"));
    let first = |turn| match zone.answer(&name, T::A, turn) {
        Some(Answer::Records { answers, .. }) => answers[0].data.to_string(),
        other => panic!("{other:?}"),
    };
    assert_ne!(first(0), first(1));
    assert_eq!(first(0), first(3));
}
