//! `gantry demo`: the first thing a new user sees.

use std::collections::BTreeSet;
use std::io::Write;

use crate::cluster::Cluster;

pub const TESTS: &[crate::Test] = &[
    ("demo::three_pods_answer_and_twice_is_harmless", three_pods_answer_and_twice_is_harmless),
    ("demo::says_what_is_wrong", says_what_is_wrong),
];

/// The pods that said something.
fn pods(out: &str) -> BTreeSet<String> {
    let said = out.lines().filter_map(|line| line.trim().strip_prefix("I am "));
    said.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

fn three_pods_answer_and_twice_is_harmless(cluster: &Cluster) {
    let first = cluster.gantry(&["demo"]);
    assert!(first.ok, "{first:?}");
    let answered = pods(&first.out);
    assert_eq!(answered.len(), 3, "{}", first.out);
    for part in ["on node-1", "deployment/gantry-demo created", "kubectl get pods", ":30080/"] {
        assert!(first.out.contains(part), "{part:?} is missing in:\n{}", first.out);
    }
    let listed = cluster.get("default", &["pods", "-l", "app=gantry-demo"]);
    let names = listed["items"].as_array().into_iter().flatten();
    let names: BTreeSet<_> =
        names.filter_map(|p| p["metadata"]["name"].as_str().map(str::to_owned)).collect();
    assert_eq!(answered, names);
    let page = cluster.fetch("http://127.0.0.1:30080/");
    assert!(names.iter().any(|name| page.contains(&format!("Hello from {name}!"))), "{page}");
    let json = cluster.fetch("http://127.0.0.1:30080/api");
    assert!(json.contains(r#""node":"node-1","namespace":"default""#), "{json}");

    let again = cluster.gantry(&["demo"]);
    assert!(again.ok, "{again:?}");
    assert_eq!(pods(&again.out), answered, "the same pods go on");
    assert!(again.out.contains("deployment/gantry-demo unchanged"), "{}", again.out);

    let changed = tempfile::NamedTempFile::new().expect("a temporary file");
    let program = cluster.program("gantry-demo");
    std::fs::copy(program, changed.path()).expect("the program");
    let file = std::fs::OpenOptions::new().append(true).open(changed.path());
    file.and_then(|mut f| f.write_all(b"changed")).expect("the program");
    let other = cluster.gantry(&["demo", &format!("--program={}", changed.path().display())]);
    assert!(other.ok && other.out.contains("deployment/gantry-demo configured"), "{other:?}");
    assert_eq!(pods(&other.out).intersection(&answered).count(), 0, "a changed program rolls out");

    let gone = cluster.gantry(&["demo", "--delete"]);
    assert!(gone.ok && gone.out.contains("The demo is gone."), "{gone:?}");
    let left = cluster.get("default", &["all", "-l", "app=gantry-demo"]);
    assert_eq!(left["items"].as_array().map(Vec::len), Some(0), "{left}");
    let gone = cluster.gantry(&["demo", "--delete"]);
    assert!(gone.ok && gone.out.contains("is not there"), "{gone:?}");
}

fn says_what_is_wrong(cluster: &Cluster) {
    let ns = "demo-port";
    cluster.namespace(ns);
    let taken = "{apiVersion: v1, kind: Service, metadata: {name: other}, \
                 spec: {type: NodePort, ports: [{port: 80, nodePort: 30080}]}}";
    assert!(cluster.with_manifest(ns, &["apply"], taken).ok);
    let said = cluster.gantry(&["demo"]);
    assert!(!said.ok && said.err.contains("port 30080 belongs to the Service demo-port/other"), "{said:?}");
    cluster.kubectl(ns, &["delete", "service", "other"]);

    let said = cluster.gantry(&["demo", "--program=/nowhere"]);
    assert!(!said.ok && said.err.contains("the demo's program is not at /nowhere"), "{said:?}");

    // Not a program at all.
    let said = cluster.gantry(&["demo", "--program=/etc/passwd", "--timeout=3"]);
    assert!(!said.ok, "{said:?}");
    for part in ["not ready after 3 s", "pod gantry-demo-", "container web: "] {
        assert!(said.err.contains(part), "{part:?} is missing in:\n{}", said.err);
    }
    assert!(cluster.gantry(&["demo", "--delete"]).ok);
}
