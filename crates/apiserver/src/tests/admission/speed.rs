use std::time::Instant;

use super::*;

/// Prints how many config maps a second can be made, with and without a policy about them. A bound would only fail on
/// busy machines.
#[tokio::test]
async fn creates_with_and_without_a_policy() {
    const EACH: usize = 500;
    let server = TestServer::start().await;
    let run = async |prefix: &str| {
        let begun = Instant::now();
        for i in 0..EACH {
            server.made(MAPS, map(&format!("{prefix}{i}"), json!({"k": "v"}))).await;
        }
        EACH as f64 / begun.elapsed().as_secs_f64()
    };
    let without = run("a").await;
    server
        .made(
            &format!("{REG}/validatingadmissionpolicies"),
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [{"operations": ["*"],
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
                "validations": [{"expression": "object.metadata.name.startsWith('b') && size(object.data) < 5"}]}}),
        )
        .await;
    server
        .made(
            &format!("{REG}/validatingadmissionpolicybindings"),
            json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        )
        .await;
    let with = run("b").await;
    println!("{without:.0} creates/s without a policy, {with:.0} with one, one after the other");
}
