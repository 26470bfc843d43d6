//! Where a certificate and its key are kept: in one file, by its day, and a link to the present one (kubernetes/kubernetes,
//! `staging/src/k8s.io/client-go/util/certificate/certificate_store.go`).

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use auth::KeyPairPem;
use base::Timestamp;

use super::CertificateError;

/// A certificate's place.
#[derive(Clone, Debug)]
pub struct CertificateStore {
    folder: PathBuf,
    /// Such as `kubelet-client`.
    name: &'static str,
}

const KEY: &str = "-----BEGIN PRIVATE KEY-----";

impl CertificateStore {
    /// In a folder, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn open(folder: &Path, name: &'static str) -> Result<Self, CertificateError> {
        fs::create_dir_all(folder).map_err(|source| failed("create the folder", folder, source))?;
        Ok(Self { folder: folder.to_owned(), name })
    }

    /// The link to the certificate that is used.
    pub fn path(&self) -> PathBuf {
        self.folder.join(format!("{}-current.pem", self.name))
    }

    /// What is kept, if anything that can be read.
    pub(super) fn current(&self) -> Option<KeyPairPem> {
        let path = self.path();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let (certificate, key) = text.split_at(text.find(KEY)?);
                Some(KeyPairPem { certificate: certificate.to_owned(), key: key.to_owned() })
            }
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    tracing::warn!(path = %path.display(), %error, "cannot read the certificate that is kept");
                }
                None
            }
        }
    }

    /// Keeps another one; the one before stays until the one after that.
    pub(super) fn keep(&self, pair: &KeyPairPem, now: Timestamp) -> Result<(), CertificateError> {
        let day: String =
            now.to_string().chars().take(19).map(|c| if matches!(c, 'T' | ':') { '-' } else { c }).collect();
        let file = format!("{}-{day}.pem", self.name);
        let path = self.folder.join(&file);
        let before = fs::read_link(self.path()).ok();
        write(&path, pair).map_err(|source| failed("write", &path, source))?;
        let beside = self.folder.join(format!("{}-current.new", self.name));
        let linked = match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => symlink(&file, &beside).and_then(|()| fs::rename(&beside, self.path())),
        };
        linked.map_err(|source| failed("link", &self.path(), source))?;
        self.clear(&[Some(PathBuf::from(file)), before]);
        Ok(())
    }

    /// Removes what is older than the one before.
    fn clear(&self, keep: &[Option<PathBuf>]) {
        let prefix = format!("{}-2", self.name);
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|n| n.starts_with(&prefix) && n.ends_with(".pem"));
            if ours && !keep.iter().flatten().any(|kept| kept.as_os_str() == name) {
                // One that stays does no harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn write(path: &Path, pair: &KeyPairPem) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path)?;
    let gap = if pair.certificate.ends_with('\n') { "" } else { "\n" };
    write!(file, "{}{gap}{}", pair.certificate, pair.key)?;
    file.sync_all()
}

fn failed(attempt: &'static str, path: &Path, source: io::Error) -> CertificateError {
    CertificateError::File { attempt, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = CertificateStore::open(&folder.path().join("pki"), "kubelet-client").unwrap();
        assert!(store.current().is_none());
        for day in 1..4 {
            let pair = KeyPairPem { certificate: format!("certificate {day}\n"), key: format!("{KEY}\nx\n") };
            store.keep(&pair, format!("2026-01-0{day}T00:00:00Z").parse().unwrap()).unwrap();
            assert_eq!(store.current().unwrap().certificate, format!("certificate {day}\n"));
        }
        let mut names: Vec<String> = fs::read_dir(folder.path().join("pki"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let want = [
            "kubelet-client-2026-01-02-00-00-00.pem",
            "kubelet-client-2026-01-03-00-00-00.pem",
            "kubelet-client-current.pem",
        ];
        assert_eq!(names, want);
        fs::write(store.path(), "rubbish").unwrap();
        assert!(store.current().is_none());
    }
}
