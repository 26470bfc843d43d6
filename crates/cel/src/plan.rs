//! From a checked tree to one that is quick to evaluate: names are slots, functions are pointers, constant parts are
//! values (cel-go, `interpreter/planner.go`, `decorators.go`).

use std::collections::BTreeSet;
use std::sync::Arc;

use regex::Regex;

use crate::check::{Checked, Meaning};
use crate::cost::{Rule, rule};
use crate::env::EnvInner;
use crate::error::Issue;
use crate::functions::{Call, Matcher, Plain, regexes};
use crate::syntax::ast::{ACCUMULATOR, Ast, Comprehension, Expr, Kind, Literal, MapEntry, op};
use crate::ty::Type;
use crate::value::{Key, Value};

/// What is evaluated.
pub(crate) enum Node {
    Const(Value<'static>),
    /// A declared variable, by its place among those that the program uses.
    Variable(usize),
    /// A loop variable, by its place on the stack.
    Local(usize),
    /// With `far`, the operand is no variable or part of one, which costs one more.
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        far: bool,
    },
    Has {
        operand: Box<Node>,
        field: Arc<str>,
    },
    OptSelect {
        operand: Box<Node>,
        field: Arc<str>,
        far: bool,
    },
    Index {
        call: Plain,
        args: Box<[Node; 2]>,
        far: bool,
    },
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    If(Box<[Node; 3]>),
    NotFalse(Box<Node>),
    OptOr {
        args: Box<[Node; 2]>,
        value: bool,
    },
    Call {
        call: Plain,
        args: Box<[Node]>,
        rule: Rule,
    },
    Pattern {
        call: Matcher,
        regex: Option<Regex>,
        args: Box<[Node]>,
        rule: Rule,
    },
    /// Membership in constant values.
    InSet {
        item: Box<Node>,
        set: BTreeSet<Key<'static>>,
    },
    /// Elements, and whether each is optional.
    List(Box<[(Node, bool)]>),
    Map(Box<[(Node, Node, bool)]>),
    Struct {
        name: Arc<str>,
        fields: Box<[(Arc<str>, Node, bool)]>,
    },
    Fold(Box<Fold>),
    Bind {
        value: Box<Node>,
        result: Box<Node>,
    },
}

/// A loop. Its variables lie on the stack: the accumulator, then one or two loop variables.
pub(crate) struct Fold {
    pub range: Node,
    pub two: bool,
    pub init: Node,
    pub condition: Option<Node>,
    pub step: Step,
    pub result: Node,
}

/// What a round does. Those that collect do so in place rather than by making a new list each time.
pub(crate) enum Step {
    Value(Node),
    Append { filter: Option<Node>, element: Node },
    Insert { filter: Option<Node>, entry: Box<[Node]> },
}

/// A program's tree, and the variables that it uses with their types.
pub(crate) struct Planned {
    pub root: Node,
    pub variables: Vec<(String, Type)>,
}

pub(crate) fn plan(ast: &Ast, checked: &Checked, env: &EnvInner) -> Result<Planned, Vec<Issue>> {
    let mut planner =
        Planner { ast, checked, env, scopes: Vec::new(), variables: Vec::new(), issues: Vec::new() };
    let root = planner.node(&ast.root);
    if planner.issues.is_empty() {
        Ok(Planned { root, variables: planner.variables })
    } else {
        Err(planner.issues)
    }
}

struct Planner<'p> {
    ast: &'p Ast,
    checked: &'p Checked,
    env: &'p EnvInner,
    scopes: Vec<Arc<str>>,
    variables: Vec<(String, Type)>,
    issues: Vec<Issue>,
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(i) => Value::Int(*i),
        Literal::Uint(u) => Value::Uint(*u),
        Literal::Double(d) => Value::Double(*d),
        Literal::String(s) => Value::text(s.clone()),
        Literal::Bytes(b) => Value::Bytes(b.clone()),
    }
}

fn is_accu(e: &Expr) -> bool {
    matches!(&e.kind, Kind::Ident(name) if **name == *ACCUMULATOR)
}

/// Whether a node is a variable or part of one; reading part of anything else costs one more.
fn is_far(node: &Node) -> bool {
    !matches!(
        node,
        Node::Variable(_)
            | Node::Local(_)
            | Node::Select { .. }
            | Node::Index { .. }
            | Node::OptSelect { .. }
            | Node::If(_)
    )
}

