//! Who may come in: the settings, and what is made of them.

mod audit;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::{
    AccessConfig, Anonymous, AuthorizationWebhook, AuthorizationWebhookOptions, AuthorizerConfig, ConfigFile,
    FrontProxy, Issuer, ModeError, PolicyError, Remote, RemoteError, TokenWebhook,
};
use auth::{ClientAuthority, JwtAuthenticator, JwtConfigError};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use audit::AuditArgs;

/// Settings that cannot be used; one clear sentence each.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} is no YAML: {why}")]
    Yaml { path: PathBuf, why: String },
    #[error("{path} cannot be used: {source}")]
    Policy { path: PathBuf, source: PolicyError },
    #[error("{path} cannot be used: {source}")]
    Remote { path: PathBuf, source: RemoteError },
    #[error(transparent)]
    Mode(#[from] ModeError),
    #[error(transparent)]
    Provider(#[from] JwtConfigError),
    #[error("the identity provider cannot be used: {0}")]
    Issuer(RemoteError),
    #[error("{path} cannot be used: {source}")]
    Tls { path: PathBuf, source: auth::TlsError },
    #[error("--{0} and --{1} cannot be used together")]
    Together(&'static str, &'static str),
    #[error("--{0} needs --{1}")]
    Needs(&'static str, &'static str),
    #[error("--{0} must be a positive number")]
    Positive(&'static str),
}

/// In which version webhooks are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WebhookVersion {
    /// The stable one
    V1,
    /// The one before it, which upstream asks in unless told otherwise
    #[default]
    V1beta1,
}

/// Settings of authentication, authorization and audit, by upstream's names.
#[derive(Clone, Debug, Default, Args)]
pub struct AccessArgs {
    /// Who decides, in this order: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, env = "GANTRY_AUTHORIZATION_MODE", value_name = "MODES", value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// Kubeconfig of the server that mode Webhook asks
    #[arg(long, env = "GANTRY_AUTHORIZATION_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// In which version that server is asked
    #[arg(
        long,
        env = "GANTRY_AUTHORIZATION_WEBHOOK_VERSION",
        value_name = "VERSION",
        default_value = "v1beta1"
    )]
    pub authorization_webhook_version: WebhookVersion,
    /// How long it holds that something is allowed [default: 5m]
    #[arg(long, env = "GANTRY_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL", value_name = "TIME", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Option<Duration>,
    /// How long it holds that something is not [default: 30s]
    #[arg(long, env = "GANTRY_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL", value_name = "TIME", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Option<Duration>,
    /// Who decides, in a file that is read again when it changes: an AuthorizationConfiguration of apiserver.config.k8s.io
    #[arg(long, env = "GANTRY_AUTHORIZATION_CONFIG", value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// Kubeconfig of a server that is asked about unknown tokens
    #[arg(long, env = "GANTRY_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// In which version that server is asked
    #[arg(
        long,
        env = "GANTRY_AUTHENTICATION_TOKEN_WEBHOOK_VERSION",
        value_name = "VERSION",
        default_value = "v1beta1"
    )]
    pub authentication_token_webhook_version: WebhookVersion,
    /// How long its answers hold [default: 2m]
    #[arg(long, env = "GANTRY_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL", value_name = "TIME", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Option<Duration>,
    /// Identity providers and who may stay unknown, in a file that is read again when it changes: an
    /// AuthenticationConfiguration of apiserver.config.k8s.io
    #[arg(long, env = "GANTRY_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests without credentials are let in as system:anonymous [default: true]
    #[arg(long, env = "GANTRY_ANONYMOUS_AUTH", value_name = "BOOL")]
    pub anonymous_auth: Option<bool>,
    /// An identity provider's URL
    #[arg(long, env = "GANTRY_OIDC_ISSUER_URL", value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// Whom the identity provider's tokens must be for
    #[arg(long, env = "GANTRY_OIDC_CLIENT_ID", value_name = "ID")]
    pub oidc_client_id: Option<String>,
    /// The authority of the identity provider's certificate
    #[arg(long, env = "GANTRY_OIDC_CA_FILE", value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim with the user's name [default: sub]
    #[arg(long, env = "GANTRY_OIDC_USERNAME_CLAIM", value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,
    /// What goes before user names; - for nothing [default: the issuer and #, unless the claim is email]
    #[arg(long, env = "GANTRY_OIDC_USERNAME_PREFIX", value_name = "TEXT")]
    pub oidc_username_prefix: Option<String>,
    /// The claim with the user's groups
    #[arg(long, env = "GANTRY_OIDC_GROUPS_CLAIM", value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What goes before groups
    #[arg(long, env = "GANTRY_OIDC_GROUPS_PREFIX", value_name = "TEXT")]
    pub oidc_groups_prefix: Option<String>,
    /// Claims that must have a value: claim=value
    #[arg(long, env = "GANTRY_OIDC_REQUIRED_CLAIM", value_name = "CLAIM=VALUE", value_delimiter = ',')]
    pub oidc_required_claim: Vec<String>,
    /// Signatures that are accepted of the identity provider [default: RS256]
    #[arg(long, env = "GANTRY_OIDC_SIGNING_ALGS", value_name = "NAMES", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
    /// The authority of front proxies' certificates
    #[arg(long, env = "GANTRY_REQUESTHEADER_CLIENT_CA_FILE", value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of front proxies [default: all that the authority signed]
    #[arg(long, env = "GANTRY_REQUESTHEADER_ALLOWED_NAMES", value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers with the user's name [default: X-Remote-User]
    #[arg(long, env = "GANTRY_REQUESTHEADER_USERNAME_HEADERS", value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// Headers with the user's groups [default: X-Remote-Group]
    #[arg(long, env = "GANTRY_REQUESTHEADER_GROUP_HEADERS", value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// Headers with the user's UID [default: X-Remote-Uid]
    #[arg(long, env = "GANTRY_REQUESTHEADER_UID_HEADERS", value_name = "NAMES", value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// What headers with more of the user begin with [default: X-Remote-Extra-]
    #[arg(
        long,
        env = "GANTRY_REQUESTHEADER_EXTRA_HEADERS_PREFIX",
        value_name = "TEXTS",
        value_delimiter = ','
    )]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// More public keys (PEM) that service account tokens may be signed with
    #[arg(long, env = "GANTRY_SERVICE_ACCOUNT_KEY_FILE", value_name = "FILES", value_delimiter = ',')]
    pub service_account_key_file: Vec<PathBuf>,
    /// Names of service account tokens' issuer; the first one signs
    #[arg(long, env = "GANTRY_SERVICE_ACCOUNT_ISSUER", value_name = "URLS", value_delimiter = ',')]
    pub service_account_issuer: Vec<String>,
    /// Where the set of service accounts' keys is found, if not at the API
    #[arg(long, env = "GANTRY_SERVICE_ACCOUNT_JWKS_URI", value_name = "URL")]
    pub service_account_jwks_uri: Option<String>,
    /// Whom tokens for the API itself are for [default: the issuers]
    #[arg(long, env = "GANTRY_API_AUDIENCES", value_name = "NAMES", value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    #[command(flatten)]
    pub audit: AuditArgs,
}

