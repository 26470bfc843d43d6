//! Sends mutated requests through a whole API server of its own, for as long as one likes.
//!
//! `cargo run --release -p apiserver --example hammer -- --requests 10000000 --threads 2`

#![allow(missing_docs)]

mod engine;

use engine::Settings;

fn main() {
    let settings = match Settings::parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("{why}\n{}", Settings::USAGE);
            std::process::exit(2);
        }
    };
    let report = engine::run(&settings);
    println!("{report}");
    std::process::exit(i32::from(!report.failures.is_empty()));
}
