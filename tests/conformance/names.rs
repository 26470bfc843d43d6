//! Names in the cluster's DNS.

use serde_json::{Value, json};

use crate::trial::{Trial, serves, sh, sleeps};
use crate::{Check, checks};

pub const CHECKS: &[Check] = checks![
    the_clusters_names: "DNS, cluster";
    names_of_services: "DNS, services", "DNS, PQDN for services";
    names_of_hosts: "DNS, resolve the hostname", "DNS, resolve the subdomain";
    names_of_others: "DNS, for ExternalName Services";
    names_by_others: "DNS, custom dnsConfig";
];

/// Asks from the pod `asks` until the answer is as it must be.
fn resolves(t: &Trial, name: &str, kind: &str, holds: impl Fn(&str) -> bool) {
    t.until_inside("asks", &format!("busybox nslookup -type={kind} {name} 2>&1"), holds);
}

fn the_clusters_names(t: &Trial) {
    t.ready(&sleeps().named("asks"));
    let text = t.kubectl(&["get", "--raw", "/api/v1/namespaces/default/services/kubernetes"]);
    let service: Value = serde_json::from_str(&text).expect("a Service");
    let address = service["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    resolves(t, "kubernetes.default.svc.cluster.local", "a", |said| said.contains(&address));
    // By the pod's search list too, as programs ask.
    let connect = "busybox nc -w 2 kubernetes.default 443 < /dev/null && echo open";
    t.until_inside("asks", connect, |said| said == "open\n");
    let hosts = t.inside_pod("asks", "busybox cat /etc/hosts").out;
    assert!(hosts.contains(&t.address("asks")) && hosts.contains("asks"), "{hosts}");
}

fn service(name: &str, more: Value) -> Value {
    let mut spec =
        json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
    crate::trial::merge(&mut spec, more);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

fn names_of_services(t: &Trial) {
    t.create(&[service("plain", json!({})), service("headless", json!({"clusterIP": "None"}))]);
    let pod = t.ready(&serves("p").meta(json!({"labels": {"app": "web"}})));
    t.ready(&sleeps().named("asks"));
    let address = t.get(&["service", "plain"])["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    for (service, leads) in [("plain", &address), ("headless", &pod)] {
        let full = format!("{service}.{}.svc.cluster.local", t.ns);
        resolves(t, &full, "a", |said| said.contains(leads.as_str()));
        resolves(t, &format!("_http._tcp.{full}"), "srv", |said| {
            said.contains(" 80 ") || said.contains(" 8080 ")
        });
        // Less than the whole name, through the search list.
        for name in [service.to_owned(), format!("{service}.{}", t.ns), format!("{service}.{}.svc", t.ns)] {
            let port = if service == "plain" { 80 } else { 8080 };
            let get = format!("busybox timeout 3 busybox wget -q -O - http://{name}:{port}/");
            t.until_inside("asks", &get, |said| said == "p\n");
        }
    }
    let reverse: Vec<&str> = address.split('.').rev().collect();
    let wanted = format!("plain.{}.svc.cluster.local", t.ns);
    resolves(t, &format!("{}.in-addr.arpa", reverse.join(".")), "ptr", |said| said.contains(&wanted));
}

fn names_of_hosts(t: &Trial) {
    t.create(&[service("sub", json!({"clusterIP": "None"}))]);
    let fields = json!({"hostname": "querier", "subdomain": "sub"});
    let pod = t.ready(&serves("p").spec(fields).meta(json!({"labels": {"app": "web"}})));
    t.ready(&sleeps().named("asks"));
    for name in ["querier.sub", "sub"] {
        resolves(t, &format!("{name}.{}.svc.cluster.local", t.ns), "a", |said| said.contains(&pod));
    }
    assert_eq!(t.inside_pod("p", "busybox hostname").out, "querier\n");
    assert_eq!(
        t.inside_pod("p", "busybox hostname -f").out.trim(),
        format!("querier.sub.{}.svc.cluster.local", t.ns)
    );
}

fn names_of_others(t: &Trial) {
    let external = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "other"},
            "spec": {"type": "ExternalName", "externalName": name},
        })
    };
    t.create(&[external("foo.example.com")]);
    t.ready(&sleeps().named("asks"));
    let name = format!("other.{}.svc.cluster.local", t.ns);
    resolves(t, &name, "cname", |said| said.contains("foo.example.com"));
    t.apply(&[external("bar.example.com")]);
    resolves(t, &name, "cname", |said| said.contains("bar.example.com"));
    let spec = json!({"type": "ClusterIP", "externalName": null, "ports": [{"port": 80}]});
    t.kubectl(&["patch", "service", "other", "-p", &json!({"spec": spec}).to_string()]);
    let address = t.get(&["service", "other"])["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    resolves(t, &name, "a", |said| said.contains(&address));
}

fn names_by_others(t: &Trial) {
    let config = json!({"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"], "options": [{"name": "ndots", "value": "2"}]});
    let pod = sh("busybox cat /etc/resolv.conf").spec(json!({"dnsPolicy": "None", "dnsConfig": config}));
    let said = t.says(&pod);
    let mut lines: Vec<&str> = said.lines().filter(|l| !l.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["nameserver 1.1.1.1", "options ndots:2", "search resolv.conf.local"]);
}
