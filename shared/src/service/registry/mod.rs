//! The registry protocol: blobs, manifests, tags, referrers, as the OCI distribution specification 1.1 defines them.
//!
//! It works on the same rows as the library protocol, under the same rules. Only refusals differ: a caller who may not
//! do something gets the same answer whether the thing exists or not, and 404 is for callers who may read there.

pub mod blob;
mod buffer;
mod intake;
pub mod list;
pub mod parse;
pub mod pull;
pub mod push;
pub mod remove;
pub mod start;
pub mod upload;

pub use intake::Incoming;

use crate::app::App;
use crate::auth::Credential;
use crate::domain::{Actor, Caller, Repository, Visibility};
use crate::error::Error;
use crate::rules::{Action, Denial, Grant, Resource};
use crate::service::access::{Access, resource_at};
use crate::service::create::{self, NewRepository};
use crate::store::StoreError;
use crate::store::keys::{self, Key};
use crate::store::rows::{Collection, Container, Entity};

/// The error codes of the specification, and `416`, which has no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// There is no such blob in the repository.
    BlobUnknown,
    /// The upload can't continue like that.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// The digest is invalid, or not that of the bytes.
    DigestInvalid,
    /// The manifest names something that is not in the repository.
    ManifestBlobUnknown,
    /// The manifest can't be accepted.
    ManifestInvalid,
    /// There is no such manifest in the repository.
    ManifestUnknown,
    /// It is no valid name of a repository.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// Refused now, or always.
    Denied,
    /// This registry does not support that.
    Unsupported,
    /// The body is too long.
    TooLarge,
    /// The bytes that were requested or sent do not start where the existing ones end.
    Range,
}

/// The registry refused a request.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// For a reason that has a code in the specification.
    #[error("{1}")]
    Code(Code, String),
    /// The caller lacks the permission, or the token does.
    #[error("not permitted, or not with this token")]
    Scope,
    /// As in every protocol.
    #[error(transparent)]
    Error(#[from] Error),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Error(error.into())
    }
}

impl Refused {
    fn code(code: Code, why: impl Into<String>) -> Self {
        Self::Code(code, why.into())
    }
}

/// A repository and the caller's rights there, read in one batch with the other rows of the request.
struct RepositoryAccess {
    loaded: Access,
    repository: Repository,
    container: Option<Container>,
    entity: Option<Entity>,
    collection: Option<Collection>,
}

impl RepositoryAccess {
    /// For a read.
    async fn to_read(
        app: &App,
        credential: &Credential,
        repository: &Repository,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Refused> {
        let key = keys::container(repository);
        let wanted = wanted.into_iter().chain([key.clone()]);
        let mut access = Access::load(app, credential, Some(repository.entity()), wanted).await?;
        let container = access.take(&key)?;
        Ok(Self { loaded: access, repository: repository.clone(), container, entity: None, collection: None })
    }

    /// For a write to a repository that may have to be created first.
    async fn to_write(
        app: &App,
        credential: &Credential,
        repository: &Repository,
        wanted: impl IntoIterator<Item = Key>,
    ) -> Result<Self, Refused> {
        let entity_key = keys::entity(repository.entity());
        let collection = repository.as_container().map(|(name, _)| keys::collection(repository.entity(), &name));
        let wanted = wanted.into_iter().chain([entity_key.clone()]).chain(collection.clone());
        let mut writing = Self::to_read(app, credential, repository, wanted).await?;
        writing.entity = writing.loaded.take(&entity_key)?;
        writing.collection = collection.map(|key| writing.loaded.take(&key)).transpose()?.flatten();
        Ok(writing)
    }

    fn resource(&self) -> Resource {
        resource_at(&self.repository, self.container.as_ref())
    }

    /// Decides whether the caller may do something to the resource; refuses in the form for registry clients.
    fn require(&self, action: Action, resource: &Resource, unknown: Code, what: &str) -> Result<Grant, Refused> {
        self.loaded.decide(action, resource).map_err(|denial| match denial {
            // 404 is for callers who could do it, or who could read here in any case.
            Denial::Hidden if !action.is_read() || self.reads_all() => {
                Refused::code(unknown, format!("{what} unknown"))
            }
            Denial::ReadOnly => Refused::code(Code::Denied, "the repository is read-only"),
            Denial::Frozen => Refused::code(Code::Denied, "the tag is frozen, it can't be moved or deleted"),
            Denial::Hidden | Denial::Unauthenticated | Denial::Forbidden | Denial::OutOfScope => self.refused(),
        })
    }

    fn reads_all(&self) -> bool {
        let (repository, visibility) = (self.repository.clone(), Visibility::Private);
        self.loaded.probe(Action::Pull, &Resource::Container { repository, visibility, read_only: false }).is_ok()
    }

    /// Whether they are the caller.
    fn made_by(&self, maker: Option<&Actor>) -> bool {
        maker.is_some_and(|maker| self.loaded.caller.is(maker))
    }

    fn refused(&self) -> Refused {
        match self.loaded.caller {
            Caller::Anonymous => Refused::Error(Error::Unauthenticated(crate::error::NO_TOKEN)),
            Caller::Known { .. } | Caller::System => Refused::Scope,
        }
    }

    /// Checks that the repository exists and that the caller may pull from it.
    fn may_pull(&self, unknown: Code, what: &str) -> Result<(), Refused> {
        self.require(Action::Pull, &self.resource(), unknown, what).map(drop)
    }

    /// Checks that the caller may push to the repository or, if it doesn't exist yet, that they may create it.
    fn may_push(&self) -> Result<Grant, Refused> {
        if self.container.is_some() {
            return self.require(Action::Push, &self.resource(), Code::NameUnknown, "repository");
        }
        let (repository, visibility) = (self.repository.clone(), Visibility::Internal);
        let new = Resource::Container { repository, visibility, read_only: false };
        let grant = self.require(Action::Create, &new, Code::NameUnknown, "repository")?;
        match self.entity {
            Some(_) => Ok(grant),
            None => Err(Refused::code(Code::NameUnknown, format!("there is no entity {}", self.repository.entity()))),
        }
    }

    /// The repository, created if it doesn't exist yet. Everyone who is logged in can see a new one.
    async fn made(&self, app: &App, grant: &Grant) -> Result<Container, Refused> {
        self.made_as(app, grant, Visibility::Internal).await
    }

    /// The same; a new one can be seen by `open`.
    async fn made_as(&self, app: &App, grant: &Grant, open: Visibility) -> Result<Container, Refused> {
        if let Some(container) = &self.container {
            return Ok(container.clone());
        }
        let entity = self.entity.as_ref().ok_or(Error::NotFound("entity"))?;
        let (repository, collection) = (&self.repository, self.collection.clone());
        Ok(create::repository(app, grant, NewRepository { repository, entity, collection, open }).await?)
    }
}
