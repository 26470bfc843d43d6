//! Expressions that pick devices (kubernetes/kubernetes, `dynamic-resource-allocation/cel/compile.go`).

use std::sync::{Arc, LazyLock};

use types::Quantity;

use crate::cost::Budget;
use crate::env::Env;
use crate::error::{CompileErrors, EvalError, fail};
use crate::functions::semver::Semver;
use crate::program::{Activation, Program};
use crate::ty::{Decl, Type};
use crate::value::{Built, Key, Map, Opaque, Str, Struct, Value};

/// What an expression may cost, by estimate and in fact (upstream: `CELSelectorExpressionMaxCost`).
pub const SELECTOR_COST: u64 = 1_000_000;

/// The longest name of a driver or a domain, of an attribute, and of an attribute's value.
const LONGEST: [u64; 3] = [63, 32, 64];
/// So many attributes and capacities a device has at most.
const MOST: u64 = 32;

const NAME: &str = "kubernetes.DRADevice";

/// A device, as expressions see it.
#[derive(Clone, Debug, Default)]
pub struct Device<'a> {
    /// Its driver, which is the domain of what has none.
    pub driver: &'a str,
    /// Whether it can be allocated more than once.
    pub allow_multiple_allocations: bool,
    /// What is known of it, by names with or without a domain.
    pub attributes: Vec<(&'a str, Attribute<'a>)>,
    /// How much of something it has, likewise.
    pub capacity: Vec<(&'a str, Quantity)>,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute<'a> {
    /// Yes or no.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Text(&'a str),
    /// A semantic version.
    Version(&'a str),
    /// Nothing that is known here.
    Unknown,
}

/// An expression that picks devices. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeviceSelector(Program);

/// Why a text picks no devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorFault {
    /// It is no expression, or not of what a device has.
    #[error("compilation failed: {0}")]
    Compile(CompileErrors),
    /// Its value says neither yes nor no.
    #[error("must evaluate to bool or the unknown type, not {0}")]
    Type(String),
}

static ENV: LazyLock<Env> = LazyLock::new(|| {
    let text = |longest: u64| Decl::new(Type::String).max(longest);
    let of_domains = |value: Decl| {
        let by_name = Decl::new(Type::map(text(LONGEST[1]), value)).max(MOST);
        Decl::new(Type::map(text(LONGEST[0]), by_name)).max(MOST)
    };
    let fields = [
        ("driver", text(LONGEST[0])),
        ("allowMultipleAllocations", Type::Bool.into()),
        ("attributes", of_domains(Decl::new(Type::Dyn).max(LONGEST[2]))),
        ("capacity", of_domains(Type::Opaque("kubernetes.Quantity").into())),
    ];
    let device = Type::record(NAME, fields.map(|(name, decl)| (name.to_owned(), decl)));
    Env::builder().variable("device", device).cost_limit(SELECTOR_COST).build()
});

impl DeviceSelector {
    /// Compiles an expression over `device`.
    ///
    /// # Errors
    /// When it is none, or its value is no truth value.
    pub fn compile(expression: &str) -> Result<Self, SelectorFault> {
        let program = ENV.compile(expression).map_err(SelectorFault::Compile)?;
        match program.result_type() {
            Type::Bool => Ok(Self(program)),
            other if other.is_dyn() => Ok(Self(program)),
            other => Err(SelectorFault::Type(other.to_string())),
        }
    }

    /// What looking at one device can cost; more than [`SELECTOR_COST`] is too much.
    pub fn max_cost(&self) -> u64 {
        self.0.estimate().max
    }

    /// Whether a device is picked.
    ///
    /// # Errors
    /// When the expression has no value for it: an attribute is missing, or it costs too much.
    pub fn picks(&self, device: &Device<'_>) -> Result<bool, EvalError> {
        let value = value_of(device)?;
        let activation = Activation::new().value("device", value);
        let value = self.0.evaluate(&activation, &mut Budget::unlimited())?;
        value.as_bool().ok_or_else(|| {
            EvalError::failed(format!(
                "CEL result of type {} could not be converted to bool: type conversion error from '{}' to 'bool'",
                value.type_of().name(),
                value.type_of().name(),
            ))
        })
    }
}

fn value_of<'a>(device: &Device<'a>) -> Result<Value<'a>, EvalError> {
    let mut attributes = Domains::default();
    for (name, attribute) in &device.attributes {
        let value = match *attribute {
            Attribute::Bool(value) => Value::Bool(value),
            Attribute::Int(value) => Value::Int(value),
            Attribute::Text(text) => Value::str(text),
            Attribute::Version(text) => match Semver::parse(text) {
                Some(version) => Value::Opaque(Opaque::Semver(Arc::new(version))),
                None => return fail(format!("attribute {name}: parse semantic version: {text:?} is none")),
            },
            Attribute::Unknown => return fail(format!("attribute {name}: unsupported attribute value")),
        };
        attributes.put(device.driver, name, value);
    }
    let mut capacity = Domains::default();
    for (name, amount) in &device.capacity {
        capacity.put(device.driver, name, Value::Opaque(Opaque::Quantity(Arc::new(*amount))));
    }
    let fields = [
        ("driver", Value::str(device.driver)),
        ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations)),
        ("attributes", attributes.value()),
        ("capacity", capacity.value()),
    ];
    let fields = fields.into_iter().map(|(name, value)| (name.into(), value)).collect();
    Ok(Value::Struct(Struct::Built(Arc::new(Built { name: NAME.into(), fields }))))
}

/// Whether a text is a semantic version.
pub fn is_semver(text: &str) -> bool {
    Semver::parse(text).is_some()
}

type Entries<'a> = std::collections::BTreeMap<Key<'a>, Value<'a>>;

/// Values by domain and name.
#[derive(Default)]
struct Domains<'a>(std::collections::BTreeMap<&'a str, Entries<'a>>);

impl<'a> Domains<'a> {
    fn put(&mut self, driver: &'a str, name: &'a str, value: Value<'a>) {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        self.0.entry(domain).or_default().insert(Key::String(Str::Borrowed(name)), value);
    }

    /// A domain that nothing is known of is an empty one.
    fn value(self) -> Value<'a> {
        let domains = self.0.into_iter().map(|(domain, entries)| {
            (Key::String(Str::Borrowed(domain)), Value::Map(Map::Owned(Arc::new(entries))))
        });
        Value::Map(Map::Open(Arc::new(domains.collect())))
    }
}
