//! Who may decide on certificate requests and vouch for trust bundles.

use base::Timestamp;
use serde_json::Value;
use types::{FieldErrors, Path, Status, at, decode_base64};

use super::common::{may_sign, text};
use crate::cluster::Cluster;
use crate::plugin::{Final, Plugin};
use crate::request::{Operation, Request};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";
const POD_REQUESTS: &str = "podcertificaterequests";

/// `plugin/pkg/admission/certificates/approval`.
pub(crate) struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate(&self, Final { request, old, cluster, .. }: Final<'_>) -> Result<(), Status> {
        if !request.is_part(GROUP, REQUESTS, "approval") || request.operation != Operation::Update {
            return Ok(());
        }
        let signer = old.map_or("", |old| text(old, &["spec", "signerName"]));
        if may_sign(cluster, request, "approve", signer) {
            return Ok(());
        }
        Err(request.forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// `plugin/pkg/admission/certificates/signing`.
pub(crate) struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate(&self, Final { request, object, old, cluster, .. }: Final<'_>) -> Result<(), Status> {
        if request.operation != Operation::Update {
            return Ok(());
        }
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        if request.is_part(GROUP, POD_REQUESTS, "status") {
            return of_pod(request, new, old, cluster);
        }
        if !request.is_part(GROUP, REQUESTS, "status") {
            return Ok(());
        }
        let failed = |csr: &Value| {
            let list = at(csr, &["status", "conditions"]).and_then(Value::as_array);
            list.into_iter().flatten().any(|c| c["type"] == "Failed")
        };
        let certificate = |csr: &Value| at(csr, &["status", "certificate"]).cloned();
        if certificate(new) == certificate(old) && failed(new) == failed(old) {
            return Ok(());
        }
        let signer = text(old, &["spec", "signerName"]);
        if may_sign(cluster, request, "sign", signer) {
            return Ok(());
        }
        Err(request.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// Who may answer a pod's request, and that the answer begins about now. Upstream does both beside admission
/// (`pkg/registry/certificates/podcertificaterequest/strategy.go`, `StatusStrategy`).
fn of_pod(request: &Request<'_>, new: &Value, old: &Value, cluster: &dyn Cluster) -> Result<(), Status> {
    const NEAR: i64 = 5 * 60;
    let mut errors = FieldErrors::new();
    let begin = text(new, &["status", "notBefore"]);
    let now = cluster.now().as_second();
    if begin.parse::<Timestamp>().is_ok_and(|t| (t.as_second() - now).abs() > NEAR)
        && begin != text(old, &["status", "notBefore"])
    {
        let why = "must be set to within 5 minutes of kube-apiserver's current time";
        errors.invalid(&Path::new("status").child("notBefore"), begin, why);
    }
    let chain = |of: &Value| at(of, &["status", "certificateChain"]).cloned();
    let signer = text(old, &["spec", "signerName"]);
    if chain(new) != chain(old) && !may_sign(cluster, request, "sign", signer) {
        let user = &request.user.name;
        let why = format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
        errors.forbidden(&Path::new("spec").child("signerName"), &why);
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(GROUP, "PodCertificateRequest", request.name, &errors))
}

/// `plugin/pkg/admission/certificates/subjectrestriction`.
pub(crate) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate(&self, Final { request, object, .. }: Final<'_>) -> Result<(), Status> {
        const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        if !request.is(GROUP, REQUESTS) || request.operation != Operation::Create {
            return Ok(());
        }
        let Some(csr) = object.filter(|csr| text(csr, &["spec", "signerName"]) == SIGNER) else {
            return Ok(());
        };
        if organizations(text(csr, &["spec", "request"])).any(|o| o == b"system:masters") {
            let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
            return Err(request.forbidden(&why));
        }
        Ok(())
    }
}

/// The organizations that a certificate request names: in DER, each follows the number of its attribute. The request is
/// PEM in base64.
fn organizations(request: &str) -> impl Iterator<Item = Vec<u8>> {
    /// `id-at-organizationName`, 2.5.4.10.
    const ORGANIZATION: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x0a];
    let pem = decode_base64(request).and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let body: String = pem.lines().filter(|l| !l.starts_with("-----")).map(str::trim).collect();
    let der = decode_base64(&body).unwrap_or_default();
    let starts: Vec<usize> = (0..der.len())
        .filter(|i| der[*i..].starts_with(&ORGANIZATION))
        .map(|i| i + ORGANIZATION.len())
        .collect();
    starts.into_iter().filter_map(move |start| {
        let length = usize::from(*der.get(start + 1)?);
        der.get(start + 2..start + 2 + length).map(<[u8]>::to_vec)
    })
}

/// `plugin/pkg/admission/certificates/ctbattest`.
pub(crate) struct ClusterTrustBundleAttest;

impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn validate(&self, Final { request, object, cluster, .. }: Final<'_>) -> Result<(), Status> {
        let written = matches!(request.operation, Operation::Create | Operation::Update);
        if !written || !request.is(GROUP, "clustertrustbundles") {
            return Ok(());
        }
        let signer = object.map_or("", |o| text(o, &["spec", "signerName"]));
        if signer.is_empty() || may_sign(cluster, request, "attest", signer) {
            return Ok(());
        }
        Err(request.forbidden(&format!("user not permitted to attest for signerName {signer:?}")))
    }
}
