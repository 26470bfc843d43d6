//! What the expressions of admission's policies and match conditions may refer to, and what their values must be
//! (kubernetes/kubernetes, `apiserver/pkg/admission/plugin/cel/compile.go`).

use std::sync::LazyLock;

use cel::{Decl, Env, Program, Type};
use serde_json::Value;

/// The type of `variables`.
const VARIABLES: &str = "kubernetes.variables";

/// Which variables there are beside those that are there always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpressionScope {
    /// `params`.
    pub params: bool,
    /// `authorizer` and `authorizer.requestResource`.
    pub authorizer: bool,
    /// The types that mutations are made of.
    pub mutation: bool,
}

/// What the value of an expression must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A condition.
    Bool,
    /// A message.
    Text,
    /// An annotation's value.
    TextOrNull,
    /// Part of an object to apply.
    Object,
    /// A list of JSON patch operations.
    Patch,
    /// Whatever.
    Anything,
}

fn fields(of: &[(&str, Decl)]) -> Vec<(String, Decl)> {
    of.iter().map(|(name, decl)| ((*name).to_owned(), decl.clone())).collect()
}

fn text() -> Decl {
    Type::String.into()
}

fn request_type() -> Type {
    let texts =
        |name: &str, parts: &[&str]| Type::record(name, parts.iter().map(|p| ((*p).to_owned(), text())));
    let kind = || Decl::new(texts("kubernetes.GroupVersionKind", &["group", "version", "kind"]));
    let resource = || Decl::new(texts("kubernetes.GroupVersionResource", &["group", "version", "resource"]));
    let user = Type::record(
        "kubernetes.UserInfo",
        fields(&[
            ("username", text()),
            ("uid", text()),
            ("groups", Type::list(Type::String).into()),
            ("extra", Type::map(Type::String, Type::list(Type::String)).into()),
        ]),
    );
    Type::record(
        "kubernetes.AdmissionRequest",
        fields(&[
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user.into()),
            ("dryRun", Type::Bool.into()),
            ("options", Type::Dyn.into()),
        ]),
    )
}

fn namespace_type() -> Type {
    let texts = || Decl::new(Type::map(Type::String, Type::String));
    let metadata = Type::record(
        "kubernetes.NamespaceMetadata",
        fields(&[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", text()),
            ("creationTimestamp", Type::Timestamp.into()),
            ("deletionGracePeriodSeconds", Type::Int.into()),
            ("deletionTimestamp", Type::Timestamp.into()),
            ("generation", Type::Int.into()),
            ("resourceVersion", text()),
            ("finalizers", Type::list(Type::String).into()),
        ]),
    );
    let spec =
        Type::record("kubernetes.NamespaceSpec", fields(&[("finalizers", Type::list(Type::String).into())]));
    let status = Type::record("kubernetes.NamespaceStatus", fields(&[("phase", text())]));
    Type::record(
        "kubernetes.Namespace",
        fields(&[("metadata", metadata.into()), ("spec", spec.into()), ("status", status.into())]),
    )
}

impl ExpressionScope {
    /// The environment.
    pub fn env(self) -> Env {
        static ENVS: LazyLock<Vec<(ExpressionScope, Env)>> = LazyLock::new(|| {
            let flags = || [false, true].into_iter();
            let scopes = flags().flat_map(|params| {
                flags().flat_map(move |authorizer| {
                    flags().map(move |mutation| ExpressionScope { params, authorizer, mutation })
                })
            });
            scopes.map(|scope| (scope, scope.make())).collect()
        });
        ENVS.iter().find(|(scope, _)| *scope == self).map_or_else(|| self.make(), |(_, env)| env.clone())
    }

    fn make(self) -> Env {
        self.over(Type::Dyn.into(), Type::Dyn.into())
    }

    /// The environment with known types of `object` and `params`, for type checks.
    pub fn over(self, object: Decl, params: Decl) -> Env {
        let mut env = Env::builder()
            .variable("object", object.clone())
            .variable("oldObject", object)
            .variable("request", request_type())
            .variable("namespaceObject", namespace_type());
        if self.params {
            env = env.variable("params", params);
        }
        if self.authorizer {
            env = env.variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer")).variable(
                "authorizer.requestResource",
                Type::Opaque("kubernetes.authorization.ResourceCheck"),
            );
        }
        if self.mutation {
            env = env.mutation();
        }
        env.build()
    }
}

/// Compiles an expression whose value must be of a kind. The fault is in upstream's words.
pub fn compile_expression(env: &Env, source: &str, wanted: Wanted) -> Result<Program, String> {
    let program = env.compile(source).map_err(|e| format!("compilation failed: {e}"))?;
    let result = program.result_type();
    let patch = |t: &Type| matches!(t, Type::List(l) if matches!(&l.items.ty, Type::Struct(s) if s.name() == "JSONPatch"));
    let fits = match wanted {
        Wanted::Anything => true,
        Wanted::Bool => matches!(result, Type::Bool),
        Wanted::Text => matches!(result, Type::String),
        Wanted::TextOrNull => matches!(result, Type::String | Type::Null),
        Wanted::Object => matches!(result, Type::Struct(s) if s.name() == "Object"),
        Wanted::Patch => patch(result),
    };
    if fits {
        return Ok(program);
    }
    Err(match wanted {
        Wanted::TextOrNull => "must evaluate to one of [string null_type]".to_owned(),
        Wanted::Bool => "must evaluate to bool".to_owned(),
        Wanted::Object => "must evaluate to Object".to_owned(),
        Wanted::Patch => "must evaluate to list(JSONPatch)".to_owned(),
        Wanted::Text | Wanted::Anything => "must evaluate to string".to_owned(),
    })
}

/// A policy's `variables`, readied in order, and the environment in which all of them are known. A variable that does
/// not compile is known all the same, as anything.
pub struct Variables {
    /// By name.
    pub programs: Vec<(String, Result<Program, String>)>,
    /// What the policy's other expressions are compiled in.
    pub env: Env,
}

impl Variables {
    /// Reads the list.
    pub fn compile(variables: &Value, env: &Env) -> Self {
        let mut types: Vec<(String, Decl)> = Vec::new();
        let mut programs = Vec::new();
        let mut now = env.extend(VARIABLES_NAME, Type::structure(VARIABLES, types.clone()));
        for variable in variables.as_array().into_iter().flatten() {
            let text = |field: &str| variable[field].as_str().unwrap_or_default();
            let program = compile_expression(&now, text("expression"), Wanted::Anything);
            let ty = program.as_ref().map_or(Type::Dyn, |p| p.result_type().clone());
            types.retain(|(name, _)| name != text("name"));
            types.push((text("name").to_owned(), ty.into()));
            programs.push((text("name").to_owned(), program));
            now = env.extend(VARIABLES_NAME, Type::structure(VARIABLES, types.clone()));
        }
        Self { programs, env: now }
    }
}

const VARIABLES_NAME: &str = "variables";
