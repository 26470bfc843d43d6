//! One object's life among damaged requests.

use http::Method;
use serde_json::{Value, json};

use super::Run;
use super::arbitrary::Dice;
use super::corpus::{Kind, PATHS};
use super::mutate::{
    damage_bytes, damage_path, damage_tree, header, nasty_text, parameter, stuff_metadata, to_text,
};
use super::shot::{Shot, Whom};
use super::verdict::{Answer, fire};

struct Session<'a, 'r> {
    run: &'a Run<'r>,
    kind: &'a Kind,
    dice: Dice,
    seed: u64,
    /// Where objects of the kind are made.
    collection: String,
    name: String,
    /// The object as it was served last.
    seen: Option<Value>,
}

/// Kinds whose objects would have the server call outside: they are only tried.
const DRY: &[&str] = &["validatingwebhookconfigurations", "mutatingwebhookconfigurations", "apiservices"];

pub(crate) async fn live(run: &Run<'_>, seed: u64) {
    let mut dice = Dice::new(seed);
    let kind = dice.pick(&run.corpus.kinds);
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let namespace = if kind.namespaced { "/namespaces/default" } else { "" };
    let collection = format!("{root}{namespace}/{}", kind.resource);
    let name = if kind.resource == "customresourcedefinitions" {
        format!("nails.h{seed}.example.com")
    } else {
        format!("h{seed}")
    };
    Session { run, kind, dice, seed, collection, name, seen: None }.run().await;
}

