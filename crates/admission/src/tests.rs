use base::SeededIds;
use registry::Registry;
use serde_json::{Value, json};
use types::Status;

use crate::{Chain, Objects, Operation, Request};

struct Fixed(Vec<(&'static str, Value)>);

impl Objects for Fixed {
    fn get(&self, table: &str, namespace: &str, name: &str) -> Option<Value> {
        let matches = |o: &Value| {
            o["metadata"]["name"] == name
                && o["metadata"]["namespace"].as_str().unwrap_or_default() == namespace
        };
        self.0.iter().find(|(t, o)| *t == table && matches(o)).map(|(_, o)| o.clone())
    }

    fn list(&self, table: &str) -> Vec<Value> {
        self.0.iter().filter(|(t, _)| *t == table).map(|(_, o)| o.clone()).collect()
    }
}

fn cluster() -> Fixed {
    Fixed(vec![
        ("namespaces", json!({"metadata": {"name": "a"}})),
        ("namespaces", json!({"metadata": {"name": "going", "deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        ("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "a"}})),
        ("priorityclasses.scheduling.k8s.io", json!({"metadata": {"name": "high"}, "value": 1000})),
    ])
}

fn create(namespace: &str, mut pod: Value) -> Result<Value, Status> {
    let registry = Registry::builtin();
    let request = Request {
        def: registry.find("", "v1", "pods").unwrap(),
        subresource: "",
        operation: Operation::Create,
        namespace,
        name: "p",
        user: "eve",
    };
    let chain = Chain::default_plugins();
    chain.admit(&request, &mut pod, &cluster(), &SeededIds::new(1))?;
    chain.validate(&request, Some(&pod), &cluster())?;
    Ok(pod)
}

#[test]
fn a_pod_gets_account_token_tolerations_and_priority() {
    let pod =
        create("a", json!({"spec": {"containers": [{"name": "c"}], "priorityClassName": "high"}})).unwrap();
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-"));
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["priority"], 1000);
}

#[test]
fn refuses_what_has_no_place() {
    let pod = || json!({"spec": {"containers": []}});
    let error = |namespace, pod| create(namespace, pod).unwrap_err().message;
    assert_eq!(
        error("a", json!({"spec": {"serviceAccountName": "x"}})),
        "pods \"p\" is forbidden: error looking up service account a/x: serviceaccount \"x\" not found"
    );
    assert!(
        error("a", json!({"spec": {"priorityClassName": "x"}}))
            .ends_with("no PriorityClass with name x was found")
    );
    assert!(error("b", pod()).contains("service account b/default"));
}

#[test]
fn namespaces_end_and_some_never_do() {
    let registry = Registry::builtin();
    let chain = Chain::default_plugins();
    let request = |resource: &str, operation, namespace, name| {
        let def = registry.find("", "v1", resource).unwrap();
        chain.validate(
            &Request { def, subresource: "", operation, namespace, name, user: "eve" },
            None,
            &cluster(),
        )
    };
    assert!(request("configmaps", Operation::Create, "a", "x").is_ok());
    assert_eq!(
        request("configmaps", Operation::Create, "none", "x").unwrap_err().message,
        "namespaces \"none\" not found"
    );
    assert!(
        request("configmaps", Operation::Create, "going", "x")
            .unwrap_err()
            .message
            .contains("being terminated")
    );
    assert!(request("namespaces", Operation::Delete, "", "kube-system").is_err());
    assert!(request("namespaces", Operation::Delete, "", "a").is_ok());
}
