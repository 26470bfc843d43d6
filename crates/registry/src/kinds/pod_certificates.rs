//! PodCertificateRequests (kubernetes/kubernetes, `pkg/apis/certificates/validation/validation.go`,
//! `ValidatePodCertificateRequestCreate`, `ValidatePodCertificateRequestStatusUpdate`).
//!
//! What needs the present moment, or to know who asks, is looked at by admission.

use jiff::Timestamp;
use serde_json::{Value, json};
use types::{FieldErrors, Path, dns_subdomain, validate_annotations};
use x509_parser::asn1_rs::{BitString, oid};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::verify::verify_signature;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

use super::certificates::signer_name;
use super::check::*;
use super::pod_spec::default_text;
use crate::strategy::Strategy;

const SPEC: Path<'static> = Path::new("spec");
const STATUS: Path<'static> = Path::new("status");
/// How a request can end.
const ENDS: &[&str] = &["Denied", "Failed", "Issued"];
/// The most bytes of a key or a request (`MaxPKIXPublicKeySize`).
const MOST_KEY: usize = 10 * 1024;
/// The most bytes of a chain (`MaxCertificateChainSize`).
const MOST_CHAIN: usize = 100 * 1024;
const TEN_MINUTES: i64 = 600;

pub(super) struct PodCertificateRequest;

impl Strategy for PodCertificateRequest {
    fn default(&self, object: &mut Value) {
        types::set_default(types::ensure_object(object, "spec"), "maxExpirationSeconds", 86400);
        default_text(&mut object["spec"], "signerName", "");
    }

    fn validate_create(&self, object: &Value, errors: &mut FieldErrors) {
        let spec = &object["spec"];
        let signer = text(spec, "signerName");
        signer_name(signer, &SPEC.child("signerName"), errors);
        user_annotations(spec, "unverifiedUserAnnotations", &SPEC, errors);
        for field in ["podName", "serviceAccountName", "nodeName"] {
            required_name(spec, field, dns_subdomain, &SPEC, errors);
        }
        for field in ["podUID", "serviceAccountUID", "nodeUID"] {
            match text(spec, field) {
                "" => errors.invalid(&SPEC.child(field), "", "must not be empty"),
                long if long.len() > 128 => errors.too_long(&SPEC.child(field), 128),
                _ => {}
            }
        }
        // Kubernetes' own signers give nothing that lasts longer than a day.
        let own =
            signer.split('/').next().is_some_and(|d| d == "kubernetes.io" || d.ends_with(".kubernetes.io"));
        let most = if own { 86400 } else { 91 * 86400 };
        let seconds = int(spec, "maxExpirationSeconds");
        if !(3600..=most).contains(&seconds) {
            let why = format!("must be in the range [3600, {most}]");
            errors.invalid(&SPEC.child("maxExpirationSeconds"), seconds, &why);
        }
        key(spec, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        immutable(new, old, "spec", &Path::new("spec"), errors);
    }

    fn validate_status_update(&self, new: &Value, old: &Value, errors: &mut FieldErrors) {
        let status = &new["status"];
        conditions(status, errors);
        if !errors.is_empty() {
            return;
        }
        if end_of(old).is_some() {
            if !same_field(new, old, "status") {
                let why = "immutable after PodCertificateRequest is issued, denied, or failed";
                errors.invalid(&STATUS, status.clone(), why);
            }
            return;
        }
        let others = ["certificateChain", "notBefore", "notAfter", "beginRefreshAt"];
        let is_set = |field: &&str| has(status, field) && status[*field] != "";
        match end_of(new) {
            Some("Issued") => chain(status, &old["spec"], errors),
            Some(_) if others.iter().any(is_set) => {
                let why = "non-condition status fields must be empty when denying or failing the PodCertificateRequest";
                errors.invalid(&STATUS, status.clone(), why);
            }
            None if others.iter().any(is_set) => {
                let why = "non-condition status fields must be empty when the request is not issued";
                errors.invalid(&STATUS, status.clone(), why);
            }
            _ => {}
        }
    }

    fn selectable(&self) -> &'static [&'static str] {
        &["spec.signerName", "spec.podName", "spec.nodeName"]
    }
}

/// Annotations whose keys all have a domain (`ValidateUserAnnotations`).
pub(super) fn user_annotations(value: &Value, field: &str, path: &Path<'_>, errors: &mut FieldErrors) {
    let Some(given) = get(value, field) else { return };
    let path = path.child(field);
    validate_annotations(Some(given), &path, errors);
    for (key, _) in entries(value, field).filter(|(key, _)| !key.contains('/')) {
        errors.invalid(&path, key, "user annotation keys must be domain-prefixed");
    }
}

/// How a request has ended, if it has.
fn end_of(request: &Value) -> Option<&str> {
    list(&request["status"], "conditions").map(|c| text(c, "type")).find(|kind| ENDS.contains(kind))
}

