use std::sync::Mutex;

use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Patch, PatchParams};
use testkit::{Cluster, node, object};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::run::tests::{cluster_with, node_of, pod, scheduled, settings};

/// A real HTTP server that answers as a test says, and remembers what it was asked.
#[derive(Clone)]
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    async fn start(answer: impl Fn(&str, &Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/ext", listener.local_addr().unwrap());
        let (asked, answer) = (Arc::<Mutex<Vec<(String, Value)>>>::default(), Arc::new(answer));
        let server = Self { url, asked };
        let seen = server.asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let Some((verb, body)) = read(&mut stream).await else { return };
                    let (code, value) = answer(&verb, &body);
                    seen.lock().unwrap().push((verb, body));
                    let text = value.to_string();
                    let head = format!(
                        "HTTP/1.1 {code} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        text.len()
                    );
                    let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
                });
            }
        });
        server
    }

    /// What was asked with a verb.
    fn asked(&self, verb: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(v, _)| v == verb).map(|(_, body)| body.clone()).collect()
    }
}

/// One request: the last part of its path, and its body.
async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65536]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                let path = head.split(' ').nth(1)?;
                return Some((path.rsplit('/').next()?.to_owned(), serde_json::from_str(body).ok()?));
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Posts over plain HTTP.
fn caller(url: &str) -> ExtenderCall {
    let url = url.to_owned();
    Arc::new(move |verb, body| {
        let (url, verb) = (url.clone(), verb.to_owned());
        Box::pin(async move {
            let (host, path) =
                url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).ok_or("no URL")?;
            let text = body.to_string();
            let head = format!(
                "POST /{path}/{verb} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n",
                text.len()
            );
            let mut stream = TcpStream::connect(host).await.map_err(|e| e.to_string())?;
            stream.write_all(format!("{head}{text}").as_bytes()).await.map_err(|e| e.to_string())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map_err(|e| e.to_string())?;
            let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
            match head.split(' ').nth(1) {
                Some("200") => serde_json::from_str(body).map_err(|e| e.to_string()),
                code => Err(format!(
                    "failed {verb} with extender at URL {url}/{verb}, code {}",
                    code.unwrap_or("none")
                )),
            }
        })
    })
}

async fn cluster(server: &Server, more: Value) -> Cluster {
    let mut extender = json!({"urlPrefix": server.url});
    for (field, value) in more.as_object().into_iter().flatten() {
        extender[field] = value.clone();
    }
    let call = caller(&server.url);
    let cluster = cluster_with("", |config| {
        config.settings = settings(json!({"extenders": [extender]}));
        config.extenders = vec![call];
    });
    let cluster = cluster.await;
    for n in 1..=3 {
        cluster.create_node(&node(&format!("n{n}"), 2, 8, 10)).await;
    }
    cluster.informers.of::<Node>().ready().await;
    cluster
        .wait_for("the scheduler to know all nodes", || async {
            (cluster.informers.of::<Node>().store().len() == 3).then_some(())
        })
        .await;
    cluster
}