/// A time as upstream's flags take it, such as `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let nanos = cel::Duration::parse(text).and_then(|d| u64::try_from(d.0).ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| "it is no duration such as 1m30s".to_owned())
}

fn read(path: &Path) -> Result<String, AccessError> {
    std::fs::read_to_string(path).map_err(|source| AccessError::File { path: path.to_owned(), source })
}

fn yaml(path: &Path) -> Result<Value, AccessError> {
    let text = read(path)?;
    serde_norway::from_str(&text).map_err(|e| AccessError::Yaml { path: path.to_owned(), why: e.to_string() })
}

fn remote(path: &Path) -> Result<Remote, AccessError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    Remote::of_kubeconfig(&yaml(path)?, folder)
        .map_err(|source| AccessError::Remote { path: path.to_owned(), source })
}

/// Upstream's times for what webhooks answer (`pkg/kubeapiserver/options`).
const TOKENS_HOLD: Duration = Duration::from_secs(120);

impl AccessArgs {
    /// The options of service account tokens.
    pub fn token_options(&self) -> Result<auth::TokenIssuerOptions, AccessError> {
        let keys: Result<Vec<String>, _> =
            self.service_account_key_file.iter().map(|path| read(path)).collect();
        Ok(auth::TokenIssuerOptions {
            issuers: self.service_account_issuer.clone(),
            keys: keys?,
            audiences: self.api_audiences.clone(),
            jwks_uri: self.service_account_jwks_uri.clone().unwrap_or_default(),
        })
    }

    /// What the API needs to know.
    pub fn config(&self) -> Result<AccessConfig, AccessError> {
        let mut access = AccessConfig::default();
        self.authorizers(&mut access)?;
        access.anonymous =
            self.anonymous_auth.map(|on| if on { Anonymous::Everywhere } else { Anonymous::Nowhere });
        if let Some(path) = &self.authentication_token_webhook_config_file {
            let hold = self.authentication_token_webhook_cache_ttl.unwrap_or(TOKENS_HOLD);
            let beta = self.authentication_token_webhook_version == WebhookVersion::V1beta1;
            access.token_webhook = Some(TokenWebhook::new(remote(path)?, hold, beta));
        }
        self.front_proxy(&mut access)?;
        self.providers(&mut access)?;
        access.audit = self.audit.config()?;
        Ok(access)
    }

