//! Tokens for machines that join (kubernetes/kubernetes, `plugin/pkg/auth/authenticator/token/bootstrap`).

use serde_json::Value;

use crate::service_account::Lookup;
use crate::static_tokens::same_secret;
use crate::user::User;

/// Two parts of a token: six and sixteen characters of `[a-z0-9]`.
fn split(token: &str) -> Option<(&str, &str)> {
    let good = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    token.split_once('.').filter(|(id, secret)| good(id, 6) && good(secret, 16))
}

/// The user that a bootstrap token speaks for.
pub fn bootstrap_token_user(token: &str, now: i64, lookup: &dyn Lookup) -> Option<User> {
    let (id, secret_part) = split(token)?;
    let secret = lookup.get("secrets", "kube-system", &format!("bootstrap-token-{id}"))?;
    if secret["metadata"]["deletionTimestamp"].is_string()
        || secret["type"] != "bootstrap.kubernetes.io/token"
    {
        return None;
    }
    let text = |field: &str| text(&secret, field);
    let stored = text("token-secret").unwrap_or_default();
    if !same_secret(stored.as_bytes(), secret_part.as_bytes()) {
        return None;
    }
    if text("token-id").as_deref() != Some(id)
        || text("usage-bootstrap-authentication").as_deref() != Some("true")
    {
        return None;
    }
    if let Some(end) = text("expiration").filter(|e| !e.is_empty()) {
        let end = end.parse::<base::Timestamp>().ok()?;
        if now >= end.as_second() {
            return None;
        }
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    for group in text("auth-extra-groups").unwrap_or_default().split(',').filter(|g| !g.is_empty()) {
        // One that is named wrongly spoils the token, so that nobody relies on it.
        if !is_group(group) {
            return None;
        }
        if !groups.iter().any(|g| g == group) {
            groups.push(group.to_owned());
        }
    }
    groups.sort();
    Some(User::authenticated(format!("system:bootstrap:{id}"), groups))
}

fn text(secret: &Value, field: &str) -> Option<String> {
    let bytes = types::decode_base64(secret["data"][field].as_str()?)?;
    String::from_utf8(bytes).ok()
}

/// `system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]`
fn is_group(name: &str) -> bool {
    name.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        (1..=256).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":-".contains(&b))
            && rest.ends_with(|c: char| c.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use serde_json::json;

    #[test]
    fn only_whole_and_current_tokens_are_let_in() {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let good = json!({"type": "bootstrap.kubernetes.io/token", "metadata": {}, "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"),
            "auth-extra-groups": encode("system:bootstrappers:kubeadm:default-node-token")}});
        let now = "2026-01-01T00:00:00Z".parse::<base::Timestamp>().unwrap().as_second();
        let ask = |token: &str, secret: &Value| {
            let lookup = |t: &str, n: &str, name: &str| {
                ((t, n, name) == ("secrets", "kube-system", "bootstrap-token-abcdef")).then(|| secret.clone())
            };
            bootstrap_token_user(token, now, &lookup)
        };
        let user = ask("abcdef.0123456789abcdef", &good).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert!(user.in_group("system:bootstrappers:kubeadm:default-node-token"));
        assert!(user.in_group("system:bootstrappers"));
        for token in ["abcdef.0123456789abcdeX", "abcdef.0123456789abcde0", "abcde.0123456789abcdef", "", "."]
        {
            assert_eq!(ask(token, &good), None, "{token}");
        }
        for (field, value) in [
            ("usage-bootstrap-authentication", "false"),
            ("expiration", "2025-12-31T00:00:00Z"),
            ("expiration", "soon"),
            ("auth-extra-groups", "system:masters"),
            ("token-id", "other1"),
        ] {
            let mut bad = good.clone();
            bad["data"][field] = encode(value).into();
            assert_eq!(ask("abcdef.0123456789abcdef", &bad), None, "{field}");
        }
        let mut other = good.clone();
        other["type"] = "Opaque".into();
        assert_eq!(ask("abcdef.0123456789abcdef", &other), None);
    }
}
