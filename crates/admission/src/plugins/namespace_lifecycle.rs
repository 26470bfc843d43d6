use types::{Cause, Status};

use crate::plugin::{Final, Plugin};
use crate::request::Operation;

/// Nothing is created in a namespace that does not exist or is going away, and the namespaces that the cluster
/// stands on cannot be deleted (kubernetes/kubernetes,
/// `apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`).
pub(crate) struct NamespaceLifecycle;

const UNDELETABLE: [&str; 3] = ["default", "kube-system", "kube-public"];

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn validate(&self, Final { request, cluster, .. }: Final<'_>) -> Result<(), Status> {
        if request.operation == Operation::Delete
            && request.is("", "namespaces")
            && UNDELETABLE.contains(&request.name)
        {
            return Err(request.forbidden("this namespace may not be deleted"));
        }
        // Access reviews are questions about a namespace, not objects in it.
        let review = &*request.def.gvk.group == "authorization.k8s.io";
        if request.operation != Operation::Create || !request.def.namespaced || review {
            return Ok(());
        }
        match cluster.is_going("namespaces", "", request.namespace) {
            None => return Err(Status::not_found("", "namespaces", request.namespace)),
            Some(false) => return Ok(()),
            Some(true) => {}
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            request.namespace
        );
        let mut status = request.forbidden(&why);
        if let Some(details) = &mut status.details {
            details.causes = vec![Cause {
                reason: "NamespaceTerminating".into(),
                message: format!("namespace {} is being terminated", request.namespace),
                field: "metadata.namespace".into(),
            }];
        }
        Err(status)
    }
}
