use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::Labels;
use types::{LabelSelector, Requirement};

use crate::pod::{Matcher, PodKind};

/// Kinds of controllers whose pods are spread without being told to.
pub(crate) const CONTROLLERS: [&str; 3] = ["ReplicationController", "ReplicaSet", "StatefulSet"];

/// What brings pods together that say nothing of their spread: Services and controllers.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// By namespace, then name.
    services: HashMap<String, BTreeMap<String, Labels>>,
    /// By kind, namespace and name.
    controllers: HashMap<(&'static str, String, String), LabelSelector>,
    /// What was found for a kind of pod.
    found: HashMap<usize, (Arc<PodKind>, Option<Arc<Matcher>>)>,
}

impl Owners {
    pub(crate) fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>) {
        let services = self.services.entry(namespace.to_owned()).or_default();
        let changed = match selector.filter(|s| !s.is_empty()) {
            Some(selector) if services.get(name) == Some(&selector) => false,
            Some(selector) => {
                services.insert(name.to_owned(), selector);
                true
            }
            None => services.remove(name).is_some(),
        };
        if services.is_empty() {
            self.services.remove(namespace);
        }
        if changed {
            self.found.clear();
        }
    }

    pub(crate) fn set_controller(
        &mut self,
        kind: &'static str,
        namespace: &str,
        name: &str,
        selector: Option<LabelSelector>,
    ) {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let about = |pod: &PodKind| {
            *pod.namespace == *namespace
                && pod.owner.as_ref().is_some_and(|o| *o.kind == *kind && *o.name == *name)
        };
        let changed = match selector {
            Some(selector) if self.controllers.get(&key) == Some(&selector) => false,
            Some(selector) => {
                self.controllers.insert(key, selector);
                true
            }
            None => self.controllers.remove(&key).is_some(),
        };
        if changed {
            self.found.retain(|_, (pod, _)| !about(pod));
        }
    }

    /// Gets ready to be asked about a kind of pod.
    pub(crate) fn prepare(&mut self, kind: &Arc<PodKind>) {
        const MANY: usize = 4096;
        let key = Arc::as_ptr(kind) as usize;
        if self.found.contains_key(&key) {
            return;
        }
        if self.found.len() >= MANY {
            self.found.clear();
        }
        let selector = self.selector(kind);
        self.found.insert(key, (kind.clone(), selector));
    }

    /// The pods that belong together with those of a kind, if this is prepared for it.
    pub(crate) fn peers(&self, kind: &Arc<PodKind>) -> Option<&Arc<Matcher>> {
        self.found.get(&(Arc::as_ptr(kind) as usize))?.1.as_ref()
    }

    /// Kubernetes/kubernetes, `pkg/scheduler/framework/plugins/helper/spread.go`, `DefaultSelector`.
    fn selector(&self, kind: &PodKind) -> Option<Arc<Matcher>> {
        let labels = kind.labels.as_deref();
        let mut merged: BTreeMap<&String, &String> = BTreeMap::new();
        for selector in self.services.get(&*kind.namespace).into_iter().flat_map(BTreeMap::values) {
            if selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value)) {
                merged.extend(selector);
            }
        }
        let mut all: Vec<Requirement> = merged
            .into_iter()
            .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
            .collect();
        if let Some(owner) = &kind.owner
            && let Some(known) = CONTROLLERS.iter().find(|k| ***k == *owner.kind)
        {
            let key = (*known, kind.namespace.to_string(), owner.name.to_string());
            for more in self.controllers.get(&key).into_iter().flat_map(LabelSelector::requirements) {
                if !all.contains(more) {
                    all.push(more.clone());
                }
            }
        }
        (!all.is_empty()).then(|| Matcher::within(&kind.namespace, LabelSelector::of(all)))
    }
}
