//! Images: what there is, what is pulled, and the disk they take.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cri::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, ImageFsInfoRequest, ImageFsInfoResponse,
    ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse,
    PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, StreamImagesRequest,
    UInt64Value,
};
use image::{Auth, Image, PullOptions, Reference, StoreError};

use crate::error::CriError;
use crate::service::CriService;

impl CriService {
    /// The image of this name or id.
    pub(crate) fn image(&self, name: &str) -> Result<Image, CriError> {
        self.0.images.resolve(name).ok_or_else(|| CriError::NoImage(name.to_owned()))
    }

    pub(crate) async fn list_images(
        &self,
        request: ListImagesRequest,
    ) -> Result<ListImagesResponse, CriError> {
        Ok(ListImagesResponse { images: self.images(request.filter) })
    }

    pub(crate) fn stream_images(&self, request: StreamImagesRequest) -> Vec<cri::Image> {
        self.images(request.filter)
    }

    fn images(&self, filter: Option<cri::ImageFilter>) -> Vec<cri::Image> {
        let name = filter.and_then(|filter| filter.image).map(|spec| spec.image).unwrap_or_default();
        let found = match name.as_str() {
            "" => self.0.images.list(),
            name => self.0.images.resolve(name).into_iter().collect(),
        };
        found.iter().map(told).collect()
    }

    pub(crate) async fn image_status(
        &self,
        request: ImageStatusRequest,
    ) -> Result<ImageStatusResponse, CriError> {
        let name = named(request.image)?;
        let image = self.0.images.resolve(&name);
        let mut info = BTreeMap::new();
        if let Some(image) = image.as_ref().filter(|_| request.verbose) {
            let config =
                serde_json::json!({"imageSpec": *image.config, "manifest": image.manifest.to_string()});
            info.insert("info".to_owned(), config.to_string());
        }
        Ok(ImageStatusResponse { image: image.as_ref().map(told), info })
    }

    pub(crate) async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, CriError> {
        let name = named(request.image)?;
        let reference: Reference = name
            .parse()
            .map_err(|e| CriError::Invalid(format!("couldn't parse image name {name:?}: {e}")))?;
        let auth = request.auth.map(|auth| auth_of(&auth)).transpose()?.flatten();
        let pulled = self.0.images.pull(&reference, auth, PullOptions::default()).await;
        let image = pulled.map_err(|source| CriError::Pull { image: name, source: Box::new(source) })?;
        Ok(PullImageResponse { image_ref: image.id.to_string() })
    }

    pub(crate) async fn remove_image(
        &self,
        request: RemoveImageRequest,
    ) -> Result<RemoveImageResponse, CriError> {
        let Some(image) = self.0.images.resolve(&named(request.image)?) else {
            return Ok(RemoveImageResponse {});
        };
        let images = self.0.images.clone();
        let removed = tokio::task::spawn_blocking(move || {
            match images.remove(&image.id.to_string()) {
                // Somebody else was faster.
                Err(StoreError::NotFound(_)) => {}
                removed => drop(removed?),
            }
            match images.gc() {
                // Others are being added; what nobody needs goes with the next one.
                Err(StoreError::Busy) => Ok(()),
                collected => collected.map(drop),
            }
        });
        removed.await??;
        Ok(RemoveImageResponse {})
    }

    pub(crate) async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse, CriError> {
        let data = &self.0.config.data_dir;
        let folders = ["content", "snapshots", "containers"].map(|name| data.join(name));
        let extents = self.0.extents.of(folders.to_vec()).await;
        let usage = |mountpoint: String, parts: &[crate::extent::Extent]| FilesystemUsage {
            timestamp: self.now(),
            fs_id: Some(FilesystemIdentifier { mountpoint }),
            used_bytes: Some(UInt64Value { value: parts.iter().map(|part| part.bytes).sum() }),
            inodes_used: Some(UInt64Value { value: parts.iter().map(|part| part.inodes).sum() }),
        };
        let place = |folder: &std::path::Path| folder.display().to_string();
        let [images, containers] = [extents.get(..2), extents.get(2..)].map(Option::unwrap_or_default);
        Ok(ImageFsInfoResponse {
            image_filesystems: vec![usage(place(data), images)],
            container_filesystems: vec![usage(place(data), containers)],
        })
    }
}

fn named(image: Option<cri::ImageSpec>) -> Result<String, CriError> {
    let name = image.map(|spec| spec.image).filter(|name| !name.is_empty());
    name.ok_or_else(|| CriError::Invalid("no image is named".to_owned()))
}

fn told(image: &Image) -> cri::Image {
    let user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let (uid, username) = user_of(&user);
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.names.clone(),
        repo_digests: image.digests.clone(),
        size: image.size.max(1),
        uid: uid.map(|value| Int64Value { value }),
        username,
        spec: None,
        pinned: false,
    }
}

/// The user of an image: a number, or else a name.
fn user_of(user: &str) -> (Option<i64>, String) {
    let name = user.split(':').next().unwrap_or_default();
    match name.parse() {
        Ok(uid) => (Some(uid), String::new()),
        Err(_) => (None, name.to_owned()),
    }
}

/// What a registry is told; nothing if nothing is said.
fn auth_of(auth: &AuthConfig) -> Result<Option<Auth>, CriError> {
    if !auth.registry_token.is_empty() {
        return Ok(Some(Auth::Bearer(auth.registry_token.clone())));
    }
    if !auth.identity_token.is_empty() {
        return Err(CriError::Unsupported(
            "identity tokens are not supported; use a name and a password".to_owned(),
        ));
    }
    if !auth.username.is_empty() {
        let (username, password) = (auth.username.clone(), auth.password.clone());
        return Ok(Some(Auth::Basic { username, password }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let text = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = text
        .as_deref()
        .and_then(|text| text.split_once(':'))
        .ok_or_else(|| CriError::Invalid("auth is no name and password in base64".to_owned()))?;
    // Some write a zero byte behind the password.
    let password = password.trim_end_matches('\0').to_owned();
    Ok(Some(Auth::Basic { username: username.to_owned(), password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_images_are_numbers_or_names() {
        assert_eq!(user_of("1000:5"), (Some(1000), String::new()));
        assert_eq!(user_of("web:web"), (None, "web".to_owned()));
        assert_eq!(user_of(""), (None, String::new()));
    }

    #[test]
    fn credentials_come_in_several_forms() {
        let basic = |username: &str, password: &str| {
            Some(Auth::Basic { username: username.to_owned(), password: password.to_owned() })
        };
        let of = |auth: AuthConfig| auth_of(&auth);
        assert_eq!(of(AuthConfig::default()).unwrap(), None);
        let plain = AuthConfig { username: "a".to_owned(), password: "b".to_owned(), ..Default::default() };
        assert_eq!(of(plain).unwrap(), basic("a", "b"));
        let joined = AuthConfig { auth: STANDARD.encode("a:b:c"), ..Default::default() };
        assert_eq!(of(joined).unwrap(), basic("a", "b:c"));
        let token = AuthConfig { registry_token: "t".to_owned(), ..Default::default() };
        assert_eq!(of(token).unwrap(), Some(Auth::Bearer("t".to_owned())));
        assert!(of(AuthConfig { auth: "?".to_owned(), ..Default::default() }).is_err());
        assert!(of(AuthConfig { identity_token: "i".to_owned(), ..Default::default() }).is_err());
    }
}
