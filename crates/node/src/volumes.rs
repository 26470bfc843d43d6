//! Volumes whose content comes from the node or the API: emptyDir, hostPath, configMap, secret, downwardAPI,
//! projected. They are written when the pod starts; later changes of their sources do not show in this version.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

use crate::error::NodeError;

/// Where each volume of a pod is on the host, by name.
pub(crate) type Places = BTreeMap<String, PathBuf>;

/// Sets up all volumes of a pod below `folder`. What is there already is kept.
pub(crate) async fn set_up(client: &Client, pod: &Pod, folder: &Path) -> Result<Places, NodeError> {
    let mut places = Places::new();
    let Some(spec) = &pod.spec else { return Ok(places) };
    let group = spec.security_context.as_ref().and_then(|s| s.fs_group);
    for volume in spec.volumes.iter().flatten() {
        let source = Source { client, pod, name: &volume.name, group };
        let place = source.set_up(volume, &folder.join(&volume.name)).await?;
        places.insert(volume.name.clone(), place);
    }
    Ok(places)
}

/// One file of a volume: its path inside, its content and mode.
struct File {
    path: String,
    bytes: Vec<u8>,
    mode: i32,
}

struct Source<'a> {
    client: &'a Client,
    pod: &'a Pod,
    name: &'a str,
    group: Option<i64>,
}

const DEFAULT_MODE: i32 = 0o644;

