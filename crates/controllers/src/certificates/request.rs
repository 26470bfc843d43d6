//! What a request asks for, and whether it may (kubernetes/kubernetes, `pkg/apis/certificates/helpers.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

pub(super) const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// As much of a request as is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) der: Vec<u8>,
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    dns: usize,
    ip: usize,
    email: usize,
    uri: usize,
}

/// Why a request is no good for its signer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("cannot read the certificate request")]
    Form,
    #[error("subject organization is not system:nodes")]
    Organization,
    #[error("subject common name does not begin with system:node:")]
    CommonName,
    #[error("DNS or IP subjectAltName is required")]
    NameRequired,
    #[error("{0} subjectAltNames are not allowed")]
    NameForbidden(&'static str),
    #[error("usages did not match [{0}]")]
    Usages(&'static str),
    #[error("invalid usage for client certificate: {0}")]
    Usage(String),
    #[error("missing required usage for client certificate: client auth")]
    NoClientAuth,
}

/// `ParseCSR`.
pub(super) fn parse(request: &CertificateSigningRequest) -> Result<Asked, Fault> {
    let (_, block) = parse_x509_pem(&request.spec.request.0).map_err(|_| Fault::Pem)?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(Fault::Pem);
    }
    let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|_| Fault::Form)?;
    let subject = &csr.certification_request_info.subject;
    let mut asked = Asked {
        common_name: subject
            .iter_common_name()
            .last()
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        organizations: subject
            .iter_organization()
            .map(|name| name.as_str().unwrap_or_default().to_owned())
            .collect(),
        ..Asked::default()
    };
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(_) => asked.dns += 1,
                GeneralName::IPAddress(_) => asked.ip += 1,
                GeneralName::RFC822Name(_) => asked.email += 1,
                GeneralName::URI(_) => asked.uri += 1,
                _ => {}
            }
        }
    }
    drop(csr);
    asked.der = block.contents;
    Ok(asked)
}

fn are(usages: &[String], wanted: &[&str], optional: &str) -> bool {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let without: BTreeSet<&str> = wanted.iter().copied().filter(|usage| *usage != optional).collect();
    usages == without || usages == wanted.iter().copied().collect()
}

impl Asked {
    fn is_of_node(&self) -> Result<(), Fault> {
        if self.organizations == ["system:nodes"] { Ok(()) } else { Err(Fault::Organization) }
    }

    fn is_named_as_node(&self) -> Result<(), Fault> {
        if self.common_name.starts_with("system:node:") { Ok(()) } else { Err(Fault::CommonName) }
    }

    /// `ValidateKubeletClientCSR`.
    pub(super) fn node_client(&self, usages: &[String]) -> Result<(), Fault> {
        self.is_of_node()?;
        for (count, kind) in [(self.dns, "DNS"), (self.email, "Email"), (self.ip, "IP"), (self.uri, "URI")] {
            if count > 0 {
                return Err(Fault::NameForbidden(kind));
            }
        }
        self.is_named_as_node()?;
        let wanted = ["digital signature", "key encipherment", "client auth"];
        if are(usages, &wanted, "key encipherment") {
            Ok(())
        } else {
            Err(Fault::Usages("client auth digital signature key encipherment"))
        }
    }

    /// `ValidateKubeletServingCSR`.
    fn node_serving(&self, usages: &[String]) -> Result<(), Fault> {
        self.is_of_node()?;
        if self.dns == 0 && self.ip == 0 {
            return Err(Fault::NameRequired);
        }
        for (count, kind) in [(self.email, "Email"), (self.uri, "URI")] {
            if count > 0 {
                return Err(Fault::NameForbidden(kind));
            }
        }
        let wanted = ["digital signature", "key encipherment", "server auth"];
        if !are(usages, &wanted, "key encipherment") {
            return Err(Fault::Usages("digital signature key encipherment server auth"));
        }
        self.is_named_as_node()
    }

    /// Whether a signer of ours may sign this; `None` if it is none of ours (`getCSRVerificationFuncForSignerName`).
    pub(super) fn check(&self, signer: &str, usages: &[String]) -> Option<Result<(), Fault>> {
        Some(match signer {
            NODE_CLIENT => self.node_client(usages),
            NODE_SERVING => self.node_serving(usages),
            CLIENT => client(usages),
            LEGACY => Ok(()),
            _ => return None,
        })
    }
}

/// `validAPIServerClientUsages`.
fn client(usages: &[String]) -> Result<(), Fault> {
    let known = ["digital signature", "key encipherment", "client auth"];
    if let Some(odd) = usages.iter().find(|usage| !known.contains(&usage.as_str())) {
        return Err(Fault::Usage(odd.clone()));
    }
    if usages.iter().any(|usage| usage == "client auth") { Ok(()) } else { Err(Fault::NoClientAuth) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use testkit::certificate_request;

    fn asked(name: &str, organization: &str, names: &[&str]) -> Asked {
        let mut request: CertificateSigningRequest =
            testkit::object(json!({"metadata": {}, "spec": {"request": "", "signerName": "x"}}));
        request.spec.request.0 = certificate_request(name, organization, names).into_bytes();
        parse(&request).unwrap()
    }

    fn fault(asked: &Asked, signer: &str, usages: &[&str]) -> String {
        let usages: Vec<String> = usages.iter().map(|usage| (*usage).to_owned()).collect();
        asked.check(signer, &usages).unwrap().err().map(|fault| fault.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_signer_has_its_rules() {
        let all = ["digital signature", "key encipherment", "client auth"];
        let serving = ["server auth", "digital signature", "key encipherment"];
        let node = asked("system:node:n", "system:nodes", &[]);
        assert_eq!(fault(&node, NODE_CLIENT, &all), "");
        assert_eq!(fault(&node, NODE_CLIENT, &["digital signature", "client auth"]), "");
        let wrong = "usages did not match [client auth digital signature key encipherment]";
        assert_eq!(fault(&node, NODE_CLIENT, &["client auth"]), wrong);
        assert_eq!(fault(&node, NODE_SERVING, &serving), "DNS or IP subjectAltName is required");
        let named = asked("system:node:n", "system:nodes", &["n", "10.0.0.1"]);
        assert_eq!(fault(&named, NODE_SERVING, &serving), "");
        assert_eq!(fault(&named, NODE_CLIENT, &all), "DNS subjectAltNames are not allowed");
        let wrong = "usages did not match [digital signature key encipherment server auth]";
        assert_eq!(fault(&named, NODE_SERVING, &all), wrong);
        let eve = asked("eve", "system:nodes", &[]);
        assert_eq!(fault(&eve, NODE_CLIENT, &all), "subject common name does not begin with system:node:");
        let eve = asked("eve", "dev", &[]);
        assert_eq!(fault(&eve, NODE_CLIENT, &all), "subject organization is not system:nodes");
        assert_eq!(fault(&eve, CLIENT, &all), "");
        assert_eq!(
            fault(&eve, CLIENT, &["server auth"]),
            "invalid usage for client certificate: server auth"
        );
        let missing = "missing required usage for client certificate: client auth";
        assert_eq!(fault(&eve, CLIENT, &["digital signature"]), missing);
        assert_eq!(fault(&eve, LEGACY, &["cert sign"]), "");
        assert!(eve.check("example.com/mine", &[]).is_none());
    }
}
