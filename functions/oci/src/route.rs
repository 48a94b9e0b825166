//! The meaning of a path below `/v2/`. Repository names contain slashes, so paths are parsed from their end.

use http::Method;
use shared::domain::reference::{Defaults, ReferenceError};
use shared::domain::{OciDigest, Repository, UploadId};
use shared::service::registry::pull::Reference;
use shared::service::registry::{Code, Refused};

/// The subject of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Whether there is a registry, and whether the caller is known.
    Base,
    /// The list of repositories.
    Catalog,
    /// The tags of a repository.
    Tags(Repository),
    /// A manifest.
    Manifest(Repository, Reference),
    /// The referrers of a manifest.
    Referrers(Repository, OciDigest),
    /// A blob.
    Blob(Repository, OciDigest),
    /// New uploads.
    Uploads(Repository),
    /// One upload.
    Upload(Repository, UploadId),
}

impl Route {
    /// Reads the path of a request. A repository of a single name lies below the defaults.
    pub(crate) fn read(defaults: &Defaults, path: &str) -> Result<Self, Refused> {
        let rest = path.strip_prefix("/v2").unwrap_or(path).trim_start_matches('/');
        if rest.is_empty() {
            return Ok(Self::Base);
        }
        if rest == "_catalog" {
            return Ok(Self::Catalog);
        }
        let segments: Vec<&str> = rest.split('/').collect();
        let repository = |name: &[&str]| {
            let invalid = |error: ReferenceError| Refused::Code(Code::NameInvalid, error.to_string());
            defaults.repository(&name.join("/")).map_err(invalid)
        };
        match segments.as_slice() {
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "blobs", "uploads" | "uploads/"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", id] => {
                let unknown = |_| Refused::Code(Code::BlobUploadUnknown, "there is no such upload".to_owned());
                Ok(Self::Upload(repository(name)?, id.parse().map_err(unknown)?))
            }
            [name @ .., "blobs", text] => Ok(Self::Blob(repository(name)?, digest(text)?)),
            [name @ .., "referrers", text] => Ok(Self::Referrers(repository(name)?, digest(text)?)),
            [name @ .., "manifests", text] => Ok(Self::Manifest(repository(name)?, reference(text)?)),
            _ => Err(Refused::Code(Code::NameUnknown, "not found".to_owned())),
        }
    }

    /// The scope that a token needs for `method` on this path.
    pub(crate) fn scope(&self, method: &Method) -> Option<String> {
        let actions = match *method {
            Method::GET | Method::HEAD => "pull",
            Method::DELETE => "delete",
            _ => "pull,push",
        };
        let repository = match self {
            Self::Base => return None,
            Self::Catalog => return Some("registry:catalog:*".to_owned()),
            // Anybody who may send an upload may cancel it.
            Self::Upload(repository, _) => return Some(format!("repository:{repository}:pull,push")),
            Self::Tags(repository)
            | Self::Manifest(repository, _)
            | Self::Referrers(repository, _)
            | Self::Blob(repository, _)
            | Self::Uploads(repository) => repository,
        };
        Some(format!("repository:{repository}:{actions}"))
    }
}

fn digest(text: &str) -> Result<OciDigest, Refused> {
    text.parse()
        .map_err(|error: shared::domain::digest::OciDigestError| Refused::Code(Code::DigestInvalid, error.to_string()))
}

