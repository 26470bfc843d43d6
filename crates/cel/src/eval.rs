//! Evaluation. Data is borrowed, values are made only where an expression makes some.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;

use crate::cost::Rule;
use crate::error::{EvalError, Outcome, fail};
use crate::functions::operators::{at, optional_at};
use crate::functions::regexes;
use crate::plan::{Fold, Node, Step, map_key};
use crate::program::{Activation, Binding, ProgramInner};
use crate::value::{Built, Key, List, Map, Opaque, Str, Struct, Value, wrap};

/// Copied list items, and sixteen bytes of text each. By upstream's rules some of them cost nothing (its lists are
/// joined without copying; text of type `dyn`), but they take memory, and no honest expression comes near.
const MOST_COPIES: u64 = 1_000_000;

/// How deep named expressions may ask for one another.
const MOST_NESTED: usize = 32;

/// One evaluation under way.
pub(crate) struct Machine<'a, 'x> {
    program: &'a ProgramInner,
    activation: &'x Activation<'a>,
    variables: Vec<Option<Value<'a>>>,
    /// The accumulator of a loop may be an error that a later round absorbs.
    locals: Vec<Outcome<Value<'a>>>,
    cost: u64,
    /// What the named expressions cost that this one asked for.
    named: u64,
    copies: u64,
    nested: usize,
}

impl<'a, 'x> Machine<'a, 'x> {
    /// The value, and what it cost with everything it asked for.
    pub(crate) fn run(
        program: &'a ProgramInner,
        activation: &'x Activation<'a>,
        nested: usize,
    ) -> (Outcome<Value<'a>>, u64) {
        let variables = program
            .variables
            .iter()
            .map(|(name, ty)| {
                activation.binding(name).map(|binding| match binding {
                    Binding::Json(json) => wrap(json, ty),
                    Binding::Value(value) => value.clone(),
                })
            })
            .collect();
        let mut machine =
            Self { program, activation, variables, locals: Vec::new(), cost: 0, named: 0, copies: 0, nested };
        let value = machine.eval(&program.root);
        (value, machine.cost.saturating_add(machine.named))
    }

