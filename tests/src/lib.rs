//! What the test programs share: running tests one after the other, and saying what failed where it is seen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Picks the tests that the command line names (all, if it names none).
pub fn picked<T: Copy>(tests: impl IntoIterator<Item = (&'static str, T)>) -> Vec<(&'static str, T)> {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wanted = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    tests.into_iter().filter(|(name, _)| wanted(name)).collect()
}

/// Runs tests, each as `run` does, and `after_failure` after each that fails. Gives what failed, and why.
pub fn run<T: Copy>(
    tests: &[(&'static str, T)],
    run: impl Fn(T),
    after_failure: impl Fn(),
) -> Vec<(&'static str, String)> {
    println!("\nrunning {} tests", tests.len());
    let mut failed = Vec::new();
    for (name, test) in tests {
        let begun = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(*test)));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        if let Err(panic) = outcome {
            after_failure();
            failed.push((*name, said(&*panic)));
        }
        println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    failed
}

/// What a panic said.
pub fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Says how tests ended, failures last: whoever sees only the end of a long output sees why.
pub fn verdict(all: usize, failed: &[(&'static str, String)]) -> ExitCode {
    if !failed.is_empty() {
        println!("\nfailures:");
    }
    for (name, why) in failed {
        let why: String = why.chars().take(2_000).collect();
        println!("    {name}: {why}");
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let (passed, failed) = (all - failed.len(), failed.len());
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What lets nodes ask for certificates, as kubeadm makes it.
pub const JOINING: &str = r#"
{apiVersion: v1, kind: Secret, type: bootstrap.kubernetes.io/token,
  metadata: {name: bootstrap-token-abcdef, namespace: kube-system},
  stringData: {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-authentication: "true",
    auth-extra-groups: "system:bootstrappers:kubeadm:default-node-token"}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: e2e-ask},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:node-bootstrapper"},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers:kubeadm:default-node-token"}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: e2e-first},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole,
    name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:bootstrappers:kubeadm:default-node-token"}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: e2e-again},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole,
    name: "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"},
  subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:nodes"}]}
"#;
