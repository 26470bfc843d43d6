use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::cost::{Budget, CostEstimate};
use crate::error::{EvalError, Outcome};
use crate::eval::Machine;
use crate::plan::Node;
use crate::ty::Type;
use crate::value::{Opaque, Value};

/// A compiled expression. Cheap to clone; threads may share it.
#[derive(Clone)]
pub struct Program(pub(crate) Arc<ProgramInner>);

pub(crate) struct ProgramInner {
    pub(crate) source: Box<str>,
    pub(crate) result: Type,
    pub(crate) cost: CostEstimate,
    pub(crate) root: Node,
    pub(crate) variables: Vec<(String, Type)>,
    pub(crate) limit: u64,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({:?})", self.0.source)
    }
}

impl Program {
    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The type of its value.
    pub fn result_type(&self) -> &Type {
        &self.0.result
    }

    /// What an evaluation can cost, by the bounds of the declared data.
    pub fn estimate(&self) -> CostEstimate {
        self.0.cost
    }

    /// Whether it refers to a variable (`oldSelf`, for example, which makes a rule one about transitions).
    pub fn uses(&self, variable: &str) -> bool {
        self.0.variables.iter().any(|(name, _)| name == variable)
    }

    /// Its value. What that costs is taken from the budget, whatever the outcome.
    pub fn evaluate<'a>(
        &'a self,
        activation: &Activation<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvalError> {
        let (value, cost) = Machine::run(&self.0, activation, 0);
        budget.spend(cost)?;
        value
    }

    /// Its value and what that cost, without a budget.
    pub fn evaluate_with_cost<'a>(
        &'a self,
        activation: &Activation<'a>,
    ) -> (Result<Value<'a>, EvalError>, u64) {
        Machine::run(&self.0, activation, 0)
    }
}

/// The values of the variables in one evaluation.
#[derive(Default)]
pub struct Activation<'a> {
    bindings: Vec<(&'a str, Binding<'a>)>,
    named: &'a [(String, Program)],
    cells: Vec<OnceCell<Outcome<Value<'a>>>>,
}

pub(crate) enum Binding<'a> {
    Json(&'a Json),
    Value(Value<'a>),
}

impl<'a> Activation<'a> {
    /// Without values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds JSON, which is seen as the variable's declared type and not copied.
    pub fn json(mut self, name: &'a str, json: &'a Json) -> Self {
        self.bindings.push((name, Binding::Json(json)));
        self
    }

    /// Binds a value.
    pub fn value(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.bindings.push((name, Binding::Value(value)));
        self
    }

    /// Binds named expressions as the fields of one variable: `variables.x`. Each is evaluated when it is first
    /// asked for, over this activation, and at the cost of whoever asked. The variable's type is a
    /// [`StructType`](crate::StructType) with a field for each; an expression that may use only those before it is
    /// compiled with a type that has only those.
    pub fn compose(mut self, name: &'a str, programs: &'a [(String, Program)]) -> Self {
        self.named = programs;
        self.cells = programs.iter().map(|_| OnceCell::new()).collect();
        self.value(name, Value::Opaque(Opaque::Variables))
    }

    pub(crate) fn binding(&self, name: &str) -> Option<&Binding<'a>> {
        self.bindings.iter().rev().find(|(n, _)| *n == name).map(|(_, binding)| binding)
    }

    pub(crate) fn has_named(&self, name: &str) -> bool {
        self.named.iter().any(|(n, _)| n == name)
    }

    /// A named expression and the place for its value.
    #[allow(clippy::type_complexity)]
    pub(crate) fn named(&self, name: &str) -> Option<(&'a ProgramInner, &OnceCell<Outcome<Value<'a>>>)> {
        let index = self.named.iter().position(|(n, _)| n == name)?;
        Some((&*self.named[index].1.0, &self.cells[index]))
    }
}
