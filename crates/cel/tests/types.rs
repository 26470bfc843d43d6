//! Type checks and their messages, data seen through its declared type, and costs.

use std::sync::Mutex;

use cel::{
    Activation, Authorizer, AuthzDecision, AuthzRequest, AuthzTarget, Budget, Decl, Env, EvalError, ListKind,
    Program, StructType, Type, Value,
};
use serde_json::json;

fn object() -> Type {
    let text = || Decl::new(Type::String).max(20);
    let item = Type::structure("item", [("name".to_owned(), text()), ("port".to_owned(), Type::Int.into())]);
    Type::structure(
        "object",
        [
            ("name".to_owned(), text()),
            ("replicas".to_owned(), Type::Int.into()),
            ("ratio".to_owned(), Type::Double.into()),
            ("when".to_owned(), Type::Timestamp.into()),
            ("day".to_owned(), Type::Timestamp.into()),
            ("span".to_owned(), Type::Duration.into()),
            ("data".to_owned(), Type::Bytes.into()),
            ("any".to_owned(), Type::Dyn.into()),
            ("some-name".to_owned(), text()),
            ("namespace".to_owned(), text()),
            ("labels".to_owned(), Decl::new(Type::map(text(), text())).max(10)),
            ("items".to_owned(), Decl::new(Type::list_of(item, ListKind::Map(vec!["name".into()]))).max(10)),
            ("set".to_owned(), Decl::new(Type::list_of(text(), ListKind::Set)).max(10)),
            ("huge".to_owned(), Type::list(Type::String).into()),
        ],
    )
}

fn env() -> Env {
    Env::builder()
        .variable("self", object())
        .variable("oldSelf", object())
        .variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
        .variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"))
        .build()
}

fn data() -> serde_json::Value {
    json!({
        "name": "abc", "replicas": 3, "ratio": 2, "when": "2024-01-02T03:04:05Z", "day": "2024-01-02",
        "span": "1h30m", "data": "aGk=", "any": {"x": [1, "y", 1.5, null]}, "some-name": "s", "namespace": "ns",
        "labels": {"a": "1"}, "items": [{"name": "a", "port": 1}, {"name": "b", "port": 2}], "set": ["x", "y"],
        "huge": [],
    })
}

