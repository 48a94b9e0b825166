//! The narrow interface to the bucket: presigned URLs for clients, and the few operations on objects that we do
//! ourselves.

use super::Pieces;
use super::keys::INSTALLATION;
use super::table::{FULL, StoreError, pause};
use crate::domain::digest::Hasher;
use crate::domain::{Digest, OciDigest};
use crate::rules::Grant;
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::create_bucket::CreateBucketError;
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::presigning::PresigningConfig;
pub use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, CreateBucketConfiguration};
use aws_sigv4::http_request::SignableBody;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use sha2::Digest as _;
use std::ops::Range;
use std::time::Duration;

/// The largest object of a single `PUT`, in bytes.
pub const MAX_PUT: u64 = 5 << 30;

/// The bytes of one part of a copy. With the largest, a copy has few enough parts for the largest object.
const COPIED_PART: usize = 5 << 30;

/// How many times a copy is tried if its source changes in the meantime.
const COPIES: u32 = 8;

/// One part of a multipart upload, as its client lists it at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// From 1.
    pub number: u64,
    /// Its `ETag` from the store.
    pub etag: String,
}

/// An object that a client is to send whole.
#[derive(Debug, Clone, Copy)]
pub struct NewPut {
    /// Bytes.
    pub size: u64,
    /// With a digest, the store refuses other bytes.
    pub digest: Option<Digest>,
}

/// A part of a multipart upload that a client is to send.
#[derive(Debug, Clone, Copy)]
pub struct NewPart<'a> {
    /// The store's id of the upload.
    pub upload: &'a str,
    /// From 1.
    pub number: u64,
    /// Bytes.
    pub length: u64,
    /// What the URL says of them.
    pub says: Option<Said>,
}

/// What a URL says of the bytes of an upload. Its client sends the digest in the header `x-amz-content-sha256`.
#[derive(Debug, Clone, Copy)]
pub enum Said {
    /// They have this digest: the store refuses others.
    Bytes(Digest),
    /// Only that the header has this value, whatever the bytes are.
    Header(Digest),
}

/// A part of a multipart upload that we send ourselves.
#[derive(Debug)]
pub struct OwnPart<'a> {
    /// The store's id of the upload.
    pub upload: &'a str,
    /// From 1.
    pub number: usize,
    /// All of it.
    pub bytes: Pieces,
}

/// A multipart upload that the store knows of.
#[derive(Debug)]
pub struct OpenParts {
    /// Name of its object.
    pub object: String,
    /// The store's id of it.
    pub upload: String,
    /// The time it started, in seconds since 1970.
    pub since: i64,
}

/// An object that the store lists.
#[derive(Debug)]
pub struct ListedObject {
    /// Its name.
    pub object: String,
    /// Bytes.
    pub size: u64,
    /// The time it was last modified, in seconds since 1970.
    pub since: i64,
}

/// The bucket.
#[derive(Debug, Clone)]
pub struct Objects {
    client: Client,
    /// Signs URLs; knows the store by its public name.
    public: Client,
    bucket: String,
}

impl Objects {
    /// The bucket `bucket`: we reach it through `client`, and clients at the endpoint of `public`.
    pub fn new(client: Client, public: Client, bucket: String) -> Self {
        Self { client, public, bucket }
    }

    /// Creates the bucket if it doesn't exist. A bucket of somebody else with that name is an error.
    pub async fn create(&self) -> Result<(), StoreError> {
        if self.client.head_bucket().bucket(&self.bucket).send().await.is_ok() {
            return Ok(());
        }
        let region = self.client.config().region().map(ToString::to_string).filter(|region| region != "us-east-1");
        // Outside that region, AWS wants to be told where.
        let place = region
            .map(|region| CreateBucketConfiguration::builder().location_constraint(region.as_str().into()).build());
        let request = self.client.create_bucket().bucket(&self.bucket).set_create_bucket_configuration(place);
        let Err(error) = request.send().await else { return Ok(()) };
        let refused = error.as_service_error();
        let own = refused.is_some_and(CreateBucketError::is_bucket_already_owned_by_you);
        // Another server may make it at this moment.
        let meanwhile = refused.and_then(ProvideErrorMetadata::code) == Some("OperationAborted");
        if own || meanwhile { Ok(()) } else { Err(failed(&error)) }
    }