impl Planner<'_> {
    fn boxed(&mut self, e: &Expr) -> Box<Node> {
        Box::new(self.node(e))
    }

    fn pair(&mut self, args: &[Expr]) -> Box<[Node; 2]> {
        Box::new([self.node(&args[0]), self.node(&args[1])])
    }

    fn node(&mut self, e: &Expr) -> Node {
        match &self.checked.meanings[e.id as usize] {
            Some(Meaning::Variable(index)) => return self.variable(*index),
            Some(Meaning::Type(ty)) => return Node::Const(Value::Type(ty.clone())),
            _ => {}
        }
        match &e.kind {
            Kind::Literal(literal) => Node::Const(constant(literal)),
            Kind::Ident(name) => {
                let slot = self.scopes.iter().rposition(|n| n == name);
                slot.map_or(Node::Const(Value::Null), Node::Local)
            }
            Kind::Select { operand, field, test } => {
                let operand = self.boxed(operand);
                let (field, far) = (field.clone(), is_far(&operand));
                if *test { Node::Has { operand, field } } else { Node::Select { operand, field, far } }
            }
            Kind::Call { function, target, args } => self.call(e, function, target.as_deref(), args),
            Kind::List(elements, optional) => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(name, fields) => {
                let fields =
                    fields.iter().map(|f| (f.name.clone(), self.node(&f.value), f.optional)).collect();
                let name = name.strip_prefix('.').map_or_else(|| name.clone(), Arc::from);
                Node::Struct { name, fields }
            }
            Kind::Comprehension(c) if &*c.accu != ACCUMULATOR => {
                let value = self.boxed(&c.init);
                self.scopes.push(c.accu.clone());
                let result = self.boxed(&c.result);
                self.scopes.pop();
                Node::Bind { value, result }
            }
            Kind::Comprehension(c) => self.fold(c),
        }
    }

    fn variable(&mut self, index: usize) -> Node {
        let (name, decl) = &self.env.variables[index];
        let slot = self.variables.iter().position(|(n, _)| n == name).unwrap_or_else(|| {
            self.variables.push((name.clone(), decl.ty.clone()));
            self.variables.len() - 1
        });
        Node::Variable(slot)
    }

    fn list(&mut self, elements: &[Expr], optional: &[usize]) -> Node {
        let nodes: Vec<(Node, bool)> =
            elements.iter().enumerate().map(|(i, e)| (self.node(e), optional.contains(&i))).collect();
        let values: Option<Vec<Value<'static>>> = nodes
            .iter()
            .map(|(node, optional)| match node {
                Node::Const(value) if !optional => Some(value.clone()),
                _ => None,
            })
            .collect();
        match values {
            Some(values) => Node::Const(Value::list(values)),
            None => Node::List(nodes.into()),
        }
    }

    fn map(&mut self, entries: &[MapEntry]) -> Node {
        let nodes: Vec<(Node, Node, bool)> =
            entries.iter().map(|e| (self.node(&e.key), self.node(&e.value), e.optional)).collect();
        let mut values = std::collections::BTreeMap::new();
        for (key, value, optional) in &nodes {
            let (Node::Const(key), Node::Const(value), false) = (key, value, *optional) else { break };
            let Some(key) = map_key(key) else { break };
            values.insert(key, value.clone());
        }
        // A key that is there twice is an error when evaluated.
        if values.len() == nodes.len() { Node::Const(Value::map(values)) } else { Node::Map(nodes.into()) }
    }

    fn call(&mut self, e: &Expr, name: &str, target: Option<&Expr>, args: &[Expr]) -> Node {
        if name == op::OPT_SELECT {
            let operand = self.boxed(&args[0]);
            let far = is_far(&operand);
            let field = match &args[1].kind {
                Kind::Literal(Literal::String(field)) => field.clone(),
                _ => "".into(),
            };
            return Node::OptSelect { operand, field, far };
        }
        let Some(Meaning::Call { function, overloads, namespaced }) = &self.checked.meanings[e.id as usize]
        else {
            return Node::Const(Value::Null);
        };
        let target = target.filter(|_| !namespaced);
        match function.name {
            op::AND => return Node::And(self.pair(args)),
            op::OR => return Node::Or(self.pair(args)),
            op::NOT_STRICTLY_FALSE => return Node::NotFalse(self.boxed(&args[0])),
            op::CONDITIONAL => {
                let nodes = [self.node(&args[0]), self.node(&args[1]), self.node(&args[2])];
                return Node::If(Box::new(nodes));
            }
            "or" | "orValue" => {
                if let Some(target) = target {
                    let value = function.name == "orValue";
                    return Node::OptOr { args: Box::new([self.node(target), self.node(&args[0])]), value };
                }
            }
            _ => {}
        }
        let overload = match &overloads[..] {
            [one] => Some(function.overloads[*one].id),
            _ => None,
        };
        let rule = rule(function.name, overload);
        let nodes: Vec<Node> = target.into_iter().chain(args).map(|a| self.node(a)).collect();
        match function.call {
            Call::Plain(call) => self.plain(e, function.name, call, nodes, rule),
            Call::Pattern(call) => self.pattern(e, call, nodes, rule),
            Call::BuiltIn => Node::Const(Value::Null),
        }
    }

    fn plain(&mut self, e: &Expr, name: &str, call: Plain, mut nodes: Vec<Node>, rule: Rule) -> Node {
        match (name, &mut nodes[..]) {
            (op::INDEX | op::OPT_INDEX, [_, _]) => {
                let far = is_far(&nodes[0]);
                let pair: Result<Box<[Node; 2]>, _> = nodes.into_boxed_slice().try_into();
                match pair {
                    Ok(args) => Node::Index { call, args, far },
                    Err(args) => Node::Call { call, args, rule },
                }
            }
            ("@in", [_, Node::Const(Value::List(list))]) => {
                let keys: Option<BTreeSet<Key<'static>>> = list.iter().map(|v| map_key(&v)).collect();
                match (keys, nodes.into_iter().next()) {
                    (Some(set), Some(item)) => Node::InSet { item: Box::new(item), set },
                    _ => Node::Const(Value::Bool(false)),
                }
            }
            (
                "bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint",
                [Node::Const(value)],
            ) => match call(std::slice::from_ref(value)) {
                Ok(value) => Node::Const(value),
                Err(_) => {
                    if matches!(name, "duration" | "timestamp") {
                        self.invalid(e, name);
                    }
                    Node::Call { call, args: nodes.into(), rule }
                }
            },
            _ => Node::Call { call, args: nodes.into(), rule },
        }
    }

    fn pattern(&mut self, e: &Expr, call: Matcher, nodes: Vec<Node>, rule: Rule) -> Node {
        let regex = match nodes.get(1) {
            Some(Node::Const(Value::String(pattern))) => {
                let regex = regexes::compile(pattern).ok();
                if regex.is_none() {
                    self.invalid(e, "matches");
                }
                regex
            }
            _ => None,
        };
        Node::Pattern { call, regex, args: nodes.into(), rule }
    }

    /// A constant that cannot work (cel-go, `cel/validator.go`).
    fn invalid(&mut self, e: &Expr, function: &str) {
        let id = match &e.kind {
            Kind::Call { args, .. } => args.last().map_or(e.id, |a| a.id),
            _ => e.id,
        };
        self.issues.push(Issue::new(self.ast.offsets[id as usize], format!("invalid {function} argument")));
    }

    fn fold(&mut self, c: &Comprehension) -> Node {
        let range = self.node(&c.range);
        let init = self.node(&c.init);
        self.scopes.push(c.accu.clone());
        self.scopes.push(c.var.clone());
        self.scopes.extend(c.var2.clone());
        let condition = match &c.condition.kind {
            Kind::Literal(Literal::Bool(true)) => None,
            _ => Some(self.node(&c.condition)),
        };
        let step = self.step(c);
        self.scopes.truncate(self.scopes.len() - if c.var2.is_some() { 2 } else { 1 });
        let result = self.node(&c.result);
        self.scopes.pop();
        Node::Fold(Box::new(Fold { range, two: c.var2.is_some(), init, condition, step, result }))
    }

    fn step(&mut self, c: &Comprehension) -> Step {
        let (filter, action) = match &c.step.kind {
            Kind::Call { function, args, .. } if &**function == op::CONDITIONAL && is_accu(&args[2]) => {
                (Some(&args[0]), &args[1])
            }
            _ => (None, &c.step),
        };
        if let Kind::Call { function, args, target: None } = &action.kind
            && is_accu(&args[0])
        {
            if &**function == op::MAP_INSERT {
                let filter = filter.map(|f| self.node(f));
                return Step::Insert { filter, entry: args[1..].iter().map(|a| self.node(a)).collect() };
            }
            if &**function == op::ADD
                && let Kind::List(elements, optional) = &args[1].kind
                && let ([element], true) = (&elements[..], optional.is_empty())
                && matches!(c.init.kind, Kind::List(..))
            {
                let filter = filter.map(|f| self.node(f));
                return Step::Append { filter, element: self.node(element) };
            }
        }
        Step::Value(self.node(&c.step))
    }
}

/// A constant as a key; whole doubles are none here, since they are no keys of literals.
pub(crate) fn map_key<'a>(value: &Value<'a>) -> Option<Key<'a>> {
    match value {
        Value::Double(_) => None,
        other => other.key(),
    }
}
