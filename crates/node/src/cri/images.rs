//! The runtime's images (`pkg/kubelet/kuberuntime/kuberuntime_image.go`).

use std::collections::HashSet;
use std::time::Duration;

use cri::{ImageSpec, images as calls, runtime as runtime_calls};
use image::{Auth, Digest, Image};

use super::{Cri, CriError, LIMIT};

/// A pull has no limit of its own upstream but a runtime's sense for progress; this is for one that has none.
const PULL: Duration = Duration::from_secs(3600);

fn spec(name: &str) -> Option<ImageSpec> {
    Some(ImageSpec { image: name.to_owned(), ..Default::default() })
}

fn auth_of(auth: &Auth) -> cri::AuthConfig {
    match auth {
        Auth::Basic { username, password } => {
            cri::AuthConfig { username: username.clone(), password: password.clone(), ..Default::default() }
        }
        Auth::Bearer(token) => cri::AuthConfig { registry_token: token.clone(), ..Default::default() },
    }
}

/// An image as the agent knows it: what it runs and how, the runtime knows.
fn image_of(told: cri::Image) -> Option<Image> {
    // Some runtimes leave the algorithm out.
    let id = if told.id.contains(':') { told.id } else { format!("sha256:{}", told.id) };
    let id: Digest = id.parse().ok()?;
    let user = match told.uid {
        Some(uid) => uid.value.to_string(),
        None => told.username,
    };
    let user = Some(user).filter(|user| !user.is_empty());
    Some(Image::elsewhere(id, told.repo_tags, told.repo_digests, told.size, user))
}

impl Cri {
    /// An image, if it is there.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<Image>, CriError> {
        let question = cri::ImageStatusRequest { image: spec(name), verbose: false };
        match calls::IMAGE_STATUS.ask(&self.0.images, &question, LIMIT).await.map_err(CriError::from) {
            Ok(told) => Ok(told.image.and_then(image_of)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches an image from its registry.
    pub(crate) async fn pull(&self, name: &str, auth: Option<&Auth>) -> Result<Image, CriError> {
        let question =
            cri::PullImageRequest { image: spec(name), auth: auth.map(auth_of), sandbox_config: None };
        let pulled = calls::PULL_IMAGE.ask(&self.0.images, &question, PULL).await?;
        let gone = || CriError::Refused(format!("image {name:?} was pulled and is not there"));
        self.image(&pulled.image_ref).await?.ok_or_else(gone)
    }

    /// All images that may be removed: not those that the runtime itself holds on to.
    pub(crate) async fn list_images(&self) -> Result<Vec<Image>, CriError> {
        let told = calls::LIST_IMAGES.ask(&self.0.images, &cri::ListImagesRequest::default(), LIMIT).await?;
        let own = self.0.health.borrow().sandbox_image.clone();
        let held = |image: &cri::Image| {
            image.pinned || own.as_ref().is_some_and(|own| image.repo_tags.iter().any(|tag| tag == own))
        };
        Ok(told.images.into_iter().filter(|image| !held(image)).filter_map(image_of).collect())
    }

    /// The ids, or names, of the images of all containers.
    pub(crate) async fn images_in_use(&self) -> Result<HashSet<String>, CriError> {
        let question = cri::ListContainersRequest::default();
        let told = self.ask(&runtime_calls::LIST_CONTAINERS, question).await?;
        let all = told.containers.into_iter();
        Ok(all.flat_map(|c| [c.image_ref, c.image_id, c.image.unwrap_or_default().image]).collect())
    }

    pub(crate) async fn remove_image(&self, id: &str) -> Result<(), CriError> {
        let question = cri::RemoveImageRequest { image: spec(id) };
        calls::REMOVE_IMAGE.ask(&self.0.images, &question, LIMIT).await?;
        Ok(())
    }

    /// Where the images' file system is mounted.
    pub(crate) async fn image_folder(&self) -> Option<std::path::PathBuf> {
        let told = calls::IMAGE_FS_INFO.ask(&self.0.images, &cri::ImageFsInfoRequest {}, LIMIT).await.ok()?;
        let first = told.image_filesystems.into_iter().next()?;
        first.fs_id.map(|id| id.mountpoint.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_keeps_its_user_and_its_names() {
        let id = "1".repeat(64);
        let told = |uid: Option<i64>, username: &str| cri::Image {
            id: id.clone(),
            repo_tags: vec!["docker.io/library/a:1".into()],
            uid: uid.map(|value| cri::Int64Value { value }),
            username: username.into(),
            ..Default::default()
        };
        let user = |told| image_of(told).unwrap().config.config().as_ref().and_then(|c| c.user().clone());
        assert_eq!(user(told(Some(0), "")).as_deref(), Some("0"));
        assert_eq!(user(told(None, "web")).as_deref(), Some("web"));
        assert_eq!(user(told(None, "")), None);
        assert_eq!(image_of(told(None, "")).unwrap().id.to_string(), format!("sha256:{id}"));
        assert!(image_of(cri::Image { id: "x".into(), ..Default::default() }).is_none());
    }
}
