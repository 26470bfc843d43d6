use crate::authorize::AuthorizerConfig;

/// Who may come in, and what they may do.
pub struct AccessConfig {
    /// Who is asked whether a request may go on.
    pub authorizers: Vec<AuthorizerConfig>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { authorizers: AuthorizerConfig::defaults() }
    }
}
