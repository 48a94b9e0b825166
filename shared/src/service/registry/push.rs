//! Pushing manifests, and the tags that name them.
//!
//! 1. Parse it. Read the repository, its epoch and the tags that the manifest is to get; then the things that it
//!    names, and whether it exists already.
//! 2. Everything that it needs must exist. A single layer that is a SIF image first becomes a library image, as if it
//!    had been pushed through the library: its header is read in a few ranges, and the image
//!    [commits](crate::service::uploads::commit). A manifest of an unknown media type needs nothing and becomes no
//!    image: it is stored as it is.
//! 3. Bytes that are too long for a row are written as an object. *Dies*: it leaves an object that no row names; the
//!    sweeper finds it.
//! 4. In one transaction: write the manifest with its [backlinks](crate::changes::backlinks), the cost of a long one, its entry among its
//!    subject's referrers, the tags, and the repository's epoch, on condition that nothing was removed there since it
//!    was read. So nothing that the manifest needs was removed in the meantime. One that was not there must still not
//!    be there: so nobody else pushed it and was charged. *Lost*: start again at 1. *Fails*: the object of 3 is
//!    deleted, unless the row names it after all.

use super::parse::{NewManifest, Parsed};
use super::{Code, Refused, RepositoryAccess};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::blobs::{VerifiedBytes, VerifiedImage};
use crate::changes::manifests::{self, Pushed};
use crate::changes::tags::{self, Replacing};
use crate::changes::{Changes, accounts};
use crate::domain::quota::Quota;
use crate::domain::{Description, Digest, OciDigest, Repository, TagName};
use crate::error::Error;
use crate::random;
use crate::rules::quota::{manifest_cost, manifest_rows};
use crate::rules::{Action, Grant, Place, Resource};
use crate::service::create;
use crate::service::restore;
use crate::service::retry::{Retry, Try};
use crate::service::uploads::{commit, verify};
use crate::store::keys;
use crate::store::rows::{Account, Blob, Container, EventKind, Image, Link, Manifest, Named, Tag, Tagged};
use crate::store::table::{Write, Written};
use std::collections::{BTreeMap, BTreeSet};

/// Longer bodies, in bytes, are stored in the bucket.
const LONGEST_BODY: usize = 256 << 10;
/// So are bodies that would make a row longer than this, in bytes: a row has at most 400 KB.
const LONGEST_ROW: usize = 350_000;
/// The approximate size of a digest in a row, in bytes.
const NAME: usize = 80;

/// A manifest that was accepted.
#[derive(Debug)]
pub struct Taken {
    /// Its digest.
    pub digest: OciDigest,
    /// Its subject.
    pub subject: Option<OciDigest>,
    /// The tags that it was given.
    pub tags: Vec<TagName>,
    /// The numbers of the account that pays for it, if it is long enough to cost something.
    pub quota: Option<Quota>,
}

/// Checks that the caller may push manifests to a repository, before there are any bytes. The push itself decides
/// again.
pub async fn allowed(app: &App, credential: &Credential, repository: &Repository) -> Result<(), Refused> {
    RepositoryAccess::to_write(app, credential, repository, []).await?.may_push().map(drop)
}

/// Takes a manifest.
pub async fn manifest(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    new: NewManifest<'_>,
) -> Result<Taken, Refused> {
    let parsed = match Parsed::of(&new) {
        Ok(parsed) => parsed,
        Err(refused) => {
            // Only callers who may push it learn what is wrong with it.
            allowed(app, credential, repository).await?;
            return Err(refused);
        }
    };
    let mut ours = None;
    let taken = Box::pin(accept(app, credential, repository, &parsed, &mut ours)).await;
    if taken.is_err()
        && let Some(OwnObject { grant, object }) = ours
    {
        // Nobody pays for it. If it is in use, an answer was lost on its way.
        let row: Result<Option<Manifest>, _> = app.table.get(keys::manifest(repository, &parsed.digest)).await;
        if row.is_ok_and(|row| row.and_then(|row| row.object).as_ref() != Some(&object)) {
            let _ = app.objects.delete(&grant, &object).await;
        }
    }
    let Parsed { digest, document, tags, .. } = parsed;
    taken.map(|quota| Taken { digest, subject: document.subject, tags, quota })
}

