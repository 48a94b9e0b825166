//! What a call of S3 needs, and how it is refused.
//!
//! Source: *Amazon S3 User Guide*, "Required permissions for Amazon S3 API operations"; *S3 API Reference*, the section
//! "Permissions" of each operation, and "Error responses"; *S3 User Guide*, "Multipart upload API and permissions".

use super::Need;
use http::{HeaderMap, Method};

/// A call, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The operation.
    pub operation: &'static str,
    /// What it needs.
    pub needs: Vec<Need>,
    /// For operations that read one object: what else the caller needs to be told that it does not exist.
    pub to_hear_of_nothing: Option<Need>,
}

/// The permission that an operation on a bucket needs.
fn on_bucket(method: &Method, has: impl Fn(&str) -> bool) -> Option<(&'static str, &'static str)> {
    Some(match method.as_str() {
        "GET" if has("uploads") => ("ListMultipartUploads", "s3:ListBucketMultipartUploads"),
        "GET" if has("versions") => ("ListObjectVersions", "s3:ListBucketVersions"),
        "GET" if has("location") => ("GetBucketLocation", "s3:GetBucketLocation"),
        "GET" if has("list-type") => ("ListObjectsV2", "s3:ListBucket"),
        "GET" => ("ListObjects", "s3:ListBucket"),
        "HEAD" => ("HeadBucket", "s3:ListBucket"),
        "PUT" => ("CreateBucket", "s3:CreateBucket"),
        "DELETE" => ("DeleteBucket", "s3:DeleteBucket"),
        _ => return None,
    })
}

/// The permission that an operation on an object needs.
fn on_object(method: &Method, copies: bool, has: impl Fn(&str) -> bool) -> Option<(&'static str, &'static str)> {
    let part = has("partNumber") && has("uploadId");
    Some(match method.as_str() {
        "GET" if has("uploadId") => ("ListParts", "s3:ListMultipartUploadParts"),
        "GET" if has("attributes") => ("GetObjectAttributes", "s3:GetObjectAttributes"),
        "GET" if has("tagging") => ("GetObjectTagging", "s3:GetObjectTagging"),
        "GET" if has("versionId") => ("GetObject", "s3:GetObjectVersion"),
        "GET" => ("GetObject", "s3:GetObject"),
        "HEAD" => ("HeadObject", "s3:GetObject"),
        "PUT" if part && copies => ("UploadPartCopy", "s3:PutObject"),
        "PUT" if part => ("UploadPart", "s3:PutObject"),
        "PUT" if has("tagging") => ("PutObjectTagging", "s3:PutObjectTagging"),
        "PUT" if has("acl") => ("PutObjectAcl", "s3:PutObjectAcl"),
        "PUT" if copies => ("CopyObject", "s3:PutObject"),
        "PUT" => ("PutObject", "s3:PutObject"),
        "POST" if has("uploads") => ("CreateMultipartUpload", "s3:PutObject"),
        "POST" if has("uploadId") => ("CompleteMultipartUpload", "s3:PutObject"),
        "DELETE" if has("uploadId") => ("AbortMultipartUpload", "s3:AbortMultipartUpload"),
        "DELETE" if has("versionId") => ("DeleteObject", "s3:DeleteObjectVersion"),
        "DELETE" => ("DeleteObject", "s3:DeleteObject"),
        _ => return None,
    })
}

