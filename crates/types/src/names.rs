//! What names and labels may look like. Messages follow kubernetes/kubernetes,
//! `apimachinery/pkg/util/validation/validation.go`.

use serde_json::Value;

use crate::field::{FieldErrors, Path};

fn is_lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && is_lower_alnum(b[0])
        && is_lower_alnum(b[b.len() - 1])
        && b.iter().all(|&c| is_lower_alnum(c) || c == b'-')
}

/// Why `s` is no RFC 1123 label, if it is none.
pub fn dns_label(s: &str) -> Option<String> {
    if s.len() > 63 {
        return Some("must be no more than 63 bytes".into());
    }
    (!is_label(s)).then(|| {
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
         and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            .into()
    })
}

/// Why `s` is no RFC 1035 label, if it is none.
pub fn dns1035_label(s: &str) -> Option<String> {
    if s.len() > 63 {
        return Some("must be no more than 63 bytes".into());
    }
    (!is_label(s) || !s.as_bytes()[0].is_ascii_lowercase()).then(|| {
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
         validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
            .into()
    })
}

/// Why `s` is no RFC 1123 subdomain, if it is none.
pub fn dns_subdomain(s: &str) -> Option<String> {
    if s.len() > 253 {
        return Some("must be no more than 253 bytes".into());
    }
    (!s.split('.').all(is_label)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
         must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .into()
    })
}

/// Why `s` is no RFC 1123 subdomain whose labels may hold underscores, if it is none.
pub fn dns_subdomain_with_underscore(s: &str) -> Option<String> {
    if s.len() > 253 {
        return Some("must be no more than 253 bytes".into());
    }
    let label = |label: &str| {
        let b = label.strip_prefix('_').unwrap_or(label).as_bytes();
        !b.is_empty()
            && is_lower_alnum(b[0])
            && is_lower_alnum(b[b.len() - 1])
            && b.iter().all(|&c| is_lower_alnum(c) || matches!(c, b'-' | b'_'))
    };
    (!s.split('.').all(label)).then(|| {
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', \
         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
         is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
            .into()
    })
}

/// Why `s` is no subdomain under a wildcard such as `*.example.com`, if it is none.
pub fn wildcard_subdomain(s: &str) -> Option<String> {
    if s.len() > 253 {
        return Some("must be no more than 253 bytes".into());
    }
    (!s.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label))).then(|| {
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
         consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
         '*.example.com', regex used for validation is \
         '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            .into()
    })
}

/// Everything that keeps `s` from being a key of a ConfigMap or Secret.
pub fn config_map_key(s: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if s.len() > 253 {
        faults.push("must be no more than 253 bytes".into());
    }
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        faults.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
                .into(),
        );
    }
    match s {
        "." | ".." => faults.push(format!("must not be '{s}'")),
        _ if s.starts_with("..") => faults.push("must not start with '..'".into()),
        _ => {}
    }
    faults
}

/// Why `s` cannot name an HTTP header, if it cannot.
pub fn http_header_name(s: &str) -> Option<String> {
    (s.is_empty() || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')).then(|| {
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used \
         for validation is '[-A-Za-z0-9]+')"
            .into()
    })
}

