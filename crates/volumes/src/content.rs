//! What the files of a volume hold: configMap, secret, downwardAPI, projected (kubernetes/kubernetes,
//! `pkg/volume/configmap`, `pkg/volume/projected` and their like).

use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use crate::atomic::{File, Payload};
use crate::downward::{field, resource_field};
use crate::error::Fault;
use crate::objects::{Content, Kind};
use crate::ownership::{fs_group, fs_user};
use crate::volumes::Pot;

const DEFAULT_MODE: i32 = 0o644;

/// Files, and when they are to be looked at again.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    pub(crate) files: Payload,
    pub(crate) again: Option<Duration>,
}

/// What a volume source picks from an object.
struct Pick<'a> {
    kind: Kind,
    name: &'a str,
    items: Option<&'a [core::KeyToPath]>,
    optional: bool,
    mode: i32,
}

/// The content of a volume; none if it is of a kind without files.
pub(crate) async fn fill(pot: &Pot<'_>, volume: &core::Volume) -> Result<Option<Filling>, Fault> {
    let mut filling = Filling::default();
    let mode = |given: Option<i32>| given.unwrap_or(DEFAULT_MODE);
    if let Some(source) = &volume.config_map {
        let pick = Pick {
            kind: Kind::ConfigMap,
            name: &source.name,
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
            mode: mode(source.default_mode),
        };
        from_object(pot, &pick, &mut filling).await?;
    } else if let Some(source) = &volume.secret {
        let pick = Pick {
            kind: Kind::Secret,
            name: source.secret_name.as_deref().unwrap_or_default(),
            items: source.items.as_deref(),
            optional: source.optional == Some(true),
            mode: mode(source.default_mode),
        };
        from_object(pot, &pick, &mut filling).await?;
    } else if let Some(source) = &volume.downward_api {
        from_pod(pot, source.items.as_deref().unwrap_or_default(), mode(source.default_mode), &mut filling)?;
    } else if let Some(source) = &volume.projected {
        for part in source.sources.iter().flatten() {
            project(pot, &volume.name, part, mode(source.default_mode), &mut filling).await?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(filling))
}

async fn project(
    pot: &Pot<'_>,
    volume: &str,
    part: &core::VolumeProjection,
    mode: i32,
    filling: &mut Filling,
) -> Result<(), Fault> {
    if let Some(source) = &part.config_map {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        let pick = Pick { kind: Kind::ConfigMap, name: &source.name, items, optional, mode };
        from_object(pot, &pick, filling).await
    } else if let Some(source) = &part.secret {
        let (items, optional) = (source.items.as_deref(), source.optional == Some(true));
        let pick = Pick { kind: Kind::Secret, name: &source.name, items, optional, mode };
        from_object(pot, &pick, filling).await
    } else if let Some(source) = &part.downward_api {
        from_pod(pot, source.items.as_deref().unwrap_or_default(), mode, filling)
    } else if let Some(wanted) = &part.service_account_token {
        let (bytes, wait) = pot.volumes.tokens.get(pot.pod, volume, wanted, pot.volumes.clock.now()).await?;
        filling.again = Some(filling.again.map_or(wait, |other| other.min(wait)));
        // Whoever is not root must be able to read its own token, and nobody else's.
        let owner = fs_user(pot.pod);
        let mode = if owner.is_some() || fs_group(pot.pod).is_some() { 0o600 } else { mode as u32 };
        filling.files.insert(wanted.path.clone(), File { bytes, mode, owner });
        Ok(())
    } else if let Some(wanted) = &part.pod_certificate {
        let certificates = &pot.volumes.certificates;
        let (issued, wait) = certificates.get(pot.pod, volume, wanted, pot.volumes.clock.now()).await?;
        filling.again = Some(filling.again.map_or(wait, |other| other.min(wait)));
        let owner = fs_user(pot.pod);
        let mode = if owner.is_some() || fs_group(pot.pod).is_some() { 0o600 } else { mode as u32 };
        let files = [
            (&wanted.credential_bundle_path, format!("{}{}", issued.key, issued.chain)),
            (&wanted.key_path, issued.key),
            (&wanted.certificate_chain_path, issued.chain),
        ];
        for (path, text) in files {
            if let Some(path) = path.as_ref().filter(|path| !path.is_empty()) {
                filling.files.insert(path.clone(), File { bytes: text.into_bytes(), mode, owner });
            }
        }
        Ok(())
    } else if let Some(wanted) = &part.cluster_trust_bundle {
        let all = pot.volumes.objects.get(Kind::TrustBundles, "", &pot.key, pot.uid).await?;
        let all = all.ok_or(Fault::NotServed("clusterTrustBundle"))?;
        let bytes = crate::trust::select(&all, wanted)?;
        let file = File { bytes, mode: mode as u32, owner: None };
        filling.files.insert(wanted.path.clone(), file);
        Ok(())
    } else {
        let kinds = serde_json::to_value(part).ok();
        let kind = kinds.as_ref().and_then(|k| k.as_object()?.keys().next().cloned());
        Err(Fault::Unsupported { what: "projection", text: kind.unwrap_or_default() })
    }
}

async fn from_object(pot: &Pot<'_>, pick: &Pick<'_>, filling: &mut Filling) -> Result<(), Fault> {
    let found = pot.volumes.objects.get(pick.kind, pick.name, &pot.key, pot.uid).await?;
    let Some(content) = found else {
        return if pick.optional {
            Ok(())
        } else {
            Err(Fault::NotFound { kind: pick.kind.name(), name: pick.name.to_owned() })
        };
    };
    select(&content, pick, &mut filling.files)
}

fn select(content: &Content, pick: &Pick<'_>, files: &mut Payload) -> Result<(), Fault> {
    let file = |bytes: &Vec<u8>, mode: i32| File { bytes: bytes.clone(), mode: mode as u32, owner: None };
    let Some(items) = pick.items.filter(|items| !items.is_empty()) else {
        files.extend(content.iter().map(|(key, bytes)| (key.clone(), file(bytes, pick.mode))));
        return Ok(());
    };
    for item in items {
        match content.get(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), file(bytes, item.mode.unwrap_or(pick.mode)));
            }
            None if pick.optional => {}
            None => {
                let kind = if pick.kind == Kind::Secret { "secret" } else { "config" };
                return Err(Fault::NoKey { kind, key: item.key.clone() });
            }
        }
    }
    Ok(())
}

