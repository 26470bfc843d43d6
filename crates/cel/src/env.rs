use std::collections::HashMap;
use std::sync::Arc;

use crate::check::check;
use crate::cost::{PER_CALL_LIMIT, estimate};
use crate::error::CompileErrors;
use crate::plan::plan;
use crate::program::{Program, ProgramInner};
use crate::syntax::parse;
use crate::ty::{Decl, StructType, Type};

/// What expressions may refer to: variables with their types, and object types to construct. All functions of
/// Kubernetes' libraries are there always. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<EnvInner>);

#[derive(Default)]
pub(crate) struct EnvInner {
    pub(crate) variables: Vec<(String, Decl)>,
    structures: HashMap<String, Arc<StructType>>,
    /// `Object` and `Object.…` are types with any fields.
    mutation: bool,
    cost_limit: Option<u64>,
}

impl EnvInner {
    /// An object type by its name.
    pub(crate) fn structure(&self, name: &str) -> Option<Arc<StructType>> {
        let open = || name == "Object" || name.starts_with("Object.");
        self.structures
            .get(name)
            .cloned()
            .or_else(|| (self.mutation && open()).then(|| Arc::new(StructType::open(name))))
    }
}

/// Collects declarations.
#[derive(Default)]
pub struct EnvBuilder(EnvInner);

impl EnvBuilder {
    /// Declares a variable. The name may have dots (`authorizer.requestResource`).
    pub fn variable(mut self, name: impl Into<String>, decl: impl Into<Decl>) -> Self {
        let name = name.into();
        self.0.variables.retain(|(n, _)| *n != name);
        self.0.variables.push((name, decl.into()));
        self
    }

    /// Lets expressions construct objects of this type.
    pub fn structure(mut self, ty: StructType) -> Self {
        self.0.structures.insert(ty.name().to_owned(), Arc::new(ty));
        self
    }

    /// Lets expressions construct `JSONPatch{…}`, `Object{…}` and `Object.spec{…}`, as mutating admission policies
    /// do (apiserver, `pkg/cel/mutation`).
    pub fn mutation(mut self) -> Self {
        self.0.mutation = true;
        let text = || Decl::new(Type::String);
        self.structure(StructType::new(
            "JSONPatch",
            [
                ("op".to_owned(), text()),
                ("path".to_owned(), text()),
                ("from".to_owned(), text()),
                ("value".to_owned(), Decl::new(Type::Dyn)),
            ],
        ))
    }

    /// What one evaluation may cost, instead of [`PER_CALL_LIMIT`].
    pub fn cost_limit(mut self, limit: u64) -> Self {
        self.0.cost_limit = Some(limit);
        self
    }

    /// The environment.
    pub fn build(self) -> Env {
        Env(Arc::new(self.0))
    }
}

impl Env {
    /// An environment without variables.
    pub fn builder() -> EnvBuilder {
        EnvBuilder::default()
    }

    /// The same with one more variable, or another type for one.
    pub fn extend(&self, name: impl Into<String>, decl: impl Into<Decl>) -> Self {
        let inner = EnvInner {
            variables: self.0.variables.clone(),
            structures: self.0.structures.clone(),
            mutation: self.0.mutation,
            cost_limit: self.0.cost_limit,
        };
        EnvBuilder(inner).variable(name, decl).build()
    }

    /// Parses, checks and compiles an expression.
    pub fn compile(&self, source: &str) -> Result<Program, CompileErrors> {
        let ast = parse(source)?;
        let checked = check(&ast, &self.0).map_err(|issues| CompileErrors::new(source, issues))?;
        let result = checked.types[ast.root.id as usize].clone();
        let cost = estimate(&ast, &checked, &self.0);
        let planned = plan(&ast, &checked, &self.0).map_err(|issues| CompileErrors::new(source, issues))?;
        Ok(Program(Arc::new(ProgramInner {
            source: source.into(),
            result,
            cost,
            root: planned.root,
            variables: planned.variables,
            limit: self.0.cost_limit.unwrap_or(PER_CALL_LIMIT),
        })))
    }
}
