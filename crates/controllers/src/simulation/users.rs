//! What users do: they make, change and delete, and do not wait.

use base::SeededIds;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{
    Api, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    PropagationPolicy,
};
use kube::core::ApiResource;
use kube::{Client, Error};
use serde_json::{Value, json};
use testkit::Cluster;

use super::agents::BAD;
use super::below;

/// Where everything is that stays.
pub(super) const SPACE: &str = "default";
/// Each has a Service of its name.
pub(super) const DEPLOYMENTS: [&str; 3] = ["d0", "d1", "d2"];
/// The first goes one by one, the second all at once.
pub(super) const SETS: [&str; 2] = ["s0", "s1"];
pub(super) const DAEMONS: &str = "daemons";
pub(super) const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const JOBS: u64 = 6;

pub(super) struct Users {
    client: Client,
    random: SeededIds,
    jobs: u64,
    spaces: u64,
}

fn kind(name: &str) -> (&'static str, &'static str, &'static str) {
    match name {
        "Deployment" => ("apps", "Deployment", "deployments"),
        "StatefulSet" => ("apps", "StatefulSet", "statefulsets"),
        "DaemonSet" => ("apps", "DaemonSet", "daemonsets"),
        "Job" => ("batch", "Job", "jobs"),
        "PodDisruptionBudget" => ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
        "Service" => ("", "Service", "services"),
        "ResourceQuota" => ("", "ResourceQuota", "resourcequotas"),
        "ConfigMap" => ("", "ConfigMap", "configmaps"),
        "Node" => ("", "Node", "nodes"),
        other => panic!("users do not know {other}"),
    }
}

fn template(app: &str, image: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}})
}

