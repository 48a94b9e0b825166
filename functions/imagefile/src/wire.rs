//! The answers of the routes for images' bytes, field by field.

use serde::Serialize;
use shared::config::Pins;
use shared::service::pull::Found;
use shared::service::uploads;
use utoipa::ToSchema;

/// Where to send the bytes of an image.
#[derive(Serialize, ToSchema)]
pub(crate) struct UploadUrl {
    #[serde(rename = "uploadURL")]
    pub(crate) upload_url: String,
}

/// An opened multipart upload.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OpenedParts {
    #[serde(rename = "uploadID")]
    upload: String,
    total_parts: u64,
    /// The size in bytes of every part except the last.
    part_size: u64,
    options: PartOptions,
}

/// How to send the parts.
#[derive(Serialize, ToSchema)]
struct PartOptions {
    /// `true`: with their SHA-256 in a header, which the URL requires; `false`: without.
    s3compliant: &'static str,
}

/// An opened multipart upload.
pub(crate) fn opened(opened: &uploads::parts::Opened, pins: Pins) -> OpenedParts {
    // Whether clients are to compute the digest of each part, and send it in a header.
    let pinned = pins != Pins::Nothing;
    OpenedParts {
        upload: opened.id.to_string(),
        total_parts: opened.parts,
        part_size: opened.part_size,
        options: PartOptions { s3compliant: if pinned { "true" } else { "false" } },
    }
}

/// Where to send the bytes of a part.
#[derive(Serialize, ToSchema)]
pub(crate) struct PartUrl {
    #[serde(rename = "presignedURL")]
    pub(crate) presigned_url: String,
}

/// A completed upload.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Completed {
    quota: QuotaLine,
    /// `library/ENTITY/COLLECTION/CONTAINER`.
    container_url: String,
}

/// The quota of the entity, in the client's form.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct QuotaLine {
    /// Bytes, 0 for unlimited.
    quota_total: u64,
    /// Bytes.
    quota_usage: u64,
}

/// A completed upload.
pub(crate) fn completed(done: &uploads::Completed) -> Completed {
    Completed {
        quota: QuotaLine { quota_total: done.quota.limit, quota_usage: done.quota.used() },
        container_url: format!("library/{}", done.image.repository),
    }
}

/// The answer to a `shub://` lookup.
#[derive(Serialize, ToSchema)]
pub(crate) struct Manifest {
    /// Changes with the content: the client's cache key.
    commit: String,
    /// The URL of the bytes.
    image: String,
    name: String,
    tag: String,
    version: String,
}

/// The answer to a `shub://` lookup of an image, with its URL.
pub(crate) fn manifest(found: &Found, url: String) -> Manifest {
    let hex = found.image.hash.hex();
    Manifest {
        commit: hex.clone(),
        image: url,
        name: found.container.repository.rest().to_owned(),
        tag: found.image.tags.first().map(ToString::to_string).unwrap_or_default(),
        version: hex,
    }
}