impl Session<'_, '_> {
    async fn run(mut self) {
        self.create().await;
        for _ in 0..4 + self.dice.below(8) {
            self.step().await;
        }
        if self.seen.is_some() {
            self.end().await;
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }

    fn object(&mut self) -> Value {
        let mut object = self.run.corpus.object(self.kind, &mut self.dice);
        if !object["metadata"].is_object() || !self.dice.one_in(10) {
            object["metadata"] =
                json!({"name": self.name, "labels": {"app": "web"}, "annotations": {"a": "b"}});
        }
        if self.kind.resource == "customresourcedefinitions" && object["spec"].is_object() {
            object["spec"]["group"] = format!("h{}.example.com", self.seed).into();
        }
        object
    }

    /// Changes a tree: along its schema, or against it.
    fn mutate(&mut self, object: &mut Value) {
        let registry = &self.run.corpus.registry;
        let def = registry.find(&self.kind.group, &self.kind.version, &self.kind.resource);
        let field = def.and_then(|d| d.schema).map(|s| &registry.definitions().get(s).field);
        for _ in 0..=self.dice.below(8) {
            match self.dice.below(8) {
                0..=3 => self.dice.mutate(registry.definitions(), field, object),
                4 => stuff_metadata(&mut self.dice, object),
                _ => damage_tree(&mut self.dice, object),
            }
        }
    }

    /// A body in one of the forms, and its media type.
    fn encode(&mut self, object: &Value) -> (&'static str, Vec<u8>) {
        let registry = &self.run.corpus.registry;
        match self.dice.below(12) {
            0 => ("application/yaml", serde_norway::to_string(object).unwrap_or_default().into_bytes()),
            1 => ("application/yaml", yaml(&mut self.dice, object)),
            2 | 3 => {
                let def = registry.find(&self.kind.group, &self.kind.version, &self.kind.resource);
                let name = def.and_then(|d| d.schema).map(|s| registry.definitions().get(s).name.clone());
                let text = object.to_string();
                let version = object["apiVersion"].as_str().unwrap_or_default();
                let kind = object["kind"].as_str().unwrap_or_default();
                let bytes = types::protobuf::envelope(version, kind, |out| match &name {
                    Some(name) => registry.protobuf().encode(name, text.as_bytes(), false, out).map_err(drop),
                    None => Err(()),
                });
                match bytes {
                    Ok(bytes) => ("application/vnd.kubernetes.protobuf", bytes),
                    Err(()) => ("application/json", to_text(&mut self.dice, object)),
                }
            }
            _ => ("application/json", to_text(&mut self.dice, object)),
        }
    }

    /// Damages what is around the body, sends it, and keeps what was served.
    async fn send(&mut self, mut shot: Shot, damage: bool) -> Option<Answer> {
        let dice = &mut self.dice;
        if damage {
            shot.mutated = true;
            for _ in 0..dice.below(3) {
                match dice.below(10) {
                    0 | 1 => damage_path(dice, &mut shot.path),
                    2..=4 => shot.query.push(parameter(dice)),
                    5..=7 => shot.headers.push(header(dice, &self.run.target.token)),
                    8 => damage_bytes(dice, &mut shot.body),
                    _ => match dice.below(6) {
                        0 => {
                            let all = [
                                "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT",
                                "TRACE", "FOO", "get",
                            ];
                            shot.method = dice.pick(&all).parse().unwrap_or(Method::GET);
                        }
                        1 => shot.pieces = Some(1 + dice.below(100)),
                        2 => shot.breaks = true,
                        3 => shot.polls = Some(1 + dice.below(4)),
                        4 => drop((!shot.headers.is_empty()).then(|| shot.headers.remove(0))),
                        _ => {
                            let long = if dice.one_in(40) { 3 * 1024 * 1024 } else { 1 << dice.below(16) };
                            shot.body.resize(shot.body.len() + long, b' ');
                        }
                    },
                }
            }
            shot.whom = match dice.below(16) {
                0 | 1 => Whom::Nobody,
                2 => Whom::Node,
                3 | 4 => Whom::Headers,
                _ => Whom::Master,
            };
        }
        if shot.method != Method::GET && DRY.iter().any(|kind| shot.path.contains(kind)) {
            shot.query.retain(|p| !p.starts_with("dryRun"));
            shot.query.push("dryRun=All".to_owned());
        }
        let answer = fire(self.run, self.seed, &shot).await?;
        if answer.code < 300 && matches!(shot.method, Method::POST | Method::PUT | Method::PATCH) {
            let object = answer.json();
            if object["kind"] == *self.kind.kind
                && let Some(name) = object["metadata"]["name"].as_str()
                && !shot.query.iter().any(|p| p == "dryRun=All")
            {
                self.name = name.to_owned();
                self.seen = Some(object);
            }
        }
        Some(answer)
    }

    async fn create(&mut self) {
        let mut object = self.object();
        let damage = !self.dice.one_in(3);
        if damage && self.dice.one_in(2) {
            self.mutate(&mut object);
        }
        let (media, bytes) = self.encode(&object);
        let mut shot = Shot::new(Method::POST, self.collection.clone()).media(media, bytes);
        if self.dice.one_in(4) {
            shot.query.push("fieldValidation=Strict".to_owned());
        }
        let around = damage && self.dice.one_in(2);
        self.send(shot, around).await;
    }

    async fn step(&mut self) {
        let path = self.path();
        match self.dice.below(16) {
            0 => drop(self.send(Shot::new(Method::GET, path), true).await),
            1 | 2 => {
                let mut shot = Shot::new(Method::GET, self.collection.clone());
                shot.query.push(if self.dice.one_in(2) {
                    "watch=1".to_owned()
                } else {
                    "limit=3".to_owned()
                });
                self.send(shot, true).await;
            }
            3 | 4 => {
                let mut object = self.seen.clone().unwrap_or_else(|| self.object());
                self.mutate(&mut object);
                if !self.dice.one_in(3)
                    && let Some(map) = object.get_mut("metadata").and_then(Value::as_object_mut)
                {
                    map.remove("resourceVersion");
                }
                let (media, bytes) = self.encode(&object);
                let path = if self.dice.one_in(3) { format!("{path}/status") } else { path };
                self.send(Shot::new(Method::PUT, path).media(media, bytes), true).await;
            }
            5..=9 => self.patch(path).await,
            10 => self.subresource(path).await,
            11 => {
                let at = *self.dice.pick(PATHS);
                // The largest of documents take their time.
                let at = if self.dice.one_in(400) { "/openapi/v2" } else { at };
                self.send(Shot::new(Method::GET, at.to_owned()), true).await;
            }
            12 => self.create().await,
            13 => {
                let mut object = self.object();
                self.mutate(&mut object);
                let (media, bytes) = self.encode(&object);
                let path = if self.dice.one_in(2) {
                    "/api/v1/namespaces/default/configmaps/there".into()
                } else {
                    path
                };
                let method = (*self.dice.pick(&["GET", "PUT", "PATCH", "DELETE", "POST"]))
                    .parse()
                    .unwrap_or(Method::GET);
                let mut shot = Shot::new(method, path).media(media, bytes);
                shot.whom = Whom::Nobody;
                shot.mutated = true;
                fire(self.run, self.seed, &shot).await;
            }
            14 => {
                let mut shot = Shot::new(Method::DELETE, self.collection.clone());
                shot.query.push(format!("labelSelector=app%3D{}", self.dice.below(3)));
                self.send(shot, true).await;
            }
            _ => {
                let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0,
                    "propagationPolicy": "Background", "preconditions": {"uid": "x"}, "dryRun": []});
                self.mutate(&mut options);
                let bytes = to_text(&mut self.dice, &options);
                self.send(Shot::new(Method::DELETE, path).media("application/json", bytes), true).await;
            }
        }
    }

    async fn patch(&mut self, path: String) {
        let whole = self.seen.clone().unwrap_or_else(|| self.object());
        let path = if self.dice.one_in(4) { format!("{path}/status") } else { path };
        let which = self.dice.below(5);
        let (media, mut body) = match which {
            0 => ("application/json-patch+json", self.operations(&whole)),
            1 => ("application/merge-patch+json", whole),
            2 => ("application/strategic-merge-patch+json", whole),
            _ => ("application/apply-patch+yaml", {
                let mut object = self.object();
                object["metadata"]["name"] = self.name.clone().into();
                object
            }),
        };
        if which > 0 {
            if let Some(map) = body.as_object_mut() {
                map.retain(|key, _| key != "metadata" || self.dice.one_in(3) || which > 2);
            }
            if let Some(map) = body.get_mut("metadata").and_then(Value::as_object_mut) {
                map.remove("managedFields");
                map.remove("resourceVersion");
            }
            if body["metadata"].is_null() && which < 3 {
                body.as_object_mut().map(|map| map.remove("metadata"));
            }
        }
        if !self.dice.one_in(4) {
            self.mutate(&mut body);
        }
        let bytes = to_text(&mut self.dice, &body);
        let mut shot = Shot::new(Method::PATCH, path).media(media, bytes);
        if which > 2 && !self.dice.one_in(8) {
            shot.query.push(format!("fieldManager=m{}", self.dice.below(3)));
            if self.dice.one_in(2) {
                shot.query.push("force=true".to_owned());
            }
        }
        let damage = self.dice.one_in(2);
        shot.mutated = true;
        self.send(shot, damage).await;
    }

    fn operations(&mut self, object: &Value) -> Value {
        let count = if self.dice.one_in(50) { 40 } else { self.dice.below(5) };
        let operation = |_| {
            let (path, from) = (self.pointer(object), self.pointer(object));
            let op = *self.dice.pick(&["add", "remove", "replace", "move", "copy", "test", "copy", "add"]);
            let value =
                if self.dice.one_in(2) { nasty_text(&mut self.dice).into() } else { self.dice.anything(3) };
            json!({"op": op, "path": path, "from": from, "value": value})
        };
        (0..count).map(operation).collect()
    }

    /// To somewhere in the object.
    fn pointer(&mut self, object: &Value) -> String {
        let (mut pointer, mut at) = (String::new(), object);
        while !self.dice.one_in(5) {
            let step = match at {
                Value::Object(map) if !map.is_empty() => {
                    map.keys().nth(self.dice.below(map.len())).cloned().unwrap_or_default()
                }
                Value::Array(_) if self.dice.one_in(4) => "-".to_owned(),
                Value::Array(list) => self.dice.below(list.len() + 1).to_string(),
                _ => break,
            };
            pointer = format!("{pointer}/{}", step.replace('~', "~0").replace('/', "~1"));
            at = object.pointer(&pointer).unwrap_or(&Value::Null);
        }
        if self.dice.one_in(12) { pointer + "/" + &nasty_text(&mut self.dice) } else { pointer }
    }

    async fn subresource(&mut self, path: String) {
        let others = [
            "log",
            "exec",
            "attach",
            "portforward",
            "proxy",
            "proxy/a/b",
            "scale",
            "eviction",
            "binding",
            "token",
            "x",
        ];
        let known = &self.kind.subresources;
        let name = if known.is_empty() || self.dice.one_in(8) {
            (*self.dice.pick(&others)).to_owned()
        } else {
            self.dice.pick(known).clone()
        };
        let method: Method = (*self.dice.pick(&["GET", "GET", "POST", "PUT", "PATCH", "DELETE"]))
            .parse()
            .unwrap_or(Method::GET);
        let mut body = json!({"spec": {"replicas": 1}, "target": {"name": "n"}, "deleteOptions": {}, "metadata": {"name": self.name}});
        if let (true, Some(seen)) = (self.dice.one_in(2), &self.seen) {
            body = seen.clone();
        }
        if self.dice.one_in(2) {
            self.mutate(&mut body);
        }
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = if method == Method::GET { Vec::new() } else { to_text(&mut self.dice, &body) };
        let mut shot = Shot::new(method, format!("{path}/{name}")).media(media, bytes);
        if matches!(name.as_str(), "exec" | "attach" | "portforward" | "proxy") && self.dice.one_in(2) {
            let protocol = if self.dice.one_in(2) { "websocket" } else { "SPDY/3.1" };
            shot.headers.push(("upgrade".to_owned(), protocol.into()));
            shot.headers.push(("connection".to_owned(), b"Upgrade".to_vec()));
        }
        shot.mutated = true;
        self.send(shot, true).await;
    }

    /// Nothing is left behind.
    async fn end(&mut self) {
        let path = self.path();
        let finalizers = self.seen.as_ref().is_some_and(|o| !o["metadata"]["finalizers"].is_null());
        if finalizers {
            let shot = Shot::new(Method::PATCH, path.clone())
                .media("application/merge-patch+json", b"{\"metadata\":{\"finalizers\":null}}".to_vec());
            fire(self.run, self.seed, &shot).await;
        }
        let mut shot = Shot::new(Method::DELETE, path);
        shot.query.push("gracePeriodSeconds=0".to_owned());
        fire(self.run, self.seed, &shot).await;
    }
}

/// YAML with anchors, tags, several documents and the like around an object.
fn yaml(dice: &mut Dice, object: &Value) -> Vec<u8> {
    let text = object.to_string();
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for n in 1..3 + dice.below(10) {
        let row = format!("*a{}", n - 1);
        bomb += &format!("a{n}: &a{n} [{}]\n", [row.as_str(); 9].join(","));
    }
    let out = match dice.below(9) {
        0 => bomb,
        1 => format!("--- &a\n{text}\n---\n{text}\n"),
        2 => format!("%YAML 1.2\n---\n!!map {text}"),
        3 => format!("<<: &x {text}\n<<: *x\n"),
        4 => format!("? {text}\n: {text}\n"),
        5 => "- ".repeat(1 << dice.below(13)),
        6 => format!("a: |{}\n  x\n", dice.below(20)),
        7 => format!("{}{text}", "# comment\n".repeat(100)),
        _ => text.replace("\"", if dice.one_in(2) { "'" } else { "" }),
    };
    out.into_bytes()
}
