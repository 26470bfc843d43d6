use std::time::Duration;

use registry::ExpressionScope;
use serde_json::Value;
use types::str_at;

use crate::evaluate::Conditions;
use crate::matching::Match;

/// One webhook of a configuration, readied.
pub(crate) struct Hook {
    /// Tells it apart from all others: configuration and place.
    pub(super) id: String,
    pub(super) configuration: String,
    pub(super) name: String,
    pub(super) client: Value,
    pub(super) matches: Result<Match, String>,
    pub(super) conditions: Conditions,
    /// A call that fails is no reason to refuse.
    pub(super) ignore: bool,
    /// Whether it may be called when nothing is to be written.
    pub(super) dry_runs: bool,
    pub(super) if_needed: bool,
    pub(super) timeout: Duration,
    /// The version of the review that is sent: the first that both sides know.
    pub(super) version: Option<&'static str>,
}

impl Hook {
    /// All webhooks of a configuration.
    pub(super) fn read_all(configuration: &Value) -> Vec<Self> {
        let name = str_at(configuration, &["metadata", "name"]).unwrap_or_default();
        let hooks = configuration["webhooks"].as_array().into_iter().flatten();
        hooks.enumerate().map(|(i, hook)| Self::read(name, i, hook)).collect()
    }

    fn read(configuration: &str, index: usize, hook: &Value) -> Self {
        let text = |field: &str| str_at(hook, &[field]).unwrap_or_default();
        let ignore = text("failurePolicy") == "Ignore";
        let scope = ExpressionScope { authorizer: true, ..ExpressionScope::default() };
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten();
        let known = |v: &Value| match v.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            _ => None,
        };
        Self {
            id: format!("{configuration}/{}/{index}", text("name")),
            configuration: configuration.to_owned(),
            name: text("name").to_owned(),
            client: hook["clientConfig"].clone(),
            matches: Match::of_webhook(hook),
            conditions: Conditions::read(&hook["matchConditions"], &scope.env(), ignore),
            ignore,
            dry_runs: matches!(text("sideEffects"), "None" | "NoneOnDryRun"),
            if_needed: text("reinvocationPolicy") == "IfNeeded",
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30)),
            version: versions.filter_map(known).next(),
        }
    }
}
