//! How many evaluations a second one thread does.

use std::time::Instant;

use cel::{Activation, Budget, Decl, Env, RUNTIME_COST_BUDGET, Type};

const SOURCE: &str = "self.replicas <= self.maxReplicas && self.items.all(i, i.name.matches('^[a-z]+$'))";

fn main() {
    let item = Type::structure("item", [("name".to_owned(), Decl::new(Type::String).max(63))]);
    let object = Type::structure(
        "object",
        [
            ("replicas".to_owned(), Decl::new(Type::Int)),
            ("maxReplicas".to_owned(), Decl::new(Type::Int)),
            ("items".to_owned(), Decl::new(Type::list(item)).max(100)),
        ],
    );
    let env = Env::builder().variable("self", object).build();
    let started = Instant::now();
    let compiles = 1000;
    for _ in 0..compiles {
        env.compile(SOURCE).expect("the expression is right");
    }
    println!("{:.0} compilations/s", f64::from(compiles) / started.elapsed().as_secs_f64());
    let program = env.compile(SOURCE).expect("the expression is right");
    let names: Vec<_> =
        ["alpha", "beta", "gamma", "delta", "epsilon"].map(|n| serde_json::json!({"name": n})).into();
    let json = serde_json::json!({"replicas": 3, "maxReplicas": 5, "items": names});
    let started = Instant::now();
    let evaluations = 200_000;
    for _ in 0..evaluations {
        let activation = Activation::new().json("self", &json);
        let value = program.evaluate(&activation, &mut Budget::new(RUNTIME_COST_BUDGET));
        assert_eq!(value.ok().and_then(|v| v.as_bool()), Some(true));
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{:.0} evaluations/s over {} items", f64::from(evaluations) / seconds, names.len());
}
