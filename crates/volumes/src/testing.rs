//! What tests of several modules wait for.

use std::path::Path;
use std::time::{Duration, Instant};

/// Waits until no loop device shows the file `image` any more. What is unmounted lives on for as long as anybody has a
/// file of it open, and a process that another test starts has all that are open here until it runs its program.
pub(crate) fn let_go(image: &Path) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while sys::find_loop(image).unwrap().is_some() {
        assert!(Instant::now() < deadline, "{} still belongs to somebody", image.display());
        std::thread::yield_now();
    }
}