fn conditions(status: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child("conditions");
    for (i, condition) in list(status, "conditions").enumerate() {
        let (path, kind) = (path.index(i), text(condition, "type"));
        if !ENDS.contains(&kind) {
            errors.not_supported(&path.child("type"), kind, ENDS);
        } else if i > 0 {
            let why = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.invalid(&path.child("type"), kind, why);
        }
        if text(condition, "status") != "True" {
            errors.not_supported(&path.child("status"), text(condition, "status"), &["True"]);
        }
        if text(condition, "reason").is_empty() {
            errors.required(&path.child("reason"), "must set one of the conditions to true");
        }
    }
}

fn is_p521(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    curve.is_some_and(|curve| curve == oid!(1.3.132.0.35))
}

/// What is wrong with a public key, beside who has it.
fn unsuitable(key: &SubjectPublicKeyInfo<'_>) -> Option<(String, &'static str)> {
    let kind = &key.algorithm.algorithm;
    if *kind == oid!(1.3.101.112) {
        return None;
    }
    if *kind == oid!(1.2.840.10045.2.1) {
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let known = [oid!(1.2.840.10045.3.1.7), oid!(1.3.132.0.34), oid!(1.3.132.0.35)];
        let fits = curve.as_ref().is_some_and(|curve| known.contains(curve));
        let shown = format!("curve {}", curve.map(|c| c.to_string()).unwrap_or_default());
        return (!fits).then_some((shown, "elliptic public keys must use curve P256, P384 or P521"));
    }
    if let Ok(PublicKey::RSA(rsa)) = key.parsed() {
        let bits = rsa.key_size();
        let shown = format!("{bits}-bit modulus");
        return (![3072, 4096].contains(&bits))
            .then_some((shown, "RSA keys must have modulus size 3072 or 4096"));
    }
    let why = "unknown public key type; supported types are Ed25519, ECDSA, and RSA";
    Some(("<value omitted>".to_owned(), why))
}

/// The key that is asked for, and that whoever asks has it.
fn key(spec: &Value, errors: &mut FieldErrors) {
    let [stub, public, proof] =
        ["stubPKCS10Request", "pkixPublicKey", "proofOfPossession"].map(|field| (field, text(spec, field)));
    if let Some((field, _)) = [stub, public, proof].iter().find(|(_, text)| text.len() * 3 / 4 > MOST_KEY) {
        return errors.too_long(&SPEC.child(field), MOST_KEY);
    }
    let path = SPEC.child("stubPKCS10Request");
    if stub.1.is_empty() && !public.1.is_empty() {
        return proven(text(spec, "podUID"), public.1, proof.1, errors);
    }
    if !public.1.is_empty() || !proof.1.is_empty() {
        let why = "pkixPublicKey and proofOfPossession must be empty when stubPKCS10Request is set";
        return errors.invalid(&SPEC, "<value omitted>", why);
    }
    let der = decode_base64(stub.1).unwrap_or_default();
    let Ok((_, request)) = X509CertificationRequest::from_der(&der) else {
        return errors.invalid(&path, stub.1, "must be a valid PKCS#10 certificate signing request");
    };
    if let Some((shown, why)) = unsuitable(&request.certification_request_info.subject_pki) {
        return errors.invalid(&path, shown, why);
    }
    if !shows_its_key(&request) {
        errors.invalid(&path, "<value omitted>", "could not verify the signature of the request");
    }
}

/// `ring`, which is behind the first way, does not know P-521.
fn shows_its_key(request: &X509CertificationRequest<'_>) -> bool {
    use p521::ecdsa::signature::Verifier;
    use p521::ecdsa::{Signature, VerifyingKey};

    let (info, signature) = (&request.certification_request_info, &request.signature_value.data);
    if !is_p521(&info.subject_pki) {
        return request.verify_signature().is_ok();
    }
    let ecdsa_with_sha512 = oid!(1.2.840.10045.4.3.4);
    let key = VerifyingKey::from_sec1_bytes(&info.subject_pki.subject_public_key.data);
    let signature = Signature::from_der(signature);
    request.signature_algorithm.algorithm == ecdsa_with_sha512
        && matches!((key, signature), (Ok(key), Ok(signature)) if key.verify(info.raw, &signature).is_ok())
}

/// The old way: a signature of the pod's UID shows who has the key. Of an RSA key it is another sort of signature, and
/// such a key is asked for by a request here.
fn proven(uid: &str, public: &str, proof: &str, errors: &mut FieldErrors) {
    let path = SPEC.child("pkixPublicKey");
    let (der, proof) = (decode_base64(public).unwrap_or_default(), decode_base64(proof).unwrap_or_default());
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(&der) else {
        return errors.invalid(&path, public, "must be a valid PKIX-serialized public key");
    };
    if let Some((shown, why)) = unsuitable(&key) {
        return errors.invalid(&path, shown, why);
    }
    let kind = &key.algorithm.algorithm;
    let signed = if *kind == oid!(1.2.840.10045.2.1) { oid!(1.2.840.10045.4.3.2) } else { kind.clone() };
    let by = AlgorithmIdentifier { algorithm: signed, parameters: None };
    if verify_signature(&key, &by, &BitString::new(0, &proof), uid.as_bytes()).is_err() {
        let path = SPEC.child("proofOfPossession");
        errors.invalid(&path, "<value omitted>", "could not verify proof-of-possession signature");
    }
}

