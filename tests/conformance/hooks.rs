//! A server of webhooks behind a Service of the check's namespace.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::cluster::root;
use crate::trial::{Trial, merge};

/// An address that only webhooks have.
const ADDRESS: &str = "192.0.2.78";

/// What is to be asked about.
#[derive(Clone, Copy)]
pub struct Rule<'a> {
    pub operations: &'a [&'a str],
    pub group: &'a str,
    pub resource: &'a str,
}

/// Changes of ConfigMaps.
pub const CONFIG_MAPS: Rule = Rule { operations: &["CREATE", "UPDATE"], group: "", resource: "configmaps" };

/// A server that runs until it is dropped; then what it was registered for goes too.
pub struct Hooks<'a> {
    trial: &'a Trial<'a>,
    server: Child,
    bundle: String,
}

impl Drop for Hooks<'_> {
    fn drop(&mut self) {
        for kind in ["validatingwebhookconfigurations", "mutatingwebhookconfigurations"] {
            self.trial.attempt(&["delete", kind, "-l", &self.selector()]);
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl<'a> Hooks<'a> {
    /// Starts a server.
    pub fn start(trial: &'a Trial<'a>) -> Self {
        trial.add_address(ADDRESS);
        let name = format!("hooks.{}.svc", trial.ns);
        let own = rcgen::generate_simple_self_signed(vec![name]).expect("a certificate");
        let folder = trial.folder(&trial.ns);
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).expect("writable folder");
            path
        };
        let mut command = trial.client("python3");
        command.arg(root().join("tests/clients/hooks.py")).arg(ADDRESS);
        command.arg(write("hooks.crt", own.cert.pem()));
        command.arg(write("hooks.key", own.signing_key.serialize_pem()));
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut server = spawned.expect("python3 is there");
        let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
        let port: u16 = lines.next().and_then(Result::ok).and_then(|l| l.parse().ok()).expect("a port");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hooks"},
                             "spec": {"ports": [{"port": 443, "targetPort": port}]}});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "hooks-1", "labels": {"kubernetes.io/service-name": "hooks"}},
            "endpoints": [{"addresses": [ADDRESS]}], "ports": [{"port": port}],
        });
        trial.create(&[service, slice]);
        let bundle = base64::engine::general_purpose::STANDARD.encode(own.cert.pem());
        Self { trial, server, bundle }
    }

    /// How an API server reaches one of the paths.
    pub fn client(&self, path: &str) -> Value {
        let service = json!({"namespace": self.trial.ns, "name": "hooks", "path": path});
        json!({"service": service, "caBundle": self.bundle})
    }

    /// One webhook for what happens in the check's namespace.
    pub fn hook(&self, name: &str, path: &str, rule: Rule, extra: Value) -> Value {
        let mut hook = json!({
            "name": format!("{name}.e2e.example"),
            "clientConfig": self.client(path),
            "rules": [{"operations": rule.operations, "apiGroups": [rule.group], "apiVersions": ["*"],
                       "resources": [rule.resource]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.trial.ns}},
        });
        merge(&mut hook, extra);
        hook
    }

    /// A whole configuration, `Validating` or `Mutating`. Its name begins with the namespace's.
    pub fn configuration(&self, kind: &str, name: &str, hooks: &[Value]) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
            "metadata": {"name": self.name(name), "labels": {"of": self.trial.ns}},
            "webhooks": hooks,
        })
    }

    /// Registers one webhook.
    pub fn register(&self, kind: &str, hook: Value) {
        self.trial.create(&[self.configuration(kind, "one", &[hook])]);
    }

    /// A configuration's name.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.trial.ns)
    }

    /// Which configurations are the check's own.
    pub fn selector(&self) -> String {
        format!("of={}", self.trial.ns)
    }
}