/// What a call needs, with the bucket as the first part of its path. `None` if it is no operation that is known here.
///
/// - A copy needs to read its source, too. Source: S3 API Reference, "`CopyObject`", "`UploadPartCopy`".
/// - Who may not list the bucket is told 403 instead of 404. Source: S3 API Reference, "`GetObject`", "Permissions".
pub fn asked(method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Option<Asked> {
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    if bucket.is_empty() {
        return (method == Method::GET).then(|| Asked {
            operation: "ListBuckets",
            needs: vec![Need::new("s3:ListAllMyBuckets", "*")],
            to_hear_of_nothing: None,
        });
    }
    let bucket = format!("arn:aws:s3:::{bucket}");
    if key.is_empty() {
        let (operation, action) = on_bucket(method, has)?;
        return Some(Asked { operation, needs: vec![Need::new(action, bucket)], to_hear_of_nothing: None });
    }
    let source = headers.get("x-amz-copy-source").map(|source| source.to_str().unwrap_or_default());
    let (operation, action) = on_object(method, source.is_some(), has)?;
    let mut needs = vec![Need::new(action, format!("{bucket}/{}", crate::event::unescaped(key)))];
    if let Some(source) = source {
        let source = crate::event::unescaped(source.trim_start_matches('/').split('?').next().unwrap_or_default());
        needs.push(Need::new("s3:GetObject", format!("arn:aws:s3:::{source}")));
    }
    let reads = ["GetObject", "HeadObject", "CopyObject", "UploadPartCopy"].contains(&operation);
    let to_hear_of_nothing = reads.then(|| Need::new("s3:ListBucket", bucket));
    Some(Asked { operation, needs, to_hear_of_nothing })
}

/// The refusal of a call: its status, and its body of type `application/xml`. Source: S3 API Reference, "Error
/// responses".
pub fn refusal(code: &str, message: &str) -> (u16, String) {
    let text = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{}</Code><Message>{}</Message></Error>",
        text(code),
        text(message)
    );
    (403, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(method: &str, target: &str) -> Option<(&'static str, Vec<String>)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let asked = asked(&method.parse().unwrap(), path, query, &HeaderMap::new())?;
        Some((asked.operation, asked.needs.iter().map(|need| need.to_string().replace("arn:aws:s3:::", "")).collect()))
    }

    /// S3 User Guide, "Required permissions for Amazon S3 API operations".
    #[test]
    fn every_operation_needs_its_permission() {
        for (method, target, operation, need) in [
            ("GET", "/b/k/l", "GetObject", "s3:GetObject on b/k/l"),
            ("GET", "/b/k%20l?x-id=GetObject", "GetObject", "s3:GetObject on b/k l"),
            ("HEAD", "/b/k", "HeadObject", "s3:GetObject on b/k"),
            ("PUT", "/b/k", "PutObject", "s3:PutObject on b/k"),
            ("PUT", "/b/k?partNumber=1&uploadId=u", "UploadPart", "s3:PutObject on b/k"),
            ("POST", "/b/k?uploads", "CreateMultipartUpload", "s3:PutObject on b/k"),
            ("POST", "/b/k?uploads=", "CreateMultipartUpload", "s3:PutObject on b/k"),
            ("POST", "/b/k?uploadId=u", "CompleteMultipartUpload", "s3:PutObject on b/k"),
            ("DELETE", "/b/k?uploadId=u", "AbortMultipartUpload", "s3:AbortMultipartUpload on b/k"),
            ("DELETE", "/b/k", "DeleteObject", "s3:DeleteObject on b/k"),
            ("GET", "/b/k?uploadId=u", "ListParts", "s3:ListMultipartUploadParts on b/k"),
            ("GET", "/b?uploads", "ListMultipartUploads", "s3:ListBucketMultipartUploads on b"),
            ("GET", "/b/?list-type=2&prefix=x", "ListObjectsV2", "s3:ListBucket on b"),
            ("HEAD", "/b", "HeadBucket", "s3:ListBucket on b"),
        ] {
            assert_eq!(needs(method, target).unwrap(), (operation, vec![need.to_owned()]), "{method} {target}");
        }
        assert_eq!(needs("PATCH", "/b/k"), None);
        assert_eq!(needs("POST", "/b/k"), None);
    }

    /// S3 API Reference, "`CopyObject`", "Permissions".
    #[test]
    fn a_copy_needs_to_read_its_source() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-copy-source", "/b/from%20here".parse().unwrap());
        let copy = asked(&Method::PUT, "/b/to", "", &headers).unwrap();
        let needs =
            [Need::new("s3:PutObject", "arn:aws:s3:::b/to"), Need::new("s3:GetObject", "arn:aws:s3:::b/from here")];
        assert_eq!((copy.operation, copy.needs), ("CopyObject", needs.to_vec()));
    }

    /// S3 API Reference, "`GetObject`", "Permissions".
    #[test]
    fn only_who_may_list_the_bucket_hears_that_an_object_does_not_exist() {
        let listing = Some(Need::new("s3:ListBucket", "arn:aws:s3:::b"));
        for (method, heard) in [("GET", true), ("HEAD", true), ("PUT", false), ("DELETE", false)] {
            let asked = asked(&method.parse().unwrap(), "/b/k", "", &HeaderMap::new()).unwrap();
            assert_eq!(asked.to_hear_of_nothing, listing.clone().filter(|_| heard), "{method}");
        }
    }
}
