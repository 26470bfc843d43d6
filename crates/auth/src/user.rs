use std::collections::BTreeMap;

/// Somebody who is asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Such as `kubernetes-admin` or `system:serviceaccount:default:web`.
    pub name: String,
    /// Tells apart users of one name over time; often empty.
    pub uid: String,
    /// Every group, `system:authenticated` or `system:unauthenticated` among them.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The group whose members may do everything, without a look at any role.
    pub const MASTERS: &'static str = "system:masters";
    /// The group of all who have shown who they are.
    pub const AUTHENTICATED: &'static str = "system:authenticated";

    /// The key of `extra` that tells one credential of a user from another.
    pub const CREDENTIAL_ID: &'static str = "authentication.kubernetes.io/credential-id";

    /// A user who has shown who they are.
    pub fn authenticated(name: impl Into<String>, groups: impl IntoIterator<Item = String>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().collect();
        groups.push(Self::AUTHENTICATED.into());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// Somebody who has not.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
            ..Self::default()
        }
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
