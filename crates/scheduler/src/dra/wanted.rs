use std::collections::BTreeMap;

use cel::{DeviceSelector, EvalError};
use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClass, DeviceRequest, DeviceRequestAllocationResult,
    DeviceSelector as Expression, DeviceToleration, ResourceClaim,
};
use types::Quantity;

use super::amounts::amount;
use super::constraint::Constraint;
use super::slice::Offer;

/// What a claim asks for, made ready for many looks.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(super) requests: Vec<Request>,
    pub(super) constraints: Vec<Constraint>,
}

/// One of these has to be found; the first one that can be.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) name: String,
    pub(super) choices: Vec<Choice>,
}

#[derive(Debug)]
pub(super) struct Choice {
    /// As results name it: with the request's name before its own, if it has one.
    pub(super) name: String,
    pub(super) class: String,
    pub(super) selectors: Selectors,
    /// How many devices, or all that there are.
    pub(super) count: Option<usize>,
    pub(super) admin: bool,
    pub(super) tolerations: Vec<DeviceToleration>,
    /// How much of each device, as the claim names it.
    pub(super) capacity: BTreeMap<String, Quantity>,
}

impl Choice {
    /// Its own name, if it is one of several.
    pub(super) fn own(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, own)| own)
    }
}

impl Wanted {
    pub(crate) fn of(claim: &ResourceClaim) -> Self {
        let devices = claim.spec.devices.as_ref();
        let requests = devices.and_then(|d| d.requests.as_deref()).unwrap_or_default();
        let constraints = devices.and_then(|d| d.constraints.as_deref()).unwrap_or_default();
        Self {
            requests: requests.iter().map(Request::of).collect(),
            constraints: constraints.iter().map(Constraint::of).collect(),
        }
    }
}

impl Wanted {
    /// How early in their lists the devices stand that were given.
    pub(super) fn liking(&self, given: &[DeviceRequestAllocationResult]) -> i64 {
        let choice = |request: &Request| {
            request.choices.iter().position(|choice| given.iter().any(|g| g.request == choice.name))
        };
        self.requests.iter().filter_map(|request| Some(request.liking(choice(request)?))).sum()
    }
}

impl Request {
    fn of(request: &DeviceRequest) -> Self {
        let alone = request.exactly.as_ref().map(|exactly| Choice {
            name: request.name.clone(),
            class: exactly.device_class_name.clone(),
            selectors: Selectors::of(exactly.selectors.as_deref()),
            count: count(exactly.allocation_mode.as_deref(), exactly.count),
            admin: exactly.admin_access == Some(true),
            tolerations: exactly.tolerations.clone().unwrap_or_default(),
            capacity: amounts(exactly.capacity.as_ref()),
        });
        let several = request.first_available.iter().flatten().map(|choice| Choice {
            name: format!("{}/{}", request.name, choice.name),
            class: choice.device_class_name.clone(),
            selectors: Selectors::of(choice.selectors.as_deref()),
            count: count(choice.allocation_mode.as_deref(), choice.count),
            admin: false,
            tolerations: choice.tolerations.clone().unwrap_or_default(),
            capacity: amounts(choice.capacity.as_ref()),
        });
        Self { name: request.name.clone(), choices: alone.into_iter().chain(several).collect() }
    }

    /// How much a choice is liked: the first one most, and what there is no choice of not at all.
    pub(super) fn liking(&self, choice: usize) -> i64 {
        /// So many choices there can be (upstream: `FirstAvailableDeviceRequestMaxSize`).
        const MOST: usize = 8;
        let liked = if self.is_list() { MOST.saturating_sub(choice) } else { 0 };
        i64::try_from(liked).unwrap_or(0)
    }

    /// Whether there are several to choose from, so that each has a name of its own.
    pub(super) fn is_list(&self) -> bool {
        self.choices.iter().any(|choice| choice.name.contains('/'))
    }
}

fn count(mode: Option<&str>, count: Option<i64>) -> Option<usize> {
    (mode != Some("All")).then(|| usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX))
}

fn amounts(capacity: Option<&CapacityRequirements>) -> BTreeMap<String, Quantity> {
    let requests = capacity.and_then(|capacity| capacity.requests.as_ref());
    requests.into_iter().flatten().map(|(name, q)| (name.clone(), amount(q))).collect()
}

/// Expressions, all of which must hold, or why they cannot be asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors(Vec<Result<DeviceSelector, String>>);

impl Selectors {
    fn of(expressions: Option<&[Expression]>) -> Self {
        let compile = |expression: &Expression| match &expression.cel {
            None => Err("CEL expression empty (unsupported selector type?)".to_owned()),
            Some(cel) => DeviceSelector::compile(&cel.expression)
                .map_err(|fault| format!("CEL compile error: {fault}")),
        };
        Self(expressions.into_iter().flatten().map(compile).collect())
    }

    pub(super) fn of_class(class: &DeviceClass) -> Self {
        Self::of(class.spec.selectors.as_deref())
    }

    /// Whether a device is meant (`selectorsMatch`). `whose` begins the sentence that says why that cannot be told.
    pub(super) fn pick(
        &self,
        offer: &Offer,
        driver: &str,
        whose: impl Fn() -> String,
    ) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let seen = offer.seen(driver);
        for (i, selector) in self.0.iter().enumerate() {
            let selector = selector.as_ref().map_err(|why| format!("{}: selector #{i}: {why}", whose()))?;
            let told = |error: EvalError| {
                format!("{}: selector #{i} on device {}: CEL runtime error: {error}", whose(), offer.id)
            };
            if !selector.picks(&seen).map_err(told)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
