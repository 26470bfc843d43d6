//! Who is asking, and what they may do: certificates and tokens in, [`User`] out; [`User`] and [`Attributes`] in,
//! [`Decision`] out.

mod attributes;
mod bootstrap;
mod node;
mod pki;
mod rbac;
mod service_account;
mod static_tokens;
mod tls;
mod user;
mod x509;

pub use attributes::{Answer, Attributes, Decision, FieldRequirement, Selectors};
pub use bootstrap::{
    BindingChange, cluster_role_bindings, cluster_roles, reconcile_binding, reconcile_role, role_bindings,
    roles,
};
pub use node::{NodeAuthorizer, NodeGraph, node_of};
pub use pki::{CertificateRequest, KeyPairPem, Pki, PkiError, Usage};
pub use rbac::{BindingObject, RbacIndex, RoleObject, Rule, escalation, missing_rules};
pub use service_account::{BoundObject, Claims, TokenError, TokenIssuer, TokenOrder};
pub use static_tokens::{StaticTokens, TokenFileError};
pub use tls::{TlsError, client_tls, server_tls};
pub use user::User;
pub use x509::user_of_certificate;
