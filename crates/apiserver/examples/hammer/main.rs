//! Sends mutated requests through a whole API server of its own, for as long as one likes.
//!
//! `cargo run --release -p apiserver --example hammer -- --requests 10000000 --threads 2`

#![allow(missing_docs)]

mod engine;

use engine::Settings;

/// As in the server, so that its growth is what is measured.
#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

const USAGE: &str =
    "usage: hammer [--requests N] [--threads N] [--seed N] [--show] [--trace FILE] [--folder DIR]";

fn parse(mut words: impl Iterator<Item = String>) -> Result<Settings, String> {
    let mut settings = Settings::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text:?}: {e}"));
        match word.as_str() {
            "--requests" => settings.requests = number(value()?)?,
            "--threads" => settings.threads = number(value()?)?.clamp(1, 64) as usize,
            "--seed" => settings.seed = number(value()?)?,
            "--show" => settings.show = true,
            "--trace" => settings.trace = Some(value()?.into()),
            "--folder" => settings.folder = Some(value()?.into()),
            _ => return Err(format!("{word:?} is unknown")),
        }
    }
    Ok(settings)
}

fn main() {
    sys::allocate_with_mimalloc();
    let settings = match parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let report = engine::run(&settings);
    println!("{report}");
    std::process::exit(i32::from(!report.failures.is_empty()));
}
