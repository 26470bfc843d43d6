//! A definition's status, purely: names and conditions out of what is wanted and what others hold (kubernetes/kubernetes,
//! `apiextensions-apiserver/pkg/controller/{status,establish,apiapproval}`).

use registry::{Names, TakenNames, accept, is_true, set_condition};
use serde_json::Value;
use types::{ensure_object, str_at};

/// What a look at a definition came to.
pub(super) struct Looked {
    pub(super) accepted: Names,
    pub(super) has_conflict: bool,
    pub(super) established: bool,
}

/// Brings a definition's status up to date.
pub(super) fn update(crd: &mut Value, taken: &TakenNames, now: &str) -> Looked {
    let wanted = Names::of(&crd["spec"]["names"]);
    let held = Names::of(&crd["status"]["acceptedNames"]);
    let (accepted, conflict) = accept(&wanted, &held, taken);
    if accepted != held {
        ensure_object(crd, "status")["acceptedNames"] = accepted.to_value();
    }
    match &conflict {
        None => set_condition(crd, "NamesAccepted", true, "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set_condition(crd, "NamesAccepted", false, reason, message, now),
    };
    if !is_true(crd, "Established") {
        if conflict.is_none() {
            let message = "the initial names have been accepted";
            set_condition(crd, "Established", true, "InitialNamesAccepted", message, now);
        } else {
            set_condition(crd, "Established", false, "NotAccepted", "not all names are accepted", now);
        }
    }
    approval(crd, now);
    Looked { accepted, has_conflict: conflict.is_some(), established: is_true(crd, "Established") }
}

/// Definitions in the project's own groups say who approved them.
fn approval(crd: &mut Value, now: &str) {
    let group = str_at(crd, &["spec", "group"]).unwrap_or_default();
    let protected = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !protected("k8s.io") && !protected("kubernetes.io") {
        return;
    }
    let annotation = str_at(crd, &["metadata", "annotations", "api-approved.kubernetes.io"]);
    let (status, reason, message) = match annotation.map(str::to_owned) {
        None => (
            false,
            "MissingAnnotation",
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111".to_owned(),
        ),
        Some(text) if text.starts_with("unapproved") => {
            (false, "UnapprovedAnnotation", format!("not approved: {text:?}"))
        }
        Some(text) => (true, "ApprovedAnnotation", format!("approved in {text}")),
    };
    set_condition(crd, "KubernetesAPIApprovalPolicyConformant", status, reason, &message, now);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn crd() -> Value {
        json!({"spec": {"group": "example.com", "names": {"plural": "things", "singular": "thing", "kind": "Thing",
            "listKind": "ThingList", "shortNames": ["th"]}}})
    }

    #[test]
    fn a_name_that_is_taken_is_waited_for() {
        let mut taken = TakenNames::default();
        taken.add(&Names::of(&json!({"plural": "others", "kind": "Other", "shortNames": ["th"]})));
        let mut one = crd();
        let looked = update(&mut one, &taken, "2026-01-01T00:00:00Z");
        assert!(looked.has_conflict && !looked.established);
        assert_eq!(one["status"]["conditions"][0]["reason"], "ShortNamesConflict");
        let looked = update(&mut one, &TakenNames::default(), "2026-01-01T00:00:01Z");
        assert!(!looked.has_conflict && looked.established);
        assert_eq!(one["status"]["acceptedNames"]["shortNames"], json!(["th"]));
        let before = one.clone();
        update(&mut one, &TakenNames::default(), "2026-01-01T00:00:02Z");
        assert_eq!(one, before, "nothing changes without a cause");
    }
}
