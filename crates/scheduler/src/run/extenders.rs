//! Others who have a say over HTTP (kubernetes/kubernetes, `pkg/scheduler/extender.go`,
//! `staging/src/k8s.io/kube-scheduler/extender/v1/types.go`).
//!
//! ```text
//! fitting nodes ─► asked outside of the loop: filter, then prioritize ─┬► the best that still fits ─► bound
//!                                                                      ├► none: who might make room? ─► preempt asked
//!                                                                      └► no answer: once more, later
//! ```
//!
//! The loop goes on meanwhile, so what comes back is held against how things are then.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use client::Informer;
use client::k8s_openapi::api::core::v1::Node;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Scheduler;
use super::input::Input;
use crate::config::ExtenderSettings;
use crate::metrics::Outcome;
use crate::place::{Ask, Vetoes, survey};
use crate::pod::PodInfo;
use crate::preempt::{Budget, Candidate, Terms, best, decide_vetoed};
use crate::reason::Unschedulable;
use crate::score;

/// What an extender answers to a POST of JSON, or why there is no answer.
pub type ExtenderAnswer = Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// How an extender is called: with a verb, which comes behind its URL, and a body.
pub type ExtenderCall = Arc<dyn Fn(&str, Value) -> ExtenderAnswer + Send + Sync>;

/// The highest score that an extender gives (`MaxExtenderPriority`).
const MOST: i64 = 10;

/// One that is set up.
#[derive(Clone)]
struct Extender {
    settings: Arc<ExtenderSettings>,
    call: ExtenderCall,
}

/// All that are set up.
#[derive(Clone, Default)]
pub(super) struct Extenders {
    all: Vec<Extender>,
    nodes: Option<Informer<Node>>,
}

/// What the extenders say about a pod's nodes.
#[derive(Default)]
pub(super) struct Verdict {
    /// The nodes that are left, with what is added to their scores.
    nodes: HashMap<Arc<str>, i64>,
    vetoes: Vetoes,
}

/// The end of a consultation.
pub(super) struct Consulted {
    pod: Arc<PodInfo>,
    verdict: Result<Verdict, String>,
}

/// The end of a talk about who is to leave.
pub(super) struct Bargained {
    pod: Arc<PodInfo>,
    why: Unschedulable,
    outcome: Result<Vec<Candidate>, String>,
}

impl Extenders {
    /// With a way to call each of them, in the order of the settings.
    pub(super) fn new(settings: &[ExtenderSettings], calls: &[ExtenderCall], nodes: Informer<Node>) -> Self {
        let all = settings.iter().zip(calls);
        let all = all.map(|(s, call)| Extender { settings: Arc::new(s.clone()), call: call.clone() });
        Self { all: all.collect(), nodes: Some(nodes) }
    }

    fn interested(&self, pod: &PodInfo) -> impl Iterator<Item = &Extender> {
        // Most clusters have none, and then nothing is looked at.
        let concerns =
            |e: &&Extender| e.settings.managed.is_empty() || pod.wants().asks_for(&e.settings.managed);
        self.all.iter().filter(concerns)
    }

    pub(super) fn any_interested(&self, pod: &PodInfo) -> bool {
        self.interested(pod).next().is_some()
    }

    /// Whether somebody filters or scores the nodes of a pod.
    pub(super) fn choose(&self, pod: &PodInfo) -> bool {
        self.interested(pod).any(|e| !e.settings.filter.is_empty() || !e.settings.prioritize.is_empty())
    }

    /// Whether somebody has a say in who leaves for a pod.
    pub(super) fn bargain(&self, pod: &PodInfo) -> bool {
        self.interested(pod).any(|e| !e.settings.preempt.is_empty())
    }

    /// Binds a pod if that is somebody else's affair; nothing, if it is not, or if those who would are not to be waited for
    /// and cannot (`extendersBinding`).
    pub(super) fn bind(
        &self,
        pod: &PodInfo,
        node: &str,
    ) -> impl Future<Output = Option<Result<(), String>>> + Send + use<> {
        let binders = self.interested(pod).filter(|e| !e.settings.bind.is_empty());
        let binders: Vec<Extender> = binders.cloned().collect();
        // Most clusters have none of them.
        let body = (!binders.is_empty()).then(|| {
            json!({"PodName": pod.key.name(), "PodNamespace": pod.key.namespace(), "PodUID": &*pod.uid, "Node": node})
        });
        async move {
            for extender in binders {
                let body = body.clone().unwrap_or_default();
                let answer = extender.ask(&extender.settings.bind, body).await;
                let bound = answer.and_then(|answer| match text(&answer, "error") {
                    "" => Ok(()),
                    why => Err(why.to_owned()),
                });
                match bound {
                    Err(why) if extender.settings.ignorable => extender.ignore(&why),
                    bound => return Some(bound),
                }
            }
            None
        }
    }

