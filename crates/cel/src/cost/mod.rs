//! What expressions cost: measured while they run, and estimated before.

mod estimate;
mod range;
mod runtime;

pub(crate) use estimate::estimate;
pub use range::CostEstimate;
pub(crate) use runtime::{Rule, rule};

use crate::error::EvalError;

/// What one evaluation may cost (apiserver, `pkg/apis/cel/config.go`, `PerCallLimit`).
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all expressions of a request to admission, or of one object's schema, may cost
/// (`RuntimeCELCostBudget`).
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;
/// What all match conditions of one webhook or policy may cost (`RuntimeCELCostBudgetMatchConditions`).
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// What one rule of a schema may be estimated to cost (apiextensions, `validation.go`,
/// `StaticEstimatedCostLimit`).
pub const ESTIMATED_RULE_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may be estimated to cost together (`StaticEstimatedCRDCostLimit`).
pub const ESTIMATED_SCHEMA_LIMIT: u64 = 100_000_000;

/// What the expressions that share it may still cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    left: Option<u64>,
}

impl Budget {
    /// So much.
    pub fn new(amount: u64) -> Self {
        Self { left: Some(amount) }
    }

    /// No limit; each evaluation alone is limited all the same.
    pub fn unlimited() -> Self {
        Self { left: Some(u64::MAX) }
    }

    /// What is left; `None` once more was asked for than was there.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// Takes a part away. Once that fails it fails ever after.
    pub fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        self.left = self.left.and_then(|left| left.checked_sub(cost));
        if self.left.is_some() { Ok(()) } else { Err(EvalError::Budget) }
    }
}

/// What to say of an estimate above its limit, if it is (apiextensions, `validation.go`, `getCostErrorMessage`).
/// `what` is `estimated rule cost`, for example.
pub fn over_limit(what: &str, cost: u64, limit: u64) -> Option<String> {
    if cost <= limit {
        return None;
    }
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    Some(format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    ))
}