/// An object that this push wrote and that no row may name.
struct OwnObject {
    grant: Grant,
    object: String,
}

/// Pushes a parsed manifest. If it leaves an object that no row may name, that object is in `ours`.
async fn accept(
    app: &App,
    credential: &Credential,
    repository: &Repository,
    new: &Parsed<'_>,
    ours: &mut Option<OwnObject>,
) -> Result<Option<Quota>, Refused> {
    let mut retry = Retry::of("pushes to the same repository");
    loop {
        retry.pause().await?;
        let mut push = Push::prepare(app, credential, repository, new).await?;
        if let Some(before) = &push.before
            && before.media_type != new.media_type
        {
            let why =
                format!("these bytes are stored as {} already and can't have a second media type", before.media_type);
            return Err(Refused::Code(Code::ManifestInvalid, why));
        }
        if let Some(hash) = new.document.sif {
            match push.become_image(app, hash).await? {
                Try::Done(()) => {}
                Try::Lost => continue,
            }
        } else if !push.children.is_empty() {
            push.list_images(app).await?;
        }
        let object = push.object(app, new, ours).await?;
        let (grant, quota) = (push.grant.clone(), push.quota);
        let changes = push.changes(app, new, object)?;
        if !changes.have_room_for(0) {
            return Err(Refused::code(Code::TooLarge, "this is too much for one change, set its tags one by one"));
        }
        let written = app.commit(&grant, changes).await;
        if written.is_err() {
            // The write may have succeeded.
            *ours = None;
        }
        if written? == Written::Done {
            return Ok(quota);
        }
    }
}

/// The facts before a manifest is written.
struct Push {
    grant: Grant,
    container: Container,
    before: Option<Manifest>,
    /// The write of its charge, if it is new.
    charged: Option<Write>,
    /// The account's numbers with it, if it is charged now.
    quota: Option<Quota>,
    /// The bytes charged for it.
    cost: u64,
    /// The rows of its existing tags.
    old: BTreeMap<TagName, Tag>,
    /// The existing things that it names.
    names: BTreeSet<OciDigest>,
    /// The library images that it lists, by child manifest.
    children: BTreeSet<Digest>,
    /// The library images that it is or lists.
    images: Vec<Tagged>,
}

impl Push {
    async fn prepare(
        app: &App,
        credential: &Credential,
        repository: &Repository,
        new: &Parsed<'_>,
    ) -> Result<Self, Refused> {
        let tag_keys: Vec<_> = new.tags.iter().map(|name| keys::tag(repository, name)).collect();
        let cost = manifest_cost(new.body.len() as u64);
        let account_key = (cost > 0).then(|| keys::account(repository.entity()));
        let first = account_key.clone().into_iter().chain(tag_keys.iter().cloned());
        let mut access = RepositoryAccess::to_write(app, credential, repository, first).await?;
        let grant = access.may_push()?;
        let mut old = BTreeMap::new();
        for (name, key) in new.tags.iter().zip(&tag_keys) {
            let tag: Option<Tag> = access.loaded.take(key)?;
            let (read_only, frozen) = (false, tag.as_ref().is_some_and(|tag| tag.frozen));
            let resource = Resource::Tag { repository: repository.clone(), read_only, frozen };
            access.require(Action::Retag, &resource, Code::ManifestUnknown, "tag")?;
            old.extend(tag.map(|tag| (name.clone(), tag)));
        }
        // Read after the epoch: a batch is no snapshot, and might read the epoch before or after these.
        let Present { before, names, missing, children } = Present::load(app, repository, new).await?;
        if let Some(missing) = missing {
            return Err(Refused::code(Code::ManifestBlobUnknown, format!("{missing} is not in this repository")));
        }
        let cost = before.as_ref().map_or(cost, |before| before.cost);
        let (charged, quota) = match account_key.filter(|_| before.is_none()) {
            Some(key) => {
                let account: Account = access.loaded.take(&key)?.ok_or(Error::NotFound("entity"))?;
                let quota = Quota { charged: account.quota.charged.saturating_add(cost), ..account.quota };
                (Some(accounts::manifest_charged(&account, cost)?), Some(quota))
            }
            None => (None, None),
        };
        let container = access.made(app, &grant).await?;
        if access.container.is_none() {
            // If somebody else has created it since, these reads may be from before their first push.
            return Box::pin(Self::prepare(app, credential, repository, new)).await;
        }
        Ok(Self { grant, container, before, charged, quota, cost, old, names, children, images: Vec::new() })
    }

