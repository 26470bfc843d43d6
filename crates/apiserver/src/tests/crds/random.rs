use std::cell::Cell;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        let keys = prop::sample::select(vec!["a", "b", "list", "open", "metadata", "kind", "zz"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys.prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Whatever is sent, the answer is a status or an object that can be read and written back unchanged.
#[test]
fn whatever_is_taken_stays_what_it_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(TestServer::with(definition(json!({"type": "object", "properties": {
        "a": {"type": "string", "default": "a", "pattern": "^[a-m]*$"},
        "b": {"type": "integer", "nullable": true},
        "list": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "open": {"x-kubernetes-preserve-unknown-fields": true},
    }}))));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(300));
    let (taken, count) = (Cell::new(0), Cell::new(0));
    runner
        .run(&values(), |spec| {
            count.set(count.get() + 1);
            let n = count.get();
            let object = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": format!("n{n}")}, "spec": spec});
            runtime.block_on(async {
                let (code, made) = server.post(THINGS, object).await;
                prop_assert!(code < 500, "{made}");
                if code == 201 {
                    taken.set(taken.get() + 1);
                    let path = format!("{THINGS}/n{n}");
                    let (_, got) = server.get(&path).await;
                    prop_assert_eq!(&got, &made);
                    let (code, same) = server.call(Method::PUT, &path, made.clone()).await;
                    prop_assert_eq!((code, same), (200, made));
                }
                Ok(())
            })
        })
        .unwrap();
    assert!(taken.get() > 10, "{taken:?}");
}
