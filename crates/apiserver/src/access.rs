use auth::{KeyPairPem, TlsError};

use crate::aggregation::ProxyIdentity;
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
    /// Whom extension servers take this one for. Without it they cannot tell who is asking.
    pub proxy_identity: Option<ProxyIdentity>,
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
            proxy_identity: None,
        }
    }
}

impl AccessConfig {
    /// Makes the server stand before extension servers with this certificate, which the authority (PEM) signed. Whoever
    /// shows such a certificate here is believed, too, unless other front proxies are configured; extension servers
    /// believe both.
    pub fn stand_before(&mut self, pair: &KeyPairPem, authority: &str) -> Result<(), TlsError> {
        let mut identity = ProxyIdentity {
            pair: pair.clone(),
            authority: authority.to_owned(),
            names: vec![FrontProxy::CLIENT.to_owned()],
        };
        match &self.front_proxy {
            None => self.front_proxy = Some(FrontProxy::new(authority)?),
            Some(other) => {
                identity.authority = format!("{}\n{authority}", other.authority_pem.trim_end());
                match other.allowed_names.is_empty() {
                    true => identity.names.clear(),
                    false => identity.names.extend(other.allowed_names.iter().cloned()),
                }
            }
        }
        self.proxy_identity = Some(identity);
        Ok(())
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
