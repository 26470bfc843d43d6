//! Admission policies in CEL (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/policy`).

mod mutating;
mod params;
mod read;
mod validating;

use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::matching::{World, is_exempt};
use crate::request::Request;

pub(crate) use mutating::mutate;
use read::Policy;
pub(crate) use validating::validate;

/// Policies of one sort with their bindings, readied; made anew when one of them changes.
pub(crate) struct Policies {
    tables: [&'static str; 2],
    known: RwLock<([u64; 2], Arc<[Policy]>)>,
}

impl Policies {
    fn over(tables: [&'static str; 2]) -> Self {
        Self { tables, known: RwLock::new(([0, 0], Arc::new([]))) }
    }

    pub(crate) fn validating() -> Self {
        Self::over([
            "validatingadmissionpolicies.admissionregistration.k8s.io",
            "validatingadmissionpolicybindings.admissionregistration.k8s.io",
        ])
    }

    pub(crate) fn mutating() -> Self {
        Self::over([
            "mutatingadmissionpolicies.admissionregistration.k8s.io",
            "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
        ])
    }

    /// The policies that are bound to anything; nothing where there is none.
    pub(crate) fn current(&self, request: &Request<'_>, cluster: &dyn Cluster) -> Option<Arc<[Policy]>> {
        let revisions = self.tables.map(|table| cluster.last_change(table));
        let known = {
            let known = self.known.read();
            (known.0 == revisions).then(|| (!known.1.is_empty()).then(|| known.1.clone()))
        };
        let policies = match known {
            Some(None) => return None,
            Some(Some(policies)) => policies,
            None => {
                let (policies, bindings) = (cluster.list(self.tables[0]), cluster.list(self.tables[1]));
                let policies: Arc<[Policy]> = Policy::read_all(&policies, &bindings).into();
                *self.known.write() = (revisions, policies.clone());
                policies
            }
        };
        // Questions about users and rights are none of theirs (`pkg/kubeapiserver/admission/exclusion/resources.go`).
        let question = matches!(&*request.def.gvk.group, "authentication.k8s.io" | "authorization.k8s.io");
        (!policies.is_empty() && !question && !is_exempt(request.def)).then_some(policies)
    }
}

/// The namespace that expressions see: none for what is cluster-wide, nor for a Namespace itself.
fn namespace_of(request: &Request<'_>, world: &World<'_>) -> Value {
    if request.namespace.is_empty() || &*request.def.table == "namespaces" {
        return Value::Null;
    }
    crate::evaluate::namespace_json(world.namespace(request.namespace).as_deref())
}
