//! Google's Common Expression Language as Kubernetes uses it: parsing, type checks, evaluation over JSON by
//! reference, Kubernetes' function libraries, and limits on cost before and while running.
//!
//! ```
//! use cel::{Activation, Budget, Decl, Env, RUNTIME_COST_BUDGET, Type};
//!
//! // Declared once, from a schema: types, and how much of each there can be.
//! let item = Type::structure("item", [("name".to_owned(), Decl::new(Type::String).max(63))]);
//! let object = Type::structure(
//!     "object",
//!     [
//!         ("replicas".to_owned(), Decl::new(Type::Int)),
//!         ("items".to_owned(), Decl::new(Type::list(item)).max(100)),
//!     ],
//! );
//! let env = Env::builder().variable("self", object).build();
//!
//! // Compiled once: faults are told as cel-go tells them.
//! let rule = env.compile("self.replicas <= 5 && self.items.all(i, i.name.matches('^[a-z]+$'))").unwrap();
//! assert_eq!(*rule.result_type(), Type::Bool);
//! assert!(rule.estimate().max < cel::ESTIMATED_RULE_LIMIT);
//! let fault = env.compile("self.replicas + 'x'").unwrap_err().to_string();
//! assert!(fault.contains("found no matching overload for '_+_' applied to '(int, string)'"));
//!
//! // Evaluated often, over borrowed JSON, on a budget that several rules share.
//! let json = serde_json::json!({"replicas": 3, "items": [{"name": "a"}]});
//! let mut budget = Budget::new(RUNTIME_COST_BUDGET);
//! let value = rule.evaluate(&Activation::new().json("self", &json), &mut budget).unwrap();
//! assert_eq!(value.as_bool(), Some(true));
//! ```
//!
//! The way of an expression: `syntax` (text → tree, macros expanded) → `check` (types of every node) → `cost`
//! (estimate) → `plan` (slots, function pointers, constants) → `eval`. `functions` has a file for each library.

mod check;
mod cost;
mod device;
mod env;
mod error;
mod eval;
mod functions;
mod plan;
mod program;
mod schema;
mod syntax;
mod ty;
mod value;

pub use cost::{
    Budget, CostEstimate, ESTIMATED_RULE_LIMIT, ESTIMATED_SCHEMA_LIMIT, MATCH_CONDITIONS_BUDGET,
    PER_CALL_LIMIT, RUNTIME_COST_BUDGET, over_limit,
};
pub use device::{Attribute, Device, DeviceSelector, SELECTOR_COST, SelectorFault, is_semver};
pub use env::{Env, EnvBuilder};
pub use error::{CompileErrors, EvalError, Issue};
pub use functions::authz::{
    Asker, Authorizer, Authz, AuthzDecision, AuthzRequest, AuthzResource, AuthzTarget,
};
pub use functions::format::NamedFormat;
pub use functions::network::Cidr;
pub use functions::semver::Semver;
pub use functions::urls::Url;
pub use program::{Activation, Program};
pub use schema::{most_values, schema_decl};
pub use ty::{Decl, Field, ListKind, ListType, MapType, StructType, Type, escape};
pub use value::{Built, Duration, Key, List, Map, Opaque, Str, Struct, Timestamp, Value};
