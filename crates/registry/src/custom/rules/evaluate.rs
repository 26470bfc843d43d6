use std::sync::Arc;

use cel::{Activation, EvalError, RUNTIME_COST_BUDGET, Value as CelValue};
use serde_json::Value;
use types::{FieldErrors, Path};

use super::SchemaRules;
use super::compile::{Elements, Node, Rule};

/// The longest message that an expression may make (`apiserver/pkg/apis/cel/config.go`,
/// `MaxEvaluatedMessageExpressionSizeBytes`).
const MOST_MESSAGE_BYTES: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl SchemaRules for Node {
    fn check(&self, new: &Value, old: Option<&Value>, errors: &mut FieldErrors) {
        let mut run = Run { left: RUNTIME_COST_BUDGET, errors };
        let same = old.map(|old| (new, old));
        // `Err` means that the budget is gone, which has been said.
        let _ = run.node(self, new, old, Ratchet { own: same, above: None, root: true }, None);
    }
}

/// What of the old object a level is compared with: a fault of what did not change is forgiven.
#[derive(Clone, Copy)]
struct Ratchet<'a> {
    /// The level as it is and as it was, if it can be told which it was.
    own: Option<(&'a Value, &'a Value)>,
    /// The nearest level above that can.
    above: Option<(&'a Value, &'a Value)>,
    root: bool,
}

impl<'a> Ratchet<'a> {
    fn forgives(&self) -> bool {
        self.own.or(self.above).is_some_and(|(new, old)| new == old)
    }

    fn below(self, new: &'a Value, old: Option<&'a Value>) -> Self {
        match self.own {
            None => Self { root: false, ..self },
            Some(own) => Self { own: old.map(|old| (new, old)), above: Some(own), root: false },
        }
    }

    fn key(self, key: &str, new: &'a Value) -> Self {
        if self.root && self.own.is_some() && matches!(key, "apiVersion" | "kind") {
            return Self { own: None, above: None, root: false };
        }
        self.below(new, self.own.and_then(|(_, old)| old.get(key)))
    }
}

struct Run<'e> {
    left: u64,
    errors: &'e mut FieldErrors,
}

/// Nothing more can be checked.
struct Exhausted;