    /// Creates the library image of a manifest whose layer is one, if the library can express the repository's name.
    async fn become_image(&mut self, app: &App, hash: Digest) -> Result<Try<()>, Refused> {
        let Self { grant, container, .. } = &*self;
        if container.collection_id.is_none() {
            return Ok(Try::Done(()));
        }
        let repository = &container.repository;
        let (image_key, blob_key, link_key) =
            (keys::image(repository, &hash), keys::blob(&hash), keys::link(repository, &hash.into()));
        let mut rows = app.table.batch([image_key.clone(), blob_key.clone(), link_key.clone()]).await?;
        let image: Option<Image> = rows.take(&image_key)?;
        if let Some((image, content)) = image.as_ref().and_then(|image| Some((image, image.content.as_ref()?))) {
            self.images.push(tags::tagged(image, content));
            return Ok(Try::Done(()));
        }
        let (Some(blob), Some(link)) = (rows.take::<Blob>(&blob_key)?, rows.take::<Link>(&link_key)?) else {
            return Ok(Try::Lost);
        };
        let facts = match blob.facts {
            Some(facts) => facts,
            // A layer that only claims to be a SIF image stays an ordinary artifact.
            None => match verify::facts(app, &link.object, link.size).await {
                Ok(facts) => facts,
                Err(Error::WrongBytes(_)) => return Ok(Try::Done(())),
                Err(error) => return Err(error.into()),
            },
        };
        let image = match image {
            Some(image) => image,
            None => create::begin(app, grant, container, hash, Description::default()).await?,
        };
        let bytes = VerifiedBytes { digest: hash, object: link.object, size: link.size };
        commit::known(app, grant, &image, VerifiedImage { bytes, facts }).await?;
        // That incremented the epoch, and the rows from before may have changed with it: read again.
        Ok(Try::Lost)
    }

    /// Looks up the library images of an index, so that its tags point to them by architecture.
    async fn list_images(&mut self, app: &App) -> Result<(), Refused> {
        let repository = &self.container.repository;
        let mut rows = app.table.batch(self.children.iter().map(|hash| keys::image(repository, hash))).await?;
        for hash in &self.children {
            let image: Option<Image> = rows.take(&keys::image(repository, hash))?;
            let tagged = |image: Image| image.content.as_ref().map(|content| tags::tagged(&image, content));
            self.images.extend(image.and_then(tagged));
        }
        Ok(())
    }

    /// The object for bytes that are too long for a row: that of the existing row, as long as the object itself
    /// exists, or else a new one.
    async fn object(
        &self,
        app: &App,
        new: &Parsed<'_>,
        ours: &mut Option<OwnObject>,
    ) -> Result<Option<String>, Refused> {
        let mut theirs = self.before.as_ref().and_then(|before| before.object.clone());
        if let Some(object) = &theirs
            && !restore::there(app, object, new.body.len() as u64).await?
        {
            theirs = None;
        }
        // The digests that it names are in its row in any case.
        let short = new.body.len() <= LONGEST_BODY && new.body.len() + self.names.len() * NAME <= LONGEST_ROW;
        if short || theirs.is_some() {
            // Somebody was faster, or something that it names was removed: no row would name our object.
            if let Some(OwnObject { grant, object }) = ours.take().filter(|ours| theirs.as_ref() != Some(&ours.object))
            {
                let _ = app.objects.delete(&grant, &object).await;
            }
            return Ok(theirs);
        }
        if ours.is_none() {
            let (grant, object) = (self.grant.clone(), app.new_object()?);
            *ours = Some(OwnObject { grant, object: object.clone() });
            app.objects.put(&self.grant, &object, new.bytes.clone()).await?;
        }
        Ok(ours.as_ref().map(|ours| ours.object.clone()))
    }