#[test]
fn compile_errors() {
    for (source, want) in [
        ("nope", "ERROR: <input>:1:1: undeclared reference to 'nope' (in container '')\n | nope\n | ^"),
        ("self.nope", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^"),
        (
            "nope(1)",
            "ERROR: <input>:1:5: undeclared reference to 'nope' (in container '')\n | nope(1)\n | ....^",
        ),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        (
            "self.replicas.startsWith('a')",
            "ERROR: <input>:1:25: found no matching overload for 'startsWith' applied to 'int.(string)'\n | self.replicas.startsWith('a')\n | ........................^",
        ),
        (
            "self.replicas.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | self.replicas.all(x, true)\n | ....^",
        ),
        (
            "self.replicas == 'a'",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'\n | self.replicas == 'a'\n | ..............^",
        ),
        (
            "self.replicas.x",
            "ERROR: <input>:1:14: type 'int' does not support field selection\n | self.replicas.x\n | .............^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        (
            "self.items.all(i, i.nme == '') && self.nope",
            "ERROR: <input>:1:20: undefined field 'nme'\n | self.items.all(i, i.nme == '') && self.nope\n | ...................^\nERROR: <input>:1:39: undefined field 'nope'\n | self.items.all(i, i.nme == '') && self.nope\n | ......................................^",
        ),
        (
            "Foo{a: 1}",
            "ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{a: 1}\n | ...^",
        ),
    ] {
        match env().compile(source) {
            Ok(p) => panic!("{source}: no fault, {}", p.result_type()),
            Err(e) => assert_eq!(e.to_string(), want, "{source}"),
        }
    }
}

#[test]
fn result_types() {
    for (source, want) in [
        ("self.name", "string"),
        ("self.items", "list(item)"),
        ("self.items.map(i, i.port)", "list(int)"),
        ("self.labels", "map(string, string)"),
        ("self.labels['a']", "string"),
        ("self.labels[?'a']", "optional_type(string)"),
        ("self.?name.orValue('x')", "string"),
        ("self.?name", "optional_type(string)"),
        ("self.any.x", "dyn"),
        ("self.when - self.when", "duration"),
        ("true ? 1 : 2", "int"),
        ("[]", "list(dyn)"),
        ("{'a': [1]}", "map(string, list(int))"),
        ("type(1)", "type(int)"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("optional.of(1).optMap(x, string(x))", "optional_type(string)"),
        ("{'a': 1}.transformMap(k, v, string(v))", "map(string, string)"),
        ("authorizer.group('').resource('pods').check('get').allowed()", "bool"),
        ("has(self.name) && self.items.exists(i, i.port > 1)", "bool"),
        ("math.greatest(1, 2)", "int"),
    ] {
        let program = env().compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_eq!(program.result_type().to_string(), want, "{source}");
    }
}

fn holds(source: &str) -> Result<bool, String> {
    let (data, old) =
        (data(), json!({"items": [{"name": "b", "port": 2}, {"name": "a", "port": 1}], "set": ["y", "x"]}));
    let program = env().compile(source).map_err(|e| e.to_string())?;
    let activation = Activation::new().json("self", &data).json("oldSelf", &old);
    let value = program.evaluate(&activation, &mut Budget::new(1_000_000)).map_err(|e| e.to_string())?;
    value.as_bool().ok_or_else(|| format!("{value:?}"))
}

#[test]
fn json_has_its_declared_type() {
    for source in [
        "self.replicas == 3 && type(self.replicas) == int && self.ratio == 2.0 && type(self.ratio) == double",
        "self.when.getFullYear() == 2024 && self.day < self.when && self.span == duration('90m') && self.data == b'hi'",
        "self.any.x[0] == 1 && self.any.x[1] == 'y' && self.any.x[2] == 1.5 && self.any.x[3] == null",
        "self.some__dash__name == 's' && self.__namespace__ == 'ns' && self.labels.a == '1' && 'a' in self.labels",
        "self.items == oldSelf.items && self.set == oldSelf.set && self.items.size() == 2",
        "(self.set + ['x', 'z']).size() == 3 && (self.items + oldSelf.items).size() == 2",
        "!has(oldSelf.name) && oldSelf.?name == optional.none() && self.items[1].port == 2",
        "self == self && self != oldSelf",
        "self.labels.all(k, k == 'a') && self.labels.all(k, v, v == '1')",
        "sets.equivalent(self.items.map(i, i.name), ['b', 'a'])",
    ] {
        assert_eq!(holds(source), Ok(true), "{source}");
    }
    assert_eq!(holds("oldSelf.name == ''"), Err("no such key: name".to_owned()));
}

#[test]
fn schemas_that_contain_themselves() {
    fn node() -> Type {
        Type::Struct(std::sync::Arc::new(StructType::lazy("node", || {
            [("value".to_owned(), Decl::new(Type::Int)), ("next".to_owned(), Decl::new(node()))]
        })))
    }
    let env = Env::builder().variable("self", node()).build();
    let program = env.compile("self.next.next.value").unwrap();
    let json = json!({"next": {"next": {"value": 7}}});
    let activation = Activation::new().json("self", &json);
    let value = program.evaluate(&activation, &mut Budget::unlimited()).unwrap();
    assert_eq!(value.as_int(), Some(7));
}

#[derive(Default)]
struct Asked(Mutex<Vec<AuthzRequest>>);

impl Authorizer for Asked {
    fn authorize(&self, request: &AuthzRequest) -> AuthzDecision {
        self.0.lock().unwrap().push(request.clone());
        AuthzDecision { allowed: request.verb == "get", reason: "because".into(), error: None }
    }
}

#[test]
fn authorization() {
    let asked = Asked::default();
    let rule = env()
        .compile(
            "authorizer.serviceAccount('ns', 'sa').group('apps').resource('deployments').subresource('status')
               .namespace('d').name('n').fieldSelector('a=b').check('get').allowed()
             && authorizer.path('/healthz').check('get').reason() == 'because'",
        )
        .unwrap();
    let activation = Activation::new().value("authorizer", Value::authorizer(&asked));
    let value = rule.evaluate(&activation, &mut Budget::new(10_000_000)).unwrap();
    assert_eq!(value.as_bool(), Some(true));
    let asked = asked.0.lock().unwrap();
    assert_eq!(asked[0].service_account, Some(("ns".into(), "sa".into())));
    let AuthzTarget::Resource(resource) = &asked[0].target else { panic!("no resource") };
    assert_eq!((resource.group.as_str(), resource.field_selector.as_str()), ("apps", "a=b"));
    assert_eq!(asked[1].target, AuthzTarget::Path("/healthz".into()));
}

#[test]
fn third_check_is_too_dear() {
    let asked = Asked::default();
    let check = "authorizer.path('/a').check('get').allowed()";
    let rule = env().compile(&[check; 3].join(" && ")).unwrap();
    let activation = Activation::new().value("authorizer", Value::authorizer(&asked));
    assert_eq!(rule.evaluate(&activation, &mut Budget::unlimited()).unwrap_err(), EvalError::CostLimit);
}

#[test]
fn named_expressions() {
    let base = env();
    let first = base.compile("self.items.map(i, i.port)").unwrap();
    let fields = |names: &[(&str, &Program)]| {
        let fields = names.iter().map(|(n, p)| ((*n).to_owned(), Decl::new(p.result_type().clone())));
        Type::structure("kubernetes.variables", fields.collect::<Vec<_>>())
    };
    let with_first = base.extend("variables", fields(&[("ports", &first)]));
    let second = with_first.compile("variables.ports.sum()").unwrap();
    let with_both = base.extend("variables", fields(&[("ports", &first), ("total", &second)]));
    let rule = with_both.compile("variables.total == 3 && variables.ports.size() == 2").unwrap();
    let programs = [("ports".to_owned(), first), ("total".to_owned(), second)];
    let data = data();
    let activation = Activation::new().json("self", &data).compose("variables", &programs);
    let (value, cost) = rule.evaluate_with_cost(&activation);
    assert_eq!(value.unwrap().as_bool(), Some(true));
    // Asked again, the named expressions cost nothing more.
    let (_, again) = rule.evaluate_with_cost(&activation);
    assert!(cost > again, "{cost} {again}");
}

#[test]
fn runtime_costs() {
    let data = data();
    for (source, want) in [
        ("true", 0),
        ("self.replicas", 2),
        ("self.replicas == 3", 3),
        ("self.labels.a", 3),
        ("self.items[0].name", 4),
        ("[1, 2].all(x, x > 0)", 2 * (2 + 1 + 2) + 1),
        ("[1, 2].exists(x, x > 1)", 2 * (3 + 1 + 2) + 1),
        ("[1, 2].map(x, x)", 2 * (1 + 10 + 1 + 1) + 1),
        ("self.name.matches('a.c')", 2 + 1),
        ("self.name + 'x'", 3),
        ("has(self.name)", 1),
        ("[self.replicas]", 12),
        ("{'a': self.replicas}", 32),
        ("self.replicas in [1, 2, 3]", 2),
        ("self.replicas in self.items.map(i, i.port)", 2 + 2 + 2 * 14 + 1 + 2),
    ] {
        let program = env().compile(source).unwrap();
        let (value, cost) = program.evaluate_with_cost(&Activation::new().json("self", &data));
        assert!(value.is_ok(), "{source}: {value:?}");
        assert_eq!(cost, want, "{source}");
    }
}

#[test]
fn budgets() {
    let data = data();
    let program = env().compile("self.replicas == 3").unwrap();
    let activation = Activation::new().json("self", &data);
    let mut budget = Budget::new(7);
    assert!(program.evaluate(&activation, &mut budget).is_ok());
    assert!(program.evaluate(&activation, &mut budget).is_ok());
    assert_eq!(budget.left(), Some(1));
    let fault = program.evaluate(&activation, &mut budget).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "validation failed due to running out of cost budget, no further validation rules will be run"
    );
    let huge = json!({"huge": vec!["a"; 2000]});
    let dear = env().compile("self.huge.all(x, self.huge.all(y, x == y))").unwrap();
    let fault = dear.evaluate(&Activation::new().json("self", &huge), &mut Budget::unlimited()).unwrap_err();
    assert_eq!(fault.to_string(), "operation cancelled: actual cost limit exceeded");
    let absorbing = env().compile("self.huge.all(x, self.huge.all(y, x == y)) || true").unwrap();
    assert!(absorbing.evaluate(&Activation::new().json("self", &huge), &mut Budget::unlimited()).is_err());
}

#[test]
fn estimates() {
    for (source, min, max) in [
        ("self.replicas == 3", 3, 3),
        ("self.name == 'abcdefghijklmnopqrstuvwxyz'", 3, 4),
        ("self.items.all(i, i.port > 0)", 3, 3 + 10 * 6),
        ("self.name.startsWith('a')", 3, 3),
        ("true || self.replicas == 3", 0, 3),
        ("self.name.matches('^[a-z]+$')", 3 + 1, 2 + 3 * 2),
        ("[1, 2, 3].map(x, x)", 10 + 10 + 3 * 13 + 1, 10 + 10 + 3 * 13 + 1),
        ("has(self.name)", 1, 1),
    ] {
        let cost = env().compile(source).unwrap().estimate();
        assert_eq!((cost.min, cost.max), (min, max), "{source}");
    }
    let bad = env().compile("self.huge.all(x, self.huge.all(y, x == y))").unwrap().estimate();
    assert_eq!(
        cel::over_limit("estimated rule cost", bad.max, cel::ESTIMATED_RULE_LIMIT).unwrap(),
        "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    );
    let over = |cost| cel::over_limit("estimated rule cost", cost, 100).map(|m| m[..60].to_owned());
    assert_eq!(over(100), None);
    assert!(over(250).unwrap().contains("factor of 2.5x"));
    assert!(over(120).unwrap().contains("factor of 1.200000x"));
}

#[test]
fn programs_are_shared() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Program>();
    check::<Env>();
}
