//! Types before evaluation (cel-go, `checker/checker.go`).

mod aggregates;
mod calls;
mod unify;

use std::sync::Arc;

use crate::env::EnvInner;
use crate::error::Issue;
use crate::functions::Declared;
use crate::syntax::ast::{Ast, Comprehension, Expr, Kind, Literal};
use crate::ty::Type;
use unify::Unifier;

/// What a name or call means.
#[derive(Clone)]
pub(crate) enum Meaning {
    /// A declared variable, by its place in the environment.
    Variable(usize),
    /// A type as a value.
    Type(Type),
    /// A function, and which of its overloads fit. With `namespaced`, the receiver is part of the name.
    Call { function: &'static Declared, overloads: Vec<usize>, namespaced: bool },
}

/// An expression whose types are known.
pub(crate) struct Checked {
    /// By the nodes' ids.
    pub types: Vec<Type>,
    /// By the nodes' ids.
    pub meanings: Vec<Option<Meaning>>,
}

/// Finds the type of every node.
pub(crate) fn check(ast: &Ast, env: &EnvInner) -> Result<Checked, Vec<Issue>> {
    let count = ast.offsets.len();
    let mut checker = Checker {
        ast,
        env,
        unifier: Unifier::default(),
        scopes: Vec::new(),
        types: vec![Type::Dyn; count],
        meanings: vec![None; count],
        issues: Vec::new(),
        mixed: 0,
    };
    checker.check(&ast.root);
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let Checker { unifier, mut types, meanings, .. } = checker;
    for ty in &mut types {
        *ty = unifier.settled(ty);
    }
    Ok(Checked { types, meanings })
}

struct Checker<'c> {
    ast: &'c Ast,
    env: &'c EnvInner,
    unifier: Unifier,
    /// Loop variables, the innermost last.
    scopes: Vec<(Arc<str>, Type)>,
    types: Vec<Type>,
    meanings: Vec<Option<Meaning>>,
    issues: Vec<Issue>,
    /// Above zero within the arguments of `format`, whose lists may be of several types (cel-go,
    /// `ext/formatting.go`).
    mixed: usize,
}

/// `a.b.c` as a name, if the tree is one.
pub(crate) fn qualified(e: &Expr) -> Option<String> {
    match &e.kind {
        Kind::Ident(name) => Some(name.strip_prefix('.').unwrap_or(name).to_owned()),
        Kind::Select { operand, field, test: false } => {
            let mut name = qualified(operand)?;
            name.push('.');
            name.push_str(field);
            Some(name)
        }
        _ => None,
    }
}

/// The leftmost name of a chain of fields.
fn root_of(e: &Expr) -> Option<&str> {
    match &e.kind {
        Kind::Ident(name) => Some(name),
        Kind::Select { operand, .. } => root_of(operand),
        _ => None,
    }
}

