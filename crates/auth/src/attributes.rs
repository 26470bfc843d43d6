use types::Requirement;

use crate::user::User;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    /// Such as `get` or `list`.
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// The API version, for those who ask elsewhere; roles do not look at it.
    pub version: &'a str,
    /// The plural; empty for a path that is no resource.
    pub resource: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty for cluster-wide requests.
    pub namespace: &'a str,
    /// Empty where no single object is meant.
    pub name: &'a str,
    /// The URL's path, where it is no resource.
    pub path: &'a str,
    /// What a list is narrowed to.
    pub selectors: Option<&'a Selectors>,
}

/// What a list is narrowed to, as far as it could be understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// By fields.
    pub fields: Vec<FieldRequirement>,
    /// By labels.
    pub labels: Vec<Requirement>,
}

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field.
    pub field: String,
    /// Whether it must have the value, or must not.
    pub equals: bool,
    /// The value.
    pub value: String,
}

impl Attributes<'_> {
    /// Whether it is about a resource, not a path.
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// The field must have this value.
    pub(crate) fn selects(&self, field: &str, value: &str) -> bool {
        let fields = self.selectors.iter().flat_map(|s| &s.fields);
        fields.into_iter().any(|f| f.equals && f.field == field && f.value == value)
    }

    /// The label must have this value.
    pub(crate) fn selects_label(&self, label: &str, value: &str) -> bool {
        let mut labels = self.selectors.iter().flat_map(|s| &s.labels);
        labels.any(|r| matches!(r, Requirement::In(key, values) if key == label && *values == [value]))
    }

    /// Upstream's words for a refusal (kubernetes/kubernetes,
    /// `apiserver/pkg/endpoints/handlers/responsewriters/errors.go`, `forbiddenMessage` and `Forbidden`).
    pub fn refusal(&self, user: &User, reason: &str) -> String {
        let Self { verb, group, resource, subresource, namespace, path, .. } = *self;
        let name = &user.name;
        let said = if self.is_resource() {
            let slash = if subresource.is_empty() { "" } else { "/" };
            let place = if namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {namespace:?}")
            };
            let what = format!("{resource}{slash}{subresource}");
            format!("User {name:?} cannot {verb} resource {what:?} in API group {group:?} {place}")
        } else {
            format!("User {name:?} cannot {verb} path {path:?}")
        };
        let said = said.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if reason.is_empty() { said } else { format!("{said}: {reason}") }
    }
}

/// What an authorizer says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No, and nobody else need be asked.
    Deny,
    /// It knows of no reason to allow this; others may.
    #[default]
    NoOpinion,
}

/// A decision and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The decision.
    pub decision: Decision,
    /// Why, for people; often empty.
    pub reason: String,
    /// What went wrong while deciding.
    pub error: Option<String>,
}

impl Answer {
    /// Yes.
    pub fn allow(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Allow, reason: reason.into(), error: None }
    }

    /// No.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self { decision: Decision::Deny, reason: reason.into(), error: None }
    }

    /// No reason to allow it.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self { decision: Decision::NoOpinion, reason: reason.into(), error: None }
    }

    /// Whether it is allowed.
    pub fn is_allowed(&self) -> bool {
        self.decision == Decision::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_upstreams() {
        let user = User::authenticated("eve", []);
        let list = Attributes { verb: "list", resource: "pods", namespace: "y", ..Attributes::default() };
        for (attributes, reason, said) in [
            (list, "", r#"User "eve" cannot list resource "pods" in API group "" in the namespace "y""#),
            (
                Attributes { namespace: "", group: "apps", subresource: "scale", ..list },
                "because",
                r#"User "eve" cannot list resource "pods/scale" in API group "apps" at the cluster scope: because"#,
            ),
            (
                Attributes { verb: "get", path: "/a<b>&", ..Attributes::default() },
                "",
                r#"User "eve" cannot get path "/a&lt;b&gt;&amp;""#,
            ),
        ] {
            assert_eq!(attributes.refusal(&user, reason), said);
        }
    }
}
