//! Images, and the disk they lie on.

use std::collections::BTreeMap;

use super::{FilesystemUsage, Int64Value, PodSandboxConfig};
use crate::wire::messages;

messages! {
    ImageSpec {
        1 image: String,
        2 annotations: BTreeMap<String, String>,
        18 user_specified_image: String,
        19 runtime_handler: String,
        20 image_ref: String,
    }

    ImageFilter { 1 image: Option<ImageSpec> }

    Image {
        1 id: String,
        2 repo_tags: Vec<String>,
        3 repo_digests: Vec<String>,
        4 size: u64,
        5 uid: Option<Int64Value>,
        6 username: String,
        7 spec: Option<ImageSpec>,
        8 pinned: bool,
    }

    ListImagesRequest { 1 filter: Option<ImageFilter> }
    ListImagesResponse { 1 images: Vec<Image> }

    StreamImagesRequest { 1 filter: Option<ImageFilter> }
    StreamImagesResponse { 1 images: Vec<Image> }

    ImageStatusRequest { 1 image: Option<ImageSpec>, 2 verbose: bool }
    ImageStatusResponse { 1 image: Option<Image>, 2 info: BTreeMap<String, String> }

    AuthConfig {
        1 username: String,
        2 password: String,
        3 auth: String,
        4 server_address: String,
        5 identity_token: String,
        6 registry_token: String,
    }

    PullImageRequest {
        1 image: Option<ImageSpec>,
        2 auth: Option<AuthConfig>,
        3 sandbox_config: Option<PodSandboxConfig>,
    }
    PullImageResponse { 1 image_ref: String }

    RemoveImageRequest { 1 image: Option<ImageSpec> }
    RemoveImageResponse {}

    ImageFsInfoRequest {}
    ImageFsInfoResponse {
        1 image_filesystems: Vec<FilesystemUsage>,
        2 container_filesystems: Vec<FilesystemUsage>,
    }
}
