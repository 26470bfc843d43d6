use std::time::Duration;

use auth::{KeyPairPem, TlsError};

use crate::aggregation::ProxyIdentity;
use crate::audit::AuditConfig;
use crate::authenticate::{self, FrontProxy, Identities, Issuer, TokenWebhook};
use crate::authorize::{self, Authorization, AuthorizerConfig};
use crate::config::Config;
use crate::config_file::{ConfigFile, ConfigFileError};
use crate::outbound::Remote;
use crate::state::{Inner, StartError};

/// Who may come in, and what they may do.
pub struct AccessConfig {
    /// Who is asked whether a request may go on.
    pub authorizers: Vec<AuthorizerConfig>,
    /// The same in a file, which then says it alone.
    pub authorization_file: Option<ConfigFile>,
    /// Whether those may ask something who do not say who they are; everywhere unless something else is said.
    pub anonymous: Option<Anonymous>,
    /// Whether Secrets of the type `bootstrap.kubernetes.io/token` let their holders in.
    pub bootstrap_tokens: bool,
    /// Identity providers whose tokens hold.
    pub issuers: Vec<Issuer>,
    /// Identity providers and who may stay unknown, in a file, which then says it alone.
    pub authentication_file: Option<ConfigFile>,
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
            authorization_file: None,
            anonymous: None,
            bootstrap_tokens: true,
            issuers: Vec::new(),
            authentication_file: None,
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

/// A file that is followed once the server runs, and what it said at the start.
pub(crate) struct Followed {
    pub(crate) file: ConfigFile,
    pub(crate) what: &'static str,
    pub(crate) text: String,
    pub(crate) apply: fn(&Inner, &str) -> Result<(), ConfigFileError>,
}

fn first<T>(
    file: &ConfigFile,
    read: impl FnOnce(&str) -> Result<T, ConfigFileError>,
) -> Result<(String, T), StartError> {
    let fail = |source| StartError::ConfigFile { path: file.path.clone(), source };
    let text = std::fs::read_to_string(&file.path).map_err(|e| fail(e.into()))?;
    let value = read(&text).map_err(fail)?;
    Ok((text, value))
}

/// Who is asked at first.
pub(crate) fn authorization(
    access: &AccessConfig,
    followed: &mut Vec<Followed>,
) -> Result<Authorization, StartError> {
    let Some(file) = &access.authorization_file else { return Ok(Authorization::new(&access.authorizers)) };
    let (text, authorizers) = first(file, authorize::read_file)?;
    followed.push(Followed { file: file.clone(), what: "authorization", text, apply: authorize::apply_file });
    Ok(Authorization::new(&authorizers))
}

/// Who is known at first.
pub(crate) fn identities(
    config: &mut Config,
    followed: &mut Vec<Followed>,
) -> Result<Identities, StartError> {
    let access = &mut config.access;
    let Some(file) = &access.authentication_file else {
        let anonymous = access.anonymous.clone().unwrap_or(Anonymous::Everywhere);
        return Ok(Identities { issuers: std::mem::take(&mut access.issuers), anonymous });
    };
    let own: Vec<&str> = config.tokens.issuers().iter().map(String::as_str).collect();
    let (text, identities) =
        first(file, |text| authenticate::read_file(text, &own, access.anonymous.as_ref()))?;
    let apply = authenticate::apply_file;
    followed.push(Followed { file: file.clone(), what: "authentication", text, apply });
    Ok(identities)
}

/// Whom to ask about images, and how long to leave it alone after a failure.
pub(crate) fn image_policy(settings: &admission::Settings) -> Result<Option<(Remote, Duration)>, StartError> {
    let Some(config) = settings.image_policy().map_err(StartError::Admission)? else { return Ok(None) };
    let path = &config.kubeconfig;
    let fail = |why: String| StartError::Images { path: path.clone(), why };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let file = serde_norway::from_str(&text).map_err(|e| fail(e.to_string()))?;
    let folder = path.parent().unwrap_or(std::path::Path::new("."));
    let remote = Remote::of_kubeconfig(&file, folder).map_err(|e| fail(e.to_string()))?;
    Ok(Some((remote, config.retry_backoff)))
}