impl Run<'_> {
    fn node<'a>(
        &mut self,
        node: &'a Node,
        value: &'a Value,
        old: Option<&'a Value>,
        ratchet: Ratchet<'a>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Exhausted> {
        if value.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        for rule in &node.rules {
            self.rule(node, rule, value, old, ratchet, path)?;
        }
        let root = Path::new("");
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let was = old.filter(|_| node.correlates).and_then(|old| old.get(key));
                    let property = node.properties.binary_search_by(|(name, _)| (**name).cmp(key));
                    if let Some(additional) = &node.additional {
                        let below = path.unwrap_or(&root).key(key);
                        self.node(additional, value, was, ratchet.key(key, value), Some(&below))?;
                    } else if let Ok(at) = property {
                        let below = path.map_or(Path::new(key), |p| p.child(key));
                        let sub = &node.properties[at].1;
                        self.node(sub, value, was, ratchet.key(key, value), Some(&below))?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(sub) = &node.items else { return Ok(()) };
                for (i, item) in items.iter().enumerate() {
                    let before = old.and_then(Value::as_array).and_then(|old| node.lists.find(old, i, item));
                    let was = before.filter(|_| matches!(node.lists, Elements::Keys(_)));
                    let known = ratchet.own.and_then(|(_, old)| old.as_array());
                    let known = known.and_then(|old| node.lists.find(old, i, item));
                    let below = path.unwrap_or(&root).index(i);
                    self.node(sub, item, was, ratchet.below(item, known), Some(&below))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rule<'a>(
        &mut self,
        node: &'a Node,
        rule: &'a Rule,
        value: &'a Value,
        old: Option<&'a Value>,
        ratchet: Ratchet<'a>,
        path: Option<&Path<'_>>,
    ) -> Result<(), Exhausted> {
        let place = || path.map_or_else(|| "<nil>".to_owned(), ToString::to_string);
        let invalid = |why: &str| format!("Invalid value: {:?}: {why}", node.kind);
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => {
                self.add(place(), invalid(&format!("rule compile error: {why}")));
                return Ok(());
            }
        };
        if rule.uses_old && old.is_none() && !rule.optional_old {
            return Ok(());
        }
        if self.left == 0 {
            self.add(place(), invalid(OUT_OF_BUDGET));
            return Err(Exhausted);
        }
        let activation = activation(node, program, rule, value, old);
        let (outcome, cost) = program.evaluate_with_cost(&activation);
        let Some(left) = self.left.checked_sub(cost) else {
            self.add(place(), invalid(OUT_OF_BUDGET));
            return Err(Exhausted);
        };
        self.left = left;
        match outcome {
            Ok(CelValue::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(EvalError::Failed(why)) if why.starts_with("no such overload") => {
                let why = format!(
                    "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    rule.shown
                );
                self.add(place(), invalid(&why));
                return Ok(());
            }
            Err(EvalError::Failed(why)) => {
                self.add(place(), invalid(&format!("{why} evaluating rule: {}", rule.shown)));
                return Ok(());
            }
            Err(why) => {
                let why = format!(
                    "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    rule.shown
                );
                self.add(place(), invalid(&why));
                return Err(Exhausted);
            }
        }
        let field = match (&rule.path, path) {
            (None, _) => place(),
            (Some(below), None) => below.clone(),
            (Some(below), Some(path)) => format!("{path}.{below}"),
        };
        let forgiven = !rule.uses_old && ratchet.forgives();
        let detail = match self.message(node, rule, value, old) {
            Ok(Some(message)) => message,
            Ok(None) if rule.message.is_empty() => format!("failed rule: {}", rule.shown),
            Ok(None) => rule.message.to_string(),
            Err(why) => {
                if !forgiven {
                    self.add(field, invalid(&why));
                }
                return Err(Exhausted);
            }
        };
        if forgiven {
            return Ok(());
        }
        match &*rule.reason {
            "FieldValueForbidden" => {
                self.errors.add("FieldValueForbidden", field, format!("Forbidden: {detail}"));
            }
            "FieldValueRequired" => {
                self.errors.add("FieldValueRequired", field, format!("Required value: {detail}"));
            }
            "FieldValueDuplicate" => {
                self.errors.add("FieldValueDuplicate", field, format!("Duplicate value: {:?}", node.kind));
            }
            _ => self.add(field, invalid(&detail)),
        }
        Ok(())
    }

    fn add(&mut self, field: String, message: String) {
        self.errors.add("FieldValueInvalid", field, message);
    }

    /// What the rule's message expression says; nothing if it has none or says nothing that can be used. Fails when
    /// the budget is gone.
    fn message(
        &mut self,
        node: &Node,
        rule: &Rule,
        value: &Value,
        old: Option<&Value>,
    ) -> Result<Option<String>, String> {
        let Some(program) = &rule.message_program else { return Ok(None) };
        let activation = activation(node, program, rule, value, old);
        let (outcome, cost) = program.evaluate_with_cost(&activation);
        let Some(left) = self.left.checked_sub(cost) else {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned());
        };
        self.left = left;
        let text = match outcome {
            Ok(CelValue::String(text)) => text.trim().to_owned(),
            Ok(_) | Err(EvalError::Failed(_)) => return Ok(None),
            Err(_) => {
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                    rule.message_source
                ));
            }
        };
        let fits = !text.is_empty() && text.len() <= MOST_MESSAGE_BYTES && !text.contains('\n');
        Ok(Some(text).filter(|_| fits))
    }
}

fn activation<'a>(
    node: &'a Node,
    program: &'a cel::Program,
    rule: &'a Rule,
    value: &'a Value,
    old: Option<&'a Value>,
) -> Activation<'a> {
    let activation = Activation::new().json("self", value);
    if !program.uses("oldSelf") {
        return activation;
    }
    match old {
        Some(old) if rule.optional_old => {
            let old = CelValue::json(old, &node.ty);
            activation.value("oldSelf", CelValue::Optional(Some(Arc::new(old))))
        }
        Some(old) => activation.json("oldSelf", old),
        None if rule.optional_old => activation.value("oldSelf", CelValue::Optional(None)),
        None => activation,
    }
}

impl Elements {
    fn find<'a>(&self, old: &'a [Value], index: usize, item: &Value) -> Option<&'a Value> {
        match self {
            Self::Keys(keys) => {
                old.iter().find(|other| keys.iter().all(|key| other.get(&**key) == item.get(&**key)))
            }
            Self::Index => old.get(index),
            Self::Never => None,
        }
    }
}