    fn authorizers(&self, access: &mut AccessConfig) -> Result<(), AccessError> {
        let hook = &self.authorization_webhook_config_file;
        if let Some(path) = &self.authorization_config {
            if !self.authorization_mode.is_empty() {
                return Err(AccessError::Together("authorization-config", "authorization-mode"));
            }
            if hook.is_some() {
                return Err(AccessError::Together(
                    "authorization-config",
                    "authorization-webhook-config-file",
                ));
            }
            access.authorization_file = Some(ConfigFile::new(path.clone()));
            return Ok(());
        }
        if hook.is_some() && !self.authorization_mode.iter().any(|mode| mode == "Webhook") {
            return Err(AccessError::Needs(
                "authorization-webhook-config-file",
                "authorization-mode with Webhook in it",
            ));
        }
        if self.authorization_mode.is_empty() {
            return Ok(());
        }
        let usual = AuthorizationWebhookOptions::default();
        let options = AuthorizationWebhookOptions {
            allowed: self.authorization_webhook_cache_authorized_ttl.unwrap_or(usual.allowed),
            denied: self.authorization_webhook_cache_unauthorized_ttl.unwrap_or(usual.denied),
            beta: self.authorization_webhook_version == WebhookVersion::V1beta1,
            ..usual
        };
        let webhook = hook.as_deref().map(remote).transpose()?;
        let webhook = webhook.map(|remote| Arc::new(AuthorizationWebhook::new(remote, options)));
        access.authorizers = AuthorizerConfig::parse(&self.authorization_mode, webhook)?;
        Ok(())
    }

    fn front_proxy(&self, access: &mut AccessConfig) -> Result<(), AccessError> {
        let Some(path) = &self.requestheader_client_ca_file else { return Ok(()) };
        let or = |given: &Vec<String>, default: &str| match given.is_empty() {
            true => vec![default.to_owned()],
            false => given.clone(),
        };
        let authority_pem = read(path)?;
        let authority = ClientAuthority::new(&authority_pem)
            .map_err(|source| AccessError::Tls { path: path.clone(), source })?;
        access.front_proxy = Some(FrontProxy {
            authority,
            authority_pem,
            allowed_names: self.requestheader_allowed_names.clone(),
            username_headers: or(&self.requestheader_username_headers, "X-Remote-User"),
            uid_headers: or(&self.requestheader_uid_headers, "X-Remote-Uid"),
            group_headers: or(&self.requestheader_group_headers, "X-Remote-Group"),
            extra_prefixes: or(&self.requestheader_extra_headers_prefix, "X-Remote-Extra-"),
        });
        Ok(())
    }

    fn providers(&self, access: &mut AccessConfig) -> Result<(), AccessError> {
        if let Some(path) = &self.authentication_config {
            if self.oidc_issuer_url.is_some() {
                return Err(AccessError::Together("authentication-config", "oidc-issuer-url"));
            }
            access.authentication_file = Some(ConfigFile::new(path.clone()));
        }
        let Some(url) = &self.oidc_issuer_url else { return Ok(()) };
        let client = self.oidc_client_id.as_ref();
        let client = client.ok_or(AccessError::Needs("oidc-issuer-url", "oidc-client-id"))?;
        let claim = self.oidc_username_claim.as_deref().unwrap_or("sub");
        let prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) => prefix.to_owned(),
            None if claim == "email" => String::new(),
            None => format!("{url}#"),
        };
        let mut provider = json!({
            "issuer": {"url": url, "audiences": [client]},
            "claimMappings": {"username": {"claim": claim, "prefix": prefix}},
        });
        if let Some(path) = &self.oidc_ca_file {
            provider["issuer"]["certificateAuthority"] = read(path)?.into();
        }
        if let Some(groups) = &self.oidc_groups_claim {
            let prefix = self.oidc_groups_prefix.clone().unwrap_or_default();
            provider["claimMappings"]["groups"] = json!({"claim": groups, "prefix": prefix});
        }
        let required = self.oidc_required_claim.iter().filter_map(|pair| pair.split_once('='));
        provider["claimValidationRules"] =
            required.map(|(claim, value)| json!({"claim": claim, "requiredValue": value})).collect();
        let algorithms = match self.oidc_signing_algs.is_empty() {
            true => vec!["RS256".to_owned()],
            false => self.oidc_signing_algs.clone(),
        };
        let rules = JwtAuthenticator::read(&provider)?.with_algorithms(&algorithms)?;
        access.issuers.push(Issuer::new(rules).map_err(AccessError::Issuer)?);
        Ok(())
    }
}
