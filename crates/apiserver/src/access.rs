use crate::audit::AuditConfig;
use crate::authenticate::{FrontProxy, Issuer, TokenWebhook};
use crate::authorize::AuthorizerConfig;

/// Who may come in, and what they may do.
pub struct AccessConfig {
    /// Who is asked whether a request may go on.
    pub authorizers: Vec<AuthorizerConfig>,
    /// Whether those may ask something who do not say who they are.
    pub anonymous: Anonymous,
    /// Whether Secrets of the type `bootstrap.kubernetes.io/token` let their holders in.
    pub bootstrap_tokens: bool,
    /// Identity providers whose tokens hold.
    pub issuers: Vec<Issuer>,
    /// Who is asked about tokens that nobody here knows.
    pub token_webhook: Option<TokenWebhook>,
    /// What is noted of requests.
    pub audit: Option<AuditConfig>,
    /// Who may say for others who they are.
    pub front_proxy: Option<FrontProxy>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self {
            authorizers: AuthorizerConfig::defaults(),
            anonymous: Anonymous::Everywhere,
            bootstrap_tokens: true,
            issuers: Vec::new(),
            token_webhook: None,
            audit: None,
            front_proxy: None,
        }
    }
}

/// Where those may ask something who do not say who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Everywhere, with the rights of `system:unauthenticated`.
    Everywhere,
    /// Nowhere.
    Nowhere,
    /// Under these paths, each as it is.
    Paths(Vec<String>),
}