    /// The library image that it is.
    fn image(&self, new: &Parsed<'_>) -> Option<Digest> {
        new.document.sif.and(self.images.first().map(|image| image.hash))
    }

    /// The changes that write the manifest, and its tags.
    fn changes(self, app: &App, new: &Parsed<'_>, object: Option<String>) -> Result<Changes, Error> {
        let image = self.image(new);
        let Self { grant, container, before, charged, cost, old, names, images, .. } = self;
        let (repository, now) = (&container.repository, app.now());
        // The object of a manifest that is there is exchanged only if nobody else does that at the same time.
        let exchanged = before.as_ref().is_some_and(|before| before.object != object);
        let names = manifests::named_by(&names, &new.document);
        // Nothing was removed since it was read, so what it had then is still there.
        let linked = before.as_ref().is_some_and(|before| before.names == names && before.image == image);
        let rows = manifest_rows(new.body.len() as u64, new.document.subject.is_some());
        let counted = before.is_none().then(|| accounts::rows(repository.entity(), rows.cast_signed())).flatten();
        let pushed = manifests::pushed(Pushed {
            repository,
            digest: new.digest,
            media_type: &new.media_type,
            body: new.body,
            document: &new.document,
            object,
            names,
            image,
            cost,
            rows: before.as_ref().map_or(rows, |before| before.rows),
            created_by: before.as_ref().map_or_else(|| grant.by().cloned(), |before| before.created_by.clone()),
            created: before.as_ref().map_or(now, |before| before.created),
            new: before.is_none(),
            linked,
        })?;
        let place = Place::Repository(repository.clone());
        let mut changes = Changes::recorded(place, EventKind::ManifestPushed { digest: new.digest });
        changes.add(if exchanged {
            manifests::epoch_advanced_alone(&container)
        } else {
            manifests::epoch_advanced_unless_removed(&container)
        });
        changes.extend(pushed);
        changes.extend(charged);
        changes.extend(counted);
        let size = new.body.len() as u64;
        let target = Named { digest: new.digest, media_type: new.media_type.clone(), size };
        let (images, first_version) = (&images, random::number()?);
        let replacing =
            Replacing { repository, names: &new.tags, old: &old, named: target, images, first_version, now };
        changes.merge(tags::replace(&replacing)?);
        Ok(changes)
    }
}

/// The things named by a manifest, and the manifest itself if it was pushed before.
struct Present {
    before: Option<Manifest>,
    names: BTreeSet<OciDigest>,
    /// Something that it needs and that is not in the repository.
    missing: Option<OciDigest>,
    /// The library images behind the manifests among them.
    children: BTreeSet<Digest>,
}

impl Present {
    async fn load(app: &App, repository: &Repository, new: &Parsed<'_>) -> Result<Self, Refused> {
        // Config and layers are blobs, entries of an index are manifests; what exists shows which is which.
        let all: Vec<OciDigest> = new.document.needs.iter().chain(&new.document.mentions).copied().collect();
        let mut places: Vec<_> =
            all.iter().flat_map(|name| [keys::link(repository, name), keys::manifest(repository, name)]).collect();
        let (marker, manifest_key) = (keys::marker(repository), keys::manifest(repository, &new.digest));
        places.extend([marker.clone(), manifest_key.clone()]);
        let mut rows = app.table.batch(places).await?;
        let there = |name: &OciDigest| {
            let without_bytes = *name == super::blob::empty() && rows.has(&marker);
            without_bytes || rows.has(&keys::link(repository, name)) || rows.has(&keys::manifest(repository, name))
        };
        let missing = new.document.needs.iter().find(|name| !there(name)).copied();
        // What it mentions may still come, and then it stays, too.
        let names = all.iter().copied().collect();
        let mut children = BTreeSet::new();
        for name in &all {
            let child: Option<Manifest> = rows.take(&keys::manifest(repository, name))?;
            children.extend(child.and_then(|child| child.image));
        }
        Ok(Self { before: rows.take(&manifest_key)?, names, missing, children })
    }
}
