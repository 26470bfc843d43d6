//! Paths of the node (kubernetes/kubernetes, `pkg/volume/hostpath/host_path.go`).

use std::fs;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::error::Fault;

/// The path, made if it may be, once it is what it should be.
pub(crate) fn set_up(host: &HostPathVolumeSource) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(&host.path);
    let kind = host.type_.as_deref().unwrap_or_default();
    let absent = !path.exists();
    match kind {
        // Without a type nothing is checked; a container could not mount what is not there.
        "" | "DirectoryOrCreate" if absent => {
            let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(&path);
            made.map_err(Fault::file("make directory", &path))?;
        }
        "FileOrCreate" if absent => {
            let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path);
            made.map_err(Fault::file("make", &path))?;
        }
        _ => {}
    }
    let meta = fs::metadata(&path).ok().map(|m| m.file_type());
    let is = |fits: fn(&fs::FileType) -> bool| meta.as_ref().is_some_and(fits);
    let (fits, what) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        other => return Err(Fault::Unsupported { what: "hostPath type", text: other.to_owned() }),
    };
    if fits { Ok(path) } else { Err(Fault::HostPath { path: host.path.clone(), what }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_types() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let check = |path: String, kind: &str| {
            let kind = (!kind.is_empty()).then(|| kind.to_owned());
            set_up(&HostPathVolumeSource { path, type_: kind }).map_err(|e| e.to_string())
        };
        let refused =
            |what: &str, path: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
        assert_eq!(check(at("d"), "Directory"), refused("a directory", &at("d")));
        assert!(check(at("d"), "DirectoryOrCreate").is_ok() && check(at("d"), "Directory").is_ok());
        assert_eq!(check(at("f"), "File"), refused("a file", &at("f")));
        assert!(check(at("f"), "FileOrCreate").is_ok() && check(at("f"), "File").is_ok());
        assert_eq!(check(at("f"), "DirectoryOrCreate"), refused("a directory", &at("f")));
        assert_eq!(check(at("f"), "Socket"), refused("a socket file", &at("f")));
        let _listener = std::os::unix::net::UnixListener::bind(at("s")).unwrap();
        assert!(check(at("s"), "Socket").is_ok());
        assert!(check("/dev/null".into(), "CharDevice").is_ok());
        assert_eq!(check("/dev/null".into(), "BlockDevice"), refused("a block device", "/dev/null"));
        assert!(check(at("x/y"), "").is_ok_and(|path| path.is_dir()));
        assert!(check(at("no/file"), "FileOrCreate").is_err());
    }
}
