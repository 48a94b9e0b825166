//! The S3 operations, as the `s3s` crate parses and answers them.

use super::body::{Declared, Outgoing, finish_reading, receive, sha256};
use super::files::{Fresh, Held, Name};
use super::handing::{self, Asked};
use super::index::{self, About, Condition, Object, Segment, Written, internal};
use super::{MAX_PARTS, MAX_PUT, Store, hex, unhex};
use crate::group::Outcome;
use aws_smithy_types::base64;
use rusqlite::Connection;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, ChecksumAlgorithm, ChecksumMode,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CopyObjectResult,
    CopyPartResult, CopySource, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListMultipartUploadsInput,
    ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput,
    MetadataDirective, MultipartUpload, PutObjectInput, PutObjectOutput, Range, StreamingBlob, UploadPartCopyInput,
    UploadPartCopyOutput, UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// The store, for the `s3s` trait.
pub(super) struct Operations(pub(super) Arc<Store>);

/// The inputs that create an object describe it in fields of the same names.
macro_rules! about {
    ($input:expr, $checksum:expr) => {
        About {
            content_type: $input.content_type.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            cache_control: $input.cache_control.take(),
            metadata: $input.metadata.take(),
            checksum: $checksum,
        }
    };
}

impl Store {
    fn bucket(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.config.bucket {
            return Ok(());
        }
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }

    /// The object at `key` with all of its files, none of which can be removed before they are let go.
    pub(super) fn find(&self, key: &str) -> S3Result<(Object, Vec<Segment>, Held)> {
        let ((object, segments), held) = self.files.hold(|| {
            self.index.read(|rows| {
                let object = index::find(rows, key)?.ok_or_else(missing)?;
                let segments = index::segments(rows, object.id, &(0..object.size))?;
                let names = segments.iter().map(|segment| Arc::clone(&segment.name)).collect();
                Ok(((object, segments), names))
            })
        })?;
        Ok((object, segments, held))
    }

    /// Runs a change that may leave files without rows, and removes those files.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Connection) -> S3Result<(T, Vec<Name>)> + Send + 'static,
        after: impl FnOnce(Outcome) + Send + 'static,
    ) -> S3Result<T> {
        let (result, orphans) = self.index.write(change, after).await?;
        if !orphans.is_empty() {
            let files = Arc::clone(&self.files);
            // The commit is done, so the result does not depend on this: if it fails, the sweep removes the files.
            let _done = spawn_blocking(move || files.discard(&orphans)).await;
        }
        Ok(result)
    }

    /// Steps 6 and 7 for a new file: once the commit was attempted, the file stays, since a row names it, or may turn
    /// out to name it (see the index on failed commits).
    pub(super) async fn change_with<T: Send + 'static>(
        &self,
        fresh: Fresh,
        change: impl FnOnce(&Connection) -> S3Result<(T, Vec<Name>)> + Send + 'static,
    ) -> S3Result<T> {
        self.change(change, move |_| fresh.keep()).await
    }

    async fn take_in(&self, body: Option<StreamingBlob>, declared: &Declared) -> S3Result<(Fresh, Written)> {
        let body = body.ok_or_else(|| s3_error!(IncompleteBody))?;
        receive(&self.files, body, declared).await
    }
}

/// What the headers say about a body. `x-amz-content-sha256` is checked regardless of who signed it.
fn declared<T>(request: &S3Request<T>, length: Option<i64>, sha256: Option<&str>) -> S3Result<Declared> {
    let length = length
        .and_then(|length| u64::try_from(length).ok())
        .ok_or_else(|| s3_error!(MissingContentLength, "You must provide the Content-Length HTTP header."))?;
    if length > MAX_PUT {
        return Err(s3_error!(
            EntityTooLarge,
            "Your proposed upload exceeds the maximum allowed size of {MAX_PUT} bytes"
        ));
    }
    if request.headers.contains_key("content-md5") {
        return Err(s3_error!(NotImplemented, "Content-MD5 is not supported here: use x-amz-checksum-sha256."));
    }
    let said = request.headers.get("x-amz-content-sha256").map(http::HeaderValue::as_bytes);
    let payload = match said {
        None | Some(b"UNSIGNED-PAYLOAD") => None,
        Some(value) => {
            let payload = std::str::from_utf8(value).ok().and_then(unhex);
            // This also refuses the chunked encodings, whose framing would otherwise be stored.
            Some(payload.ok_or_else(|| {
                s3_error!(
                    NotImplemented,
                    "Bodies in the aws-chunked encoding are not supported here: \
                     set request_checksum_calculation to WhenRequired."
                )
            })?)
        }
    };
    // A sender who says explicitly that there is no hash computes one itself.
    let hashed = payload.is_some() || sha256.is_some() || said.is_none();
    Ok(Declared { length, payload, sha256: sha256.map(digest).transpose()?, hashed })
}