fn from_pod(
    pot: &Pot<'_>,
    items: &[core::DownwardAPIVolumeFile],
    mode: i32,
    filling: &mut Filling,
) -> Result<(), Fault> {
    for item in items {
        let text = if let Some(reference) = &item.resource_field_ref {
            resource_field(pot.pod, None, reference, &pot.volumes.allocatable)?
        } else {
            let path = item.field_ref.as_ref().map(|f| f.field_path.as_str()).unwrap_or_default();
            field(pot.pod, path)
                .ok_or_else(|| Fault::Unsupported { what: "fieldPath", text: path.to_owned() })?
        };
        let mode = item.mode.unwrap_or(mode) as u32;
        filling.files.insert(item.path.clone(), File { bytes: text.into_bytes(), mode, owner: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_rename_and_set_modes() {
        let content: Content = [("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.into())).into();
        let item = |key: &str, path: &str, mode| core::KeyToPath { key: key.into(), path: path.into(), mode };
        let selected = |items: &[core::KeyToPath], optional| {
            let pick = Pick { kind: Kind::ConfigMap, name: "c", items: Some(items), optional, mode: 0o644 };
            let mut files = Payload::new();
            select(&content, &pick, &mut files).map_err(|e| e.to_string())?;
            Ok::<_, String>(files.into_iter().map(|(path, f)| (path, f.mode)).collect::<Vec<_>>())
        };
        let all = vec![("a".to_owned(), 0o644), ("b".to_owned(), 0o644)];
        assert_eq!(selected(&[], false), Ok(all));
        assert_eq!(selected(&[item("a", "x/y", Some(0o400))], false), Ok(vec![("x/y".to_owned(), 0o400)]));
        assert_eq!(
            selected(&[item("c", "c", None)], false),
            Err("references non-existent config key: c".into())
        );
        assert_eq!(selected(&[item("c", "c", None)], true), Ok(vec![]));
    }
}