    async fn consult(self, client: &Client, pod: &PodInfo, names: Vec<Arc<str>>) -> Result<Verdict, String> {
        let whole = whole_pod(client, pod).await?;
        let mut left = names;
        let mut vetoes = Vetoes::new();
        let interested: Vec<Extender> = self.interested(pod).cloned().collect();
        for extender in interested.iter().filter(|e| !e.settings.filter.is_empty()) {
            if left.is_empty() {
                break;
            }
            match self.filter(extender, &whole, &left).await {
                Ok((kept, failed)) => {
                    left.retain(|name| kept.contains(name));
                    // Who said so first counts.
                    for (name, veto) in failed {
                        vetoes.entry(name).or_insert(veto);
                    }
                }
                Err(why) if extender.settings.ignorable => extender.ignore(&why),
                Err(why) => return Err(why),
            }
        }
        let mut nodes: HashMap<Arc<str>, i64> = left.iter().map(|name| (name.clone(), 0)).collect();
        let scoring = interested.iter().filter(|e| !e.settings.prioritize.is_empty() && left.len() > 1);
        for extender in scoring {
            // Upstream goes on without the scores of those who do not answer.
            match self.prioritize(extender, &whole, &left).await {
                Ok(scores) => {
                    for (name, score) in scores {
                        if let Some(total) = nodes.get_mut(&*name) {
                            let weight = extender.settings.weight.saturating_mul(score::FULL / MOST);
                            *total = total.saturating_add(score.saturating_mul(weight));
                        }
                    }
                }
                Err(why) => extender.ignore(&why),
            }
        }
        Ok(Verdict { nodes, vetoes })
    }

    /// The pod and its nodes, as an extender wants to have them.
    fn args(&self, extender: &Extender, pod: &Value, names: &[Arc<str>]) -> Value {
        if extender.settings.knows_nodes {
            return json!({"Pod": pod, "Nodes": null, "NodeNames": names.iter().map(|n| &**n).collect::<Vec<_>>()});
        }
        let nodes = self.nodes.as_ref();
        let items = names.iter().filter_map(|name| nodes?.store().by_name("", name));
        let items: Vec<Value> = items.filter_map(|node| serde_json::to_value(&*node).ok()).collect();
        json!({"Pod": pod, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null})
    }

    async fn filter(
        &self,
        extender: &Extender,
        pod: &Value,
        names: &[Arc<str>],
    ) -> Result<(Vec<Arc<str>>, Vetoes), String> {
        let answer = extender.ask(&extender.settings.filter, self.args(extender, pod, names)).await?;
        let fault = text(&answer, "error");
        if !fault.is_empty() {
            return Err(fault.to_owned());
        }
        let listed = field(&answer, "nodenames").as_array().filter(|_| extender.settings.knows_nodes);
        let said: Vec<&str> = match listed {
            Some(names) => names.iter().filter_map(Value::as_str).collect(),
            None => {
                let items = field(field(&answer, "nodes"), "items").as_array();
                items.into_iter().flatten().filter_map(|node| node["metadata"]["name"].as_str()).collect()
            }
        };
        let mut kept = Vec::new();
        for said in said {
            let Some(name) = names.iter().find(|name| ***name == *said) else {
                let url = &extender.settings.url;
                return Err(format!(
                    "extender {url:?} claims a filtered node {said:?} which is not found in the input node list"
                ));
            };
            kept.push(name.clone());
        }
        let mut vetoes = Vetoes::new();
        for (list, lasting) in [("failednodes", false), ("failedandunresolvablenodes", true)] {
            for (name, why) in field(&answer, list).as_object().into_iter().flatten() {
                vetoes.insert(name.as_str().into(), (why.as_str().unwrap_or_default().to_owned(), lasting));
            }
        }
        Ok((kept, vetoes))
    }

