//! CertificateSigningRequests and ClusterTrustBundles (kubernetes/kubernetes,
//! `pkg/apis/certificates/validation/validation.go`).

use jiff::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, dns_label, dns_subdomain};

use super::check::*;
use crate::strategy::Strategy;
use crate::table::{self, Column};

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");

/// A signer's name, such as `example.com/signer` (`ValidateSignerName`).
pub(super) fn signer_name(name: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, why);
    };
    if domain.len() > 253 {
        errors.too_long(path, 253);
    }
    if let Some((label, fault)) = domain.split('.').find_map(|l| dns_label(l).map(|f| (l, f))) {
        errors.invalid(path, domain, &format!("validating label {label:?}: {fault}"));
    }
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.invalid(path, domain, why);
    }
    if let Some((label, fault)) = rest.split('.').find_map(|l| dns_subdomain(l).map(|f| (l, f))) {
        errors.invalid(path, rest, &format!("validating label {label:?}: {fault}"));
    }
    if name.len() > 253 + 253 + 63 + 2 {
        errors.too_long(path, 253 + 253 + 63 + 2);
    }
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The types of the PEM blocks in base64 text, each from its beginning to its end; `None` if there is none.
fn pem_blocks(base64: &str) -> Option<Vec<String>> {
    let text = String::from_utf8(decode_base64(base64)?).ok()?;
    let mut blocks: Vec<String> = Vec::new();
    let mut open = None;
    for line in text.lines().map(str::trim) {
        let marks = |start: &str| line.strip_prefix(start)?.strip_suffix("-----");
        if let Some(kind) = marks("-----BEGIN ") {
            open = Some(kind);
        } else if let Some(kind) = marks("-----END ")
            && open.take() == Some(kind)
        {
            blocks.push(kind.to_owned());
        }
    }
    (!blocks.is_empty()).then_some(blocks)
}

pub(super) struct CertificateSigningRequest;

impl CertificateSigningRequest {
    fn validate(&self, object: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let is_request = |blocks: Option<Vec<String>>| {
            blocks.is_some_and(|b| matches!(b[0].as_str(), "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"))
        };
        if !is_request(pem_blocks(text(spec, "request"))) {
            let path = SPEC.child("request");
            errors.invalid(&path, spec["request"].clone(), "PEM block type must be CERTIFICATE REQUEST");
        }
        let path = SPEC.child("usages");
        if count(spec, "usages") == 0 {
            errors.required(&path, "");
        }
        let known_before = |usage: &str| old.is_some_and(|o| texts(&o["spec"], "usages").any(|u| u == usage));
        for (i, usage) in texts(spec, "usages").enumerate() {
            if !USAGES.contains(&usage) && !known_before(usage) {
                errors.not_supported(&path.index(i), usage, USAGES);
            }
            if repeats(texts(spec, "usages").take(i), usage) && old.is_none() {
                errors.duplicate(&path.index(i), usage);
            }
        }
        let path = SPEC.child("signerName");
        match text(spec, "signerName") {
            "kubernetes.io/legacy-unknown" if old.is_none() => {
                let why = "the legacy signerName is not allowed via this API version";
                errors.invalid(&path, "kubernetes.io/legacy-unknown", why);
            }
            name => signer_name(name, &path, errors),
        }
        if let Some(seconds) = spec.get("expirationSeconds").and_then(Value::as_i64).filter(|s| *s < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.invalid(&SPEC.child("expirationSeconds"), seconds, why);
        }
        self.validate_conditions(&object["status"], errors);
        let certificate = text(&object["status"], "certificate");
        let changed = old.is_none_or(|o| text(&o["status"], "certificate") != certificate);
        if changed && !certificate.is_empty() {
            let path = STATUS.child("certificate");
            match pem_blocks(certificate) {
                None => {
                    let why = "must contain at least one CERTIFICATE PEM block";
                    errors.invalid(&path, "<certificate data>", why);
                }
                Some(blocks) => {
                    if let Some(other) = blocks.iter().find(|b| *b != "CERTIFICATE") {
                        let why = format!("only CERTIFICATE PEM blocks are allowed, found {other:?}");
                        errors.invalid(&path, "<certificate data>", &why);
                    }
                }
            }
        }
    }

