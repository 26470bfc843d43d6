use proptest::prelude::*;

use super::ast::{Expr, Kind, Literal};
use super::parse;

fn show(e: &Expr) -> String {
    let all = |v: &[Expr]| v.iter().map(show).collect::<Vec<_>>().join(", ");
    match &e.kind {
        Kind::Literal(Literal::String(s)) => format!("{s:?}"),
        Kind::Literal(Literal::Int(i)) => i.to_string(),
        Kind::Literal(l) => format!("{l:?}"),
        Kind::Ident(n) => n.to_string(),
        Kind::Select { operand, field, test } => {
            format!("{}.{field}{}", show(operand), if *test { "~test~" } else { "" })
        }
        Kind::Call { function, target: None, args } => format!("{function}({})", all(args)),
        Kind::Call { function, target: Some(t), args } => format!("{}.{function}({})", show(t), all(args)),
        Kind::List(v, _) => format!("[{}]", all(v)),
        Kind::Map(v) => format!(
            "{{{}}}",
            v.iter().map(|e| format!("{}:{}", show(&e.key), show(&e.value))).collect::<Vec<_>>().join(", ")
        ),
        Kind::Struct(n, f) => format!(
            "{n}{{{}}}",
            f.iter().map(|f| format!("{}:{}", f.name, show(&f.value))).collect::<Vec<_>>().join(", ")
        ),
        Kind::Comprehension(c) => format!(
            "fold({}, {}, {}, {}, {}, {}, {})",
            c.var,
            show(&c.range),
            c.accu,
            show(&c.init),
            show(&c.condition),
            show(&c.step),
            show(&c.result)
        ),
    }
}

#[test]
fn trees() {
    for (text, want) in [
        ("a", "a"),
        ("a + b * c - d", "_-_(_+_(a, _*_(b, c)), d)"),
        ("a ? b : c ? d : e", "_?_:_(a, b, _?_:_(c, d, e))"),
        ("a || b && !c", "_||_(a, _&&_(b, !_(c)))"),
        ("a && b && c && d", "_&&_(_&&_(a, b), _&&_(c, d))"),
        ("!!a", "a"),
        ("---a", "-_(a)"),
        ("-1", "-1"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("a - 1", "_-_(a, 1)"),
        ("a -1", "_-_(a, 1)"),
        ("x in [1, 2,]", "@in(x, [1, 2])"),
        ("a.b[0].c('x')", "_[_](a.b, 0).c(\"x\")"),
        ("a.?b[?'c']", "_[?_](_?._(a, \"b\"), \"c\")"),
        ("{'a': 1, 2: x}", "{\"a\":1, 2:x}"),
        ("Object{spec: Object.spec{replicas: 1}}", "Object{spec:Object.spec{replicas:1}}"),
        (".a.b", ".a.b"),
        ("has(a.b)", "a.b~test~"),
        ("a.`b-c/d`", "a.b-c/d"),
        ("0x1F", "31"),
        (r#""\u00e9\x41\101\n""#, "\"éAA\\n\""),
        (r#"r"\n""#, "\"\\\\n\""),
        ("'''a\n'b'''", "\"a\\n'b\""),
        ("// comment\n1 // more", "1"),
        (
            "l.all(x, x > 1)",
            "fold(x, l, @result, Bool(true), @not_strictly_false(@result), _&&_(@result, _>_(x, 1)), @result)",
        ),
        ("l.map(x, x + 1)", "fold(x, l, @result, [], Bool(true), _+_(@result, [_+_(x, 1)]), @result)"),
        ("cel.bind(v, 1, v)", "fold(#unused, [], v, 1, Bool(false), v, v)"),
    ] {
        let ast = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(show(&ast.root), want, "{text}");
    }
}

#[test]
fn faults() {
    const OPERAND: &str = super::parser::OPERAND;
    for (text, want) in [
        (
            "",
            format!(
                "ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | \n | ^"
            ),
        ),
        (
            "a +",
            format!(
                "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | a +\n | ...^"
            ),
        ),
        (
            "1 + $",
            format!(
                "ERROR: <input>:1:5: Syntax error: token recognition error at: '$'\n | 1 + $\n | ....^\nERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | 1 + $\n | .....^"
            ),
        ),
        (
            "a b",
            "ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>\n | a b\n | ..^".into(),
        ),
        ("(a", "ERROR: <input>:1:3: Syntax error: missing ')' at '<EOF>'\n | (a\n | ..^".into()),
        ("x\n + for", "ERROR: <input>:2:4: reserved identifier: for\n |  + for\n | ...^".into()),
        ("has(a)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(a)\n | ....^".into()),
        (
            "[1].all(1, true)",
            "ERROR: <input>:1:9: argument must be a simple name\n | [1].all(1, true)\n | ........^".into(),
        ),
        (
            "99999999999999999999",
            "ERROR: <input>:1:1: invalid int literal\n | 99999999999999999999\n | ^".into(),
        ),
        (
            "'é' + é",
            format!(
                "ERROR: <input>:1:7: Syntax error: token recognition error at: 'é'\n | 'é' + é\n | .．....＾\nERROR: <input>:1:8: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | 'é' + é\n | .．....．^"
            ),
        ),
    ] {
        match parse(text) {
            Ok(_) => panic!("{text}: no fault"),
            Err(e) => assert_eq!(e.to_string(), want, "{text}"),
        }
    }
}

#[test]
fn depth_bombs() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("-a - (", ")"), ("{1: ", "}"), ("f(", ")"), ("[1].all(x, ", ")")]
    {
        let text = format!("{}1{}", open.repeat(20_000 / open.len()), close.repeat(20_000 / open.len()));
        let fault = parse(&text).unwrap_err();
        assert!(fault.issues()[0].message.contains("recursion limit exceeded"), "{open}");
    }
    for link in ["+1", ".a", "[0]", ".f()", "== 1", "? 1 : 1"] {
        let text = format!("a{}", link.repeat(10_000));
        assert!(parse(&text).is_err(), "{link}");
    }
    assert!(parse(&format!("a{}", " && a".repeat(10_000))).is_ok());
    assert!(parse(&format!("{}a", "!".repeat(50_001))).is_ok());
    assert!(parse(&"a".repeat(100_001)).is_err());
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,60}") {
        let _ = parse(&text).map_err(|e| e.to_string());
    }

    #[test]
    fn never_panics_on_pieces(
        pieces in proptest::collection::vec(prop_oneof![
            Just("a"), Just("1"), Just("'s'"), Just("b'\\xff'"), Just("("), Just(")"), Just("["), Just("]"), Just("{"),
            Just("}"), Just("."), Just(".?"), Just("?"), Just(":"), Just(","), Just("-"), Just("!"), Just("+"),
            Just("&&"), Just("||"), Just(" in "), Just(".all(x, "), Just(".map(x, "), Just("has("), Just("cel.bind(v,"),
            Just("0x"), Just("1e"), Just("'"), Just("\"\"\""), Just("\\"), Just("`"), Just("r'"), Just("é"), Just("\n"),
        ], 0..30),
    ) {
        let _ = parse(&pieces.concat()).map_err(|e| e.to_string());
    }
}
