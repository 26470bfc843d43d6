use k8s_openapi::api::resource::v1::{DeviceAttribute, DeviceConstraint};

use super::slice::Offer;

/// What the devices of a claim must have in common, or apart.
#[derive(Debug)]
pub(super) struct Constraint {
    /// Whom it is about; nobody in particular if there are none.
    requests: Vec<String>,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Same(String),
    Distinct(String),
    /// One that is not known here.
    Unknown,
}

/// The values that the devices have that were picked so far.
pub(super) type Seen<'a> = Vec<&'a DeviceAttribute>;

impl Constraint {
    pub(super) fn of(constraint: &DeviceConstraint) -> Self {
        let rule = match (&constraint.match_attribute, &constraint.distinct_attribute) {
            (Some(name), _) => Rule::Same(name.clone()),
            (None, Some(name)) => Rule::Distinct(name.clone()),
            (None, None) => Rule::Unknown,
        };
        Self { requests: constraint.requests.clone().unwrap_or_default(), rule }
    }

    pub(super) fn is_known(&self) -> bool {
        !matches!(self.rule, Rule::Unknown)
    }

    /// Whether it is about a request, or about one choice of it by its full name.
    pub(super) fn concerns(&self, request: &str, choice: &str) -> bool {
        self.requests.is_empty() || self.requests.iter().any(|name| name == request || name == choice)
    }

    /// The device's value, if the device may join those seen.
    pub(super) fn admit<'a>(
        &self,
        seen: &Seen<'_>,
        offer: &'a Offer,
        driver: &str,
    ) -> Option<&'a DeviceAttribute> {
        let (name, same) = match &self.rule {
            Rule::Same(name) => (name, true),
            Rule::Distinct(name) => (name, false),
            Rule::Unknown => return None,
        };
        let value = offer.attribute(name, driver).filter(|value| is_single(value))?;
        seen.iter().all(|other| equal(other, value) == same).then_some(value)
    }
}

fn is_single(value: &DeviceAttribute) -> bool {
    value.string.is_some() || value.int.is_some() || value.bool.is_some() || value.version.is_some()
}

/// Versions are equal if their texts are: their form is canonical.
fn equal(a: &DeviceAttribute, b: &DeviceAttribute) -> bool {
    (&a.string, a.int, a.bool, &a.version) == (&b.string, b.int, b.bool, &b.version)
}
