//! What clients do, request by request, knowing nothing but what the servers told them.

use crate::fixture::Fixture;
use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use shared::Error;
use shared::domain::HowToDelete;
use shared::domain::{Description, LibraryRef, OciDigest, Selector};
use shared::service::registry::blob;
use shared::service::registry::parse::NewManifest;
use shared::service::registry::pull::{self, Reference};
use shared::service::registry::start::{self, Mount, Started, UploadSession};
use shared::service::registry::upload::{self, Chunk};
use shared::service::registry::{Code, Refused, push, remove};
use shared::service::removal;
use shared::service::settings::{self, Settings};
use shared::service::sweep::{Ages, sweep};
use shared::service::uploads::single::{self, Announced};
use shared::service::{create, delete, pull as library, tag};
use std::time::Duration;

/// How a push gets a blob into a repository.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    /// Checks whether it is there, and uploads it if not.
    Look,
    /// Mounts it from another repository, and uploads it if that fails.
    Mount(usize),
    /// Uploads it in that many requests.
    Bring(usize),
}

/// What a client does in a repository.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// Pushes a document, and what it needs, through the registry.
    Push { document: usize, tag: Option<usize>, ways: Vec<Way> },
    /// Puts a document without checking whether what it needs is there.
    Name { document: usize, tag: usize },
    /// Pushes a SIF image through the library.
    Image { sif: usize, tag: usize },
    /// Uploads a blob that no manifest will name.
    Bring { blob: usize },
    /// Begins to upload one, and then cancels it or just stops.
    Begin { blob: usize, cancel: bool },
    /// Pulls a manifest with all its blobs.
    Pull { thing: usize },
    /// Deletes a tag.
    Untag { tag: usize },
    /// Deletes a manifest.
    Remove { thing: usize },
    /// Deletes a blob.
    Take { blob: usize },
    /// Deletes a SIF image through the library.
    Delete { sif: usize },
    /// Deletes the repository with everything in it.
    Cascade { force: bool },
    /// Freezes a tag, or unfreezes it.
    Freeze { tag: usize, frozen: bool },
    /// Sweeps the installation.
    Sweep,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As intended.
    Done,
    /// It was not there, and nothing was changed.
    Nothing,
    /// A push or a pull was told that something is missing.
    Refused(String),
    /// It lost against others for so long that it gave up.
    Busy,
}

type Result<T> = std::result::Result<T, Refused>;

/// Performs an operation.
pub(crate) async fn act(fixture: &Fixture, place: usize, operation: Operation) -> Ended {
    let doing = Doing { fixture, place };
    let done = match operation.clone() {
        Operation::Push { document, tag, ways } => doing.push(document, tag, &ways).await,
        Operation::Name { document, tag } => doing.put(document, Some(tag)).await,
        Operation::Image { sif, tag } => doing.image(sif, tag).await.map_err(Refused::Error),
        Operation::Bring { blob } => doing.bring(blob, None, 1).await,
        Operation::Begin { blob, cancel } => doing.begin(blob, cancel).await,
        Operation::Pull { thing } => doing.pull(thing).await,
        Operation::Untag { tag } => doing.remove(Reference::Tag(Fixture::tag(tag))).await,
        Operation::Remove { thing } => doing.remove(Reference::Digest(fixture.manifest(place, thing))).await,
        Operation::Take { blob } => doing.take(blob).await,
        Operation::Delete { sif } => doing.delete(sif).await.map_err(Refused::Error),
        Operation::Cascade { force } => doing.cascade(force).await.map_err(Refused::Error),
        Operation::Freeze { tag, frozen } => doing.freeze(tag, frozen).await.map_err(Refused::Error),
        Operation::Sweep => doing.sweep().await.map_err(Refused::Error),
    };
    let asks = matches!(
        operation,
        Operation::Name { .. }
            | Operation::Untag { .. }
            | Operation::Remove { .. }
            | Operation::Take { .. }
            | Operation::Delete { .. }
            | Operation::Cascade { .. }
            | Operation::Freeze { .. }
    );
    match done {
        Ok(()) => Ended::Done,
        Err(Refused::Error(Error::NotFound(_)) | Refused::Code(..)) if asks => Ended::Nothing,
        Err(Refused::Code(Code::ManifestUnknown, _)) if matches!(operation, Operation::Pull { .. }) => Ended::Nothing,
        // An image that was deleted meanwhile has no place any more, and a caller who may push nowhere is told no more
        // than that.
        Err(Refused::Error(Error::NotFound(_) | Error::Conflict(_) | Error::Forbidden(_)) | Refused::Code(..)) => {
            Ended::Refused(format!("{:?}", done.unwrap_err()))
        }
        Err(Refused::Error(Error::Busy { .. })) => Ended::Busy,
        Err(error) => panic!("{operation:?}: {error:?}"),
    }
}