impl Source<'_> {
    fn fault(&self, why: impl std::fmt::Display) -> NodeError {
        NodeError::Volume { volume: self.name.to_owned(), why: why.to_string() }
    }

    async fn set_up(&self, volume: &core::Volume, folder: &Path) -> Result<PathBuf, NodeError> {
        if let Some(host) = &volume.host_path {
            return self.host_path(host);
        }
        let files = if volume.empty_dir.is_some() {
            std::fs::create_dir_all(folder).map_err(|e| self.fault(e))?;
            let mode = std::fs::Permissions::from_mode(if self.group.is_some() { 0o2777 } else { 0o777 });
            std::fs::set_permissions(folder, mode).map_err(|e| self.fault(e))?;
            chown(folder, None, self.group.and_then(|g| u32::try_from(g).ok())).map_err(|e| self.fault(e))?;
            return Ok(folder.to_owned());
        } else if let Some(source) = &volume.config_map {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            self.config_map(&source.name, source.items.as_deref(), source.optional, mode).await?
        } else if let Some(source) = &volume.secret {
            let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
            let name = source.secret_name.as_deref().unwrap_or_default();
            self.secret(name, source.items.as_deref(), source.optional, mode).await?
        } else if let Some(source) = &volume.downward_api {
            self.downward(
                source.items.as_deref().unwrap_or_default(),
                source.default_mode.unwrap_or(DEFAULT_MODE),
            )?
        } else if let Some(source) = &volume.projected {
            self.projected(source).await?
        } else {
            return Err(self.fault("this kind of volume is not available in this version"));
        };
        self.write(folder, files)?;
        Ok(folder.to_owned())
    }

    fn host_path(&self, host: &core::HostPathVolumeSource) -> Result<PathBuf, NodeError> {
        let path = PathBuf::from(&host.path);
        let kind = host.type_.as_deref().unwrap_or_default();
        match kind {
            "DirectoryOrCreate" => std::fs::create_dir_all(&path).map_err(|e| self.fault(e))?,
            "FileOrCreate" if !path.exists() => std::fs::write(&path, "").map_err(|e| self.fault(e))?,
            _ => {}
        }
        let fits = match kind {
            "Directory" | "DirectoryOrCreate" => path.is_dir(),
            "File" | "FileOrCreate" => path.is_file(),
            _ => path.exists(),
        };
        if fits {
            Ok(path)
        } else {
            Err(self.fault(format_args!("hostPath type check failed: {} is not a {kind}", host.path)))
        }
    }

    fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[core::KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Vec<File>, NodeError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), self.namespace());
        let Some(map) = api.get_opt(name).await? else {
            return if optional == Some(true) {
                Ok(Vec::new())
            } else {
                Err(self.fault(format_args!("configmap {name:?} not found")))
            };
        };
        let text = map.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
        let all: BTreeMap<String, Vec<u8>> =
            text.chain(map.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0))).collect();
        self.pick(all, items, optional, mode)
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[core::KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Vec<File>, NodeError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), self.namespace());
        let Some(secret) = api.get_opt(name).await? else {
            return if optional == Some(true) {
                Ok(Vec::new())
            } else {
                Err(self.fault(format_args!("secret {name:?} not found")))
            };
        };
        let all = secret.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect();
        self.pick(all, items, optional, mode)
    }

    fn pick(
        &self,
        mut all: BTreeMap<String, Vec<u8>>,
        items: Option<&[core::KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Vec<File>, NodeError> {
        let Some(items) = items.filter(|i| !i.is_empty()) else {
            return Ok(all.into_iter().map(|(path, bytes)| File { path, bytes, mode }).collect());
        };
        let mut files = Vec::new();
        for item in items {
            match all.remove(&item.key) {
                Some(bytes) => {
                    files.push(File { path: item.path.clone(), bytes, mode: item.mode.unwrap_or(mode) })
                }
                None if optional == Some(true) => {}
                None => return Err(self.fault(format_args!("references non-existent key: {}", item.key))),
            }
        }
        Ok(files)
    }

    fn downward(&self, items: &[core::DownwardAPIVolumeFile], mode: i32) -> Result<Vec<File>, NodeError> {
        let file = |item: &core::DownwardAPIVolumeFile| {
            let path = item.field_ref.as_ref().map(|f| f.field_path.as_str()).unwrap_or_default();
            let text = crate::container::field(self.pod, path)
                .ok_or_else(|| self.fault(format_args!("unsupported field path {path:?}")))?;
            Ok(File { path: item.path.clone(), bytes: text.into_bytes(), mode: item.mode.unwrap_or(mode) })
        };
        items.iter().map(file).collect()
    }

    async fn projected(&self, source: &core::ProjectedVolumeSource) -> Result<Vec<File>, NodeError> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = Vec::new();
        for part in source.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                files.extend(self.config_map(&map.name, map.items.as_deref(), map.optional, mode).await?);
            }
            if let Some(secret) = &part.secret {
                files
                    .extend(self.secret(&secret.name, secret.items.as_deref(), secret.optional, mode).await?);
            }
            if let Some(downward) = &part.downward_api {
                files.extend(self.downward(downward.items.as_deref().unwrap_or_default(), mode)?);
            }
            if let Some(token) = &part.service_account_token {
                files.push(File { path: token.path.clone(), bytes: self.token(token).await?, mode });
            }
        }
        Ok(files)
    }

    async fn token(&self, wanted: &core::ServiceAccountTokenProjection) -> Result<Vec<u8>, NodeError> {
        let account =
            self.pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or("default");
        let api: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), self.namespace());
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {
            "audiences": wanted.audience.iter().collect::<Vec<_>>(),
            "expirationSeconds": wanted.expiration_seconds.unwrap_or(3600),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": self.pod.metadata.name, "uid": self.pod.metadata.uid},
        }});
        let request: TokenRequest = serde_json::from_value(request).map_err(kube::Error::SerdeError)?;
        let answer = api.create_token_request(account, &PostParams::default(), &request).await?;
        Ok(answer.status.and_then(|s| s.token).unwrap_or_default().into_bytes())
    }

    fn write(&self, folder: &Path, files: Vec<File>) -> Result<(), NodeError> {
        std::fs::create_dir_all(folder).map_err(|e| self.fault(e))?;
        for file in files {
            let inside = Path::new(&file.path);
            if !inside.components().all(|c| matches!(c, Component::Normal(_))) {
                return Err(self.fault(format_args!("path {:?} leads out of the volume", file.path)));
            }
            let path = folder.join(inside);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|e| self.fault(e))?;
            }
            std::fs::write(&path, &file.bytes).map_err(|e| self.fault(e))?;
            let mode = std::fs::Permissions::from_mode(file.mode as u32 & 0o7777);
            std::fs::set_permissions(&path, mode).map_err(|e| self.fault(e))?;
            if let Some(group) = self.group.and_then(|g| u32::try_from(g).ok()) {
                chown(&path, None, Some(group)).map_err(|e| self.fault(e))?;
            }
        }
        Ok(())
    }
}
