//! The strategies by numbers that can be worked out by hand.

use serde_json::{Value, json};

use super::*;
use crate::config::Settings;
use crate::pod::PodInfo;
use crate::view::ClusterView;

/// The scores of a pod that asks for a core, 1 GiB and one card, on nodes of four cores, 8 GiB and four cards of which so
/// many are taken.
fn scores_with(strategy: Value, taken: &[u32]) -> Vec<i64> {
    let mut view = ClusterView::new();
    for (n, taken) in taken.iter().enumerate() {
        let name = format!("n{n}");
        let mut node = serde_json::to_value(testkit::node(&name, 4, 8, 10)).unwrap();
        node["status"]["allocatable"]["x.io/card"] = json!("4");
        view.set_node(&testkit::object(node));
        for m in 0..*taken {
            view.add_pod(&name, &std::sync::Arc::new(pod(&format!("{n}-{m}"))));
        }
    }
    let only = json!({"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]});
    let file = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "profiles": [{"plugins": {"score": only},
            "pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}}]}]});
    let settings = Settings::read(&file).unwrap();
    let pod = pod("new").placed_by(&settings.profiles[0]);
    view.prepare(&pod);
    let rows: Vec<usize> = (0..taken.len()).collect();
    scores(&Ask::new(&pod, &view), &rows)
}

fn pod(name: &str) -> PodInfo {
    let requests = json!({"cpu": "1", "memory": "1Gi", "x.io/card": "1"});
    PodInfo::new(&testkit::object(json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}})))
}

#[test]
fn what_is_free_counts_or_what_is_taken() {
    // Cores: a quarter is taken with the pod, or the half. Memory: an eighth, or a quarter.
    assert_eq!(scores_with(json!({"type": "LeastAllocated"}), &[0, 1]), [(75 + 87) / 2, (50 + 75) / 2]);
    assert_eq!(scores_with(json!({"type": "MostAllocated"}), &[0, 1]), [(25 + 12) / 2, (50 + 25) / 2]);
    let cards = json!([{"name": "x.io/card", "weight": 3}, {"name": "memory"}]);
    let most = json!({"type": "MostAllocated", "resources": cards});
    assert_eq!(scores_with(most, &[0, 3]), [(3 * 25 + 12) / 4, (3 * 100 + 50) / 4]);
}

#[test]
fn a_shape_says_how_much_taken_is_good() {
    let point = |utilization: i64, score: i64| json!({"utilization": utilization, "score": score});
    let ratio = |shape: Value, resources: Value| json!({"type": "RequestedToCapacityRatio", "resources": resources, "requestedToCapacityRatio": {"shape": shape}});
    let cards = json!([{"name": "x.io/card"}]);
    let packed = ratio(json!([point(0, 0), point(100, 10)]), cards.clone());
    assert_eq!(scores_with(packed, &[0, 1, 3]), [25, 50, 100]);
    let peak = ratio(json!([point(25, 10), point(75, 2)]), cards.clone());
    assert_eq!(
        scores_with(peak, &[0, 1, 2, 3]),
        [100, 60, 20, 20],
        "before the first and behind the last it is level"
    );
    let both = json!([{"name": "x.io/card", "weight": 2}, {"name": "cpu", "weight": 1}]);
    let late = ratio(json!([point(50, 0), point(100, 10)]), both);
    assert_eq!(scores_with(late, &[0, 2]), [0, 50], "what scores nothing does not count");
}
