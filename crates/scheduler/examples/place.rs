//! How many decisions a second: `cargo run --release -p scheduler --example place [nodes] [pods] [plain|rules]`. With
//! `rules`, the pods are of 20 applications in three zones, with constraints on their spread, affinity and anti-affinity.

use std::sync::Arc;
use std::time::Instant;

use scheduler::{ClusterView, PodInfo, place};
use serde_json::{Value, json};

const APPS: usize = 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default: usize| args.get(place).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (nodes, pods) = (number(0, 1000), number(1, 20_000));
    let rules = args.get(2).is_some_and(|mode| mode == "rules");
    let mut view = ClusterView::new();
    for n in 0..nodes {
        let mut node = testkit::node(&format!("node-{n}"), 64, 256, 110);
        let labels = node.metadata.labels.get_or_insert_default();
        labels.insert("topology.kubernetes.io/zone".into(), format!("zone-{}", n % 3));
        view.set_node(&node);
    }
    let pods: Vec<Arc<PodInfo>> = (0..pods).map(|n| Arc::new(PodInfo::new(&pod(n, rules)))).collect();
    let begun = Instant::now();
    let mut placed = 0;
    for pod in &pods {
        if let Ok(node) = place(pod, &mut view) {
            view.add_pod(&node, pod);
            placed += 1;
        }
    }
    let took = begun.elapsed();
    println!(
        "{placed} of {} pods on {nodes} nodes in {took:?}: {:.0} pods/s",
        pods.len(),
        pods.len() as f64 / took.as_secs_f64()
    );
}

fn pod(n: usize, rules: bool) -> client::PodView {
    let app = format!("app-{}", n % APPS);
    let own = json!({"matchLabels": {"app": app}});
    let spread = |key: &str, when: &str| json!({"topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": when, "labelSelector": own});
    let resources = json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
    let mut spec = json!({"containers": [{"resources": resources}]});
    if rules {
        let (zone, host) = ("topology.kubernetes.io/zone", "kubernetes.io/hostname");
        spec["topologySpreadConstraints"] =
            Value::Array(vec![spread(zone, "DoNotSchedule"), spread(host, "ScheduleAnyway")]);
        let term = json!({"topologyKey": zone, "labelSelector": {"matchLabels": {"app": format!("app-{}", n % APPS - n % 2)}}});
        let away = json!({"weight": 10, "podAffinityTerm": {"topologyKey": host, "labelSelector": own}});
        let near = json!({"weight": 5, "podAffinityTerm": {"topologyKey": zone,
            "labelSelector": {"matchLabels": {"app": format!("app-{}", (n + 1) % APPS)}}}});
        spec["affinity"] = json!({
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                if n.is_multiple_of(2) { json!([]) } else { json!([term]) },
                "preferredDuringSchedulingIgnoredDuringExecution": [near]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [away]}});
    }
    let metadata = json!({"name": format!("pod-{n}"), "namespace": "default", "uid": n.to_string(), "labels": {"app": app}});
    testkit::object(json!({"metadata": metadata, "spec": spec}))
}