    /// Whether the bucket answers.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.client.head_bucket().bucket(&self.bucket).send().await.map(|_| ()).map_err(|error| failed(&error))
    }

    /// A URL that accepts exactly one `PUT` of an object.
    pub async fn presign_put(
        &self,
        grant: &Grant,
        object: &str,
        put: NewPut,
        life: Duration,
    ) -> Result<String, StoreError> {
        writing(grant)?;
        let NewPut { size, digest } = put;
        let request = self.public.put_object().bucket(&self.bucket).key(object).content_length(signed(size));
        let request = request.customize().interceptor(PinPayload(digest.map(Said::Bytes)));
        let request = request.presigned(lasting(life)?).await.map_err(|error| failed(&error))?;
        Ok(request.uri().to_owned())
    }

    /// A URL that accepts exactly one part of a multipart upload.
    pub async fn presign_part(
        &self,
        grant: &Grant,
        object: &str,
        part: NewPart<'_>,
        life: Duration,
    ) -> Result<String, StoreError> {
        writing(grant)?;
        let NewPart { upload, number, length, says } = part;
        let number = i32::try_from(number).map_err(|_| StoreError::Refused("part number too large".to_owned()))?;
        let request = self.public.upload_part().bucket(&self.bucket).key(object).upload_id(upload);
        let request = request.part_number(number).content_length(signed(length));
        let request = request.customize().interceptor(PinPayload(says));
        let request = request.presigned(lasting(life)?).await.map_err(|error| failed(&error))?;
        Ok(request.uri().to_owned())
    }

    /// A URL for the object, whole or in ranges, with a file name if there is one.
    ///
    /// The URL fixes all HTTP headers that describe the bytes. The uploader may have sent other headers, which the
    /// store keeps with the object. Clients would decode bytes with a content encoding, so one uploader could affect
    /// everybody.
    pub async fn presign_get(&self, object: &str, file: Option<&str>, life: Duration) -> Result<String, StoreError> {
        let request = self.public.get_object().bucket(&self.bucket).key(object);
        let name = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        let request = request
            .response_content_disposition(format!("attachment{name}"))
            .response_content_type("application/octet-stream")
            // There is no way to ask for no encoding.
            .response_content_encoding("identity")
            .response_cache_control("private, no-transform");
        let request = request.presigned(lasting(life)?).await.map_err(|error| failed(&error))?;
        Ok(request.uri().to_owned())
    }

    /// The object's size in bytes; `None` if there is no such object.
    pub async fn size(&self, object: &str) -> Result<Option<u64>, StoreError> {
        match self.client.head_object().bucket(&self.bucket).key(object).send().await {
            Ok(head) => Ok(head.content_length().and_then(|length| u64::try_from(length).ok())),
            Err(error) if error.as_service_error().is_some_and(HeadObjectError::is_not_found) => Ok(None),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Whether the object is there with all of its bytes. It may still be damaged.
    pub async fn has(&self, object: &str, size: u64) -> Result<bool, StoreError> {
        Ok(self.size(object).await? == Some(size))
    }

    /// Reads a range of the object.
    pub async fn read(&self, object: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let range = format!("bytes={}-{}", range.start, range.end - 1);
        let request = self.client.get_object().bucket(&self.bucket).key(object).range(range);
        let answer = request.send().await.map_err(|error| failed(&error))?;
        let body = answer.body.collect().await.map_err(|error| StoreError::unavailable(&error))?;
        Ok(body.into_bytes())
    }

    /// The text of a small object; `None` if there is no such object.
    pub async fn text(&self, object: &str) -> Result<Option<String>, StoreError> {
        const MOST: u64 = 64;
        match self.read(object, 0..MOST).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(StoreError::NoObject) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is nothing in the bucket but its mark and what a trial left there.
    pub async fn is_empty(&self) -> Result<bool, StoreError> {
        let found = self.list(None).await?;
        Ok(found.iter().all(|one| one.object == INSTALLATION || one.object.starts_with(super::probe::OBJECTS)))
    }

    /// The same bucket with URLs that lead to where we reach it ourselves.
    #[must_use]
    pub fn inside(&self) -> Self {
        Self { public: self.client.clone(), ..self.clone() }
    }

    /// Continues reading the object where the hasher stopped, at most `most` bytes, and returns the hasher. Hashing is
    /// done off the async threads.
    pub async fn hash(&self, object: &str, mut hasher: Hasher, most: u64) -> Result<Hasher, StoreError> {
        let from = hasher.taken();
        let range = format!("bytes={from}-{}", from.saturating_add(most).saturating_sub(1));
        let request = self.client.get_object().bucket(&self.bucket).key(object).range(range);
        let mut body = request.send().await.map_err(|error| failed(&error))?.body;
        let (sender, mut chunks) = tokio::sync::mpsc::channel::<Bytes>(4);
        let hashing = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                hasher.update(&chunk);
            }
            hasher
        });
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| StoreError::unavailable(&error))?;
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        drop(sender);
        hashing.await.map_err(|error| StoreError::unavailable(&error))
    }

    /// The SHA-512 of the whole object, for clients that identify it by that.
    pub async fn sha512(&self, object: &str) -> Result<OciDigest, StoreError> {
        let request = self.client.get_object().bucket(&self.bucket).key(object);
        let mut body = request.send().await.map_err(|error| failed(&error))?.body;
        let mut hasher = sha2::Sha512::new();
        while let Some(chunk) = body.next().await {
            hasher.update(chunk.map_err(|error| StoreError::unavailable(&error))?);
            tokio::task::yield_now().await;
        }
        Ok(OciDigest::Sha512(hasher.finalize().into()))
    }

    /// The bytes of an object, or of `range` if there is one, as a stream.
    pub async fn stream(&self, object: &str, range: Option<Range<u64>>) -> Result<ByteStream, StoreError> {
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        let request = self.client.get_object().bucket(&self.bucket).key(object).set_range(range);
        Ok(request.send().await.map_err(|error| failed(&error))?.body)
    }

    /// Writes an object from bytes in memory.
    pub async fn put(&self, grant: &Grant, object: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.put_pieces(grant, object, bytes.into()).await
    }

    /// Writes an object from bytes in memory that lie in several places.
    pub async fn put_pieces(&self, grant: &Grant, object: &str, bytes: Pieces) -> Result<(), StoreError> {
        writing(grant)?;
        let request = self.client.put_object().bucket(&self.bucket).key(object).content_length(signed(bytes.len()));
        let request = request.body(bytes.into_body());
        // TLS protects the bytes on the way, and their digest is checked before anybody sees them.
        let request = request.customize().disable_payload_signing();
        request.send().await.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Writes a part of a multipart upload from bytes in memory, and returns its `ETag` from the store.
    pub async fn put_part(&self, grant: &Grant, object: &str, part: OwnPart<'_>) -> Result<String, StoreError> {
        writing(grant)?;
        let OwnPart { upload, number, bytes } = part;
        let number = i32::try_from(number).map_err(|_| StoreError::Refused("part number too large".to_owned()))?;
        let request = self.client.upload_part().bucket(&self.bucket).key(object).upload_id(upload);
        let request = request.part_number(number).content_length(signed(bytes.len())).body(bytes.into_body());
        let request = request.customize().disable_payload_signing();
        let answer = request.send().await.map_err(|error| failed(&error))?;
        answer.e_tag.ok_or_else(|| StoreError::Unavailable("the object store gave no ETag".to_owned()))
    }

    /// Starts a multipart upload and returns the store's id of it.
    pub async fn begin_parts(&self, grant: &Grant, object: &str) -> Result<String, StoreError> {
        writing(grant)?;
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(object);
        let answer = request.send().await.map_err(|error| failed(&error))?;
        answer.upload_id.ok_or_else(|| StoreError::Unavailable("the object store gave no upload id".to_owned()))
    }

    /// Assembles the object from its parts. Afterwards no part can change it any more.
    pub async fn complete_parts(
        &self,
        grant: &Grant,
        object: &str,
        upload: &str,
        parts: &[Part],
    ) -> Result<(), StoreError> {
        writing(grant)?;
        let parts = parts.iter().map(|part| {
            let number = i32::try_from(part.number).unwrap_or(i32::MAX);
            CompletedPart::builder().part_number(number).e_tag(&part.etag).build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(object).upload_id(upload);
        request.multipart_upload(parts).send().await.map(|_| ()).map_err(|error| failed(&error))
    }

    /// Aborts a multipart upload. It is no error if it is gone already.
    pub async fn abort_parts(&self, grant: &Grant, object: &str, upload: &str) -> Result<(), StoreError> {
        writing(grant)?;
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(object).upload_id(upload);
        match request.send().await.map_err(|error| failed(&error)) {
            Ok(_) | Err(StoreError::NoObject) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Copies an object of `size` bytes within the bucket.
    ///
    /// # Errors
    /// [`StoreError::NoObject`] if the source is not there.
    pub async fn copy(&self, grant: &Grant, from: &str, to: &str, size: u64) -> Result<(), StoreError> {
        writing(grant)?;
        if size > MAX_PUT {
            return Box::pin(self.copy_in_parts(grant, from, to, size)).await;
        }
        let request = self.client.copy_object().bucket(&self.bucket).key(to).copy_source(self.source(from));
        for attempt in 0..COPIES {
            pause(attempt).await;
            match request.clone().send().await {
                Ok(_) => return Ok(()),
                // Another client has just sent the bytes again.
                Err(error) if error.code() == Some("OperationAborted") => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Err(StoreError::Unavailable("the object changed each time it was copied".to_owned()))
    }

    fn source(&self, object: &str) -> String {
        format!("{}/{object}", self.bucket)
    }

    /// Copies an object that is too large for one copy. If it fails, the sweeper finds the upload in the store's list.
    async fn copy_in_parts(&self, grant: &Grant, from: &str, to: &str, size: u64) -> Result<(), StoreError> {
        let upload = self.begin_parts(grant, to).await?;
        let mut parts = Vec::new();
        for (number, start) in (1u16..).zip((0..size).step_by(COPIED_PART)) {
            let end = size.min(start + COPIED_PART as u64);
            let request = self.client.upload_part_copy().bucket(&self.bucket).key(to).upload_id(&upload);
            let request = request.part_number(number.into()).copy_source(self.source(from));
            let request = request.copy_source_range(format!("bytes={start}-{}", end - 1));
            let answer = request.send().await.map_err(|error| failed(&error))?;
            let etag = answer.copy_part_result.and_then(|result| result.e_tag);
            let etag = etag.ok_or_else(|| StoreError::Unavailable("the object store gave no ETag".to_owned()))?;
            parts.push(Part { number: number.into(), etag });
        }
        self.complete_parts(grant, to, &upload, &parts).await
    }

    /// Deletes an object. It is no error if it is gone already.
    pub async fn delete(&self, grant: &Grant, object: &str) -> Result<(), StoreError> {
        writing(grant)?;
        let request = self.client.delete_object().bucket(&self.bucket).key(object);
        request.send().await.map(|_| ()).map_err(|error| failed(&error))
    }

    /// At most 1 000 objects after the name `after`.
    pub async fn list(&self, after: Option<String>) -> Result<Vec<ListedObject>, StoreError> {
        let request = self.client.list_objects_v2().bucket(&self.bucket).set_start_after(after);
        let answer = request.send().await.map_err(|error| failed(&error))?;
        let named = answer.contents.unwrap_or_default().into_iter().filter_map(|object| {
            let since = object.last_modified().map_or(0, aws_sdk_s3::primitives::DateTime::secs);
            let size = object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
            Some(ListedObject { object: object.key?, size, since })
        });
        Ok(named.collect())
    }

    /// All multipart uploads that the store knows of. For the sweeper.
    pub async fn open_parts(&self) -> Result<Vec<OpenParts>, StoreError> {
        let mut all = Vec::new();
        let (mut key, mut upload) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket);
            let request = request.set_key_marker(key).set_upload_id_marker(upload);
            let answer = request.send().await.map_err(|error| failed(&error))?;
            all.extend(answer.uploads.unwrap_or_default().into_iter().filter_map(|open| {
                let since = open.initiated.map_or(0, |time| time.secs());
                Some(OpenParts { object: open.key?, upload: open.upload_id?, since })
            }));
            (key, upload) = (answer.next_key_marker, answer.next_upload_id_marker);
            if answer.is_truncated != Some(true) || key.is_none() {
                return Ok(all);
            }
        }
    }
}

/// That a grant is for an action that changes something. Its place can't be compared: the name of an object says
/// nothing of it.
fn writing(grant: &Grant) -> Result<(), StoreError> {
    if grant.action().is_read() {
        return Err(StoreError::Mistake(format!("a grant to {:?} changes no object", grant.action())));
    }
    Ok(())
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn lasting(life: Duration) -> Result<PresigningConfig, StoreError> {
    PresigningConfig::expires_in(life).map_err(|error| StoreError::unavailable(&error))
}

/// The meaning of the store's answer for us.
fn failed<E, R>(error: &SdkError<E, R>) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
    R: std::fmt::Debug,
{
    const REFUSALS: [&str; 7] = [
        "InvalidPart",
        "InvalidPartOrder",
        "EntityTooSmall",
        "EntityTooLarge",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "MalformedXML",
    ];
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some("NoSuchKey" | "NoSuchUpload" | "NotFound") => StoreError::NoObject,
        Some(FULL) => StoreError::Full,
        Some(code) if REFUSALS.contains(&code) => StoreError::Refused(code.to_owned()),
        _ => StoreError::Unavailable(DisplayErrorContext(error).to_string()),
    }
}

/// Pins the digest of the body into a presigned URL.
///
/// The SDK signs `UNSIGNED-PAYLOAD` into every presigned URL, whatever headers are set. This interceptor runs after
/// the SDK's own. It adds the header and signs its value, so that the store compares the bytes that arrive.
#[derive(Debug)]
struct PinPayload(Option<Said>);

#[dyn_dispatch_hint]
impl Intercept for PinPayload {
    fn name(&self) -> &'static str {
        "PinPayload"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let digest = match self.0 {
            None => return Ok(()),
            Some(Said::Bytes(digest) | Said::Header(digest)) => digest,
        };
        context.request_mut().headers_mut().insert("x-amz-content-sha256", digest.hex());
        if let Some(Said::Header(_)) = self.0 {
            return Ok(());
        }
        let signing = config.load::<SigV4OperationSigningConfig>();
        let mut signing = signing.cloned().ok_or("a presigned request is signed with SigV4")?;
        signing.signing_options.payload_override = Some(SignableBody::Precomputed(digest.hex()));
        config.interceptor_state().store_put(signing);
        Ok(())
    }
}
