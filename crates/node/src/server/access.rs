//! Who may ask the agent for what: clients show a certificate of the cluster's, and the API says what they may do
//! (kubernetes/kubernetes, `pkg/kubelet/server/auth.go`).

use std::time::Duration;

use auth::User;
use http::Method;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use types::Status;

use crate::settings::Authorization;

/// How long the API may take to say what somebody may do.
const PATIENCE: Duration = Duration::from_secs(10);

/// The subresources of the node that a path stands for; a right to one of them is enough.
fn subresources(path: &str) -> &'static [&'static str] {
    match path.split('/').nth(1).unwrap_or_default() {
        "metrics" => &["metrics"],
        "stats" => &["stats"],
        "logs" => &["log"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        "checkpoint" => &["checkpoint", "proxy"],
        _ => &["proxy"],
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// Whether somebody whom nobody knows is somebody.
    pub(crate) anonymous: bool,
    /// Who says what those may do who are somebody.
    pub(crate) authorization: Authorization,
}

impl Access {
    /// Says no unless the user may do this.
    pub(super) async fn check(
        self,
        client: &Client,
        node: &str,
        user: Option<&User>,
        method: &Method,
        path: &str,
    ) -> Result<(), Status> {
        let anonymous = self.anonymous.then(User::anonymous);
        let user = user.or(anonymous.as_ref()).ok_or_else(Status::unauthorized)?;
        match self.authorization {
            Authorization::AlwaysAllow => Ok(()),
            Authorization::Webhook => ask(client, node, user, method, path).await,
        }
    }
}

/// Asks the API.
async fn ask(client: &Client, node: &str, user: &User, method: &Method, path: &str) -> Result<(), Status> {
    let wanted = subresources(path);
    for subresource in wanted {
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                groups: Some(user.groups.clone()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb(method).into()),
                    version: Some("v1".into()),
                    resource: Some("nodes".into()),
                    subresource: Some((*subresource).into()),
                    name: Some(node.into()),
                    ..Default::default()
                }),
                ..Default::default()
            },
            ..Default::default()
        };
        let api = Api::<SubjectAccessReview>::all(client.clone());
        let answer = tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), &review)).await;
        let failed = |why: &dyn std::fmt::Display| {
            Status::internal(format_args!("authorization cannot be asked for: {why}"))
        };
        let answer = answer.map_err(|late| failed(&late))?.map_err(|error| failed(&error))?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
    }
    let mut no = Status::forbidden("", "nodes", node, "");
    no.message = format!(
        "Forbidden (user={}, verb={}, resource=nodes, subresource(s)={wanted:?})",
        user.name,
        verb(method)
    );
    Err(no)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_subresources() {
        for (path, want) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/logs/", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), want, "{path}");
        }
    }
}
