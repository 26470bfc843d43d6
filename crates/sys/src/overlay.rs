//! Layers stacked over each other, under kernels old and new.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, fchdir};

use crate::error::{Attempt, Error, Result};
use crate::mount::{FsBuilder, MountAttr, MountTree};
use crate::process::thread_count;

/// A detached mount of `upper` over `layers`, the top one first; `work` is the kernel's own and on the same file system
/// as `upper`. `options` are overlayfs' further ones.
///
/// Kernels since 6.8 take the layers one by one. Older ones take them in a single string of at most 255 bytes, and say
/// so only at the end.
///
/// # Errors
/// When a directory is missing or the kernel refuses; an old one does so with more than about 60 layers.
pub fn overlay(
    layers: &[impl AsRef<Path>],
    upper: &Path,
    work: &Path,
    options: &[(&str, &str)],
) -> Result<MountTree> {
    let rest = |builder: FsBuilder| -> Result<MountTree> {
        let builder = builder.option("upperdir", upper)?.option("workdir", work)?;
        let builder = options.iter().try_fold(builder, |builder, (key, value)| builder.option(key, value))?;
        builder.mount(MountAttr::default())
    };
    let one_by_one = || {
        let layers = layers.iter().map(AsRef::as_ref);
        rest(layers.fold(FsBuilder::new("overlay"), |builder, layer| builder?.option("lowerdir+", layer))?)
    };
    match one_by_one_or_not(one_by_one) {
        Err(error) if error.errno() == Some(libc::EINVAL) => in_one_string(layers, rest),
        other => other,
    }
}

/// A detached mount of `layers`, the top one first, that cannot be written. `empty` is a directory without anything in
/// it: overlayfs wants two layers at least.
///
/// # Errors
/// As [`overlay`].
pub fn overlay_to_read(layers: &[impl AsRef<Path>], empty: &Path) -> Result<MountTree> {
    let all: Vec<&Path> = layers.iter().map(AsRef::as_ref).chain([empty]).collect();
    let attr = MountAttr { readonly: true, ..MountAttr::default() };
    let one_by_one = || {
        let layers = all.iter();
        layers
            .fold(FsBuilder::new("overlay"), |builder, layer| builder?.option("lowerdir+", layer))?
            .mount(attr)
    };
    match one_by_one_or_not(one_by_one) {
        Err(error) if error.errno() == Some(libc::EINVAL) => {
            in_one_string(&all, |builder| builder.mount(attr))
        }
        other => other,
    }
}

/// Does not even try under a kernel that is too old for it: each try would be a line in the kernel's log.
fn one_by_one_or_not(mount: impl FnOnce() -> Result<MountTree>) -> Result<MountTree> {
    let release = nix::sys::utsname::uname().attempt("ask for", || "the kernel's release".into())?;
    if takes_layers_one_by_one(&release.release().to_string_lossy()) {
        return mount();
    }
    Err(nix::Error::EINVAL).attempt("mount", || "layers one by one".into())
}

fn takes_layers_one_by_one(release: &str) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 8)
}

/// Names the layers by their numbers in the folder of this process's descriptors, as short as can be.
fn in_one_string(
    layers: &[impl AsRef<Path>],
    rest: impl Fn(FsBuilder) -> Result<MountTree> + Sync,
) -> Result<MountTree> {
    let open = |path: &Path| {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        file.attempt("open", || path.display().to_string())
    };
    let opened: Vec<File> = layers.iter().map(|layer| open(layer.as_ref())).collect::<Result<_>>()?;
    let names: Vec<String> = opened.iter().map(|file| file.as_raw_fd().to_string()).collect();
    let here = || {
        chdir("/proc/self/fd").attempt("enter", || "/proc/self/fd".into())?;
        rest(FsBuilder::new("overlay")?.option("lowerdir", names.join(":"))?)
    };
    if thread_count()? == 1 {
        let before = open(Path::new("."))?;
        let mounted = here();
        fchdir(before).attempt("return to", || "the working directory".into())?;
        return mounted;
    }
    // Other threads must not find themselves in another folder.
    let apart = || {
        unshare(CloneFlags::CLONE_FS).attempt("leave", || "the working directory of other threads".into())?;
        here()
    };
    std::thread::scope(|scope| scope.spawn(apart).join())
        .unwrap_or_else(|_| Err(Error::Invalid { what: "overlay", text: "a thread that panicked".into() }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{Mode, OFlags, openat};

    use super::*;

    /// Like [`overlay`], as an old kernel makes us do it.
    fn old(layers: &[std::path::PathBuf], upper: &Path, work: &Path) -> Result<MountTree> {
        in_one_string(layers, |builder| {
            builder.option("upperdir", upper)?.option("workdir", work)?.mount(MountAttr::default())
        })
    }

    #[test]
    fn many_layers_fit_into_one_string() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let name = "a-rather-long-name-such-as-a-digest-would-be-with-its-sixty-four-characters";
        let layers: Vec<_> = (0..40).map(|n| dir.path().join(format!("{name}-{n}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            fs::create_dir(layer).unwrap();
            fs::write(layer.join("same"), n.to_string()).unwrap();
            fs::write(layer.join(n.to_string()), "").unwrap();
        }
        let before = std::env::current_dir().unwrap();
        for way in [old, |layers: &[std::path::PathBuf], upper: &Path, work: &Path| {
            overlay(layers, upper, work, &[])
        }] {
            let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
            for made in [&upper, &work] {
                fs::create_dir_all(made).unwrap();
            }
            let mounted = way(&layers, &upper, &work).unwrap();
            let read = |name: &str| {
                let file = openat(&mounted, name, OFlags::RDONLY, Mode::empty()).unwrap();
                std::io::read_to_string(File::from(file)).unwrap()
            };
            assert_eq!(read("same"), "0", "the first layer is on top");
            assert_eq!(read("39"), "");
        }
        assert_eq!(std::env::current_dir().unwrap(), before);
    }

    #[test]
    fn kernels_by_their_release() {
        for old in ["6.1.0-56-cloud-amd64", "5.15.0", "6.7.12", "odd", ""] {
            assert!(!takes_layers_one_by_one(old), "{old}");
        }
        for new in ["6.8.0", "6.18.3-arch1", "7.0", "10.1"] {
            assert!(takes_layers_one_by_one(new), "{new}");
        }
    }
}