/// Checks what a place says of a blob whose bytes are lost.
pub(crate) async fn missed(fixture: &Fixture, place: usize, blob: usize) {
    Doing { fixture, place }.missed(blob).await;
}

struct Doing<'a> {
    fixture: &'a Fixture,
    place: usize,
}

impl Doing<'_> {
    async fn push(&self, document: usize, tag: Option<usize>, ways: &[Way]) -> Result<()> {
        let mut ways = ways.iter().cycle();
        for child in self.fixture.below(document) {
            for blob in self.fixture.documents[child].blobs.clone() {
                self.have(blob, *ways.next().unwrap()).await?;
            }
            self.put(child, None).await?;
        }
        for blob in self.fixture.documents[document].blobs.clone() {
            self.have(blob, *ways.next().unwrap()).await?;
        }
        self.put(document, tag).await
    }

    async fn put(&self, document: usize, tag: Option<usize>) -> Result<()> {
        let Fixture { app, who, documents, places, .. } = self.fixture;
        let document = &documents[document];
        let name = OciDigest::from(document.body.digest);
        let reference = tag.map_or(Reference::Digest(name), |tag| Reference::Tag(Fixture::tag(tag)));
        let bytes = document.body.bytes.clone();
        let coming = NewManifest { reference: &reference, tags: Vec::new(), media_type: document.kind, bytes };
        let put = push::manifest(app, who, &places[self.place].repository, coming).await?;
        assert_eq!(put.digest, name);
        Ok(())
    }

    /// Makes sure that a blob is there.
    async fn have(&self, blob: usize, way: Way) -> Result<()> {
        let Fixture { app, who, blobs, places, .. } = self.fixture;
        let repository = &places[self.place].repository;
        let digest = OciDigest::from(blobs[blob].digest);
        match way {
            Way::Look => match blob::look(app, who, repository, &digest).await {
                Ok(_) => Ok(()),
                Err(Refused::Code(Code::BlobUnknown, _)) => self.bring(blob, None, 1).await,
                Err(error) => Err(error),
            },
            Way::Mount(from) => {
                let mount = Mount { digest, from: Some(places[from].repository.clone()) };
                match start::session(app, who, repository, Some(mount)).await? {
                    Started::Mounted(_) => Ok(()),
                    Started::Session(opened) => self.bring(blob, Some(opened), 1).await,
                }
            }
            Way::Bring(requests) => self.bring(blob, None, requests).await,
        }
    }

    async fn open(&self) -> Result<UploadSession> {
        let Fixture { app, who, places, .. } = self.fixture;
        match start::session(app, who, &places[self.place].repository, None).await? {
            Started::Session(opened) => Ok(opened),
            Started::Mounted(_) => panic!("mounted, although no mount was asked for"),
        }
    }

    async fn bring(&self, blob: usize, opened: Option<UploadSession>, requests: usize) -> Result<()> {
        let Fixture { app, blobs, places, .. } = self.fixture;
        let opened = match opened {
            Some(opened) => opened,
            None => self.open().await?,
        };
        let right = upload::right(app, &places[self.place].repository, opened.id, &opened.ticket)?;
        let mut rest = blobs[blob].bytes.clone();
        for _ in 1..requests {
            let some = rest.split_to(rest.len() / 2);
            upload::append(app, &right, brought(some)).await?;
        }
        upload::close(app, &right, &blobs[blob].digest.into(), brought(rest)).await.map(drop)
    }

    async fn begin(&self, blob: usize, cancel: bool) -> Result<()> {
        let Fixture { app, blobs, places, .. } = self.fixture;
        let opened = self.open().await?;
        let right = upload::right(app, &places[self.place].repository, opened.id, &opened.ticket)?;
        let mut bytes = blobs[blob].bytes.clone();
        upload::append(app, &right, brought(bytes.split_to(bytes.len() * 3 / 4))).await?;
        if cancel { upload::cancel(app, &right).await } else { Ok(()) }
    }

    async fn pull(&self, thing: usize) -> Result<()> {
        let Fixture { app, who, blobs, places, .. } = self.fixture;
        let repository = &places[self.place].repository;
        let reference = Reference::Digest(self.fixture.manifest(self.place, thing));
        pull::get(app, who, repository, &reference).await?;
        for blob in self.fixture.needs(thing) {
            let blob = &blobs[blob];
            let readable = blob::find(app, who, repository, &blob.digest.into()).await?;
            let bytes = readable.bytes(app, None).await?.collect().await.unwrap().into_bytes();
            assert!(bytes == blob.bytes, "other bytes");
        }
        Ok(())
    }

    /// Asks for a blob as every kind of client does, when its bytes are lost. Nobody may be told that they are there.
    async fn missed(&self, blob: usize) {
        let Fixture { app, who, blobs, sifs, places, .. } = self.fixture;
        let (place, digest) = (&places[self.place], blobs[blob].digest);
        let told =
            |answer: &str| assert!(answer.contains("lost or damaged"), "{digest} in {}: {answer}", place.repository);
        let looked = blob::look(app, who, &place.repository, &digest.into()).await;
        told(&looked.err().map_or_else(|| "there".to_owned(), |error| error.to_string()));
        let read = match blob::find(app, who, &place.repository, &digest.into()).await {
            Ok(found) => found.bytes(app, None).await.err(),
            Err(error) => Some(error),
        };
        told(&read.map_or_else(|| "read".to_owned(), |error| error.to_string()));
        let mount = Mount { digest: digest.into(), from: Some(place.repository.clone()) };
        let mounted = start::session(app, who, &place.repository, Some(mount)).await.unwrap();
        assert!(matches!(mounted, Started::Session(_)), "lost bytes were mounted");
        let reference = LibraryRef { repository: place.repository.clone(), selector: Selector::Hash(digest) };
        if place.collection.is_none() || !sifs.iter().any(|(at, _)| *at == blob) {
            return;
        }
        let Ok(found) = library::find(app, who, &reference, None, library::Purpose::Download).await else { return };
        let container = self.fixture.container(self.place).await.unwrap();
        told(&library::download(app, &found).await.err().map_or_else(|| "a URL".to_owned(), |error| error.to_string()));
        let (_, image) = create::image(app, who, container, digest, Description::default()).await.unwrap();
        assert!(image.content.is_none(), "a push through the library would send no bytes");
    }

    async fn remove(&self, reference: Reference) -> Result<()> {
        let Fixture { app, who, places, .. } = self.fixture;
        Box::pin(remove::manifest(app, who, &places[self.place].repository, &reference)).await
    }

    async fn take(&self, blob: usize) -> Result<()> {
        let Fixture { app, who, blobs, places, .. } = self.fixture;
        blob::remove(app, who, &places[self.place].repository, &blobs[blob].digest.into()).await
    }

    async fn image(&self, sif: usize, tag: usize) -> std::result::Result<(), Error> {
        let Fixture { app, who, face, blobs, sifs, .. } = self.fixture;
        let ((blob, arch), container) = (sifs[sif], self.fixture.container(self.place).await?);
        let blob = &blobs[blob];
        let (_, image) = create::image(app, who, container, blob.digest, Description::default()).await?;
        if image.content.is_none() {
            let file = Announced { size: blob.bytes.len() as u64, digest: Some(blob.digest) };
            let url = single::open(app, who, image.id, file).await?;
            let request = http::Request::put(&url).header("host", "stackroom.example");
            let request = request.header("content-length", blob.bytes.len());
            let request = request.header("x-amz-content-sha256", blob.digest.hex());
            let sent = face.call(request.body(Body::from(blob.bytes.clone())).unwrap()).await;
            assert!(sent.status().is_success(), "{sent:?}");
            single::complete(app, who, image.id).await?;
        }
        let name = &Fixture::tag(tag);
        tag::set(app, who, container, tag::SetTag { image: image.id, name, arch: Some(arch) }).await.map(drop)
    }

    async fn delete(&self, sif: usize) -> std::result::Result<(), Error> {
        let Fixture { app, who, blobs, sifs, places, .. } = self.fixture;
        let selector = Selector::Hash(blobs[sifs[sif].0].digest);
        let reference = LibraryRef { repository: places[self.place].repository.clone(), selector };
        delete::image(app, who, &reference, None).await
    }

    async fn cascade(&self, force: bool) -> std::result::Result<(), Error> {
        let Fixture { app, who, places, .. } = self.fixture;
        let how = HowToDelete { cascade: true, force, dry_run: false };
        Box::pin(removal::container(app, who, &places[self.place].repository, how)).await.map(drop)
    }

    async fn freeze(&self, tag: usize, frozen: bool) -> std::result::Result<(), Error> {
        let Fixture { app, who, places, .. } = self.fixture;
        let settings = Settings { frozen: Some(frozen), ..Settings::default() };
        settings::tag(app, who, &places[self.place].repository, &Fixture::tag(tag), &settings).await
    }

    async fn sweep(&self) -> std::result::Result<(), Error> {
        let Fixture { app, .. } = self.fixture;
        let safe = Ages::safe(app);
        // The object store's clock does not advance with ours, so its objects always look young.
        let ages = Ages { unnamed: safe.unnamed + Duration::from_secs(Fixture::ahead()), ..safe };
        sweep(app, ages).await.map(drop)
    }
}

fn brought(bytes: Bytes) -> Chunk {
    let length = Some(bytes.len() as u64);
    Chunk { body: stream::iter([Ok(bytes)]).boxed(), length, start: None }
}
