//! Who is asking, and what they may do: certificates and tokens in, [`User`] out; [`User`] and [`Attributes`] in,
//! [`Decision`] out.

mod attributes;
mod bootstrap;
mod bootstrap_token;
mod node;
mod oidc;
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
pub use bootstrap_token::bootstrap_token_user;
pub use node::{NodeAuthorizer, NodeGraph, node_of};
pub use oidc::{JwtAuthenticator, JwtConfigError, JwtError};
pub use pki::{
    CertificateRequest, KeyAndRequest, KeyPairPem, Pki, PkiError, SignError, SigningOrder, Usage,
    certificate_span,
};
pub use rbac::{BindingObject, RbacIndex, RoleObject, Rule, escalation, missing_rules};
pub use service_account::{
    BoundObject, Claims, Lookup, TokenError, TokenIssuer, TokenIssuerOptions, TokenOrder, TokenUser,
};
pub use static_tokens::{StaticTokens, TokenFileError};
pub use tls::{
    ClientAuthority, ServingCertificate, TlsError, changing_server_tls, client_tls, open_server_tls,
    server_tls,
};
pub use user::User;
pub use x509::{CertificateError, certificate_end, certificate_user, user_of_certificate};