fn names(body: &Value) -> Vec<String> {
    let names = body["NodeNames"].as_array().into_iter().flatten();
    names.map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn extenders_leave_nodes_out_and_prefer_others() {
    let server = Server::start(|verb, body| match verb {
        "filter" => {
            let kept: Vec<String> = names(body).into_iter().filter(|name| name != "n1").collect();
            // Some write fields as Go does, others in small letters.
            (200, json!({"nodenames": kept, "FailedNodes": {"n1": "it is haunted"}}))
        }
        _ => (
            200,
            json!([{"Host": "n3", "Score": 10}, {"host": "n2", "score": 1}, {"Host": "unheard", "Score": 10}]),
        ),
    });
    let server = server.await;
    let more = json!({"filterVerb": "filter", "prioritizeVerb": "prioritize", "weight": 5, "nodeCacheCapable": true});
    let cluster = cluster(&server, more).await;
    cluster.create("default", &pod("p", "1", json!({}))).await;
    assert_eq!(node_of(&cluster, "p").await, "n3");
    let asked = &server.asked("filter")[0];
    assert_eq!(asked["Pod"]["metadata"]["name"], "p");
    assert_eq!(asked["Pod"]["spec"]["containers"][0]["image"], "i", "the whole pod is told");
    let mut left = names(&server.asked("prioritize")[0]);
    left.sort();
    assert_eq!(left, ["n2", "n3"]);
}

#[tokio::test]
async fn what_extenders_say_against_all_nodes_is_told_and_whole_nodes_are_sent() {
    let server = Server::start(|_, body| {
        let nodes = body["Nodes"]["items"].as_array().unwrap();
        let failed =
            |node: &Value| (node["metadata"]["name"].as_str().unwrap().to_owned(), json!("no licence"));
        let failed: serde_json::Map<String, Value> = nodes.iter().map(failed).collect();
        (200, json!({"Nodes": {"items": []}, "FailedAndUnresolvableNodes": failed}))
    });
    let server = server.await;
    let cluster = cluster(&server, json!({"filterVerb": "filter"})).await;
    cluster.create("default", &pod("p", "1", json!({}))).await;
    let why = |p: &Pod| scheduled(p).is_some_and(|(is, why)| is == "False" && why.contains("3 no licence"));
    let told = cluster.wait_until("default", "p", "to be told why", why).await;
    let (_, why) = scheduled(&told).unwrap();
    assert_eq!(
        why,
        "0/3 nodes are available: 3 no licence. no new claims to deallocate, preemption: 0/3 nodes are available: 3 \
         Preemption is not helpful for scheduling."
    );
    let asked = &server.asked("filter")[0];
    assert_eq!(asked["Nodes"]["items"][0]["status"]["allocatable"]["pods"], "10");
}

#[tokio::test]
async fn who_does_not_answer_is_gone_without_if_it_may_be_ignored() {
    let broken = Server::start(|_, _| (500, json!({}))).await;
    let ignored = cluster(&broken, json!({"filterVerb": "filter", "ignorable": true})).await;
    ignored.create("default", &pod("p", "1", json!({}))).await;
    node_of(&ignored, "p").await;
    assert!(!broken.asked("filter").is_empty());

    let needed = cluster(&broken, json!({"filterVerb": "filter"})).await;
    needed.create("default", &pod("p", "1", json!({}))).await;
    let why =
        |p: &Pod| scheduled(p).is_some_and(|(_, why)| why.starts_with("failed filter with extender at URL"));
    let told = needed.wait_until("default", "p", "to be told why", why).await;
    let conditions = told.status.unwrap().conditions.unwrap();
    assert!(conditions.iter().any(|c| c.reason.as_deref() == Some("SchedulerError")));
}

#[tokio::test]
async fn only_pods_that_want_what_it_manages_are_its_affair_and_it_binds_them() {
    let server = Server::start(|verb, _| match verb {
        "bind" => (200, json!({"Error": "the card is on fire"})),
        _ => (200, Value::Null),
    });
    let server = server.await;
    let managed = json!([{"name": "x.io/card", "ignoredByScheduler": true}]);
    let cluster = cluster(&server, json!({"bindVerb": "bind", "managedResources": managed})).await;
    cluster.create("default", &pod("plain", "1", json!({}))).await;
    node_of(&cluster, "plain").await;
    assert!(server.asked("bind").is_empty());
    // No node has any, and the scheduler does not mind.
    let resources = json!({"requests": {"x.io/card": "1"}, "limits": {"x.io/card": "1"}});
    let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
    cluster.create("default", &pod("carded", "1", json!({"containers": containers}))).await;
    let asked = cluster.wait_for("the binding", || async { server.asked("bind").first().cloned() }).await;
    let whole = cluster.api::<Pod>("default").get("carded").await.unwrap();
    assert_eq!((&asked["PodName"], &asked["PodNamespace"]), (&json!("carded"), &json!("default")));
    assert_eq!(asked["PodUID"], json!(whole.metadata.uid));
    assert!(asked["Node"].as_str().is_some_and(|node| node.starts_with('n')));
    let why = |p: &Pod| scheduled(p).is_some_and(|(_, why)| why == "the card is on fire");
    cluster.wait_until("default", "carded", "to be told why", why).await;
    // It did not work: once more.
    cluster.wait_for("another try", || async { (server.asked("bind").len() > 1).then_some(()) }).await;
}

#[tokio::test]
async fn a_binder_that_may_be_ignored_is_gone_without() {
    let broken = Server::start(|_, _| (500, json!({}))).await;
    let cluster = cluster(&broken, json!({"bindVerb": "bind", "ignorable": true})).await;
    cluster.create("default", &pod("p", "1", json!({}))).await;
    node_of(&cluster, "p").await;
    assert!(!broken.asked("bind").is_empty());
}

#[tokio::test]
async fn extenders_choose_who_has_to_leave() {
    let server = Server::start(|_, body| {
        // Of all that is offered it takes the node that would be the last choice.
        let offered = body["NodeNameToMetaVictims"].as_object().unwrap();
        let kept = offered.iter().max_by_key(|(name, _)| (*name).clone());
        let kept: serde_json::Map<String, Value> =
            kept.map(|(k, v)| (k.clone(), v.clone())).into_iter().collect();
        (200, json!({"NodeNameToMetaVictims": kept}))
    });
    let server = server.await;
    let cluster = cluster(&server, json!({"preemptVerb": "preempt", "nodeCacheCapable": true})).await;
    let high: PriorityClass = object(json!({"metadata": {"name": "high"}, "value": 1000}));
    cluster.create_global(&high).await;
    for n in 1..=3 {
        cluster.create("default", &pod(&format!("low{n}"), "2", json!({}))).await;
        node_of(&cluster, &format!("low{n}")).await;
        // Once it runs, it takes its time to leave.
        let running =
            Patch::Merge(json!({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}}));
        let pods = cluster.api::<Pod>("default");
        pods.patch_status(&format!("low{n}"), &PatchParams::default(), &running).await.unwrap();
    }
    cluster.create("default", &pod("important", "2", json!({"priorityClassName": "high"}))).await;
    let promised = |p: &Pod| p.status.as_ref().is_some_and(|s| s.nominated_node_name.is_some());
    let pod = cluster.wait_until("default", "important", "to be promised a node", promised).await;
    assert_eq!(pod.status.unwrap().nominated_node_name.as_deref(), Some("n3"));
    let offered = &server.asked("preempt")[0]["NodeNameToMetaVictims"];
    assert_eq!(offered.as_object().unwrap().len(), 3);
    assert!(offered["n1"]["Pods"][0]["UID"].is_string());
}