fn digest<const N: usize>(text: &str) -> S3Result<[u8; N]> {
    let bytes = base64::decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| s3_error!(InvalidDigest, "The digest that you specified is not valid."))
}

fn condition(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Always),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Vacant),
        _ => Err(s3_error!(NotImplemented, "Of the conditions on a write only If-None-Match: * is supported here.")),
    }
}

/// The conditions on a read.
fn admits(object: &Object, if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> S3Result<()> {
    let is = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    };
    if if_match.is_some_and(|condition| !is(condition)) {
        return Err(s3_error!(PreconditionFailed));
    }
    if if_none_match.is_some_and(is) {
        return Err(s3_error!(NotModified));
    }
    Ok(())
}

fn check_number(part: i32) -> S3Result<()> {
    if usize::try_from(part).is_ok_and(|number| (1..=MAX_PARTS).contains(&number)) {
        return Ok(());
    }
    Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and {MAX_PARTS}, inclusive"))
}

/// The key of the object that is copied.
fn copied<'a>(store: &Store, source: &'a CopySource) -> S3Result<&'a str> {
    let CopySource::Bucket { bucket, key, version_id: None } = source else {
        return Err(s3_error!(NotImplemented, "The copy source must be a bucket and a key."));
    };
    store.bucket(bucket)?;
    Ok(key)
}

fn missing() -> s3s::S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn checksum(object: &Object) -> Option<String> {
    object.about.checksum.then(|| object.sha256.map(base64::encode)).flatten()
}

fn whole_parts() -> s3s::S3Error {
    s3_error!(NotImplemented, "Reading by part number is not supported here.")
}

/// How many to list at most, and one more to see whether that is all.
fn limit(asked: Option<i32>) -> (usize, i32) {
    let limit = asked.unwrap_or(1000).clamp(0, 1000);
    (usize::try_from(limit).unwrap_or(0), limit)
}