fn reference(text: &str) -> Result<Reference, Refused> {
    if text.contains(':') {
        return digest(text).map(Reference::Digest);
    }
    let invalid = |error: shared::domain::names::NameError| Refused::Code(Code::ManifestInvalid, error.to_string());
    text.parse().map(Reference::Tag).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::domain::Digest;

    fn read(path: &str) -> Result<Route, Refused> {
        let defaults = Defaults { entity: "library".parse().unwrap(), collection: "default".parse().unwrap() };
        Route::read(&defaults, path)
    }

    #[test]
    fn paths_are_read_from_their_end() {
        let name: Repository = "acme/blobs/tags".parse().unwrap();
        let digest = OciDigest::from(Digest::of(b""));
        let id = "0123456789abcdef0123456789abcdef";
        for (path, route) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2".to_owned(), Route::Base),
            ("/v2/_catalog".to_owned(), Route::Catalog),
            ("/v2/acme/blobs/tags/tags/list".to_owned(), Route::Tags(name.clone())),
            ("/v2/acme/blobs/tags/manifests/1.0".to_owned(), {
                Route::Manifest(name.clone(), Reference::Tag("1.0".parse().unwrap()))
            }),
            (format!("/v2/acme/blobs/tags/manifests/{digest}"), {
                Route::Manifest(name.clone(), Reference::Digest(digest))
            }),
            (format!("/v2/acme/blobs/tags/blobs/{digest}"), Route::Blob(name.clone(), digest)),
            (format!("/v2/acme/blobs/tags/referrers/{digest}"), Route::Referrers(name.clone(), digest)),
            ("/v2/acme/blobs/tags/blobs/uploads/".to_owned(), Route::Uploads(name.clone())),
            ("/v2/acme/blobs/tags/blobs/uploads".to_owned(), Route::Uploads(name.clone())),
            (format!("/v2/acme/blobs/tags/blobs/uploads/{id}"), Route::Upload(name.clone(), id.parse().unwrap())),
        ] {
            assert_eq!(read(&path).unwrap(), route, "{path}");
        }
        for (path, code) in [
            ("/v2/acme/bb", Code::NameUnknown),
            ("/v2/manifests/x", Code::NameInvalid),
            ("/v2/tags/list", Code::NameInvalid),
            ("/v2/imagefile/manifests/x", Code::NameInvalid),
            ("/v2/-x/manifests/x", Code::NameInvalid),
            ("/v2/acme/bb/MANIFESTS/x", Code::NameUnknown),
            ("/v2/acm\u{e9}/bb/manifests/x", Code::NameInvalid),
            ("/v2/acme/bb/manifests/.x", Code::ManifestInvalid),
            ("/v2/acme/bb/manifests/sha256:x", Code::DigestInvalid),
            ("/v2/acme/bb/blobs/md5:00", Code::DigestInvalid),
            ("/v2/acme/bb/blobs/uploads/x", Code::BlobUploadUnknown),
        ] {
            assert!(matches!(read(path), Err(Refused::Code(got, _)) if got == code), "{path}");
        }
    }

    #[test]
    fn a_repository_has_one_name_or_more_in_any_case() {
        let tag = |repository: &str, tag: &str| {
            Route::Manifest(repository.parse().unwrap(), Reference::Tag(tag.parse().unwrap()))
        };
        for (path, route) in [
            ("/v2/hello/manifests/V1", tag("library/default/hello", "V1")),
            ("/v2/ACME/Tools/BB/manifests/V1", tag("acme/tools/bb", "V1")),
            ("/v2/acme/bb/manifests/v1", tag("acme/bb", "v1")),
        ] {
            assert_eq!(read(path).unwrap(), route, "{path}");
        }
        let scope = read("/v2/Hello/tags/list").unwrap().scope(&Method::GET);
        assert_eq!(scope.as_deref(), Some("repository:library/default/hello:pull"));
    }

    #[test]
    fn a_token_is_to_be_asked_for_what_the_request_does() {
        let scope = |path, method| read(path).unwrap().scope(&method);
        assert_eq!(scope("/v2/", Method::GET), None);
        assert_eq!(scope("/v2/a/b/tags/list", Method::GET).as_deref(), Some("repository:a/b:pull"));
        assert_eq!(scope("/v2/a/b/manifests/1", Method::PUT).as_deref(), Some("repository:a/b:pull,push"));
        assert_eq!(scope("/v2/a/b/manifests/1", Method::DELETE).as_deref(), Some("repository:a/b:delete"));
    }
}