impl Users {
    /// Makes nodes, and what is there from the beginning.
    pub(super) async fn begin(cluster: &Cluster, seed: u64) -> Self {
        for name in NODES {
            let mut node = testkit::node(name, 64, 256, 250);
            node.metadata.labels.get_or_insert_default().insert("daemons".into(), "yes".into());
            cluster.create_node(&node).await;
        }
        let users = Self {
            client: cluster.client.clone(),
            random: SeededIds::new(seed ^ 0x05e5),
            jobs: 0,
            spaces: 0,
        };
        // What the controllers would make: pods are admitted before they begin.
        users.account(SPACE).await;
        for name in DEPLOYMENTS.into_iter().chain(SETS) {
            let spec = json!({"selector": {"app": name}, "ports": [{"port": 80}]});
            users.ensure("Service", SPACE, name, json!({"spec": spec})).await;
        }
        let budget = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "d0"}}}});
        users.ensure("PodDisruptionBudget", SPACE, "d0", budget).await;
        let quota = json!({"spec": {"hard": {"pods": "500", "count/configmaps": "50"}}});
        users.ensure("ResourceQuota", SPACE, "quota", quota).await;
        users
    }

    async fn account(&self, space: &str) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), space);
        let account: ServiceAccount = testkit::object(json!({"metadata": {"name": "default"}}));
        self.done(accounts.create(&PostParams::default(), &account).await);
    }

    fn below(&self, limit: u64) -> u64 {
        below(&self.random, limit)
    }

    fn one_of<'a>(&self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    /// Others may have been there before; anything else is a fault of the test.
    fn done<T>(&self, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error)
                if client::is_not_found(&error)
                    || client::is_conflict(&error)
                    || client::is_already_exists(&error)
                    || client::is_forbidden(&error) =>
            {
                None
            }
            Err(error) => panic!("a user was refused: {error}"),
        }
    }

    fn api(&self, name: &str, space: &str) -> Api<DynamicObject> {
        let (group, kind, plural) = kind(name);
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural);
        if space.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), space, &resource)
        }
    }

    async fn ensure(&self, name: &str, space: &str, object: &str, rest: Value) {
        let (group, kind, _) = kind(name);
        let mut whole = rest;
        whole["apiVersion"] = if group.is_empty() { "v1".into() } else { format!("{group}/v1").into() };
        whole["kind"] = kind.into();
        whole["metadata"] = json!({"name": object});
        let whole: DynamicObject = testkit::object(whole);
        self.done(self.api(name, space).create(&PostParams::default(), &whole).await);
    }

    async fn change(&self, name: &str, object: &str, patch: Value) {
        let space = if name == "Node" { "" } else { SPACE };
        let api = self.api(name, space);
        self.done(api.patch(object, &PatchParams::default(), &Patch::Strategic(patch)).await);
    }

    async fn delete(&self, name: &str, object: &str) {
        let policy =
            if self.below(2) == 0 { PropagationPolicy::Background } else { PropagationPolicy::Foreground };
        let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
        self.done(self.api(name, SPACE).delete(object, &params).await);
    }

    async fn deployment(&self, name: &str) {
        let replicas = 1 + self.below(5);
        let spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": template(name, "app:v1")});
        self.ensure("Deployment", SPACE, name, json!({"spec": spec})).await;
    }

    async fn set(&self, name: &str) {
        let policy = if name == SETS[0] { "OrderedReady" } else { "Parallel" };
        let spec = json!({"replicas": 1 + self.below(3), "serviceName": name, "podManagementPolicy": policy,
            "selector": {"matchLabels": {"app": name}}, "template": template(name, "app:v1")});
        self.ensure("StatefulSet", SPACE, name, json!({"spec": spec})).await;
    }

    async fn daemons(&self) {
        let mut template = template(DAEMONS, "app:v1");
        template["spec"]["nodeSelector"] = json!({"daemons": "yes"});
        let spec = json!({"selector": {"matchLabels": {"app": DAEMONS}}, "template": template});
        self.ensure("DaemonSet", SPACE, DAEMONS, json!({"spec": spec})).await;
    }

    async fn job(&mut self) {
        if self.jobs >= JOBS {
            return;
        }
        let name = format!("j{}", self.jobs);
        self.jobs += 1;
        let mut template = template(&name, "app:v1");
        template["spec"]["restartPolicy"] = "Never".into();
        let mode = if self.below(2) == 0 { "Indexed" } else { "NonIndexed" };
        let spec = json!({"completions": 1 + self.below(5), "parallelism": 1 + self.below(3), "backoffLimit": 1000,
            "completionMode": mode, "template": template});
        self.ensure("Job", SPACE, &name, json!({"spec": spec})).await;
    }

    /// A namespace with something in it, and the end of an earlier one.
    async fn namespaces(&mut self) {
        let spaces: Api<Namespace> = Api::all(self.client.clone());
        if self.spaces > 0 {
            let name = format!("x{}", self.spaces - 1);
            self.done(spaces.delete(&name, &DeleteParams::default()).await);
        }
        let name = format!("x{}", self.spaces);
        self.spaces += 1;
        let space: Namespace = testkit::object(json!({"metadata": {"name": name}}));
        self.done(spaces.create(&PostParams::default(), &space).await);
        self.account(&name).await;
        let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": template("web", "app:v1")});
        self.ensure("Deployment", &name, "web", json!({"spec": spec})).await;
        self.ensure("ConfigMap", &name, "own", json!({"data": {"a": "b"}})).await;
    }

    async fn some_pod(&self) -> Option<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SPACE);
        let names: Vec<String> = self
            .done(pods.list_metadata(&ListParams::default()).await)?
            .items
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect();
        let at = self.below(names.len() as u64) as usize;
        names.get(at).cloned()
    }

    /// Does one thing.
    pub(super) async fn act(&mut self) {
        let (deployment, set) = (self.one_of(&DEPLOYMENTS), self.one_of(&SETS));
        let good = format!("app:v{}", 1 + self.below(4));
        let replicas = |most| json!({"spec": {"replicas": self.below(most)}});
        match self.below(15) {
            0 | 1 => self.deployment(deployment).await,
            2 => self.set(set).await,
            3 => self.daemons().await,
            4 | 5 => self.job().await,
            6 => self.change("Deployment", deployment, replicas(7)).await,
            7 => self.change("StatefulSet", set, replicas(5)).await,
            8 => {
                let bad = self.below(4) == 0;
                self.change("Deployment", deployment, image(if bad { BAD } else { &good })).await;
            }
            9 => self.change("StatefulSet", set, image(&good)).await,
            10 => self.change("DaemonSet", DAEMONS, image(&good)).await,
            11 => {
                let Some(pod) = self.some_pod().await else { return };
                let pods: Api<Pod> = Api::namespaced(self.client.clone(), SPACE);
                self.done(pods.delete(&pod, &DeleteParams::default()).await);
            }
            12 => {
                let node = self.one_of(&NODES);
                let wanted = if self.below(2) == 0 { "yes" } else { "no" };
                self.change("Node", node, json!({"metadata": {"labels": {"daemons": wanted}}})).await;
            }
            13 => {
                let job = format!("j{}", self.below(self.jobs));
                let suspended = self.below(2) == 0;
                self.change("Job", &job, json!({"spec": {"suspend": suspended}})).await;
            }
            _ => match self.below(4) {
                0 => self.delete("Deployment", deployment).await,
                1 => self.delete("StatefulSet", set).await,
                2 => self.delete("DaemonSet", DAEMONS).await,
                _ => self.namespaces().await,
            },
        }
    }

    /// Leaves wishes that can be fulfilled. Doing it again changes nothing that is as it should be.
    pub(super) async fn settle(&mut self) {
        for name in DEPLOYMENTS {
            self.deployment(name).await;
            self.change("Deployment", name, image("app:v9")).await;
        }
        for name in SETS {
            self.set(name).await;
        }
        self.daemons().await;
        for job in 0..self.jobs {
            self.change("Job", &format!("j{job}"), json!({"spec": {"suspend": false}})).await;
        }
        if self.spaces > 0 {
            let spaces: Api<Namespace> = Api::all(self.client.clone());
            let last = format!("x{}", self.spaces - 1);
            self.done(spaces.delete(&last, &DeleteParams::default()).await);
        }
    }
}
