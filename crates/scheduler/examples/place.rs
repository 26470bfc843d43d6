//! How many decisions a second: `cargo run --release -p scheduler --example place [nodes] [pods]`.

use std::sync::Arc;
use std::time::Instant;

use scheduler::{ClusterView, PodInfo, place};

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let (nodes, pods): (usize, usize) = (args.next().unwrap_or(1000), args.next().unwrap_or(20_000));
    let mut view = ClusterView::new();
    for n in 0..nodes {
        view.set_node(&testkit::node(&format!("node-{n}"), 64, 256, 110));
    }
    let resources = serde_json::json!({"requests": {"cpu": "100m", "memory": "128Mi"}});
    let mut template: client::PodView = testkit::object(serde_json::json!({
        "metadata": {"name": "pod", "labels": {"app": "app"}}, "spec": {"containers": [{"resources": resources}]},
    }));
    let pods: Vec<Arc<PodInfo>> = (0..pods)
        .map(|n| {
            template.metadata.uid = Some(n.to_string());
            Arc::new(PodInfo::new(&template))
        })
        .collect();
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
