//! Who is asking, and what they may do: certificates and tokens in, [`User`] out; [`User`] and [`Attributes`] in,
//! [`Decision`] out.

mod bootstrap;
mod pki;
mod rbac;
mod service_account;
mod static_tokens;
mod tls;
mod user;
mod x509;

pub use bootstrap::{cluster_role_bindings, cluster_roles, role_bindings, roles};
pub use pki::{CertificateRequest, KeyPairPem, Pki, PkiError, Usage};
pub use rbac::{Attributes, Decision, RbacIndex, RbacObjects, Rule};
pub use service_account::{BoundObject, Claims, TokenError, TokenIssuer, TokenOrder};
pub use static_tokens::{StaticTokens, TokenFileError};
pub use tls::{TlsError, client_tls, server_tls};
pub use user::User;
pub use x509::user_of_certificate;
