//! `gantry`: the command line and the wiring of everything else.

mod access;
mod admin;
mod agent;
mod backup;
mod check;
mod cli;
mod components;
mod config;
mod controllers;
mod cri;
mod daemon;
mod datastore;
mod demo;
mod down;
mod heap;
mod images;
mod in_process;
mod kubeconfig;
mod kubelet;
mod managers;
mod manifests;
mod node;
mod node_object;
mod reservations;
mod scheduling;
mod server;
mod shutdown;
mod status;
mod systemd;
mod up;
mod usage;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: sys::Allocator = sys::Allocator;

fn main() -> ExitCode {
    // Both before anything else: a pod's shim must stay small, and memory stays with whom it was taken from.
    let mut arguments = std::env::args_os().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "shim" {
        runtime::shim_main(arguments.collect());
    }
    if first == "server" || first == "agent" || first == "cri" {
        sys::allocate_with_mimalloc();
    }
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gantry: {error}");
            ExitCode::FAILURE
        }
    }
}
