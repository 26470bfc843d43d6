//! What a StorageClass of the built-in storage may say.

use std::collections::BTreeMap;

use types::local_volumes::{DIRECTORY, IMAGE, KIND};

/// A class's wishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parameters {
    /// A directory.
    Directory,
    /// A file with a file system in it.
    Image,
}

impl Parameters {
    pub(super) fn read(given: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut kind = None;
        let mut fs_type = None;
        for (name, value) in given {
            match name.as_str() {
                KIND => kind = Some(value.as_str()),
                "fsType" | "csi.storage.k8s.io/fstype" => fs_type = Some(value.as_str()),
                other => {
                    return Err(format!("unknown parameter {other:?}: there are \"kind\" and \"fsType\""));
                }
            }
        }
        match (kind, fs_type) {
            (None | Some(IMAGE), None | Some("" | "ext4")) => Ok(Self::Image),
            (None | Some(IMAGE), Some(other)) => Err(format!(
                "parameter \"fsType\": {other:?} cannot be made in this version: it makes \"ext4\""
            )),
            (Some(DIRECTORY), None | Some("")) => Ok(Self::Directory),
            (Some(DIRECTORY), Some(_)) => {
                Err("parameter \"fsType\": a directory has no file system of its own".to_owned())
            }
            (Some(other), _) => {
                Err(format!("parameter \"kind\": {other:?} is none: there are \"image\" and \"directory\""))
            }
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Directory => DIRECTORY,
            Self::Image => IMAGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_named() {
        let read = |pairs: &[(&str, &str)]| {
            Parameters::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
        };
        assert_eq!(read(&[]), Ok(Parameters::Image));
        assert_eq!(read(&[("kind", "image"), ("fsType", "ext4")]), Ok(Parameters::Image));
        assert_eq!(read(&[("kind", "directory")]), Ok(Parameters::Directory));
        assert!(read(&[("kind", "directory"), ("fsType", "ext4")]).is_err());
        assert!(read(&[("fsType", "xfs")]).unwrap_err().contains("\"xfs\" cannot be made"));
        assert!(read(&[("kind", "tape")]).unwrap_err().contains("\"tape\" is none"));
        assert!(read(&[("size", "1")]).unwrap_err().contains("unknown parameter \"size\""));
    }
}