/// The public key that is asked for, in DER.
fn asked_key(spec: &Value) -> Option<Vec<u8>> {
    match text(spec, "stubPKCS10Request") {
        "" => decode_base64(text(spec, "pkixPublicKey")),
        stub => {
            let der = decode_base64(stub)?;
            let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
            Some(request.certification_request_info.subject_pki.raw.to_vec())
        }
    }
}

fn moment(status: &Value, field: &str) -> Option<i64> {
    text(status, field).parse::<Timestamp>().ok().map(Timestamp::as_second)
}

/// What was issued, held against what was asked for.
fn chain(status: &Value, spec: &Value, errors: &mut FieldErrors) {
    let path = STATUS.child("certificateChain");
    let given = text(status, "certificateChain");
    if given.len() > MOST_CHAIN {
        return errors.too_long(&path, MOST_CHAIN);
    }
    let blocks: Vec<Pem> = Pem::iter_from_buffer(given.as_bytes()).map_while(Result::ok).collect();
    let Some(leaf) = blocks.first() else {
        return errors.invalid(
            &path,
            given,
            "issued certificate chain must contain at least one certificate",
        );
    };
    if blocks.iter().any(|block| block.label != "CERTIFICATE") {
        let why = "issued certificate chain must consist entirely of CERTIFICATE PEM blocks";
        return errors.invalid(&path, given, why);
    }
    let Ok((_, leaf)) = X509Certificate::from_der(&leaf.contents) else {
        return errors.invalid(&path, given, "leaf certificate does not parse as valid X.509");
    };
    names(&leaf, &path, errors);
    if blocks.iter().any(|block| X509Certificate::from_der(&block.contents).is_err()) {
        return errors.invalid(&path, given, "intermediate certificate does not parse as valid X.509");
    }
    if asked_key(spec).is_none_or(|key| key != leaf.public_key().raw) {
        return errors.invalid(&path, given, "leaf certificate was not issued to the requested public key");
    }
    times(status, spec, &leaf, errors);
}

fn names(leaf: &X509Certificate<'_>, path: &Path<'_>, errors: &mut FieldErrors) {
    let found = leaf.subject_alternative_name().ok().flatten();
    for name in found.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName("") => {
                errors.invalid(path, "", "leaf certificate should not contain empty DNSName");
            }
            GeneralName::DNSName(name) if name.split('.').any(str::is_empty) => {
                let why = "leaf certificate's DNSName should not contain '..' nor start or end with '.'";
                errors.invalid(path, *name, why);
            }
            GeneralName::RFC822Name(name) if !name.contains('@') => {
                errors.invalid(path, *name, "leaf certificate should not contain invalid EmailAddress");
            }
            _ => {}
        }
    }
}

fn times(status: &Value, spec: &Value, leaf: &X509Certificate<'_>, errors: &mut FieldErrors) {
    let consistent = "must be present and consistent with the issued certificate";
    let between = "must be present and in the range [notbefore+10min, notafter-10min]";
    let [begin, end, refresh] =
        [("notBefore", consistent), ("notAfter", consistent), ("beginRefreshAt", between)].map(
            |(field, why)| {
                let found = moment(status, field);
                if found.is_none() {
                    errors.required(&STATUS.child(field), why);
                }
                found
            },
        );
    let (Some(begin), Some(end), Some(refresh)) = (begin, end, refresh) else { return };
    let shown = |field: &str| json!(text(status, field));
    let of = &leaf.validity;
    for (field, given, real, name) in [
        ("notBefore", begin, of.not_before.timestamp(), "NotBefore"),
        ("notAfter", end, of.not_after.timestamp(), "NotAfter"),
    ] {
        if given != real {
            let why = format!("must be set to the {name} time encoded in the leaf certificate");
            return errors.invalid(&STATUS.child(field), shown(field), &why);
        }
    }
    let (life, most) = (end - begin, int(spec, "maxExpirationSeconds"));
    let path = STATUS.child("certificateChain");
    if life < 3600 {
        return errors.invalid(&path, format!("{life}s"), "leaf certificate lifetime must be >= 1 hour");
    }
    if life > most {
        let why = format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({most})");
        return errors.invalid(&path, format!("{life}s"), &why);
    }
    let path = STATUS.child("beginRefreshAt");
    if refresh < begin + TEN_MINUTES {
        errors.invalid(&path, shown("beginRefreshAt"), "must be at least 10 minutes after status.notBefore");
    } else if refresh > end - TEN_MINUTES {
        errors.invalid(&path, shown("beginRefreshAt"), "must be at least 10 minutes before status.notAfter");
    }
}
