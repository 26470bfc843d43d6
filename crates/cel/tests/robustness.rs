//! Nothing that a user can write or store makes the crate panic, hang or overflow the stack.

use std::time::{Duration, Instant};

use cel::{Activation, Budget, Env, Type, Value};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn env() -> Env {
    let item =
        Type::structure("item", [("a".to_owned(), Type::Int.into()), ("b".to_owned(), Type::String.into())]);
    Env::builder()
        .variable("self", Type::Dyn)
        .variable(
            "typed",
            Type::structure(
                "object",
                [
                    ("a".to_owned(), Type::Int.into()),
                    ("b".to_owned(), Type::String.into()),
                    ("c".to_owned(), Type::list(item).into()),
                    ("d".to_owned(), Type::map(Type::String, Type::Timestamp).into()),
                ],
            ),
        )
        .mutation()
        .build()
}

fn try_it(env: &Env, source: &str, json: &Json) {
    let Ok(program) = env.compile(source).map_err(|e| e.to_string()) else { return };
    let activation = Activation::new().json("self", json).json("typed", json);
    let value = program.evaluate(&activation, &mut Budget::unlimited());
    if let Ok(value) = value {
        let _ = (value.to_json(), value.check_object_paths(), format!("{value:?}"));
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "\\PC{0,8}".prop_map(Json::from),
        Just(json!("2024-01-02T03:04:05Z")),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map("[abcd]", inner, 0..4)
                .prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

/// Expressions that mostly parse and often check.
fn any_expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("self".to_owned()),
        Just("typed".to_owned()),
        Just("typed.b".to_owned()),
        Just("typed.c".to_owned()),
        Just("x".to_owned()),
        Just("null".to_owned()),
        any::<i64>().prop_map(|i| i.to_string()),
        any::<u64>().prop_map(|u| format!("{u}u")),
        any::<f32>().prop_map(|d| format!("{:?}", f64::from(d).abs())),
        "[a-zé%/.:0-9]{0,6}".prop_map(|s| format!("'{s}'")),
        Just("b'\\xff'".to_owned()),
        Just("timestamp(0)".to_owned()),
        Just("duration('1h')".to_owned()),
        Just("9223372036854775807".to_owned()),
        Just("quantity('1k')".to_owned()),
        Just("ip('::1')".to_owned()),
        Just("cidr('::/0')".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let binary = prop_oneof![
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("=="),
            Just("!="),
            Just("<"),
            Just(">="),
            Just("&&"),
            Just("||"),
            Just("in"),
        ];
        let unary = prop_oneof![
            Just("size"),
            Just("int"),
            Just("uint"),
            Just("double"),
            Just("string"),
            Just("bytes"),
            Just("type"),
            Just("dyn"),
            Just("timestamp"),
            Just("duration"),
            Just("bool"),
            Just("-"),
            Just("!"),
            Just("url"),
            Just("quantity"),
            Just("semver"),
            Just("cidr"),
            Just("isIP"),
            Just("optional.of"),
            Just("math.abs"),
            Just("strings.quote"),
            Just("math.greatest"),
            Just("optional.ofNonZeroValue"),
        ];
        let member = prop_oneof![
            Just("sum"),
            Just("min"),
            Just("isSorted"),
            Just("getHours"),
            Just("trim"),
            Just("reverse"),
            Just("lowerAscii"),
            Just("join"),
            Just("value"),
            Just("hasValue"),
            Just("getHost"),
            Just("asInteger"),
            Just("sign"),
            Just("masked"),
            Just("unwrapOpt"),
            Just("family"),
            Just("getFullYear"),
        ];
        let member1 = prop_oneof![
            Just("startsWith"),
            Just("split"),
            Just("substring"),
            Just("charAt"),
            Just("indexOf"),
            Just("matches"),
            Just("lastIndexOf"),
            Just("findAll"),
            Just("format"),
            Just("orValue"),
            Just("getDate"),
            Just("add"),
            Just("containsIP"),
            Just("join"),
            Just("find"),
            Just("or"),
        ];
        let fold = prop_oneof![
            Just("all"),
            Just("exists"),
            Just("exists_one"),
            Just("map"),
            Just("filter"),
            Just("optMap"),
        ];
        prop_oneof![
            (inner.clone(), binary, inner.clone()).prop_map(|(a, o, b)| format!("({a} {o} {b})")),
            (unary, inner.clone()).prop_map(|(f, a)| format!("{f}({a})")),
            (inner.clone(), member).prop_map(|(a, f)| format!("{a}.{f}()")),
            (inner.clone(), member1, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
            (inner.clone(), fold, inner.clone()).prop_map(|(a, f, b)| format!("{a}.{f}(x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}.transformMap(k, x, {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[?{b}]")),
            inner.clone().prop_map(|a| format!("{a}.a")),
            inner.clone().prop_map(|a| format!("{a}.?b")),
            inner.clone().prop_map(|a| format!("has({a}.c)")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            inner.clone().prop_map(|a| format!("Object{{x: {a}}}")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_panics(source in any_expression(), json in any_json()) {
        let env = env();
        try_it(&env, &source, &json);
        try_it(&env, &format!("[1, 2].map(x, {source})"), &json);
        // Without types, all of it is left to the evaluator.
        try_it(&env, &source.replace("typed", "self").replace('(', "(dyn)(").replace("(dyn)(", "("), &json);
    }

    #[test]
    fn equality_is_reflexive(a in any_json()) {
        let one = Value::json(&a, &Type::Dyn);
        let program = Env::builder().variable("a", Type::Dyn).build().compile("a == a").unwrap();
        let activation = Activation::new().value("a", one);
        prop_assert_eq!(program.evaluate(&activation, &mut Budget::unlimited()).unwrap().as_bool(), Some(true));
    }
}

#[test]
fn deep_expressions_fit_the_stack() {
    let env = env();
    let json = json!({});
    for (open, close) in [
        ("(", ")"),
        ("[", "]"),
        ("1 + (", ")"),
        ("[1].all(x, true && ", ")"),
        ("[1].map(x, ", ")"),
        ("{1: ", "}"),
        ("dyn(", ")"),
        ("!(", ")"),
        ("true ? (", ") : 1"),
        ("cel.bind(v, 1, ", ")"),
        ("optional.of(", ")"),
        ("optional.of(1).optMap(x, ", ")"),
        ("[1].exists(x, [x].exists(y, ", "))"),
        ("Object{a: ", "}"),
    ] {
        for depth in [10, 40, 60, 80, 120, 240, 5000] {
            try_it(&env, &format!("{}true{}", open.repeat(depth), close.repeat(depth)), &json);
        }
    }
    for link in
        [" + 1", ".a", "[0]", " == true", ".optMap(x, x)", ".map(x, x)", " ? 1 : 1", ".or(optional.of(1))"]
    {
        for length in [50, 120, 240, 5000] {
            try_it(&env, &format!("self{}", link.repeat(length)), &json);
        }
    }
}

#[test]
fn dear_expressions_end_soon() {
    let env = env();
    let json = json!({"l": vec!["aaaaaaaaaa"; 3000], "s": "a".repeat(1_000_000)});
    let doubling = |n: usize, first: &str, next: &str| {
        let mut source = String::new();
        for i in 0..n {
            let value = if i == 0 { first.to_owned() } else { next.replace('#', &format!("v{}", i - 1)) };
            source.push_str(&format!("cel.bind(v{i}, {value}, "));
        }
        format!("{source}size(v{}){}", n - 1, ")".repeat(n))
    };
    for source in [
        "self.l.all(a, self.l.all(b, self.l.all(c, a == b)))".to_owned(),
        "self.l.map(a, self.l).size() > 0 && self.l.map(a, self.l + self.l).size() > 0".to_owned(),
        "self.l.map(a, self.l + self.l).map(b, b + b).size() > 0".to_owned(),
        "self.s.matches('(a+)+$') && self.s.findAll('').size() > 0".to_owned(),
        "self.l.all(a, self.s.matches(a + 'a{900}b?'))".to_owned(),
        "self.l.transformMap(k, v, self.s + v).size() > 0".to_owned(),
        doubling(40, "self.l", "# + #"),
        doubling(40, "self.s", "# + #"),
        doubling(60, "[1]", "[#, #]"),
        doubling(60, "{'a': 1}", "{'a': #, 'b': #}"),
        doubling(60, "{1: 1}", "[#].map(x, x)"),
    ] {
        let started = Instant::now();
        let Ok(program) = env.compile(&source) else { continue };
        let activation = Activation::new().json("self", &json);
        let _ = program.evaluate(&activation, &mut Budget::unlimited());
        let limit = if cfg!(debug_assertions) { 20 } else { 2 };
        assert!(started.elapsed() < Duration::from_secs(limit), "{:?} for {source}", started.elapsed());
    }
}
