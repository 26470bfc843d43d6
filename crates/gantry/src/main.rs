//! `gantry`: the command line and the wiring of everything else.

mod cli;
mod config;
mod kubeconfig;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gantry: {error}");
            ExitCode::FAILURE
        }
    }
}
