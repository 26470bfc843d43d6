//! Cases of the published conformance suites as facts: google/cel-spec (`tests/simple/testdata`), google/cel-go
//! (`ext`), and upstream Kubernetes' library tests (apiserver, `pkg/cel/library`).

use cel::{Activation, Budget, Env, Type, Value};

fn env() -> Env {
    Env::builder().variable("x", Type::Dyn).mutation().build()
}

fn text(value: &Value<'_>) -> String {
    value.to_json().map_or_else(|_| format!("{value:?}"), |json| json.to_string())
}

fn run(source: &str) -> Result<String, String> {
    let program = env().compile(source).map_err(|e| e.to_string())?;
    let value = program.evaluate(&Activation::new(), &mut Budget::unlimited());
    value.map(|v| text(&v)).map_err(|e| e.to_string())
}

#[track_caller]
fn all_true(cases: &[&str]) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|case| (case, run(case)))
        .filter(|(_, got)| got.as_deref() != Ok("true"))
        .map(|(case, got)| format!("{case}\n    → {got:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[track_caller]
fn fails(cases: &[(&str, &str)]) {
    let wrong: Vec<_> = cases
        .iter()
        .map(|(case, want)| (case, want, run(case)))
        .filter(|(_, want, got)| !matches!(got, Err(e) if e.contains(*want)))
        .map(|(case, want, got)| format!("{case}\n    wanted {want}\n    → {got:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn basics() {
    all_true(&[
        "0 == 0 && 0u == 0u && -1 == -1 && 0x55 == 85 && -0xff == -255 && 0x7Fu == 127u",
        "2.3e+3 == 2300.0 && .5 == 0.5 && 1e2 == 100.0",
        r#"'\x41' == 'A' && "\u0041" == 'A' && '\U0001F431' == '🐱' && r'\n'.size() == 2"#,
        r"b'\303\277' == b'ÿ' && b'\377'.size() == 1 && b'ÿ'.size() == 2",
        "'''a\nb''' == 'a\\nb'",
        "'' != 'a' && !false && null == null",
        "[1, 2] == [1, 2] && {'a': 1} == {'a': 1} && [1] != [2]",
        "type(1) == int && type(1u) == uint && type(1.0) == double && type('') == string && type(b'') == bytes",
        "type(null) == null_type && type([]) == list && type({}) == map && type(type(1)) == type && type(true) == bool",
        "type(timestamp(0)) == google.protobuf.Timestamp && type(duration('1s')) == google.protobuf.Duration",
        "true ? true : 1 / 0 == 0",
        "(false ? 1 : 2) == 2",
        "1 + 2 * 3 - 4 / 2 % 3 == 5",
        "-(1) == -1 && --1 == 1 && !!true",
        "'a' in ['a', 'b'] && !('c' in ['a', 'b']) && 'k' in {'k': 1}",
        "[1, 2, 3][1] == 2 && {'a': {'b': 2}}.a.b == 2 && {'a': 1}['a'] == 1",
        "{dyn(1): 'a', dyn(2u): 'b', dyn(true): 'c'}[2] == 'b'",
        "dyn({1: 'a'})[1.0] == 'a' && {1: 2}[dyn(1u)] == 2",
        "cel.bind(v, 'a' + 'b', v + v) == 'abab'",
        "cel.bind(a, 1, cel.bind(b, a + 1, a + b)) == 3",
    ]);
}

#[test]
fn numbers() {
    all_true(&[
        "dyn(1) == dyn(1u) && dyn(1) == dyn(1.0) && dyn(1u) == dyn(1.0) && dyn(1) != dyn('1')",
        "1 < 2u && 1u < 2.5 && 2.5 > 1 && 1 <= 1.0 && -1 < 0u && !(dyn(-1) == 18446744073709551615u)",
        "dyn(9223372036854775807) < 9223372036854775808u && 9223372036854775807 < 9223372036854775809.0e1",
        "7 / 2 == 3 && -7 / 2 == -3 && -7 % 3 == -1 && 7u / 2u == 3u && 1.0 / 0.0 > 1.0e308",
        "int(1.9) == 1 && int(-1.9) == -1 && uint(3.9) == 3u && double(1) == 1.0 && int('42') == 42",
        "string(123.456) == '123.456' && string(-4.5e-3) == '-0.0045' && string(1e21) == '1e+21' && string(5u) == '5'",
        "bool('true') && !bool('0') && string(true) == 'true' && string(b'abc') == 'abc' && bytes('ÿ') == b'ÿ'",
        "int(timestamp('2009-02-13T23:31:30Z')) == 1234567890",
        "!(0.0 / 0.0 == 0.0 / 0.0) && 0.0 / 0.0 != 0.0 / 0.0",
    ]);
    fails(&[
        ("9223372036854775807 + 1", "integer overflow"),
        ("-9223372036854775808 - 1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("5000000000 * 5000000000", "integer overflow"),
        ("-(-9223372036854775808)", "integer overflow"),
        ("-9223372036854775808 / -1", "integer overflow"),
        ("1 / 0", "division by zero"),
        ("1u / 0u", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("int(1e99)", "integer overflow"),
        ("uint(-1)", "unsigned integer overflow"),
        ("int('x')", "strconv.ParseInt: parsing \"x\": invalid syntax"),
        ("string(b'\\xff')", "invalid UTF-8"),
        ("[1][1]", "index out of bounds: 1"),
        ("[1][-1]", "index out of bounds: -1"),
        ("{'a': 1}.b", "no such key: b"),
        ("{'a': 1}['b']", "no such key: b"),
        ("{1: 2}[3]", "no such key: 3"),
        ("dyn(1) + dyn('a')", "no such overload"),
        ("dyn('a') && true", "no such overload"),
        ("dyn(1) ? 1 : 2", "no such overload"),
        ("{'a': 1, 'a': 2}", "Failed with repeated key"),
        ("x", "no such attribute(s): x"),
    ]);
}

#[test]
fn errors_are_absorbed() {
    all_true(&[
        "true || 1 / 0 > 1",
        "1 / 0 > 1 || true",
        "!(false && 1 / 0 > 1) && !(1 / 0 > 1 && false)",
        "[1, 0, 2].exists(i, 4 / i == 2)",
        "![0, 1].all(i, 4 / i > 100)",
        "[0, 2].exists(i, 4 / i == 2)",
    ]);
    fails(&[
        ("1 / 0 > 1 || false", "division by zero"),
        ("1 / 0 > 1 && true", "division by zero"),
        ("[0, 1].all(i, 4 / i > 1)", "division by zero"),
        ("[0, 1].exists(i, 4 / i > 100)", "division by zero"),
        ("[0, 2].exists_one(i, 4 / i == 2)", "division by zero"),
        ("[0].map(i, 4 / i)", "division by zero"),
    ]);
}

#[test]
fn macros() {
    all_true(&[
        "[1, 2].all(e, e > 0) && [].all(e, e > 0) && ![1, 2].all(e, e > 1)",
        "[1, 2].exists(e, e > 1) && ![].exists(e, e > 1)",
        "[1, 2].exists_one(e, e > 1) && ![2, 2].exists_one(e, e > 1) && [1, 2].existsOne(e, e > 1)",
        "[1, 2, 3].map(e, e * 2) == [2, 4, 6] && [1, 2, 3].map(e, e > 1, e * 2) == [4, 6]",
        "[1, 2, 3].filter(e, e > 1) == [2, 3] && {'a': 1, 'b': 2}.filter(k, k == 'b') == ['b']",
        "{'a': 1}.all(k, k == 'a') && {'a': 1}.map(k, k + '!') == ['a!']",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "[1, 2].all(i, v, v == i + 1) && {'a': 1}.all(k, v, k == 'a' && v == 1)",
        "[1, 2].exists(i, v, v == 2 && i == 1) && {'a': 1, 'b': 2}.existsOne(k, v, v == 2)",
        "[1, 2].transformList(i, v, i * v) == [0, 2] && [1, 2].transformList(i, v, i > 0, v) == [2]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1, 'b': 2}.transformMap(k, v, k == 'a', v) == {'a': 1}",
        "{'a': 'x', 'b': 'y'}.transformMapEntry(k, v, {v: k}) == {'x': 'a', 'y': 'b'}",
        "[[1], [2, 3]].all(l, l.exists(i, i > 0))",
        "[1, 2].map(x, [3].map(x, x)) == [[3], [3]]",
    ]);
    fails(&[("{'a': 'x', 'b': 'x'}.transformMapEntry(k, v, {v: k})", "already exists")]);
}

#[test]
fn optionals() {
    all_true(&[
        "optional.of(1).hasValue() && !optional.none().hasValue() && optional.of(1).value() == 1",
        "!optional.ofNonZeroValue(0).hasValue() && optional.ofNonZeroValue('a').value() == 'a'",
        "optional.none().orValue(2) == 2 && optional.of(1).orValue(1 / 0) == 1",
        "optional.none().or(optional.of(3)).value() == 3",
        "{'a': 1}.?a == optional.of(1) && {'a': 1}.?b == optional.none()",
        "{'a': {'b': 2}}.?a.b.orValue(0) == 2 && {'a': {'b': 2}}.?x.b.orValue(0) == 0",
        "{'a': 1}[?'a'].orValue(0) == 1 && [1][?5].orValue(7) == 7",
        "optional.of([1, 2])[0].value() == 1",
        "[?optional.of(1), ?optional.none()] == [1] && {?'a': optional.none(), 'b': 1} == {'b': 1}",
        "optional.of(2).optMap(v, v * 2).value() == 4 && !optional.none().optMap(v, v).hasValue()",
        "optional.of(2).optFlatMap(v, optional.of(v + 1)).value() == 3",
        "has({'a': {'b': 1}}.?a.b) && !has({'a': {}}.?a.b)",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(1)].unwrapOpt() == [1]",
    ]);
    fails(&[("optional.none().value()", "optional.none() dereference")]);
}

#[test]
fn times() {
    all_true(&[
        "timestamp('2009-02-13T23:31:30Z').getFullYear() == 2009 && timestamp('2009-02-13T23:31:30Z').getMonth() == 1",
        "timestamp('2009-02-13T23:31:30Z').getDate() == 13 && timestamp('2009-02-13T23:31:30Z').getDayOfMonth() == 12",
        "timestamp('2009-02-13T23:31:30Z').getDayOfWeek() == 5 && timestamp('2009-02-13T23:31:30Z').getDayOfYear() == 43",
        "timestamp('2009-02-13T23:31:30Z').getHours() == 23 && timestamp('2009-02-13T23:31:30Z').getMinutes() == 31",
        "timestamp('2009-02-13T23:31:20.123456789Z').getMilliseconds() == 123",
        "timestamp('2009-02-13T23:31:30Z').getDate('Australia/Sydney') == 14",
        "timestamp('2009-02-13T23:31:30Z').getHours('02:00') == 1 && timestamp('2009-02-13T23:31:30Z').getMinutes('-00:30') == 1",
        "timestamp('2009-02-13T02:00:00Z').getDayOfMonth('-02:30') == 11",
        "timestamp('2009-02-13T23:00:00Z') + duration('240s') == timestamp('2009-02-13T23:04:00Z')",
        "timestamp('2009-02-13T23:31:00Z') - timestamp('2009-02-13T23:29:00Z') == duration('2m')",
        "timestamp('2009-02-13T23:10:00Z') - duration('600s') == timestamp('2009-02-13T23:00:00Z')",
        "duration('10000s').getHours() == 2 && duration('3730s').getMinutes() == 62 && duration('1.5s').getMilliseconds() == 1500",
        "string(timestamp('2009-02-13T23:31:30Z')) == '2009-02-13T23:31:30Z' && string(duration('1h')) == '3600s'",
        "timestamp('2009-02-13T23:00:00Z') < timestamp('2009-02-13T23:00:01Z') && duration('1s') <= duration('1000ms')",
        "int(duration('1s')) == 1000000000",
    ]);
    fails(&[
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
        ("timestamp(x)", "no such attribute"),
        ("timestamp('nope')", "invalid timestamp argument"),
        ("duration('nope')", "invalid duration argument"),
        ("timestamp(0).getHours('Nowhere/Here')", "unknown time zone Nowhere/Here"),
    ]);
}

#[test]
fn text_functions() {
    all_true(&[
        "'tacocat'.charAt(3) == 'o' && 'tacocat'.charAt(7) == '' && '©αT'.charAt(1) == 'α'",
        "'tacocat'.indexOf('') == 0 && 'tacocat'.indexOf('ac') == 1 && 'tacocat'.indexOf('none') == -1",
        "'tacocat'.indexOf('', 3) == 3 && 'tacocat'.indexOf('a', 3) == 5 && '©tαcocat'.indexOf('α') == 2",
        "'tacocat'.lastIndexOf('') == 7 && 'tacocat'.lastIndexOf('at') == 5 && 'tacocat'.lastIndexOf('a', 4) == 1",
        "'ta©o©αT'.lastIndexOf('©') == 4",
        "'TacoCat'.lowerAscii() == 'tacocat' && 'tacoCαt'.upperAscii() == 'TACOCαT'",
        "'12 days 12 hours'.replace('{0}', '2') == '12 days 12 hours' && '{0} days {0} hours'.replace('{0}', '2') == '2 days 2 hours'",
        "'{0} days {0} hours'.replace('{0}', '2', 1) == '2 days {0} hours' && '1 ©αT taco'.replace('αT', 'o©α') == '1 ©o©α taco'",
        "'hello'.replace('', '_') == '_h_e_l_l_o_'",
        "'hello world'.split(' ') == ['hello', 'world'] && 'hello world events!'.split(' ', 0) == []",
        "'hello world events!'.split(' ', 1) == ['hello world events!'] && 'o©o©o©o'.split('©', -1) == ['o', 'o', 'o', 'o']",
        "'abc'.split('') == ['a', 'b', 'c'] && ''.split('') == [] && ''.split(',') == ['']",
        "'tacocat'.substring(4) == 'cat' && 'tacocat'.substring(0, 4) == 'taco' && 'ta©o©αT'.substring(2, 6) == '©o©α'",
        "' \\f\\n\\r\\t\\vtext  '.trim() == 'text' && ['x', 'y'].join('-') == 'x-y' && ['x', 'y'].join() == 'xy'",
        "'gums'.reverse() == 'smug' && strings.quote('a \"b\"\\n') == '\"a \\\\\"b\\\\\"\\\\n\"'",
        "size('πέντε') == 5 && 'ab'.contains('b') && 'ab'.startsWith('a') && 'ab'.endsWith('b')",
        "'hubba'.matches('h.*b') && 'abc'.find('b.') == 'bc' && 'abc'.find('x') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456'] && '123 abc 456'.findAll('[0-9]+', 1) == ['123']",
    ]);
    fails(&[
        ("'tacocat'.charAt(30)", "index out of range: 30"),
        ("'tacocat'.indexOf('a', -1)", "index out of range: -1"),
        ("'tacocat'.substring(40)", "index out of range: 40"),
        ("'tacocat'.substring(5, 3)", "invalid substring range. start: 5, end: 3"),
        ("'a'.matches('(')", "invalid matches argument"),
    ]);
}

#[test]
fn formatting() {
    all_true(&[
        "'no substitution'.format([]) == 'no substitution' && '%s%%'.format(['a']) == 'a%'",
        "'%d %b %o %x %X'.format([42, 5, 8, 255, 'hello']) == '42 101 10 ff 68656C6C6F'",
        "'%s'.format([[1, 2.5, 'a', null, true]]) == '[1, 2.5, a, null, true]'",
        "'%s'.format([{'b': 2, 'a': {1: 'x'}}]) == '{a: {1: x}, b: 2}'",
        "'%.2f %.6e'.format([1.239, 1052.032911275]) == '1.24 1.052033e+03'",
        "'%f %d'.format([2.71828, -3]) == '2.718280 -3' && '%b'.format([true]) == '1'",
        "'%s %s %s'.format([type(1), duration('1h'), timestamp(0)]) == 'int 3600s 1970-01-01T00:00:00Z'",
    ]);
    fails(&[
        ("'%d'.format(['a'])", "decimal clause can only be used on integers, was given string"),
        ("'%s'.format([])", "index 0 out of range"),
        ("'%q'.format([1])", "unrecognized formatting clause \"q\""),
        ("'%.999999999f'.format([1.0])", "precision"),
    ]);
}

#[test]
fn lists_and_sets() {
    all_true(&[
        "[1, 2].isSorted() && !['b', 'a'].isSorted() && [].isSorted()",
        "[1, 2, 3].sum() == 6 && [1.5, 2.5].sum() == 4.0 && [duration('1s'), duration('1m')].sum() == duration('61s')",
        "[3, 1].min() == 1 && ['a', 'c'].max() == 'c' && [1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && [1].indexOf(5) == -1",
        "sets.contains([1, 2], [1]) && !sets.contains([1], [1, 2]) && sets.contains([], [])",
        "sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1, 2], [2, 3]) && !sets.intersects([1], [2])",
        "[1] + [2, 3] == [1, 2, 3]",
    ]);
    fails(&[("[].min()", "min called on empty list"), ("[].max()", "max called on empty list")]);
}

#[test]
fn maths() {
    all_true(&[
        "math.greatest(1, 2, 3) == 3 && math.least(5, -1) == -1 && math.greatest([1, 7]) == 7 && math.greatest(1, 2.5) == 2.5",
        "math.ceil(1.2) == 2.0 && math.floor(1.8) == 1.0 && math.round(-1.5) == -2.0 && math.trunc(-1.9) == -1.0",
        "math.abs(-5) == 5 && math.sign(-2.0) == -1.0 && math.sign(0u) == 0u && math.sqrt(16) == 4.0",
        "math.isNaN(0.0 / 0.0) && math.isInf(1.0 / 0.0) && math.isFinite(1.0)",
        "math.bitAnd(6, 3) == 2 && math.bitOr(6, 3) == 7 && math.bitXor(6, 3) == 5 && math.bitNot(1) == -2",
        "math.bitShiftLeft(1, 4) == 16 && math.bitShiftRight(-1, 60) == 15 && math.bitShiftLeft(1, 64) == 0",
    ]);
    fails(&[
        ("math.greatest()", "math.greatest() requires at least one argument"),
        ("math.least('a')", "math.least() invalid single argument value"),
        ("math.bitShiftLeft(1, -1)", "math.bitShiftLeft() negative offset: -1"),
    ]);
}

#[test]
fn kubernetes_libraries() {
    all_true(&[
        "url('https://user@example.com:80/path%20x?k=1&k=2&q=a+b#f').getHost() == 'example.com:80'",
        "url('https://example.com:80/a b').getEscapedPath() == '/a%20b' && url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://[::1]:80/').getPort() == '80' && url('/path').getScheme() == '' && url('/path').getHost() == ''",
        "url('https://e.com/?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
        "isURL('https://a') && !isURL('../relative-path') && !isURL('https://a:b:c/')",
        "quantity('12Mi').isGreaterThan(quantity('9Mi')) && quantity('1.5').compareTo(quantity('1500m')) == 0",
        "quantity('50k').add(20) == quantity('50020') && quantity('50k').sub(quantity('1k')) == quantity('49k')",
        "quantity('50k').asInteger() == 50000 && quantity('50.703k').asApproximateFloat() == 50703.0 && quantity('-1').sign() == -1",
        "isQuantity('1Gi') && !isQuantity('200K') && quantity('1k').isInteger() && !quantity('100m').isInteger()",
        "ip('192.168.0.1').family() == 4 && ip('::1').family() == 6 && isIP('2001:db8::1') && !isIP('::ffff:1.2.3.4') && !isIP('1.2.3')",
        "ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified() && ip('224.0.0.1').isLinkLocalMulticast() && ip('fe80::1').isLinkLocalUnicast()",
        "ip('192.168.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast() && string(ip('::1')) == '::1'",
        "ip.isCanonical('2001:db8::abcd') && !ip.isCanonical('2001:DB8::ABCD')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.9') && cidr('192.168.0.0/24').containsCIDR('192.168.0.0/25')",
        "!cidr('192.168.0.0/24').containsCIDR(cidr('192.168.0.0/23')) && cidr('192.168.0.7/24').masked() == cidr('192.168.0.0/24')",
        "cidr('192.168.0.7/24').prefixLength() == 24 && cidr('192.168.0.7/24').ip() == ip('192.168.0.7') && isCIDR('::/0') && !isCIDR('1.2.3.4')",
        "semver('1.2.3').major() == 1 && semver('1.2.3-alpha').isLessThan(semver('1.2.3')) && isSemver('1.2.3') && !isSemver('v1.0')",
        "semver('v1.02', true) == semver('1.2.0') && isSemver('v1.0', true) && semver('1.0.0-alpha.2').compareTo(semver('1.0.0-alpha.10')) == -1",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My').hasValue()",
        "format.named('labelValue').value().validate('a b').value().size() == 1 && !format.named('x').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.date().validate('2021-13-01').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-').hasValue() && !format.byte().validate('aGVsbG8=').hasValue()",
        "jsonpatch.escapeKey('k8s.io/my~label') == 'k8s.io~1my~0label'",
        "JSONPatch{op: 'add', path: '/a', value: [1]}.op == 'add'",
    ]);
    fails(&[
        ("url('x')", "URL parse error during conversion from string: parse \"x\": invalid URI for request"),
        ("quantity('x')", "quantities must match the regular expression"),
        ("quantity('1.5').asInteger()", "cannot convert value to integer"),
        ("ip('x')", "parse error during conversion from string"),
        ("semver('v1')", "invalid semantic version"),
    ]);
}

#[test]
fn objects_for_mutation() {
    let env = Env::builder().mutation().build();
    let program = env
        .compile("Object{spec: Object.spec{replicas: 3, ?paused: optional.none(), containers: [Object.spec.containers{name: 'a'}]}}")
        .unwrap();
    let value = program.evaluate(&Activation::new(), &mut Budget::unlimited()).unwrap();
    value.check_object_paths().unwrap();
    assert_eq!(
        value.to_json().unwrap(),
        serde_json::json!({"spec": {"replicas": 3, "containers": [{"name": "a"}]}})
    );
    let wrong = env.compile("Object{spec: Object.wrong{a: 1}}").unwrap();
    let value = wrong.evaluate(&Activation::new(), &mut Budget::unlimited()).unwrap();
    assert_eq!(
        value.check_object_paths().unwrap_err().to_string(),
        "unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name path from root Object type"
    );
}
