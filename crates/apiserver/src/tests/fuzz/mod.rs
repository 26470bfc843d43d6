//! Random input through the whole pipeline: nothing panics, nothing is an internal error, every refusal is a `Status`,
//! and whatever is taken can be read again, by us and by typed clients.

mod bodies;
mod protobuf;
mod typed;

use http::Method;
use registry::ResourceDef;
use serde_json::{Value, json};

use super::TestServer;
use super::hammer::arbitrary::Dice;
use super::hammer::samples;

/// Where the objects of a kind are made.
fn collection(def: &ResourceDef) -> String {
    let root = if def.gvk.group.is_empty() {
        format!("/api/{}", def.gvk.version)
    } else {
        format!("/apis/{}/{}", def.gvk.group, def.gvk.version)
    };
    let namespace = if def.namespaced { "/namespaces/default" } else { "" };
    format!("{root}{namespace}/{}", def.resource)
}

struct Fuzz<'a> {
    server: &'a TestServer,
    def: &'a ResourceDef,
    dice: Dice,
}

impl Fuzz<'_> {
    /// Sends a request and looks at the answer for what no answer may be.
    async fn send(&self, method: Method, path: &str, media: &str, body: &Value) -> (u16, Value) {
        let shown = format!("{method} {path} {body}");
        let (code, answer) =
            self.server.call_as(method, path, media, body.clone(), Some(&self.server.admin)).await;
        assert!(code < 500, "{shown}\n{answer}");
        if code >= 400 {
            assert_eq!(
                (&answer["kind"], &answer["code"]),
                (&json!("Status"), &json!(code)),
                "{shown}\n{answer}"
            );
            assert!(answer["message"].as_str().is_some_and(|m| !m.is_empty()), "{shown}\n{answer}");
            assert!(answer["reason"].as_str().is_some_and(|r| !r.is_empty()), "{shown}\n{answer}");
        } else if answer["kind"] == *self.def.gvk.kind {
            self.sound(&answer, &shown);
        }
        (code, answer)
    }

    /// An object that the server has taken.
    fn sound(&self, object: &Value, shown: &str) {
        let registry = self.server.api.0.registry();
        let (Some(schema), definitions) = (self.def.schema, registry.definitions()) else {
            return;
        };
        let mut again = object.clone();
        let errors = definitions.decode(schema, &mut again);
        assert!(errors.mismatch.is_none() && errors.unknown.is_empty(), "{shown}\n{object}\n{errors:?}");
        assert_eq!(&again, object, "decoding changes nothing more: {shown}");
        if let Err(error) = typed::readable(object) {
            panic!("typed clients cannot read it: {error}\n{shown}\n{object}");
        }
    }

    fn mutated(&mut self, sample: &Value, times: usize) -> Value {
        let registry = self.server.api.0.registry();
        let definitions = registry.definitions();
        let field = self.def.schema.map(|schema| &definitions.get(schema).field);
        let mut object = sample.clone();
        for _ in 0..times {
            self.dice.mutate(definitions, field, &mut object);
        }
        object
    }

    /// One object's life. Tells whether it came to be.
    async fn life(&mut self, sample: &Value) -> bool {
        let collection = collection(self.def);
        let times = self.dice.below(4);
        let mut object = self.mutated(sample, times);
        let name = format!("n{}", self.dice.below(1_000_000));
        if object["metadata"].is_object() && !self.dice.one_in(20) {
            object["metadata"]["name"] = name.into();
        }
        let strict = if self.dice.one_in(2) { "?fieldValidation=Strict" } else { "?fieldValidation=Warn" };
        let json = "application/json";
        let (code, made) = self.send(Method::POST, &format!("{collection}{strict}"), json, &object).await;
        let Some(name) = made["metadata"]["name"].as_str().filter(|_| code == 201) else { return false };
        let path = format!("{collection}/{name}");
        let made = self.counted(&path, made).await;
        let (_, got) = self.send(Method::GET, &path, json, &Value::Null).await;
        assert_eq!(got, made);
        let (code, same) = self.send(Method::PUT, &path, json, &made).await;
        assert_eq!((code, &same), (200, &made), "what was served can be sent back, and changes nothing");

        for _ in 0..3 {
            let change = self.dice.below(3) + 1;
            let mut next = self.mutated(&made, change);
            if next["metadata"].is_object() && !self.dice.one_in(4) {
                next["metadata"]["resourceVersion"] = Value::Null;
            }
            let media = ["merge-patch", "strategic-merge-patch", "json-patch"];
            let target = if self.dice.one_in(3) { format!("{path}/status") } else { path.clone() };
            match self.dice.below(5) {
                0 => drop(self.send(Method::PUT, &target, json, &next).await),
                kind @ 1..=3 => {
                    let patch = match kind {
                        3 => self.operations(&made),
                        _ => self.part(next),
                    };
                    let media = format!("application/{}+json", media[kind - 1]);
                    self.send(Method::PATCH, &target, &media, &patch).await;
                }
                _ => self.subresource(&path).await,
            }
        }
        for accept in [
            "application/json;as=Table;g=meta.k8s.io;v=v1",
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        ] {
            let request =
                http::Request::get(&path).header("accept", accept).body(crate::respond::full(Vec::new()));
            let (code, shown) = self.server.send(request.unwrap(), Some(&self.server.admin)).await;
            assert!(code == 200 || code == 404, "{path} {accept}: {shown}");
        }
        let grace = json!({"gracePeriodSeconds": self.dice.below(2)});
        self.send(Method::DELETE, &path, json, &grace).await;
        true
    }

    /// The object as it stays: the server counts for a quota when it sees it.
    async fn counted(&self, path: &str, made: Value) -> Value {
        let limits = made["spec"]["hard"].as_object().is_some_and(|hard| !hard.is_empty());
        if &*self.def.table != "resourcequotas" || !limits {
            return made;
        }
        self.server
            .until(async || self.server.get(path).await.1["status"]["hard"] == made["spec"]["hard"])
            .await;
        self.server.get(path).await.1
    }

    /// Some of an object's fields, as a patch.
    fn part(&mut self, mut object: Value) -> Value {
        if let Value::Object(map) = &mut object {
            map.retain(|key, _| key != "metadata" || self.dice.one_in(3));
        }
        object
    }

    fn operations(&mut self, object: &Value) -> Value {
        let mut operations = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let path = self.pointer(object);
            let op = *self.dice.pick(&["add", "remove", "replace", "move", "copy", "test"]);
            let from = self.pointer(object);
            operations.push(json!({"op": op, "path": path, "from": from, "value": self.dice.anything(3)}));
        }
        operations.into()
    }

    /// To somewhere in the object.
    fn pointer(&mut self, object: &Value) -> String {
        let (mut pointer, mut at) = (String::new(), object);
        while !self.dice.one_in(4) {
            let step = match at {
                Value::Object(map) if !map.is_empty() => {
                    map.keys().nth(self.dice.below(map.len())).cloned().unwrap_or_default()
                }
                Value::Array(list) => self.dice.below(list.len() + 1).to_string(),
                _ => break,
            };
            pointer = format!("{pointer}/{}", step.replace('~', "~0").replace('/', "~1"));
            at = object.pointer(&pointer).unwrap_or(&Value::Null);
        }
        pointer
    }

    async fn subresource(&mut self, path: &str) {
        let names = [
            ("scale", Method::PUT),
            ("eviction", Method::POST),
            ("binding", Method::POST),
            ("finalize", Method::PUT),
            ("token", Method::POST),
            ("ephemeralcontainers", Method::PUT),
            ("resize", Method::PUT),
            ("approval", Method::PUT),
        ];
        let known: Vec<_> = names.iter().filter(|(name, _)| self.def.has_subresource(name)).collect();
        let Some((name, method)) = known.get(self.dice.below(known.len())) else { return };
        let sub = &self.def.subresources[*name].kind;
        let registry = self.server.api.0.registry();
        let definitions = registry.definitions();
        let group = sub.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        let schema = definitions.find(&format!("io.k8s.api.{group}.{}.{}", sub.version, sub.kind));
        let mut body = json!({"target": {"name": "n"}, "spec": {"replicas": 1}, "deleteOptions": {}});
        let field = schema.map(|schema| &definitions.get(schema).field);
        for _ in 0..=self.dice.below(4) {
            self.dice.mutate(definitions, field, &mut body);
        }
        self.send(method.clone(), &format!("{path}/{name}"), "application/json", &body).await;
        // What it did to the object shows here.
        self.send(Method::GET, path, "application/json", &Value::Null).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// How many lives are lived; more on request.
fn lives() -> u64 {
    std::env::var("FUZZ_LIVES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000)
}

#[test]
fn whatever_comes_in_is_taken_whole_or_refused_with_a_reason() {
    let begin: u64 = std::env::var("FUZZ_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    runtime().block_on(async {
        let server = TestServer::start().await;
        let samples = samples::samples();
        let account = json!({"metadata": {"name": "default"}});
        server.post("/api/v1/namespaces/default/serviceaccounts", account).await;
        let mut taken = std::collections::BTreeMap::new();
        for seed in begin..begin + lives() {
            let mut dice = Dice::new(seed);
            let (group, version, resource, sample) = dice.pick(&samples);
            let registry = server.api.0.registry();
            let def = registry
                .find(group, version, resource)
                .unwrap_or_else(|| panic!("{group}/{version} {resource}"));
            let mut sample = sample.clone();
            sample["metadata"] = json!({"name": "n", "labels": {"app": "web"}, "annotations": {"a": "b"}});
            let mut fuzz = Fuzz { server: &server, def, dice };
            println!("seed {seed}: {resource}.{group}");
            *taken.entry(*resource).or_insert(0) += u32::from(fuzz.life(&sample).await);
        }
        // If hardly any object passed the gates, what lies behind them was not tried.
        let barren: Vec<_> = samples
            .iter()
            .map(|(_, _, resource, _)| *resource)
            .filter(|r| taken.get(r).is_none_or(|n| *n == 0))
            .collect();
        assert!(lives() < 1000 || barren.is_empty(), "never created: {barren:?}");
    });
}