    fn validate_conditions(&self, status: &Value, errors: &mut FieldErrors) {
        let path = STATUS.child("conditions");
        for (i, condition) in list(status, "conditions").enumerate() {
            let path = path.index(i);
            let kind = text(condition, "type");
            required(condition, "type", &path, errors);
            let allowed: &[&str] = match kind {
                "Approved" | "Denied" | "Failed" => &["True"],
                _ => &["False", "True", "Unknown"],
            };
            required_one_of(condition, "status", &path, allowed, errors);
            let before = || list(status, "conditions").take(i).map(|c| text(c, "type"));
            let other = match kind {
                "Approved" => "Denied",
                "Denied" => "Approved",
                _ => "",
            };
            if !other.is_empty() && before().any(|t| t == other) {
                let why = "Approved and Denied conditions are mutually exclusive";
                errors.invalid(&path.child("type"), kind, why);
            }
            if repeats(before(), kind) {
                errors.duplicate(&path.child("type"), kind);
            }
        }
    }
}

impl Strategy for CertificateSigningRequest {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        self.validate(object, None, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate(new, Some(old), errors);
    }

    /// Who asks, and for what, stays.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(spec) = old.get("spec") {
            new["spec"] = spec.clone();
        }
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate(new, Some(old), errors);
        let of = |object: &Value, kind: &str| -> Vec<Value> {
            let all = list(&object["status"], "conditions");
            all.filter(|c| text(c, "type") == kind).cloned().collect()
        };
        for kind in ["Approved", "Denied", "Failed"] {
            if of(new, kind).len() < of(old, kind).len() {
                let why = format!("updates may not remove a condition of type {kind:?}");
                errors.forbidden(&STATUS.child("conditions"), &why);
            }
        }
        let had = text(&old["status"], "certificate");
        if !had.is_empty() && had != text(&new["status"], "certificate") {
            let why = "updates may not modify existing certificate content";
            errors.forbidden(&STATUS.child("certificate"), why);
        }
    }

    /// Any name will do.
    fn validate_name(&self, _name: &str) -> Option<String> {
        None
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn has_generation(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        table::CERTIFICATE_SIGNING_REQUEST
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::certificate_signing_request_cells(object, now)
    }
}

pub(super) struct ClusterTrustBundle;

impl Strategy for ClusterTrustBundle {
    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let (name, signer) = (text(&object["metadata"], "name"), text(spec, "signerName"));
        let meta = Path::new("metadata");
        let path = meta.child("name");
        if signer.is_empty() {
            if name.contains(':') {
                let why = "ClusterTrustBundle without signer name must not have \":\" in its name";
                errors.invalid(&path, name, why);
            }
        } else {
            let prefix = format!("{}:", signer.replace('/', ":"));
            if !name.starts_with(&prefix) {
                let why =
                    format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}");
                errors.invalid(&path, name, &why);
            }
            signer_name(signer, &SPEC.child("signerName"), errors);
        }
        let path = SPEC.child("trustBundle");
        let bundle = text(spec, "trustBundle");
        if !bundle.contains("-----BEGIN CERTIFICATE-----") {
            errors.invalid(&path, "<value omitted>", "at least one trust anchor must be provided");
        }
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        self.validate_create(new, errors);
        immutable(&new["spec"], &old["spec"], "signerName", &SPEC, errors);
    }

    fn validate_name(&self, name: &str) -> Option<String> {
        dns_subdomain(name.rsplit(':').next().unwrap_or(name))
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn has_generation(&self) -> bool {
        false
    }
}
