use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{CapacityRequestPolicy, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use types::Quantity;

/// How much of what.
pub(crate) type Amounts = BTreeMap<String, Quantity>;

/// A name with its domain; what has none belongs to the driver's.
pub(super) fn full_name(name: &str, driver: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{driver}/{name}") }
}

/// What the server has let through is an amount.
pub(super) fn amount(text: &Text) -> Quantity {
    text.0.parse().unwrap_or_default()
}

pub(super) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, more) in more {
        let sum = to.entry(name.clone()).or_default();
        *sum = *sum + *more;
    }
}

pub(super) fn subtract(from: &mut Amounts, less: &Amounts) {
    for (name, less) in less {
        let rest = from.entry(name.clone()).or_default();
        *rest = *rest - *less;
    }
}

/// What a device has of something, and how it may be asked for
/// (kubernetes/kubernetes, `dynamic-resource-allocation/structured/internal/incubating/consumable_capacity.go`).
#[derive(Clone, Debug)]
pub(crate) struct Capacity {
    /// As the slice names it.
    pub(super) name: String,
    pub(super) has: Quantity,
    policy: Option<Policy>,
}

#[derive(Clone, Debug)]
struct Policy {
    default: Option<Quantity>,
    allowed: Option<Allowed>,
}

#[derive(Clone, Debug)]
enum Allowed {
    /// In ascending order.
    Values(Vec<Quantity>),
    Range {
        min: Quantity,
        max: Option<Quantity>,
        step: Option<Quantity>,
    },
}

impl Capacity {
    pub(super) fn of(name: &str, capacity: &DeviceCapacity) -> Self {
        let policy = capacity.request_policy.as_ref().map(Policy::of);
        Self { name: name.to_owned(), has: amount(&capacity.value), policy }
    }

    /// How much is taken when so much is asked for, or when nothing is said; nothing if that may not be asked for
    /// (`calculateConsumedCapacity`, `violatesPolicy`).
    pub(super) fn taken(&self, asked: Option<Quantity>) -> Option<Quantity> {
        let policy = self.policy.as_ref();
        let Some(asked) = asked else {
            return Some(policy.and_then(|policy| policy.default).unwrap_or(self.has));
        };
        match policy.and_then(|policy| policy.allowed.as_ref()) {
            None => Some(asked),
            Some(Allowed::Values(values)) => values.iter().find(|value| **value >= asked).copied(),
            Some(Allowed::Range { min, max, step }) => {
                let rounded = match step {
                    _ if asked <= *min => *min,
                    Some(step) => round_up(asked, *min, *step),
                    None => asked,
                };
                max.is_none_or(|max| rounded <= max).then_some(rounded)
            }
        }
    }
}

/// To so many whole steps above the least.
fn round_up(asked: Quantity, min: Quantity, step: Quantity) -> Quantity {
    let (over, step) = (i128::from(asked.units()) - i128::from(min.units()), i128::from(step.units()));
    if step <= 0 {
        return asked;
    }
    let steps = over.div_euclid(step) + i128::from(over.rem_euclid(step) != 0);
    let more = steps.saturating_mul(step).clamp(0, i64::MAX.into());
    min + Quantity::from_units(more as i64)
}

impl Policy {
    fn of(policy: &CapacityRequestPolicy) -> Self {
        let values = policy.valid_values.as_ref().map(|values| {
            let mut values: Vec<Quantity> = values.iter().map(amount).collect();
            values.sort_unstable();
            Allowed::Values(values)
        });
        let range = policy.valid_range.as_ref().map(|range| Allowed::Range {
            min: amount(&range.min),
            max: range.max.as_ref().map(amount),
            step: range.step.as_ref().map(amount),
        });
        Self { default: policy.default.as_ref().map(amount), allowed: range.or(values) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_asked_for_is_rounded_up_to_what_may_be() {
        let taken = |policy: Value, asked: Option<&str>| {
            let capacity = json!({"value": "10", "requestPolicy": policy});
            let capacity = Capacity::of("memory", &testkit::object(capacity));
            capacity.taken(asked.map(|asked| asked.parse().unwrap())).map(Quantity::units)
        };
        let range = json!({"default": "2", "validRange": {"min": "2", "max": "9", "step": "3"}});
        assert_eq!(taken(json!(null), None), Some(10), "all of it");
        assert_eq!(taken(json!(null), Some("3")), Some(3));
        assert_eq!(taken(range.clone(), None), Some(2));
        assert_eq!(taken(range.clone(), Some("1")), Some(2));
        assert_eq!(taken(range.clone(), Some("3")), Some(5));
        assert_eq!(taken(range.clone(), Some("8")), Some(8));
        assert_eq!(taken(range, Some("9")), None);
        let values = json!({"default": "1", "validValues": ["4", "1"]});
        assert_eq!(taken(values.clone(), Some("2")), Some(4));
        assert_eq!(taken(values, Some("5")), None);
    }
}