    fn charge(&mut self, cost: u64) -> Outcome<()> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.program.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    fn eval(&mut self, node: &'a Node) -> Outcome<Value<'a>> {
        match node {
            Node::Const(value) => Ok(borrowed(value)),
            Node::Variable(slot) => self.variable(*slot),
            Node::Local(slot) => {
                self.charge(1)?;
                self.locals.get(*slot).cloned().unwrap_or_else(|| Err(EvalError::no_such_overload()))
            }
            Node::Select { operand, field, far } => self.select(operand, field, *far),
            Node::And(args) => self.logical(args, false),
            Node::Or(args) => self.logical(args, true),
            Node::If(args) => self.choose(args),
            Node::NotFalse(arg) => self.not_false(arg),
            Node::Call { call, args, rule } => match &**args {
                [a] => {
                    let args = [self.eval(a)?];
                    self.finish(call(&args), &args, *rule)
                }
                [a, b] => {
                    let args = [self.eval(a)?, self.eval(b)?];
                    self.finish(call(&args), &args, *rule)
                }
                _ => {
                    let args = self.all(args)?;
                    self.finish(call(&args), &args, *rule)
                }
            },
            Node::Fold(fold) => self.fold(fold),
            other => self.rare(other),
        }
    }

    /// The nodes that most expressions do without; apart, so that the common ones need little stack.
    #[inline(never)]
    fn rare(&mut self, node: &'a Node) -> Outcome<Value<'a>> {
        match node {
            Node::Has { operand, field } => self.has(operand, field),
            Node::OptSelect { operand, field, far } => {
                let operand = self.eval(operand)?;
                self.charge(1 + u64::from(*far))?;
                optional_at(&operand, &Value::str(field))
            }
            Node::Index { call, args, far } => {
                let values = [self.eval(&args[0])?, self.eval(&args[1])?];
                self.charge(1 + u64::from(*far))?;
                if let (Value::Opaque(Opaque::Variables), Value::String(name)) = (&values[0], &values[1]) {
                    return self.named(name);
                }
                call(&values)
            }
            Node::OptOr { args, value } => self.opt_or(args, *value),
            Node::Pattern { call, regex, args, rule } => {
                let args = self.all(args)?;
                let result = match (regex, args.get(1)) {
                    (Some(regex), _) => call(regex, &args),
                    (None, Some(Value::String(pattern))) => {
                        // The text is as long as its pattern may cost; compiling is charged before it is done.
                        self.charge(rule.cost(&args, None))?;
                        let regex: Regex = regexes::compile(pattern)?;
                        return call(&regex, &args);
                    }
                    _ => Err(EvalError::no_such_overload()),
                };
                self.finish(result, &args, *rule)
            }
            Node::InSet { item, set } => {
                let item = self.eval(item)?;
                let found = match item.key() {
                    Some(key) => set.contains(&key),
                    None => false,
                };
                Ok(Value::Bool(found))
            }
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Struct { name, fields } => self.construct(name, fields),
            Node::Bind { value, result } => {
                let value = self.eval(value)?;
                self.locals.push(Ok(value));
                let depth = self.locals.len() - 1;
                let result = self.eval(result);
                self.locals.truncate(depth);
                result
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn all(&mut self, nodes: &'a [Node]) -> Outcome<Vec<Value<'a>>> {
        nodes.iter().map(|node| self.eval(node)).collect()
    }

    /// Charges for a call that was made.
    fn finish(&mut self, result: Outcome<Value<'a>>, args: &[Value<'a>], rule: Rule) -> Outcome<Value<'a>> {
        self.charge(rule.cost(args, result.as_ref().ok()))?;
        let copied = match &result {
            Ok(Value::List(List::Owned(items))) => items.len(),
            Ok(Value::String(Str::Shared(text))) => text.len() / 16,
            _ => return result,
        };
        self.copies = self.copies.saturating_add(copied as u64);
        if self.copies > MOST_COPIES {
            return Err(EvalError::CostLimit);
        }
        result
    }

    fn variable(&mut self, slot: usize) -> Outcome<Value<'a>> {
        self.charge(1)?;
        match &self.variables[slot] {
            Some(value) => Ok(value.clone()),
            None => fail(format!("no such attribute(s): {}", self.program.variables[slot].0)),
        }
    }

    fn select(&mut self, operand: &'a Node, field: &'a str, far: bool) -> Outcome<Value<'a>> {
        let operand = self.eval(operand)?;
        self.charge(1 + u64::from(far))?;
        let found = match &operand {
            Value::Struct(object) => object.field(field),
            Value::Map(map) => map.field(field),
            Value::Opaque(Opaque::Variables) => return self.named(field),
            Value::Optional(_) => return optional_at(&operand, &Value::str(field)),
            other => return at(other, &Value::str(field)),
        };
        found.ok_or_else(|| EvalError::failed(format!("no such key: {field}")))
    }

    fn has(&mut self, operand: &'a Node, field: &'a str) -> Outcome<Value<'a>> {
        Ok(Value::Bool(match self.eval(operand)? {
            Value::Struct(object) => object.field(field).is_some(),
            Value::Map(map) => map.field(field).is_some(),
            Value::Opaque(Opaque::Variables) => self.activation.has_named(field),
            Value::Optional(None) => false,
            Value::Optional(Some(inner)) => {
                let found = optional_at(&inner, &Value::str(field))?;
                matches!(found, Value::Optional(Some(_)))
            }
            _ => return Err(EvalError::no_such_overload()),
        }))
    }

    /// A named expression's value, evaluated when first asked for.
    #[inline(never)]
    fn named(&mut self, name: &str) -> Outcome<Value<'a>> {
        let Some((program, cell)) = self.activation.named(name) else {
            return fail(format!("no such key: {name}"));
        };
        if let Some(known) = cell.get() {
            return known.clone();
        }
        if self.nested >= MOST_NESTED {
            return fail(format!("variable {name} refers to itself"));
        }
        let (value, cost) = Machine::run(program, self.activation, self.nested + 1);
        self.named = self.named.saturating_add(cost);
        cell.get_or_init(|| value).clone()
    }

