//! A shim alone: for tests and for measuring.

fn main() {
    runtime::shim_main(std::env::args_os().skip(1).collect())
}
