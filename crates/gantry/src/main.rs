//! `gantry`: the command line and the wiring of everything else.

mod access;
mod admin;
mod backup;
mod check;
mod cli;
mod components;
mod config;
mod daemon;
mod datastore;
mod demo;
mod down;
mod images;
mod in_process;
mod kubeconfig;
mod node;
mod server;
mod status;
mod up;
mod usage;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

fn main() -> ExitCode {
    // A pod's shim must stay small: it begins before anything else does.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|a| a == "shim") {
        runtime::shim_main(arguments.collect());
    }
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gantry: {error}");
            ExitCode::FAILURE
        }
    }
}
