use serde_json::Value;
use types::{FieldErrors, Path, at, str_at};

const ANNOTATION: &str = "api-approved.kubernetes.io";
const MORE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";

#[derive(PartialEq)]
enum Approval {
    Missing,
    Given,
    Invalid,
}

/// Groups of the Kubernetes project itself need an annotation (upstream: `apiextensions-apiserver/pkg/apihelpers`,
/// `GetAPIApprovalState`).
pub(super) fn check(crd: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
    let group = str_at(crd, &["spec", "group"]).unwrap_or_default();
    let protects = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !protects("k8s.io") && !protects("kubernetes.io") {
        return;
    }
    let approval = of(crd);
    if old.is_some_and(|old| of(old) == approval) {
        return;
    }
    let metadata = Path::new("metadata");
    let annotations = metadata.child("annotations");
    let path = annotations.key(ANNOTATION);
    match approval {
        Approval::Given => {}
        Approval::Missing => errors.required(
            &path,
            &format!("protected groups must have approval annotation {ANNOTATION:?}, {MORE}"),
        ),
        Approval::Invalid => {
            let value = at(crd, &["metadata", "annotations", ANNOTATION]).cloned().unwrap_or_default();
            let why = format!(
                "protected groups must have approval annotation {ANNOTATION:?} with either a URL or a reason starting with \"unapproved\", {MORE}"
            );
            errors.invalid(&path, value, &why);
        }
    }
}

fn of(crd: &Value) -> Approval {
    match str_at(crd, &["metadata", "annotations", ANNOTATION]) {
        None => Approval::Missing,
        Some(text) if text.starts_with("unapproved") => Approval::Given,
        Some(text)
            if text
                .split_once("://")
                .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()) =>
        {
            Approval::Given
        }
        Some(_) => Approval::Invalid,
    }
}