    async fn prioritize(
        &self,
        extender: &Extender,
        pod: &Value,
        names: &[Arc<str>],
    ) -> Result<Vec<(String, i64)>, String> {
        let answer = extender.ask(&extender.settings.prioritize, self.args(extender, pod, names)).await?;
        let list =
            answer.as_array().ok_or_else(|| format!("{}: no list of scores", extender.settings.url))?;
        let one = |entry: &Value| {
            Some((field(entry, "host").as_str()?.to_owned(), field(entry, "score").as_i64().unwrap_or(0)))
        };
        Ok(list.iter().filter_map(one).collect())
    }

    /// Lets extenders choose among the nodes that others could leave, and who leaves them.
    async fn settle(
        self,
        client: &Client,
        pod: &PodInfo,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, String> {
        let whole = whole_pod(client, pod).await?;
        let interested: Vec<Extender> = self.interested(pod).cloned().collect();
        for extender in interested.iter().filter(|e| !e.settings.preempt.is_empty()) {
            match extender.preempt(client, &whole, &candidates).await {
                Ok(left) => candidates = left,
                Err(why) if extender.settings.ignorable => extender.ignore(&why),
                Err(why) => return Err(why),
            }
            if candidates.is_empty() {
                break;
            }
        }
        Ok(candidates)
    }
}

impl Extender {
    async fn ask(&self, verb: &str, body: Value) -> Result<Value, String> {
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.settings.timeout, (self.call)(verb, body)).await;
        crate::metrics::extender(&self.settings.url, verb).observe(begun.elapsed().as_secs_f64());
        let url = format!("{}/{verb}", self.settings.url.trim_end_matches('/'));
        answer.unwrap_or_else(|_| Err(format!("Post {url:?}: context deadline exceeded")))
    }

    fn ignore(&self, why: &str) {
        let extender = &self.settings.url;
        tracing::warn!(%extender, %why, "goes on without what an extender would have said");
    }

    async fn preempt(
        &self,
        client: &Client,
        pod: &Value,
        candidates: &[Candidate],
    ) -> Result<Vec<Candidate>, String> {
        let mut victims = serde_json::Map::new();
        for candidate in candidates {
            let mut pods = Vec::new();
            for victim in &candidate.victims {
                pods.push(match self.settings.knows_nodes {
                    true => json!({"UID": &*victim.uid}),
                    false => whole_pod(client, victim).await?,
                });
            }
            let entry = json!({"Pods": pods, "NumPDBViolations": candidate.violations});
            victims.insert(candidate.node.to_string(), entry);
        }
        let body = match self.settings.knows_nodes {
            true => json!({"Pod": pod, "NodeNameToVictims": null, "NodeNameToMetaVictims": victims}),
            false => json!({"Pod": pod, "NodeNameToVictims": victims, "NodeNameToMetaVictims": null}),
        };
        let answer = self.ask(&self.settings.preempt, body).await?;
        let said = field(&answer, "nodenametometavictims").as_object();
        let mut left = Vec::new();
        for (node, entry) in said.into_iter().flatten() {
            let Some(known) = candidates.iter().find(|c| *c.node == **node) else {
                return Err(format!(
                    "extender {:?} names a node that it was not asked about: {node}",
                    self.settings.url
                ));
            };
            let mut victims = Vec::new();
            for victim in field(entry, "pods").as_array().into_iter().flatten() {
                let uid = text(victim, "uid");
                let Some(known) = known.victims.iter().find(|v| *v.uid == *uid) else {
                    return Err(format!(
                        "extender: {} claims to preempt pod (UID: {uid}) on node: {node}, but the pod is not found on that node",
                        self.settings.url
                    ));
                };
                victims.push(known.clone());
            }
            if victims.is_empty() {
                return Err(format!("expected at least one victim pod on node {node:?}"));
            }
            let violations = field(entry, "numpdbviolations").as_u64().unwrap_or(0);
            let violations = usize::try_from(violations).unwrap_or(usize::MAX);
            left.push(Candidate { node: known.node.clone(), victims, violations });
        }
        Ok(left)
    }
}

/// A field by its name, however that is capitalized: Go reads so, and extenders go by it.
fn field<'a>(object: &'a Value, name: &str) -> &'a Value {
    let mut all = object.as_object().into_iter().flatten();
    all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or(&Value::Null, |(_, value)| value)
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name).as_str().unwrap_or_default()
}

