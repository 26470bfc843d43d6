use std::sync::Arc;

use admission::Operation;
use http::Response;
use registry::Verb;
use store::{CommitError, Expect};
use types::{Status, ensure_object};

use crate::pipeline::Call;
use crate::respond::Body;
use crate::state::Inner;
use crate::verbs::{self, Part, Write};
use crate::{admit, authorize, body, encode, object};

/// Changes a namespace's `spec.finalizers`; with the last of them a namespace that is being deleted goes
/// (kubernetes/kubernetes, `pkg/registry/core/namespace/storage/storage.go`).
pub(super) async fn finalize(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let Call { user, request: r, http } = call;
    let (headers, bytes) = body::read(http).await?;
    let given = body::parse_as(&r.registry, &headers, &bytes, &r.def.gvk)?;
    let finalizers = given["spec"]["finalizers"].as_array().cloned().unwrap_or_default();
    loop {
        let record = server.store.get(&r.def.table, &r.key()).ok_or_else(|| r.not_found())?;
        let mut namespace = object::decode(&r.def, &record.value)?;
        let old = namespace.clone();
        if let Some(wanted) = types::str_at(&given, &["metadata", "resourceVersion"])
            && wanted != record.revision.to_string()
        {
            return Err(Status::modified("", "namespaces", &r.name));
        }
        let spec = types::object(ensure_object(&mut namespace, "spec"));
        match finalizers.is_empty() {
            true => drop(spec.remove("finalizers")),
            false => drop(spec.insert("finalizers".into(), finalizers.clone().into())),
        }
        let write = Write::of(server, &user, &r, &headers);
        verbs::settle_owners(&write, &mut namespace, Some(&old), Part::Main, None);
        verbs::ignore_times(&mut namespace, &old);
        let request = admit::subresource(&r, &user, Operation::Update);
        server.pass(&request, Some(&mut namespace), Some(&old)).await?;
        let held = namespace["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let done = !namespace["metadata"]["deletionTimestamp"].is_null() && finalizers.is_empty() && !held;
        let expect = Expect::Revision(record.revision);
        let written = if done {
            server.remove(&r.def, "", &namespace, expect).await
        } else {
            server.put(&r.def, "", &namespace, expect).await
        };
        match written {
            Ok(record) => return encode::object(server, &r, &headers, &record).await,
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(object::commit_error(&r.def, &r.name, error)),
        }
    }
}

/// Approves or denies a certificate request: a write to `status.conditions` alone.
/// Only those who have a say in the signer may.
pub(super) async fn approve(server: &Arc<Inner>, call: Call) -> Result<Response<Body>, Status> {
    let r = &call.request;
    if let Some(record) = server.store.get(&r.def.table, &r.key()) {
        let request = object::decode(&r.def, &record.value)?;
        authorize::certificate_approval(server, &call.user, &request).await?;
    }
    if call.request.verb == Verb::Update {
        verbs::update(server, call, Part::Status).await
    } else {
        verbs::patch(server, call, Part::Status).await
    }
}
