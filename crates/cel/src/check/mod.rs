//! Types before evaluation (cel-go, `checker/checker.go`).

mod unify;

use std::sync::Arc;

use crate::env::EnvInner;
use crate::error::Issue;
use crate::functions::{self, Declared};
use crate::syntax::ast::{Ast, Comprehension, Expr, FieldEntry, Kind, Literal, MapEntry, op};
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

    fn call(&mut self, e: &Expr, name: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        if name == op::OPT_SELECT {
            let owner = self.check(&args[0]);
            self.check(&args[1]);
            let Kind::Literal(Literal::String(field)) = &args[1].kind else { return Type::Error };
            return self.field(e.id, &owner, field, true);
        }
        let mixed = name == "format";
        self.mixed += usize::from(mixed);
        let arg_types: Vec<Type> = args.iter().map(|a| self.check(a)).collect();
        self.mixed -= usize::from(mixed);
        let Some(target) = target else {
            let plain = name.strip_prefix('.').unwrap_or(name);
            return match functions::find(plain) {
                Some(function) => self.resolve(e.id, function, None, arg_types),
                None => self.undeclared(e.id, plain),
            };
        };
        if let Some(prefix) = qualified(target)
            && let Some(function) = functions::find(&format!("{prefix}.{name}"))
        {
            return self.resolve(e.id, function, None, arg_types);
        }
        let target_type = self.check(target);
        match functions::find(name) {
            Some(function) => self.resolve(e.id, function, Some(target_type), arg_types),
            None => self.undeclared(e.id, name),
        }
    }

    fn resolve(
        &mut self,
        id: u32,
        function: &'static Declared,
        target: Option<Type>,
        args: Vec<Type>,
    ) -> Type {
        let member = target.is_some();
        let all: Vec<Type> = target.into_iter().chain(args).collect();
        let mut fitting = Vec::new();
        let mut result: Option<Type> = None;
        for (index, overload) in function.overloads.iter().enumerate() {
            if overload.member != member || overload.args.len() != all.len() {
                continue;
            }
            let base = self.unifier.fresh();
            if !self.unifier.all_assignable(&overload.args, base, &all) {
                continue;
            }
            fitting.push(index);
            let this = self.unifier.substituted(&Unifier::instance(&overload.result, base));
            result = Some(match result {
                None => this,
                Some(before) if before == this => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let shown: Vec<String> = all.iter().map(|t| self.shown(t)).collect();
            let applied = match (member, shown.split_first()) {
                (true, Some((target, rest))) => format!("{target}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = function.name;
            return self.issue(id, format!("found no matching overload for '{name}' applied to '{applied}'"));
        };
        self.meanings[id as usize] =
            Some(Meaning::Call { function, overloads: fitting, namespaced: !member });
        result
    }

    /// The one type of a literal's parts: each must fit what came before, or the other way round.
    fn join(&mut self, so_far: Option<Type>, next: Type, id: u32) -> Type {
        let Some(so_far) = so_far else { return next };
        if self.unifier.assignable(&so_far, &next) {
            return self.unifier.more_general(&so_far, &next);
        }
        if self.mixed > 0 {
            return Type::Dyn;
        }
        let (want, found) = (self.shown(&so_far), self.shown(&next));
        self.issue(id, format!("expected type '{want}' but found '{found}'"));
        so_far
    }

    /// The type within an optional, which an optional element or field must be.
    fn inner(&mut self, ty: Type, id: u32) -> Type {
        match self.unifier.resolved(&ty) {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Error => Type::Dyn,
            other => {
                let shown = self.shown(&other);
                self.issue(id, format!("expected type 'optional_type({shown})' but found '{shown}'"))
            }
        }
    }

    fn list(&mut self, elements: &[Expr], optional: &[usize]) -> Type {
        let mut joined = None;
        for (i, element) in elements.iter().enumerate() {
            let mut ty = self.check(element);
            if optional.contains(&i) {
                ty = self.inner(ty, element.id);
            }
            joined = Some(self.join(joined, ty, element.id));
        }
        let item = joined.unwrap_or_else(|| Type::Param(self.unifier.one()));
        self.bounded(Type::list(item))
    }

    /// Types that grow with each use of a bound name (`{x: x}`) end as `dyn` before they grow without end.
    fn bounded(&self, ty: Type) -> Type {
        fn parts(ty: &Type) -> usize {
            1 + ty.params().into_iter().map(parts).sum::<usize>()
        }
        if parts(&self.unifier.substituted(&ty)) > 500 { Type::Dyn } else { ty }
    }

    fn map(&mut self, entries: &[MapEntry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.check(&entry.key);
            keys = Some(self.join(keys, key, entry.key.id));
            let mut value = self.check(&entry.value);
            if entry.optional {
                value = self.inner(value, entry.value.id);
            }
            values = Some(self.join(values, value, entry.value.id));
        }
        match (keys, values) {
            (Some(key), Some(value)) => self.bounded(Type::map(key, value)),
            _ => {
                let key = Type::Param(self.unifier.one());
                Type::map(key, Type::Param(self.unifier.one()))
            }
        }
    }

    fn construct(&mut self, id: u32, name: &str, fields: &[FieldEntry]) -> Type {
        let plain = name.strip_prefix('.').unwrap_or(name);
        let Some(structure) = self.env.structure(plain) else {
            for field in fields {
                self.check(&field.value);
            }
            return match self.declared(id, plain) {
                Some(_) => self.issue(id, format!("'{plain}' is not a message type")),
                None => self.undeclared(id, plain),
            };
        };
        for field in fields {
            let mut given = self.check(&field.value);
            if field.optional {
                given = self.inner(given, field.value.id);
            }
            match structure.field_type(&field.name) {
                None => {
                    self.issue(field.id, format!("undefined field '{}'", field.name));
                }
                Some(want) if !self.unifier.assignable(&want, &given) => {
                    let (want, given) = (self.shown(&want), self.shown(&given));
                    let name = &field.name;
                    self.issue(
                        field.id,
                        format!("expected type of field '{name}' is '{want}' but provided type is '{given}'"),
                    );
                }
                Some(_) => {}
            }
        }
        Type::Struct(structure)
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