impl Checker<'_> {
    fn issue(&mut self, id: u32, message: String) -> Type {
        self.issues.push(Issue::new(self.ast.offsets[id as usize], message));
        Type::Error
    }

    fn undeclared(&mut self, id: u32, name: &str) -> Type {
        self.issue(id, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn shown(&self, ty: &Type) -> String {
        self.unifier.settled(ty).to_string()
    }

    fn check(&mut self, e: &Expr) -> Type {
        let ty = match &e.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.ident(e.id, name),
            Kind::Select { operand, field, test } => self.select(e, operand, field, *test),
            Kind::Call { function, target, args } => self.call(e, function, target.as_deref(), args),
            Kind::List(elements, optional) => self.list(elements, optional),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(name, fields) => self.construct(e.id, name, fields),
            Kind::Comprehension(c) => self.comprehension(c),
        };
        self.types[e.id as usize] = ty.clone();
        ty
    }

    fn in_scope(&self, name: &str) -> Option<&Type> {
        self.scopes.iter().rev().find(|(n, _)| **n == *name).map(|(_, ty)| ty)
    }

    /// A declared name that is not hidden by a loop variable.
    fn declared(&mut self, id: u32, name: &str) -> Option<Type> {
        if let Some(index) = self.env.variables.iter().position(|(n, _)| n == name) {
            self.meanings[id as usize] = Some(Meaning::Variable(index));
            return Some(self.env.variables[index].1.ty.clone());
        }
        let ty = named_type(name).or_else(|| self.env.structure(name).map(Type::Struct))?;
        self.meanings[id as usize] = Some(Meaning::Type(ty.clone()));
        Some(Type::Type(Arc::new(ty)))
    }

    fn ident(&mut self, id: u32, name: &str) -> Type {
        if let Some(ty) = self.in_scope(name) {
            return ty.clone();
        }
        let plain = name.strip_prefix('.').unwrap_or(name);
        match self.declared(id, plain) {
            Some(ty) => ty,
            None => self.undeclared(id, plain),
        }
    }

    fn select(&mut self, e: &Expr, operand: &Expr, field: &str, test: bool) -> Type {
        if !test
            && root_of(e).is_some_and(|root| self.in_scope(root).is_none())
            && let Some(name) = qualified(e)
            && let Some(ty) = self.declared(e.id, &name)
        {
            return ty;
        }
        let owner = self.check(operand);
        let ty = self.field(e.id, &owner, field, false);
        if test { Type::Bool } else { ty }
    }

    /// The type of a field; of an optional's, an optional.
    fn field(&mut self, id: u32, owner: &Type, field: &str, optional: bool) -> Type {
        let owner = self.unifier.resolved(owner);
        let wrap = |ty: Type, wanted: bool| match ty {
            Type::Optional(_) | Type::Error => ty,
            ty if wanted => Type::optional(ty),
            ty => ty,
        };
        match &owner {
            Type::Dyn | Type::Error => wrap(Type::Dyn, optional),
            Type::Map(map) => wrap(map.value.ty.clone(), optional),
            Type::Struct(object) => match object.field_type(field) {
                Some(ty) => wrap(ty, optional),
                None => self.issue(id, format!("undefined field '{field}'")),
            },
            Type::Optional(inner) => {
                let inner = self.field(id, &inner.clone(), field, true);
                wrap(inner, true)
            }
            Type::Param(_) => {
                self.unifier.assignable(&owner, &Type::Dyn);
                wrap(Type::Dyn, optional)
            }
            other => {
                let shown = self.shown(other);
                self.issue(id, format!("type '{shown}' does not support field selection"))
            }
        }
    }

    fn comprehension(&mut self, c: &Comprehension) -> Type {
        let range = self.check(&c.range);
        let accu = self.check(&c.init);
        let range = self.unifier.resolved(&range);
        let (first, second) = match &range {
            Type::List(list) if c.var2.is_some() => (Type::Int, list.items.ty.clone()),
            Type::List(list) => (list.items.ty.clone(), Type::Dyn),
            Type::Map(map) => (map.key.ty.clone(), map.value.ty.clone()),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Param(_) => {
                self.unifier.assignable(&range, &Type::Dyn);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let shown = self.shown(other);
                let text = format!(
                    "expression of type '{shown}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                (self.issue(c.range.id, text), Type::Error)
            }
        };
        let depth = self.scopes.len();
        self.scopes.push((c.accu.clone(), accu.clone()));
        self.scopes.push((c.var.clone(), first));
        if let Some(var2) = &c.var2 {
            self.scopes.push((var2.clone(), second));
        }
        let condition = self.check(&c.condition);
        self.expect(&Type::Bool, &condition, c.condition.id);
        let step = self.check(&c.step);
        self.expect(&accu, &step, c.step.id);
        self.scopes.truncate(depth + 1);
        let result = self.check(&c.result);
        self.scopes.truncate(depth);
        self.unifier.substituted(&result)
    }

    fn expect(&mut self, want: &Type, found: &Type, id: u32) {
        if !self.unifier.assignable(want, found) {
            let (want, found) = (self.shown(want), self.shown(found));
            self.issue(id, format!("expected type '{want}' but found '{found}'"));
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// The types that are values by their names.
fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "null_type" => Type::Null,
        "dyn" => Type::Dyn,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(Arc::new(Type::Dyn)),
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "optional_type" => Type::optional(Type::Dyn),
        "net.IP" => Type::Opaque("net.IP"),
        "net.CIDR" => Type::Opaque("net.CIDR"),
        "kubernetes.Quantity" => Type::Opaque("kubernetes.Quantity"),
        "kubernetes.URL" => Type::Opaque("kubernetes.URL"),
        "kubernetes.Semver" => Type::Opaque("kubernetes.Semver"),
        "kubernetes.NamedFormat" => Type::Opaque("kubernetes.NamedFormat"),
        _ => return None,
    })
}
