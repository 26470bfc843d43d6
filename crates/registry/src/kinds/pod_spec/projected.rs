//! Projected volumes (`validateProjectionSources`).

use serde_json::Value;
use types::{FieldErrors, Path, at};

use super::super::certificates::signer_name;
use super::super::check::*;
use super::super::pod_certificates::user_annotations;
use super::sources::Source;
use super::volumes::{downward_file, file_mode, keys_to_paths};

pub(super) fn validate(v: &Value, _: &Source<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    file_mode(v, "defaultMode", path, errors);
    let sources = path.child("sources");
    let mut places: Vec<&str> = Vec::new();
    let place = |at: &str, shown: &str, errors: &mut FieldErrors, taken: bool| {
        if taken && !at.is_empty() {
            errors.invalid(path, shown, "conflicting duplicate paths");
        }
    };
    for (i, source) in list(v, "sources").enumerate() {
        let here = sources.index(i);
        let mut kinds = 0;
        for kind in ["secret", "configMap"] {
            let Some(given) = get(source, kind) else { continue };
            kinds += 1;
            let below = here.child(kind);
            required(given, "name", &below, errors);
            keys_to_paths(given, &below, errors);
            for item in list(given, "items") {
                let at = text(item, "path");
                place(at, text(given, "name"), errors, places.contains(&at));
                places.push(at);
            }
        }
        if let Some(given) = get(source, "downwardAPI") {
            kinds += 1;
            for file in list(given, "items") {
                downward_file(file, &here.child("downwardAPI"), errors);
                let at = text(file, "path");
                place(at, at, errors, places.contains(&at));
                places.push(at);
            }
        }
        if let Some(given) = get(source, "serviceAccountToken") {
            kinds += 1;
            token(given, path, &here.child("serviceAccountToken"), errors);
        }
        if let Some(given) = get(source, "clusterTrustBundle") {
            kinds += 1;
            let below = here.child("clusterTrustBundle");
            trust_bundle(given, &below, errors);
            let at = text(given, "path");
            required(given, "path", &below, errors);
            local_path(at, &below.child("path"), errors);
            place(at, at, errors, places.contains(&at));
            places.push(at);
        }
        if let Some(given) = get(source, "podCertificate") {
            kinds += 1;
            let below = here.child("podCertificate");
            certificate(given, &below, errors);
            for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                let at = text(given, field);
                if !at.is_empty() {
                    local_path(at, &below.child(field), errors);
                    place(at, at, errors, places.contains(&at));
                    places.push(at);
                }
            }
        }
        if kinds > 1 {
            errors.forbidden(&here, "may not specify more than 1 volume type per source");
        }
    }
}

fn token(v: &Value, volume: &Path<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let seconds = int(v, "expirationSeconds");
    if seconds < 600 {
        let why = "may not specify a duration less than 10 minutes";
        errors.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    if seconds > 1 << 32 {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    match text(v, "path") {
        "" => errors.required(&volume.child("path"), ""),
        at => local_path(at, &volume.child("path"), errors),
    }
}

fn trust_bundle(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    match (at(v, &["name"]).is_some(), at(v, &["signerName"]).is_some()) {
        (true, true) => errors.invalid(path, v.clone(), "only one of name and signerName may be used"),
        (true, false) => {
            let name = text(v, "name");
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            let part = name.rsplit(':').next().unwrap_or(name);
            if let Some(fault) = types::dns_subdomain(part) {
                let why = format!("not a valid clustertrustbundlename: {fault}");
                errors.invalid(&path.child("name"), name, &why);
            }
            if let Some(selector) = get(v, "labelSelector") {
                let why = "labelSelector must be unset if name is specified";
                errors.invalid(&path.child("labelSelector"), selector.clone(), why);
            }
        }
        (false, true) => {
            let name = text(v, "signerName");
            if name.is_empty() {
                errors.required(&path.child("signerName"), "must be a valid signer name");
            }
            signer_name(name, &path.child("signerName"), errors);
            label_selector(get(v, "labelSelector"), &path.child("labelSelector"), errors);
        }
        (false, false) => errors.required(path, "either name or signerName must be specified"),
    }
}

fn certificate(v: &Value, path: &Path<'_>, errors: &mut FieldErrors) {
    const KEYS: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
    signer_name(text(v, "signerName"), &path.child("signerName"), errors);
    if !KEYS.contains(&text(v, "keyType")) {
        errors.not_supported(&path.child("keyType"), text(v, "keyType"), KEYS);
    }
    if let Some(seconds) = v.get("maxExpirationSeconds").and_then(Value::as_i64) {
        in_range(seconds, 3600, 91 * 86400, &path.child("maxExpirationSeconds"), errors);
    }
    user_annotations(v, "userAnnotations", path, errors);
    if ["credentialBundlePath", "keyPath", "certificateChainPath"].iter().all(|f| text(v, f).is_empty()) {
        errors.required(
            path,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        );
    }
}
