//! Images as messages.

use shim_image::auth::Auth;
use shim_image::images::FsUsage;
use shim_image::index::Image;
use shim_proto::runtime_v1 as cri;
use std::path::Path;

/// An image as an entry of a list.
pub(crate) fn entry(image: &Image) -> cri::Image {
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    cri::Image {
        id: image.id.to_string(),
        repo_tags: image.tags.iter().cloned().collect(),
        repo_digests: image.digests.iter().cloned().collect(),
        size: image.size.max(1),
        uid: uid.map(|value| cri::Int64Value { value }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: None,
        pinned: image.pinned,
    }
}

/// Credentials of a pull.
pub(crate) fn auth(config: Option<cri::AuthConfig>) -> Auth {
    let config = config.unwrap_or_default();
    Auth::from_parts(
        &config.username,
        &config.password,
        &config.auth,
        &config.identity_token,
        &config.registry_token,
    )
}

/// Use of the image file system; images and containers share it.
pub(crate) fn fs_info(usage: FsUsage, mountpoint: &Path, now: i64) -> cri::ImageFsInfoResponse {
    let entry = |(bytes, inodes): (u64, u64)| cri::FilesystemUsage {
        timestamp: now,
        fs_id: Some(cri::FilesystemIdentifier {
            mountpoint: mountpoint.to_string_lossy().into_owned(),
        }),
        used_bytes: Some(cri::UInt64Value { value: bytes }),
        inodes_used: Some(cri::UInt64Value { value: inodes }),
    };
    cri::ImageFsInfoResponse {
        image_filesystems: vec![entry(usage.images)],
        container_filesystems: vec![entry(usage.containers)],
    }
}