#[async_trait::async_trait]
impl S3 for Operations {
    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        // It has existed from the start, and belongs to every caller of this store.
        self.0.bucket(&request.input.bucket)?;
        Ok(S3Response::new(CreateBucketOutput::default()))
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.0.bucket(&request.input.bucket)?;
        if !self.0.index.sound() {
            return Err(s3_error!(ServiceUnavailable, "The objects' index takes no changes until a restart."));
        }
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let store = &self.0;
        let input = &request.input;
        store.bucket(&input.bucket)?;
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let mut declared = declared(&request, input.content_length, input.checksum_sha256.as_deref())?;
        let input = &mut request.input;
        let wanted = input.checksum_sha256.is_some() || wants_sha256(input.checksum_algorithm.as_ref());
        declared.hashed |= wanted;
        let about = about!(input, wanted);
        let (fresh, written) = store.take_in(input.body.take(), &declared).await?;
        let output = PutObjectOutput {
            e_tag: Some(ETag::Strong(hex(&written.tag))),
            checksum_sha256: written.sha256.filter(|_| wanted).map(base64::encode),
            ..PutObjectOutput::default()
        };
        let key = std::mem::take(&mut input.key);
        store.change_with(fresh, move |rows| Ok(((), index::put(rows, &key, &written, &about, condition)?))).await?;
        Ok(S3Response::new(output))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let store = &self.0;
        let asked = Asked::of(&request);
        let input = request.input;
        store.bucket(&input.bucket)?;
        if input.part_number.is_some() {
            return Err(whole_parts());
        }
        let ((object, range, segments), held) = store.files.hold(|| {
            store.index.read(|rows| {
                let object = index::find(rows, &input.key)?.ok_or_else(missing)?;
                admits(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
                let range = match &input.range {
                    Some(range) => range.check(object.size)?,
                    None => 0..object.size,
                };
                let segments = index::segments(rows, object.id, &range)?;
                let names = segments.iter().map(|segment| Arc::clone(&segment.name)).collect();
                Ok(((object, range, segments), names))
            })
        })?;
        let length = range.end.saturating_sub(range.start);
        let content_range = input
            .range
            .is_some()
            .then(|| format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), object.size));
        let wanted = input.checksum_mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        let checksum_sha256 = checksum(&object).filter(|_| wanted && content_range.is_none());
        let handed = store.handed(&asked, &object, &segments)?;
        let (body, length, content_range) = if handed.is_some() {
            finish_reading(spawn_blocking(move || held.give(&segments))).await?;
            // The proxy knows the length, and cuts the range out itself.
            (None, None, None)
        } else {
            let body = StreamingBlob::new(Outgoing::start(held, segments, range).await?);
            (Some(body), Some(signed(length)), content_range)
        };
        let mut response = S3Response::new(GetObjectOutput {
            // Of a file that it sends, the proxy says this itself.
            accept_ranges: handed.is_none().then(|| String::from("bytes")),
            body,
            cache_control: object.about.cache_control,
            checksum_sha256,
            content_disposition: object.about.content_disposition,
            content_encoding: object.about.content_encoding,
            content_language: object.about.content_language,
            content_length: length,
            content_range,
            content_type: object.about.content_type,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            metadata: object.about.metadata,
            ..GetObjectOutput::default()
        });
        response.headers.extend(handed.map(|place| (handing::HEADER, place)));
        Ok(response)
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        if input.part_number.is_some() {
            return Err(whole_parts());
        }
        let (object, segments, held) = self.0.find(&input.key)?;
        admits(&object, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        finish_reading(spawn_blocking(move || held.check(&segments))).await?;
        let wanted = input.checksum_mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some(String::from("bytes")),
            checksum_sha256: checksum(&object).filter(|_| wanted),
            cache_control: object.about.cache_control,
            content_disposition: object.about.content_disposition,
            content_encoding: object.about.content_encoding,
            content_language: object.about.content_language,
            content_length: Some(signed(object.size)),
            content_type: object.about.content_type,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(object.modified.into()),
            metadata: object.about.metadata,
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        self.0.change(move |rows| Ok(((), index::delete(rows, &input.key)?)), |_| ()).await?;
        // As S3 does, also for a missing object: so a delete can be repeated.
        let mut response = S3Response::new(DeleteObjectOutput::default());
        response.status = Some(http::StatusCode::NO_CONTENT);
        Ok(response)
    }

    async fn copy_object(&self, mut request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let store = &self.0;
        let input = &mut request.input;
        store.bucket(&input.bucket)?;
        let key = copied(store, &input.copy_source)?;
        let wanted = wants_sha256(input.checksum_algorithm.as_ref());
        let (mut source, segments, held) = store.find(key)?;
        admits(&source, input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref())?;
        if source.size > MAX_PUT {
            return Err(s3_error!(
                InvalidRequest,
                "The specified copy source is larger than the maximum allowable size for a copy source: {MAX_PUT}"
            ));
        }
        let (hashed, size) = (wanted && source.sha256.is_none(), source.size);
        let checked = move || {
            held.check(&segments)?;
            if hashed { sha256(held, segments, size).map(Some) } else { Ok(None) }
        };
        source.sha256 = finish_reading(spawn_blocking(checked)).await?.or(source.sha256);
        let replace =
            input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == MetadataDirective::REPLACE);
        let about = if replace {
            about!(input, wanted)
        } else {
            About { checksum: wanted || source.about.checksum, ..source.about.clone() }
        };
        let key = std::mem::take(&mut input.key);
        let copy = store.change(move |rows| index::copy(rows, &source, &key, &about), |_| ()).await?;
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(CopyObjectResult {
                checksum_sha256: checksum(&copy),
                e_tag: Some(ETag::Strong(copy.etag)),
                last_modified: Some(copy.modified.into()),
                ..CopyObjectResult::default()
            }),
            ..CopyObjectOutput::default()
        }))
    }

    async fn create_multipart_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = &mut request.input;
        self.0.bucket(&input.bucket)?;
        let about = about!(input, false);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(internal)?;
        let id = hex(&random);
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(id.clone()),
            ..CreateMultipartUploadOutput::default()
        };
        let key = std::mem::take(&mut input.key);
        self.0.change(move |rows| Ok((index::begin(rows, &id, &key, &about)?, Vec::new())), |_| ()).await?;
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, mut request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let store = &self.0;
        let input = &request.input;
        store.bucket(&input.bucket)?;
        check_number(input.part_number)?;
        // Checked again when the part is entered; this check avoids receiving bytes for nothing.
        store.index.read(|rows| index::upload(rows, &input.upload_id, &input.key))?;
        let declared = declared(&request, input.content_length, input.checksum_sha256.as_deref())?;
        let input = &mut request.input;
        let (fresh, written) = store.take_in(input.body.take(), &declared).await?;
        let output = UploadPartOutput {
            e_tag: Some(ETag::Strong(hex(&written.tag))),
            checksum_sha256: input.checksum_sha256.take(),
            ..UploadPartOutput::default()
        };
        let (id, key, number) =
            (std::mem::take(&mut input.upload_id), std::mem::take(&mut input.key), input.part_number);
        store.change_with(fresh, move |rows| Ok(((), index::add_part(rows, &id, &key, number, &written)?))).await?;
        Ok(S3Response::new(output))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let store = &self.0;
        let input = request.input;
        store.bucket(&input.bucket)?;
        check_number(input.part_number)?;
        let key = copied(store, &input.copy_source)?;
        store.index.read(|rows| index::upload(rows, &input.upload_id, &input.key))?;
        let (source, segments, held) = store.find(key)?;
        admits(&source, input.copy_source_if_match.as_ref(), input.copy_source_if_none_match.as_ref())?;
        let range = match &input.copy_source_range {
            Some(range) => Range::parse(range)
                .map_err(|_| s3_error!(InvalidArgument, "The range can not be read."))?
                .check(source.size)?,
            None => 0..source.size,
        };
        let length = range.end.saturating_sub(range.start);
        let within = |segment: &Segment| segment.start < range.end && segment.start + segment.size > range.start;
        let segments = segments.into_iter().filter(within).collect();
        let body = StreamingBlob::new(Outgoing::start(held, segments, range.clone()).await?);
        let (fresh, written) = store.take_in(Some(body), &Declared { length, ..Declared::default() }).await?;
        let etag = ETag::Strong(hex(&written.tag));
        let (id, key, number) = (input.upload_id, input.key, input.part_number);
        store.change_with(fresh, move |rows| Ok(((), index::add_part(rows, &id, &key, number, &written)?))).await?;
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(CopyPartResult { e_tag: Some(etag), ..CopyPartResult::default() }),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        let (limit, max_parts) = limit(input.max_parts);
        let after = input.part_number_marker.unwrap_or(0);
        let mut parts = self.0.index.read(|rows| {
            index::upload(rows, &input.upload_id, &input.key)?;
            index::parts(rows, &input.upload_id, after, limit + 1)
        })?;
        let more = parts.len() > limit;
        parts.truncate(limit);
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            is_truncated: Some(more),
            max_parts: Some(max_parts),
            part_number_marker: Some(after),
            next_part_number_marker: parts.last().filter(|_| more).map(|part| part.number),
            parts: Some(
                parts
                    .into_iter()
                    .map(|part| s3s::dto::Part {
                        part_number: Some(part.number),
                        size: Some(signed(part.size)),
                        e_tag: Some(ETag::Strong(hex(&part.tag))),
                        last_modified: Some(part.modified.into()),
                        ..s3s::dto::Part::default()
                    })
                    .collect(),
            ),
            ..ListPartsOutput::default()
        }))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        let condition = condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let listed = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let listed: Vec<(i32, Option<String>)> =
            listed.into_iter().map(|part| (part.part_number.unwrap_or(0), part.e_tag.map(ETag::into_value))).collect();
        let mut output = CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, input.key)),
            bucket: Some(input.bucket),
            key: Some(input.key.clone()),
            ..CompleteMultipartUploadOutput::default()
        };
        let etag = self
            .0
            .change(move |rows| index::complete(rows, &input.upload_id, &input.key, &listed, condition), |_| ())
            .await?;
        output.e_tag = Some(ETag::Strong(etag));
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        self.0.change(move |rows| Ok(((), index::abort(rows, &input.upload_id, &input.key)?)), |_| ()).await?;
        let mut response = S3Response::new(AbortMultipartUploadOutput::default());
        response.status = Some(http::StatusCode::NO_CONTENT);
        Ok(response)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        if input.delimiter.is_some() {
            return Err(s3_error!(NotImplemented, "Listing with a delimiter is not supported here."));
        }
        let (limit, max_uploads) = limit(input.max_uploads);
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let key = input.key_marker.as_deref().unwrap_or_default();
        // Without an upload id the whole key is already listed: no id sorts after this.
        let id = match input.upload_id_marker.as_deref() {
            Some(id) => id,
            None if key.is_empty() => "",
            None => "\u{10ffff}",
        };
        let mut uploads = self.0.index.read(|rows| index::uploads(rows, prefix, (key, id), limit + 1))?;
        let more = uploads.len() > limit;
        uploads.truncate(limit);
        let last = uploads.last().filter(|_| more);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            is_truncated: Some(more),
            max_uploads: Some(max_uploads),
            next_key_marker: last.map(|upload| upload.key.clone()),
            next_upload_id_marker: last.map(|upload| upload.id.clone()),
            prefix: input.prefix.clone(),
            key_marker: input.key_marker.clone(),
            upload_id_marker: input.upload_id_marker.clone(),
            uploads: Some(
                uploads
                    .into_iter()
                    .map(|upload| MultipartUpload {
                        key: Some(upload.key),
                        upload_id: Some(upload.id),
                        initiated: Some(upload.begun.into()),
                        ..MultipartUpload::default()
                    })
                    .collect(),
            ),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        self.0.bucket(&input.bucket)?;
        if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
            return Err(s3_error!(NotImplemented, "Listing with a delimiter is not supported here."));
        }
        let (limit, max_keys) = limit(input.max_keys);
        let after = match &input.continuation_token {
            // The last key of the page before, in a form that needs no escaping.
            Some(token) => base64::decode(token)
                .ok()
                .and_then(|key| String::from_utf8(key).ok())
                .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let mut objects = self.0.index.read(|rows| index::list(rows, prefix, &after, limit + 1))?;
        let more = objects.len() > limit && limit > 0;
        objects.truncate(limit);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            is_truncated: Some(more),
            key_count: i32::try_from(objects.len()).ok(),
            max_keys: Some(max_keys),
            next_continuation_token: objects.last().filter(|_| more).map(|last| base64::encode(&last.key)),
            prefix: input.prefix.clone(),
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            contents: Some(
                objects
                    .into_iter()
                    .map(|object| s3s::dto::Object {
                        key: Some(object.key),
                        size: Some(signed(object.size)),
                        e_tag: Some(ETag::Strong(object.etag)),
                        last_modified: Some(object.modified.into()),
                        ..s3s::dto::Object::default()
                    })
                    .collect(),
            ),
            ..ListObjectsV2Output::default()
        }))
    }
}

fn wants_sha256(algorithm: Option<&ChecksumAlgorithm>) -> bool {
    algorithm.is_some_and(|algorithm| algorithm.as_str() == ChecksumAlgorithm::SHA256)
}
