//! A folder of manifests (kubernetes/kubernetes, `pkg/kubelet/config/file.go`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::Entry;

/// No manifest is longer (`pkg/kubelet/config/common.go`, `maxConfigLength`).
const MOST: u64 = 10 << 20;

/// The folder, or the one file, and what was found there last.
pub(super) struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, Known>,
}

/// One file as it was last.
#[derive(Default)]
struct Known {
    text: Option<String>,
    /// What it last held that was good: a manifest that is being written, or written badly, does not end a pod.
    good: Option<Entry>,
    fault: Option<String>,
}

/// What is wrong with a file, if that is news.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new() }
    }

    /// All pods that the files hold, and what has gone wrong since the last look. `make` makes a pod of a text and the
    /// path of its file. A folder that is not there holds nothing.
    ///
    /// # Errors
    /// When the folder cannot be read. Then what is known of it stays.
    pub(super) fn look(
        &mut self,
        make: impl Fn(&str, &Path) -> Result<Entry, String>,
    ) -> io::Result<(Vec<Entry>, Vec<Fault>)> {
        let paths = self.paths()?;
        self.files.retain(|path, _| paths.contains(path));
        let mut faults = Vec::new();
        for path in paths {
            let known = self.files.entry(path.clone()).or_default();
            let outcome = match read(&path) {
                Ok(text) if known.text.as_ref() == Some(&text) => continue,
                Ok(text) => {
                    let made = make(&text, &path);
                    known.text = Some(text);
                    made
                }
                // It has gone since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.files.remove(&path);
                    continue;
                }
                Err(error) => {
                    known.text = None;
                    Err(error.to_string())
                }
            };
            match outcome {
                Ok(entry) => (known.good, known.fault) = (Some(entry), None),
                Err(why) => {
                    if known.fault.as_ref() != Some(&why) {
                        faults.push(Fault { path, why: why.clone() });
                    }
                    known.fault = Some(why);
                }
            }
        }
        Ok((self.files.values().filter_map(|known| known.good.clone()).collect(), faults))
    }

    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let is = match std::fs::metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            is => is?,
        };
        if !is.is_dir() {
            return Ok(vec![self.path.clone()]);
        }
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            // Links are followed; folders are not gone into.
            if !hidden && std::fs::metadata(entry.path()).is_ok_and(|is| is.is_file()) {
                paths.push(entry.path());
            }
        }
        paths.sort_unstable();
        Ok(paths)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other("the manifest is larger than 10 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::static_pods::Source;

    fn make(text: &str, path: &Path) -> Result<Entry, String> {
        let name = text.strip_prefix("pod ").ok_or_else(|| format!("no pod: {text}"))?;
        let pod = json!({"metadata": {"name": name}, "spec": {"containers": []}});
        Ok(Entry {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            print: name.into(),
            source: Source::File,
            place: path.display().to_string(),
        })
    }

    fn names(entries: &[Entry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.print.as_str()).collect()
    }

    #[test]
    fn good_files_count_whatever_the_others_say() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        let mut folder = Folder::new(place.path().to_owned());
        write("a.yaml", "pod a");
        write("b.yaml", "rubbish");
        write(".c.yaml", "pod hidden");
        std::fs::create_dir(place.path().join("deeper")).unwrap();
        std::os::unix::fs::symlink(place.path().join(".c.yaml"), place.path().join("link")).unwrap();
        let (entries, faults) = folder.look(make).unwrap();
        assert_eq!(names(&entries), ["a", "hidden"]);
        let fault = Fault { path: place.path().join("b.yaml"), why: "no pod: rubbish".into() };
        assert_eq!(faults, [fault]);
        // It is said once.
        assert_eq!(folder.look(make).unwrap().1, []);
        write("b.yaml", "pod b");
        assert_eq!(names(&folder.look(make).unwrap().0), ["a", "b", "hidden"]);
        // What has become bad is as it was, until it is gone.
        write("b.yaml", "pod");
        let (entries, faults) = folder.look(make).unwrap();
        assert_eq!((names(&entries), faults.len()), (vec!["a", "b", "hidden"], 1));
        std::fs::remove_file(place.path().join("b.yaml")).unwrap();
        std::fs::remove_file(place.path().join("link")).unwrap();
        assert_eq!(names(&folder.look(make).unwrap().0), ["a"]);
    }

    #[test]
    fn one_file_or_none_will_do() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pod.yaml");
        let mut folder = Folder::new(path.clone());
        assert_eq!(folder.look(make).unwrap(), (vec![], vec![]));
        std::fs::write(&path, "pod x").unwrap();
        assert_eq!(names(&folder.look(make).unwrap().0), ["x"]);
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let (entries, faults) = folder.look(make).unwrap();
        assert_eq!((names(&entries), faults.len()), (vec!["x"], 1));
    }
}