/// A pod with all its fields: the scheduler itself keeps a part only.
async fn whole_pod(client: &Client, pod: &PodInfo) -> Result<Value, String> {
    let (namespace, name) = (pod.key.namespace(), pod.key.name());
    let request = http::Request::get(format!("/api/v1/namespaces/{namespace}/pods/{name}"));
    let request = request.body(Vec::new()).map_err(|error| error.to_string())?;
    client.request(request).await.map_err(|error| client::message(&error))
}

impl Scheduler {
    /// Asks the extenders about the nodes that fit a pod, if there are any.
    pub(super) fn consult(&mut self, pod: &Arc<PodInfo>) -> bool {
        self.view.prepare(pod);
        let Ok(fitting) = survey(&Ask::new(pod, &self.view), None) else { return false };
        let names = fitting.iter().map(|row| self.view.names[*row].clone()).collect();
        self.in_flight += 1;
        self.bindings.begin(pod, self.queue.tries(&pod.uid));
        let (extenders, client, pod) = (self.extenders.clone(), self.bindings.client(), pod.clone());
        self.bindings.tell(async move {
            let verdict = extenders.consult(&client, &pod, names).await;
            Input::Consulted(Consulted { pod, verdict })
        });
        true
    }

    pub(super) fn consulted(&mut self, consulted: Consulted) {
        self.in_flight -= 1;
        let uid = consulted.pod.uid.clone();
        self.bindings.finished(&uid);
        // The pod is gone meanwhile, or has a node from somebody else.
        let Some(pod) = self.queue.get(&uid).cloned() else { return };
        let verdict = match consulted.verdict {
            Ok(verdict) => verdict,
            Err(why) => return self.failed(&pod, &why),
        };
        if verdict.nodes.is_empty() {
            let budgets: Vec<&Budget> = self.budgets.values().collect();
            let may_preempt = !self.preempting.contains(&uid);
            let bargains = self.extenders.bargain(&pod);
            let terms = Terms { budgets: &budgets, may_preempt, bargains };
            let decision = decide_vetoed(&pod, &mut self.view, &verdict.vetoes, &terms, &mut |_| {});
            return self.carry_on(pod, decision);
        }
        self.view.prepare(&pod);
        let best = {
            let ask = Ask::new(&pod, &self.view);
            let rows: Vec<usize> = survey(&ask, None).unwrap_or_default();
            let added = |row: &usize| verdict.nodes.get(&self.view.names[*row]).copied();
            let rows: Vec<usize> = rows.into_iter().filter(|row| added(row).is_some()).collect();
            let scores = score::scores(&ask, &rows);
            let scores = scores
                .iter()
                .zip(&rows)
                .map(|(score, row)| score.saturating_add(added(row).unwrap_or(0)))
                .collect();
            score::best_of(&ask, &rows, scores).map(|row| self.view.names[row].clone())
        };
        match best {
            Some(node) => self.assume(pod, node),
            // Others have taken what was free a moment ago.
            None => self.queue.activate(&uid),
        }
    }

    /// Asks the extenders who is to leave for a pod.
    pub(super) fn bargain(&mut self, pod: Arc<PodInfo>, candidates: Vec<Candidate>, why: Unschedulable) {
        self.in_flight += 1;
        self.bindings.begin(&pod, self.queue.tries(&pod.uid));
        let (extenders, client) = (self.extenders.clone(), self.bindings.client());
        self.bindings.tell(async move {
            let outcome = extenders.settle(&client, &pod, candidates).await;
            Input::Bargained(Bargained { pod, why, outcome })
        });
    }

    pub(super) fn bargained(&mut self, bargained: Bargained) {
        self.in_flight -= 1;
        let uid = bargained.pod.uid.clone();
        self.bindings.finished(&uid);
        let Some(pod) = self.queue.get(&uid).cloned() else { return };
        match bargained.outcome {
            Ok(candidates) if candidates.is_empty() => self.nowhere(&pod, &bargained.why, false),
            Ok(candidates) => {
                let Candidate { node, victims, .. } = best(candidates);
                self.preempt(&pod, &node, victims, &bargained.why);
            }
            Err(why) => self.failed(&pod, &why),
        }
    }

    /// An attempt that came to nothing because something did not work.
    fn failed(&mut self, pod: &Arc<PodInfo>, why: &str) {
        pod.profile.numbers.attempt(Outcome::Error, self.queue.tries(&pod.uid).begun.elapsed());
        self.say_failed(pod, why);
        self.queue.retry(&pod.uid);
    }
}

#[cfg(test)]
mod tests;
