use serde_json::Value;
use types::{FieldErrors, Path, at, dns1035_label, str_at};

const REVIEWS: [&str; 2] = ["v1", "v1beta1"];

/// Upstream: `validateCustomResourceConversion`; its paths are those of the internal version.
pub(super) fn check(conversion: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    let config = path.child("webhookClientConfig");
    let reviews = path.child("conversionReviewVersions");
    let webhook = at(conversion, &["webhook"]);
    match str_at(conversion, &["strategy"]) {
        None => return errors.required(&path.child("strategy"), ""),
        Some("Webhook") => {}
        Some(other) => {
            if other != "None" {
                errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]);
            }
            if webhook.and_then(|w| at(w, &["clientConfig"])).is_some() {
                errors.forbidden(&config, "should not be set when strategy is not set to Webhook");
            }
            if webhook
                .is_some_and(|w| w["conversionReviewVersions"].as_array().is_some_and(|l| !l.is_empty()))
            {
                errors.forbidden(&reviews, "should not be set when strategy is not set to Webhook");
            }
            return;
        }
    }
    match webhook.and_then(|w| at(w, &["clientConfig"])) {
        None => errors.required(&config, "required when strategy is set to Webhook"),
        Some(client) => match (str_at(client, &["url"]), at(client, &["service"])) {
            (Some(url), None) => check_url(url, &config.child("url"), errors),
            (None, Some(service)) => check_service(service, &config.child("service"), errors),
            _ => errors.required(&config, "exactly one of url or service is required"),
        },
    }
    if let Some(established) = old {
        check_bundle(conversion, established, &config.child("caBundle"), errors);
    }
    let versions = |conversion: &Value| -> Vec<Value> {
        at(conversion, &["webhook", "conversionReviewVersions"])
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let recognized = |list: &[Value]| list.iter().any(|v| REVIEWS.iter().any(|known| v == known));
    let given = versions(conversion);
    if given.is_empty() {
        return errors.required(&reviews, "");
    }
    for (i, version) in given.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if given[..i].contains(version) {
            errors.invalid(&reviews.index(i), text, "duplicate version");
        } else if let Some(fault) = dns1035_label(text) {
            errors.invalid(&reviews.index(i), text, &fault);
        }
    }
    let must = old.map(versions).is_none_or(|before| before.is_empty() || recognized(&before));
    if must && !recognized(&given) {
        errors.invalid(&reviews, given, &format!("must include at least one of {}", REVIEWS.join(", ")));
    }
}

/// A bundle that can be read may not be replaced by one that cannot. (Upstream: `ValidateCABundle`, which also reads the
/// certificates themselves.)
fn check_bundle(conversion: &Value, old: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    let bundle =
        |conversion: &Value| str_at(conversion, &["webhook", "clientConfig", "caBundle"]).map(str::to_owned);
    let readable = |text: &str| {
        let bytes = types::decode_base64(text).unwrap_or_default();
        String::from_utf8(bytes).is_ok_and(|pem| pem.contains("-----BEGIN CERTIFICATE-----"))
    };
    let Some(new) = bundle(conversion).filter(|new| !readable(new)) else { return };
    if bundle(old).is_none_or(|old| readable(&old)) {
        let why = "unable to load root certificates: unable to parse bytes as PEM block";
        errors.invalid(path, new, why);
    }
}

/// Upstream: `apiserver/pkg/util/webhook/validation.go`, `ValidateWebhookURL`.
fn check_url(url: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        return errors.required(path, &format!("url must be a valid URL: {url:?}{FORM}"));
    };
    if scheme != "https" {
        let why = format!("'https' is the only allowed URL scheme{FORM}");
        errors.invalid(path, scheme, &why);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, tail) = rest.split_at(end);
    if host.is_empty() {
        errors.invalid(path, host, &format!("host must be provided{FORM}"));
    }
    if let Some((user, _)) = host.split_once('@') {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    let (before_fragment, fragment) = tail.split_once('#').unwrap_or((tail, ""));
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = before_fragment.split_once('?').filter(|(_, query)| !query.is_empty()) {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

/// Upstream: `apiserver/pkg/util/webhook/validation.go`, `ValidateWebhookService`.
fn check_service(service: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    if str_at(service, &["name"]).is_none() {
        errors.required(&path.child("name"), "service name is required");
    }
    if str_at(service, &["namespace"]).is_none() {
        errors.required(&path.child("namespace"), "service namespace is required");
    }
    let port = service["port"].as_i64().unwrap_or(443);
    if !(1..=65535).contains(&port) {
        errors.invalid(
            &path.child("port"),
            port,
            "port is not valid: must be between 1 and 65535, inclusive",
        );
    }
    let Some(url_path) = str_at(service, &["path"]).filter(|p| *p != "/") else { return };
    let place = path.child("path");
    let mut invalid = |why: &str| errors.invalid(&place, url_path, why);
    if !url_path.starts_with('/') {
        invalid("must start with a '/'");
    }
    let inner = url_path.trim_start_matches('/').trim_end_matches('/');
    for (i, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            invalid(&format!("segment[{i}] may not be empty"));
        } else if let Some(fault) = types::path_segment(step) {
            invalid(&format!("segment[{i}]: {fault}"));
        }
    }
}
