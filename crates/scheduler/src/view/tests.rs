use serde_json::json;

use super::*;

#[test]
fn a_node_may_come_after_its_pods_and_heartbeats_change_nothing() {
    let mut view = ClusterView::new();
    let pod = Arc::new(PodInfo::new(&testkit::object(json!({
        "metadata": {"name": "p", "uid": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "x.io/gpu": "2"}}}]},
    }))));
    view.add_pod("n", &pod);
    let mut node = testkit::node("n", 4, 8, 10);
    assert_eq!(view.update_node(&node), NodeChange::Labels);
    assert_eq!((view.cpu.taken[0], view.others["x.io/gpu"].taken[0]), (1000, 2));
    node.metadata.resource_version = Some("7".into());
    assert_eq!(view.update_node(&node), NodeChange::None);
    view.add_pod("n", &pod);
    assert_eq!(view.cpu.taken[0], 1000, "counted once");
    assert_eq!(view.remove_pod("p").map(|(node, _)| node).as_deref(), Some("n"));
    assert_eq!((view.cpu.taken[0], view.pods.taken[0]), (0, 0));
}
