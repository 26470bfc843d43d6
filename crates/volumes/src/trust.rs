//! ClusterTrustBundles as files (kubernetes/kubernetes, `pkg/kubelet/clustertrustbundle/clustertrustbundle_manager.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::LabelSelector;

use crate::error::Fault;
use crate::objects::Content;

/// What is kept of a bundle, as the text of its entry in [`Content`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) signer: String,
    pub(crate) labels: Value,
    pub(crate) text: String,
}

/// The certificates that a projection asks for, each once, as PEM.
pub(crate) fn select(all: &Content, wanted: &ClusterTrustBundleProjection) -> Result<Vec<u8>, Fault> {
    let read = |text: &Vec<u8>| serde_json::from_slice::<Bundle>(text).unwrap_or_default();
    let optional = wanted.optional == Some(true);
    let found: Vec<Bundle> = match wanted.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => match all.get(name) {
            Some(text) => vec![read(text)],
            None if optional => Vec::new(),
            None => {
                let why = format!(
                    "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {name:?} not found"
                );
                return Err(Fault::Trust(why));
            }
        },
        None => {
            let signer = wanted.signer_name.as_deref().unwrap_or_default();
            let selector = wanted.label_selector.as_ref().and_then(|s| serde_json::to_value(s).ok());
            let selector = LabelSelector::from_object(selector.as_ref())
                .map_err(|e| Fault::Trust(format!("while parsing label selector: {e}")))?;
            let fits = |b: &Bundle| b.signer == signer && selector.matches_labels(Some(&b.labels));
            let found: Vec<Bundle> = all.values().map(read).filter(fits).collect();
            if found.is_empty() && !optional {
                let why = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
                return Err(Fault::Trust(why.to_owned()));
            }
            found
        }
    };
    let certificates: BTreeSet<String> = found.iter().flat_map(|bundle| certificates(&bundle.text)).collect();
    Ok(certificates.into_iter().collect::<String>().into_bytes())
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates in a text, without what may stand around and in them besides.
pub(crate) fn certificates(text: &str) -> Vec<String> {
    let inside = |part: &str| {
        let body: String = part
            .split_once(END)?
            .0
            .lines()
            // Headers have a colon, which base64 has not.
            .filter(|line| !line.contains(':'))
            .flat_map(str::chars)
            .filter(|c| !c.is_whitespace())
            .collect();
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        Some(format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")))
    };
    text.split(BEGIN).skip(1).filter_map(inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pem(body: &str) -> String {
        format!("{BEGIN}\n{body}\n{END}\n")
    }

    fn content() -> Content {
        let bundle = |signer: &str, labels: Value, text: String| {
            serde_json::to_vec(&Bundle { signer: signer.into(), labels, text }).unwrap()
        };
        [
            ("plain".to_owned(), bundle("", json!({}), format!("# note\n{}{}", pem("QQ=="), pem("QQ\n==")))),
            ("s:a".to_owned(), bundle("x.io/s", json!({"live": "yes"}), pem("Qg=="))),
            ("s:b".to_owned(), bundle("x.io/s", json!({}), pem("Qw=="))),
        ]
        .into()
    }

    fn selected(wanted: Value) -> Result<String, String> {
        let wanted = serde_json::from_value(wanted).unwrap();
        select(&content(), &wanted).map(|b| String::from_utf8(b).unwrap()).map_err(|e| e.to_string())
    }

    #[test]
    fn by_name_or_by_signer() {
        assert_eq!(selected(json!({"path": "p", "name": "plain"})), Ok(pem("QQ==")));
        let signed = |selector: Value| {
            selected(json!({"path": "p", "signerName": "x.io/s", "labelSelector": selector}))
        };
        assert_eq!(signed(json!({"matchLabels": {"live": "yes"}})), Ok(pem("Qg==")));
        assert_eq!(signed(json!({})), Ok(pem("Qg==") + &pem("Qw==")));
        let none = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        assert_eq!(selected(json!({"path": "p", "signerName": "x.io/s"})), Err(none.into()));
        let missing = selected(json!({"path": "p", "name": "other"})).unwrap_err();
        assert!(missing.ends_with("clustertrustbundle.certificates.k8s.io \"other\" not found"), "{missing}");
        assert_eq!(selected(json!({"path": "p", "name": "other", "optional": true})), Ok(String::new()));
    }
}