/// Checks a path that begins with a domain, such as `example.com/thing`.
pub fn validate_domain_prefixed_path(s: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if s.is_empty() {
        return errors.required(path, "");
    }
    let Some((host, rest)) = s.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty())
    else {
        return errors.invalid(path, s, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    if let Some(fault) = dns_subdomain(host) {
        errors.invalid(path, host, &fault);
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(legal) {
        errors.invalid(
            path,
            rest,
            "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
        );
    }
}

/// Why `s` cannot be one segment of a URL path, if it cannot (RBAC objects' names).
pub fn path_segment(s: &str) -> Option<String> {
    match s {
        "." | ".." => Some(format!("may not be '{s}'")),
        _ if s.contains('/') => Some("may not contain '/'".into()),
        _ if s.contains('%') => Some("may not contain '%'".into()),
        _ => None,
    }
}

fn is_qualified_part(s: &str) -> bool {
    let b = s.as_bytes();
    !b.is_empty()
        && b[0].is_ascii_alphanumeric()
        && b[b.len() - 1].is_ascii_alphanumeric()
        && b.iter().all(|&c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// Everything that keeps `s` from being a qualified name such as a label key.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match s.split_once('/') {
        None => s,
        Some((_, rest)) if rest.contains('/') => {
            return vec![
                "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and \
                 end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
                 for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain \
                 prefix and '/' (e.g. 'example.com/MyName')"
                    .into(),
            ];
        }
        Some((prefix, rest)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".into());
            } else if let Some(fault) = dns_subdomain(prefix) {
                faults.push(format!("prefix part {fault}"));
            }
            rest
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        faults.push("name part must be no more than 63 bytes".into());
    }
    if !is_qualified_part(name) {
        faults.push(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                .into(),
        );
    }
    faults
}

/// Everything that keeps `s` from being a label's value.
pub fn label_value(s: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if s.len() > 63 {
        faults.push("must be no more than 63 bytes".into());
    }
    if !s.is_empty() && !is_qualified_part(s) {
        faults.push(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
             must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', \
             regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
                .into(),
        );
    }
    faults
}

/// Why `s` cannot name an environment variable (any printable ASCII but `=` is allowed).
pub fn env_var_name(s: &str) -> Option<String> {
    if s.is_empty() {
        return Some("environment variable name must be non-empty".into());
    }
    (!s.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')).then(|| {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into()
    })
}

/// Everything that keeps `s` from naming a port (IANA service name).
pub fn port_name(s: &str) -> Vec<String> {
    let b = s.as_bytes();
    let mut faults = Vec::new();
    if b.len() > 15 {
        faults.push("must be no more than 15 characters".into());
    }
    if !b.iter().all(|&c| is_lower_alnum(c) || c == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        faults.push("must contain at least one letter (a-z)".into());
    }
    if s.contains("--") {
        faults.push("must not contain consecutive hyphens".into());
    }
    if b.first() == Some(&b'-') || b.last() == Some(&b'-') {
        faults.push("must not begin or end with a hyphen".into());
    }
    faults
}

/// A name from `generateName` and a random suffix, cut to fit in 63 bytes as upstream does
/// (`apiserver/pkg/storage/names/generate.go`).
pub fn generated_name(base: &str, suffix: &str) -> String {
    let most = 63 - suffix.len();
    let mut end = base.len().min(most);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &base[..end])
}

/// Checks a map of labels.
pub fn validate_labels(labels: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for fault in qualified_name(key) {
            errors.invalid(path, key.as_str(), &fault);
        }
        for fault in label_value(value.as_str().unwrap_or_default()) {
            errors.invalid(path, value.clone(), &fault);
        }
    }
}

/// Checks a map of annotations: keys, and 256 KiB in all.
pub fn validate_annotations(annotations: Option<&Value>, path: &Path<'_>, errors: &mut FieldErrors) {
    const MOST: usize = 256 * 1024;
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        for fault in qualified_name(&key.to_lowercase()) {
            errors.invalid(path, key.as_str(), &fault);
        }
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MOST {
        errors.too_long(path, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_good_names_from_bad() {
        for good in ["a", "web-1", "0abc"] {
            assert_eq!(dns_label(good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(dns_label(bad).is_some(), "{bad}");
        }
        assert_eq!(dns_subdomain("a.b-c.d"), None);
        assert!(dns_subdomain("a..b").is_some());
        assert!(dns1035_label("1a").is_some());
        assert!(qualified_name("example.com/My_Name.x").is_empty());
        assert!(!qualified_name("/x").is_empty());
        assert!(!qualified_name("a/b/c").is_empty());
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
        assert!(port_name("http-2").is_empty());
        assert!(!port_name("8080").is_empty());
    }

    #[test]
    fn cuts_long_generated_names() {
        let name = generated_name(&"x".repeat(100), "abcde");
        assert_eq!(name.len(), 63);
        assert!(name.ends_with("abcde"));
    }
}
