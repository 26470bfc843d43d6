//! What the agents of nodes ask for: the pods of a node, which are found by an index.

use http::{Method, Request};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::TestServer;
use crate::respond::empty;

const NAMESPACES: [&str; 2] = ["default", "kube-public"];
const NODES: [&str; 4] = ["", "n1", "n2", "nobody"];

impl TestServer {
    async fn with_accounts(self) -> Self {
        for namespace in NAMESPACES {
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
            self.post(&path, json!({"metadata": {"name": "default"}})).await;
        }
        self
    }

    async fn create_pod(&self, namespace: &str, name: &str, node: &str, phase: &str) -> u16 {
        let mut pod = json!({"metadata": {"name": name, "labels": {"phase": phase}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        self.post(&format!("/api/v1/namespaces/{namespace}/pods"), pod).await.0
    }

    async fn bind(&self, namespace: &str, name: &str, node: &str) -> u16 {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"kind": "Node", "name": node}});
        self.post(&format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"), binding).await.0
    }

    async fn delete_pod(&self, namespace: &str, name: &str) -> u16 {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0");
        self.call(Method::DELETE, &path, Value::Null).await.0
    }

    /// All pages of a list.
    async fn pages(&self, path: &str) -> Vec<Value> {
        let (mut items, mut from) = (Vec::new(), String::new());
        loop {
            let (code, mut page) = self.get(&format!("{path}{from}")).await;
            assert_eq!(code, 200, "{page}");
            items.append(page["items"].as_array_mut().unwrap());
            match page["metadata"]["continue"].as_str() {
                Some(token) => from = format!("&continue={token}"),
                None => return items,
            }
        }
    }

    /// Each list by node is the list of all without the others.
    async fn check_nodes(&self, at: Option<u64>) {
        for path in ["/api/v1/pods", "/api/v1/namespaces/default/pods"] {
            let exact =
                at.map(|at| format!("&resourceVersion={at}&resourceVersionMatch=Exact")).unwrap_or_default();
            let all = self.pages(&format!("{path}?{}", exact.trim_start_matches('&'))).await;
            for node in NODES {
                let of_node = |pod: &&Value| pod["spec"]["nodeName"].as_str().unwrap_or_default() == node;
                let on_node: Vec<Value> = all.iter().filter(of_node).cloned().collect();
                let list = format!("{path}?fieldSelector=spec.nodeName%3D{node}");
                assert_eq!(self.pages(&format!("{list}{exact}")).await, on_node);
                let labelled = |pod: &&Value| pod["metadata"]["labels"]["phase"] == "new";
                let labelled: Vec<Value> = on_node.iter().filter(labelled).cloned().collect();
                assert_eq!(self.pages(&format!("{list}&labelSelector=phase%3Dnew{exact}")).await, labelled);
                if at.is_none() {
                    assert_eq!(self.pages(&format!("{list}&limit=2")).await, on_node);
                    let in_default = |pod: &&Value| pod["metadata"]["namespace"] == "default";
                    let in_default: Vec<Value> = on_node.iter().filter(in_default).cloned().collect();
                    assert_eq!(self.pages(&format!("{list},metadata.namespace%3Ddefault")).await, in_default);
                    assert_eq!(self.pages(&format!("{list},spec.nodeName%3Dother")).await, [Value::Null; 0]);
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Create(usize, u8, usize),
    Bind(usize, u8, usize),
    Delete(usize, u8),
    Compact,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..2usize, 0..6u8, 0..3usize).prop_map(|(ns, pod, node)| Step::Create(ns, pod, node)),
        6 => (0..2usize, 0..6u8, 1..3usize).prop_map(|(ns, pod, node)| Step::Bind(ns, pod, node)),
        5 => (0..2usize, 0..6u8).prop_map(|(ns, pod)| Step::Delete(ns, pod)),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 10..40)
}

async fn run(steps: Vec<Step>) {
    let mut server = TestServer::start().await.with_accounts().await;
    for step in steps {
        let name = |pod: u8| format!("p{pod}");
        match step {
            Step::Create(ns, pod, node) => {
                let phase = if pod % 2 == 0 { "new" } else { "old" };
                let code = server.create_pod(NAMESPACES[ns], &name(pod), NODES[node], phase).await;
                assert!(matches!(code, 201 | 409), "{code}");
            }
            Step::Bind(ns, pod, node) => {
                let code = server.bind(NAMESPACES[ns], &name(pod), NODES[node]).await;
                assert!(matches!(code, 201 | 404 | 409), "{code}");
            }
            Step::Delete(ns, pod) => {
                let code = server.delete_pod(NAMESPACES[ns], &name(pod)).await;
                assert!(matches!(code, 200 | 404), "{code}");
            }
            Step::Compact => {
                let before = server.api.store().revision().saturating_sub(3);
                server.api.store().compact(before).await.unwrap();
            }
            Step::Restart => server = server.restart().await,
        }
    }
    server.check_nodes(None).await;
    let now = server.api.store().revision();
    for at in [now.saturating_sub(2), now.saturating_sub(5)] {
        if server.api.store().snapshot_at("pods", at).is_ok() {
            server.check_nodes(Some(at)).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6, failure_persistence: None, max_shrink_iters: 30, ..ProptestConfig::default()
    })]

    #[test]
    fn the_index_finds_what_a_walk_finds(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}

/// Reads events until the bookmark or the count.
async fn told(server: &TestServer, query: &str, count: usize) -> Vec<String> {
    let path = format!("/api/v1/pods?watch=1&{query}");
    let request = Request::get(path).body(empty()).unwrap();
    let mut body = server.api.handle(request, Some(&server.admin)).await.into_body();
    let (mut text, mut found) = (String::new(), Vec::new());
    while found.len() < count {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(10), body.frame()).await;
        text += std::str::from_utf8(frame.expect("in time").unwrap().unwrap().data_ref().unwrap()).unwrap();
        while let Some((line, rest)) = text.split_once('\n') {
            let event: Value = serde_json::from_str(line).unwrap();
            let (kind, name) = (&event["type"], &event["object"]["metadata"]["name"]);
            found.push(format!("{} {}", kind.as_str().unwrap(), name.as_str().unwrap_or("-")));
            text = rest.to_owned();
        }
    }
    found
}

#[tokio::test]
async fn a_nodes_watch_tells_what_comes_to_it_and_goes() {
    let server = TestServer::start().await.with_accounts().await;
    assert_eq!(server.create_pod("default", "before", "n1", "new").await, 201);
    let from = server.api.store().revision();
    for (name, node) in [("a", ""), ("b", "n1"), ("c", "n2")] {
        assert_eq!(server.create_pod("default", name, node, "new").await, 201);
    }
    assert_eq!(server.bind("default", "a", "n1").await, 201);
    assert_eq!(server.delete_pod("default", "b").await, 200);
    assert_eq!(server.delete_pod("default", "c").await, 200);
    let selected =
        |field: &str, value: &str| format!("resourceVersion={from}&fieldSelector={field}%3D{value}");
    let node = |node: &str| selected("spec.nodeName", node);
    assert_eq!(told(&server, &node("n1"), 3).await, ["ADDED b", "ADDED a", "DELETED b"]);
    assert_eq!(told(&server, &node("n2"), 2).await, ["ADDED c", "DELETED c"]);
    assert_eq!(told(&server, &node(""), 2).await, ["ADDED a", "DELETED a"], "it was bound");
    assert_eq!(told(&server, &selected("metadata.name", "a"), 2).await, ["ADDED a", "MODIFIED a"]);
    let all = "sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let initial = format!("{all}&fieldSelector=spec.nodeName%3Dn1");
    assert_eq!(told(&server, &initial, 3).await, ["ADDED a", "ADDED before", "BOOKMARK -"]);
}