    /// `&&` and `||`: one side that decides is enough, whatever the other is.
    fn logical(&mut self, args: &'a [Node; 2], decides: bool) -> Outcome<Value<'a>> {
        let left = self.eval(&args[0]);
        match &left {
            Ok(Value::Bool(b)) if *b == decides => return left,
            Err(e) if e.is_cost() => return left,
            _ => {}
        }
        let right = self.eval(&args[1]);
        match (left, right) {
            (_, Ok(Value::Bool(b))) if b == decides => Ok(Value::Bool(b)),
            (_, Err(e)) if e.is_cost() => Err(e),
            (Err(e), _) | (Ok(Value::Bool(_)), Err(e)) => Err(e),
            (Ok(Value::Bool(_)), Ok(Value::Bool(b))) => Ok(Value::Bool(b)),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn choose(&mut self, args: &'a [Node; 3]) -> Outcome<Value<'a>> {
        match self.eval(&args[0])? {
            Value::Bool(true) => self.eval(&args[1]),
            Value::Bool(false) => self.eval(&args[2]),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn not_false(&mut self, arg: &'a Node) -> Outcome<Value<'a>> {
        let value = self.eval(arg);
        self.charge(1)?;
        match value {
            Ok(Value::Bool(b)) => Ok(Value::Bool(b)),
            Err(e) if e.is_cost() => Err(e),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn opt_or(&mut self, args: &'a [Node; 2], value: bool) -> Outcome<Value<'a>> {
        let first = self.eval(&args[0])?;
        self.charge(1)?;
        match first {
            Value::Optional(None) => self.eval(&args[1]),
            Value::Optional(Some(inner)) if value => Ok((*inner).clone()),
            some @ Value::Optional(_) => Ok(some),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn list(&mut self, elements: &'a [(Node, bool)]) -> Outcome<Value<'a>> {
        let mut items = Vec::with_capacity(elements.len());
        for (node, optional) in elements {
            match (self.eval(node)?, optional) {
                (value, false) => items.push(value),
                (Value::Optional(Some(value)), true) => items.push((*value).clone()),
                (Value::Optional(None), true) => {}
                (other, true) => {
                    return fail(format!(
                        "cannot initialize optional list element from non-optional value of type {}",
                        other.type_name()
                    ));
                }
            }
        }
        self.charge(10)?;
        Ok(Value::list(items))
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Outcome<Value<'a>> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            let Some(key) = map_key(&key) else {
                return fail(format!("unsupported key type: {}", key.type_name()));
            };
            let value = match (value, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (Value::Optional(None), true) => continue,
                (other, true) => {
                    return fail(format!(
                        "cannot initialize optional entry from non-optional value of type {}",
                        other.type_name()
                    ));
                }
            };
            if map.insert(key, value).is_some() {
                return fail("Failed with repeated key");
            }
        }
        self.charge(30)?;
        Ok(Value::Map(Map::Owned(Arc::new(map))))
    }

    fn construct(&mut self, name: &Arc<str>, fields: &'a [(Arc<str>, Node, bool)]) -> Outcome<Value<'a>> {
        let mut set = BTreeMap::new();
        for (field, node, optional) in fields {
            let value = match (self.eval(node)?, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (Value::Optional(None), true) => continue,
                (other, true) => {
                    return fail(format!(
                        "cannot initialize optional entry '{field}' from non-optional value of type {}",
                        other.type_name()
                    ));
                }
            };
            set.insert(field.clone(), value);
        }
        self.charge(40)?;
        Ok(Value::Struct(Struct::Built(Arc::new(Built { name: name.clone(), fields: set }))))
    }

    #[inline(never)]
    fn fold(&mut self, fold: &'a Fold) -> Outcome<Value<'a>> {
        let range = self.eval(&fold.range)?;
        let range = match range {
            Value::Optional(Some(inner)) => (*inner).clone(),
            other => other,
        };
        let init = self.eval(&fold.init)?;
        let accu = self.locals.len();
        self.locals.push(Ok(init));
        let mut outcome = Ok(true);
        match &range {
            Value::List(list) => {
                for i in 0..list.len() {
                    let Some(item) = list.get(i) else { break };
                    outcome = if fold.two {
                        self.round(fold, accu, [Some(Value::Int(i as i64)), Some(item)])
                    } else {
                        self.round(fold, accu, [Some(item), None])
                    };
                    if outcome != Ok(true) {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let value = if fold.two { map.get(&key) } else { None };
                    outcome = self.round(fold, accu, [Some(key.into()), value]);
                    if outcome != Ok(true) {
                        break;
                    }
                }
            }
            Value::Struct(object) => {
                for (name, value) in object.entries() {
                    let second = fold.two.then_some(value);
                    outcome = self.round(fold, accu, [Some(Value::text(name)), second]);
                    if outcome != Ok(true) {
                        break;
                    }
                }
            }
            _ => outcome = Err(EvalError::no_such_overload()),
        }
        let result = match outcome {
            Ok(_) => self.eval(&fold.result),
            Err(e) => Err(e),
        };
        self.locals.truncate(accu);
        result
    }

    /// One round of a loop; whether there may be another.
    fn round(&mut self, fold: &'a Fold, accu: usize, vars: [Option<Value<'a>>; 2]) -> Outcome<bool> {
        self.locals.truncate(accu + 1);
        self.locals.extend(vars.into_iter().flatten().map(Ok));
        if let Some(condition) = &fold.condition
            && !matches!(self.eval(condition)?, Value::Bool(true))
        {
            return Ok(false);
        }
        match &fold.step {
            Step::Value(node) => {
                let value = self.eval(node);
                if value.as_ref().is_err_and(EvalError::is_cost) {
                    return value.map(|_| false);
                }
                self.locals[accu] = value;
            }
            Step::Append { filter, element } => {
                if self.passes(filter.as_ref())? {
                    let element = self.eval(element)?;
                    // The accumulator, the list of one and their sum.
                    self.charge(12)?;
                    if let Ok(Value::List(List::Owned(items))) = &mut self.locals[accu] {
                        Arc::make_mut(items).push(element);
                    }
                }
            }
            Step::Insert { filter, entry } => {
                if self.passes(filter.as_ref())? {
                    let entry = self.all(entry)?;
                    self.charge(2)?;
                    self.insert(accu, entry)?;
                }
            }
        }
        Ok(true)
    }

    fn passes(&mut self, filter: Option<&'a Node>) -> Outcome<bool> {
        let Some(filter) = filter else { return Ok(true) };
        match self.eval(filter)? {
            Value::Bool(true) => Ok(true),
            Value::Bool(false) => {
                self.charge(1)?;
                Ok(false)
            }
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn insert(&mut self, accu: usize, entry: Vec<Value<'a>>) -> Outcome<()> {
        let Ok(Value::Map(Map::Owned(map))) = &mut self.locals[accu] else {
            return Err(EvalError::no_such_overload());
        };
        let map = Arc::make_mut(map);
        let mut put = |key: Key<'a>, value: Value<'a>| match map.insert(key.clone(), value) {
            None => Ok(()),
            Some(_) => fail(format!("insert failed: key {} already exists", key_text(&key))),
        };
        match &entry[..] {
            [Value::Map(more)] => more.keys().into_iter().try_for_each(|key| match more.get(&key) {
                Some(value) => put(key, value),
                None => Ok(()),
            }),
            [key, value] => match map_key(key) {
                Some(key) => put(key, value.clone()),
                None => fail(format!("unsupported key type: {}", key.type_name())),
            },
            _ => Err(EvalError::no_such_overload()),
        }
    }
}

fn key_text(key: &Key<'_>) -> String {
    match key {
        Key::Bool(b) => b.to_string(),
        Key::Int(i) => i.to_string(),
        Key::Uint(u) => u.to_string(),
        Key::String(s) => s.to_string(),
    }
}

/// A constant; text is borrowed from the program.
fn borrowed<'a>(value: &'a Value<'static>) -> Value<'a> {
    match value {
        Value::String(Str::Shared(text)) => Value::str(text),
        other => other.clone(),
    }
}
