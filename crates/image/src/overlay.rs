use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Stacks `upper` over `lower` (the top first) and gives the root of the result.
///
/// The mount hangs nowhere: no other process sees it, and it is gone with the descriptor, even after a crash.
pub(crate) fn mount(lower: &[impl AsRef<Path>], upper: &Path, work: &Path) -> io::Result<OwnedFd> {
    // What a layer cannot carry must not end up in it.
    let options = [("redirect_dir", "off"), ("index", "off"), ("metacopy", "off")];
    let mounted = sys::overlay(lower, upper, work, &options);
    mounted.map(OwnedFd::from).map_err(io::Error::other)
}
