//! Kubeconfig files.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

/// A kubeconfig for one user of one cluster, with everything in it.
pub fn render(server: &str, ca: &str, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "gantry", "cluster": {"server": server, "certificate-authority-data": base64(ca.as_bytes())}}],
        "users": [{"name": "gantry-admin", "user": {
            "client-certificate-data": base64(certificate.as_bytes()),
            "client-key-data": base64(key.as_bytes()),
        }}],
        "contexts": [{"name": "gantry", "context": {"cluster": "gantry", "user": "gantry-admin"}}],
        "current-context": "gantry",
    })
}

/// Writes a kubeconfig that only its owner can read.
pub fn write(path: &Path, config: &Value) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    let text = serde_norway::to_string(config).map_err(std::io::Error::other)?;
    let beside = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

/// Adds the cluster of the kubeconfig at `from` to the one at `path`.
pub fn merge_file(path: &Path, from: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(from)?;
    merge(path, &serde_norway::from_str(&text).map_err(std::io::Error::other)?)
}

/// Adds the entries of `config` to the file at `path`, replacing those of the same names and making its context
/// the current one. What else is in the file stays.
pub fn merge(path: &Path, config: &Value) -> std::io::Result<()> {
    let mut all: Value = match std::fs::read_to_string(path) {
        Ok(text) => serde_norway::from_str(&text).map_err(std::io::Error::other)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            json!({"apiVersion": "v1", "kind": "Config"})
        }
        Err(error) => return Err(error),
    };
    if !all.is_object() {
        all = json!({"apiVersion": "v1", "kind": "Config"});
    }
    for list in ["clusters", "users", "contexts"] {
        let mut entries: Vec<Value> = all[list].as_array().cloned().unwrap_or_default();
        for new in config[list].as_array().into_iter().flatten() {
            entries.retain(|old| old["name"] != new["name"]);
            entries.push(new.clone());
        }
        all[list] = entries.into();
    }
    all["current-context"] = config["current-context"].clone();
    write(path, &all)
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_is_there_and_changes_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, "{clusters: [{name: old, cluster: {server: x}}], current-context: old}")
            .unwrap();
        let config = render("https://127.0.0.1:6443", "ca", "cert", "key");
        merge(&path, &config).unwrap();
        let once = std::fs::read_to_string(&path).unwrap();
        merge(&path, &config).unwrap();
        assert_eq!(once, std::fs::read_to_string(&path).unwrap());
        let all: Value = serde_norway::from_str(&once).unwrap();
        assert_eq!(
            (all["clusters"].as_array().unwrap().len(), &all["current-context"]),
            (2, &json!("gantry"))
        );
    }
}
