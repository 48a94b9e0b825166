//! The same requests to a real installation: the use cases behind every route, on the embedded store.

use crate::model::Answer;
use crate::operation::{ADMIN, Act, Credential, How, IMAGES, OPERATOR, Openness, Operation, What, Which};
use crate::reading::{shown, shown_roles};
use crate::rules::{At, Made, Name, Rank, Right as TokenRight, Roles as RolesOf, Scope, Who};
use axum::body::{Body, Bytes};
use embedded::objects::Face;
use futures::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use server::local::Local;
use shared::app::Parts;
use shared::auth::{Credential as Shown, Keys};
use shared::config::Config;
use shared::domain::{
    Actor, Description, Digest, HowToDelete, Id, LibraryRef, OciDigest, Repository, Right, Role, RoleAt, Roles,
    Selector, ShareId, ShareKey, SubPath, TagName, Time, TokenPlace, TokenScope, Visibility,
};
use shared::service::create::{self, Properties};
use shared::service::lists::{self, Listing};
use shared::service::people::{groups, invitations, members, robots, tokens, users};
use shared::service::registry::parse::NewManifest;
use shared::service::registry::pull::Reference;
use shared::service::registry::start::{self, Started};
use shared::service::registry::upload::{self, Chunk};
use shared::service::registry::{Code, Refused, list, pull as registry, push};
use shared::service::search::{self, Query};
use shared::service::settings::{self, Settings};
use shared::service::share::{self, Chosen, End, NewShare};
use shared::service::sweep::{self, Ages};
use shared::service::uploads::single::{self, Announced};
use shared::service::{browse, delete, events, outbox, pull, removal, tag};
use shared::{App, Error};
use stackroom_tests::sif::SifBuilder;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// When every installation here begins.
pub(crate) const START: i64 = 1_800_000_000;
/// More than any test fills, and not unlimited, so that it is seen whether it is shown.
const QUOTA: u64 = 1 << 40;

thread_local! {
    /// The time of the installation that runs on this thread. Only the test moves it.
    static NOW: Cell<i64> = const { Cell::new(START) };
}

fn clock() -> Duration {
    Duration::from_secs(NOW.get().unsigned_abs())
}

/// Sets the clock of the installation that runs on this thread.
pub(crate) fn set_clock(now: i64) {
    NOW.set(now);
}

/// What the server told its clients about things that have no names of their own.
#[derive(Debug, Default)]
struct Known {
    ids: BTreeMap<String, Id>,
    tokens: BTreeMap<Made, Shown>,
    invitations: BTreeMap<Made, (Id, SecretString)>,
    shares: BTreeMap<Made, (ShareId, ShareKey, String)>,
}

pub(crate) struct Server {
    app: App,
    face: Face,
    images: Vec<(Vec<u8>, Digest)>,
    known: Mutex<Known>,
    _local: Local,
    _folder: TempDir,
}

/// In memory if possible, since nobody wants the data afterwards.
fn folder() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

fn refused(error: &Error) -> Answer {
    match error {
        Error::Unauthenticated(_) => Answer::Login,
        Error::NotFound(_) => Answer::Missing,
        Error::Gone(_) => Answer::Gone,
        Error::Forbidden(_) => Answer::Forbidden,
        Error::Invalid(_) => Answer::Invalid,
        Error::Conflict(_) => Answer::Conflict,
        Error::NotEmpty(_) => Answer::Full,
        Error::Busy { .. } => Answer::Busy,
        error => panic!("{error:?}"),
    }
}

fn refused_by_registry(refused_with: &Refused) -> Answer {
    match refused_with {
        Refused::Error(error) => refused(error),
        Refused::Scope | Refused::Code(Code::Denied, _) => Answer::Forbidden,
        Refused::Code(Code::NameUnknown | Code::ManifestUnknown, _) => Answer::Missing,
        Refused::Code(code, why) => panic!("{code:?} {why}"),
    }
}

fn entity(name: Name) -> shared::domain::EntityName {
    name.parse().unwrap()
}

fn repository((entity, path): (Name, Name)) -> Repository {
    format!("{entity}/{path}").parse().unwrap()
}

fn actor(who: Who) -> Actor {
    shown(who).parse().unwrap()
}

fn part(path: Option<Name>) -> Option<SubPath> {
    path.map(|path| path.parse().unwrap())
}

fn role(rank: Rank) -> Role {
    match rank {
        Rank::Reader => Role::Reader,
        Rank::Contributor => Role::Contributor,
        Rank::Admin => Role::Admin,
        Rank::Owner => Role::Owner,
    }
}

fn rank(role: Role) -> Rank {
    [Rank::Reader, Rank::Contributor, Rank::Admin, Rank::Owner][Role::ALL.iter().position(|one| *one == role).unwrap()]
}

fn scope(scope: &Scope) -> TokenScope {
    let right = |right: &TokenRight| match right {
        TokenRight::Pull => Right::Pull,
        TokenRight::Push => Right::Push,
        TokenRight::Delete => Right::Delete,
        TokenRight::Manage => Right::Manage,
        TokenRight::Admin => Right::Admin,
    };
    let place = match scope.at {
        At::Everywhere => TokenPlace::All,
        At::Entity(name) => TokenPlace::Entity(entity(name)),
        At::Repository(entity, path) => TokenPlace::Repository(repository((entity, path))),
        At::Catalog => TokenPlace::Catalog,
    };
    TokenScope { rights: scope.rights.iter().map(right).collect(), place }
}

fn private(private: bool) -> Properties {
    Properties { private, ..Properties::default() }
}

/// A path below an entity, from a list that the model knows.
fn below(repository: &Repository) -> String {
    repository.rest().to_owned()
}

impl Server {
    pub(crate) async fn new() -> Self {
        let folder = folder();
        let config = Config::read("http://stackroom.example", |name| match name {
            "STACKROOM_GROUPS_PER_USER" => Some(crate::changing::GROUPS.to_string()),
            "STACKROOM_DEFAULT_QUOTA" => Some(QUOTA.to_string()),
            "STACKROOM_LONG_READS" => Some("1000".into()),
            _ => None,
        });
        let local = Local::open(folder.path(), config.unwrap()).await.unwrap();
        local.first_admin().await.unwrap();
        let keys = Keys::parse(&std::fs::read_to_string(folder.path().join("keys")).unwrap()).unwrap();
        let own = &*local.app;
        let (config, table, objects) = (own.config.clone(), own.table.clone(), own.objects.clone());
        let app = App::new(Parts { config, table, index: own.index.clone(), objects, keys, clock });
        let token = std::fs::read_to_string(local.admin_token()).unwrap();
        let operator = app.keys.credential(Some(&format!("Bearer {token}")), app.now()).unwrap();
        let images = (0..IMAGES as u64).map(|seed| {
            let bytes = SifBuilder::new("amd64").seed(seed).payload_len(64).build();
            let digest = Digest::of(&bytes);
            (bytes, digest)
        });
        let mut known = Known { tokens: [(OPERATOR, operator)].into(), ..Known::default() };
        let own = browse::entity(&app, &known.tokens[&OPERATOR], &entity(ADMIN)).await.unwrap();
        known.ids.insert(ADMIN.to_owned(), own.entity.id);
        Self {
            app,
            face: local.objects.face(),
            images: images.collect(),
            known: Mutex::new(known),
            _local: local,
            _folder: folder,
        }
    }

    fn credential(&self, by: &Credential) -> Shown {
        let access = |access: &[Scope]| access.iter().map(scope).collect();
        let token = |made: &Made| self.known.lock().unwrap().tokens[made].clone();
        match by {
            Credential::Nobody => Shown::Anonymous,
            Credential::Token(made) => token(made),
            Credential::Password(name, asked) => {
                Shown::Registry { actor: actor(Who::User(name)), id: None, password: None, access: access(asked) }
            }
            Credential::Short(made, asked) => match token(made) {
                Shown::Token { actor, id } => {
                    Shown::Registry { actor, id: Some(id), password: None, access: access(asked) }
                }
                other => panic!("{other:?} is no token"),
            },
        }
    }

    fn id(&self, path: &str) -> Id {
        let known = self.known.lock().unwrap().ids.get(path).copied();
        known.unwrap_or_else(|| Id::from_random(Default::default()))
    }

    fn learn(&self, path: String, id: Id) {
        self.known.lock().unwrap().ids.insert(path, id);
    }

    fn image(&self, digest: &Digest) -> String {
        format!("image {}", self.images.iter().position(|(_, own)| own == digest).unwrap())
    }

    fn reference(&self, at: (Name, Name), which: Which) -> LibraryRef {
        let selector = match which {
            Which::Tag(tag) => Selector::Tag(tag.parse().unwrap()),
            Which::Image(image) => Selector::Hash(self.images[image].1),
        };
        LibraryRef { repository: repository(at), selector }
    }

    /// The answer to a request.
    pub(crate) async fn answer(&self, operation: &Operation) -> Answer {
        let by = self.credential(&operation.by);
        let answer = match &operation.act {
            Act::Head { .. } | Act::RegistryTags { .. } | Act::Catalog | Act::PushManifest { .. } => {
                let answer = self.registry(&by, &operation.act).await;
                return answer.unwrap_or_else(|error| refused_by_registry(&error));
            }
            act if is_people(act) => Box::pin(self.people(&by, operation)).await,
            act if is_read(act) => Box::pin(self.read(&by, act)).await,
            act => Box::pin(self.change(&by, act)).await,
        };
        answer.unwrap_or_else(|error| refused(&error))
    }

    async fn registry(&self, by: &Shown, act: &Act) -> Result<Answer, Refused> {
        let app = &self.app;
        Ok(match *act {
            Act::Head { at, tag } => {
                let tag = Reference::Tag(tag.parse().unwrap());
                registry::head(app, by, &repository(at), &tag).await?;
                Answer::Done
            }
            Act::RegistryTags { at } => Answer::shown(list::tags(app, by, &repository(at), None, 100).await?.entries),
            Act::Catalog => {
                let listed = list::catalog(app, by, None, 1000).await?;
                assert!(listed.next.is_none());
                Answer::shown(listed.entries)
            }
            Act::PushManifest { at, tag } => {
                self.push_manifest(by, &repository(at), tag).await?;
                Answer::Done
            }
            _ => unreachable!("{act:?}"),
        })
    }

    /// Pushes a manifest that names one blob, which is sent if it is not there.
    async fn push_manifest(&self, by: &Shown, repository: &Repository, tag: Name) -> Result<(), Refused> {
        let app = &self.app;
        let config = Bytes::from_static(b"{}");
        let digest = OciDigest::from(Digest::of(&config));
        let body = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest.to_string(), "size": 2 },
        });
        let (reference, body) = (Reference::Tag(tag.parse().unwrap()), Bytes::from(body.to_string()));
        let put = || NewManifest { reference: &reference, tags: Vec::new(), media_type: MANIFEST, bytes: body.clone() };
        match push::manifest(app, by, repository, put()).await {
            Err(Refused::Code(Code::ManifestBlobUnknown, _)) => {}
            answer => return answer.map(drop),
        }
        let Started::Session(opened) = start::session(app, by, repository, None).await? else {
            panic!("mounted, although no mount was asked for")
        };
        let right = upload::right(app, repository, opened.id, &opened.ticket)?;
        let chunk = Chunk { length: Some(2), body: stream::iter([Ok(config)]).boxed(), start: None };
        upload::close(app, &right, &digest, chunk).await?;
        push::manifest(app, by, repository, put()).await.map(drop)
    }

    async fn read(&self, by: &Shown, act: &Act) -> Result<Answer, Error> {
        let app = &self.app;
        Ok(match *act {
            Act::WhoAmI => {
                let caller = browse::whoami(app, by).await?;
                Answer::shown(caller.known().map(ToString::to_string))
            }
            Act::SeeEntity { entity: name } => {
                let seen = browse::entity(app, by, &entity(name)).await?;
                Answer::shown([format!("quota {}", seen.account.quota.limit == QUOTA)])
            }
            Act::SeeCollection { at: (name, collection) } => {
                browse::collection(app, by, &entity(name), &collection.parse().unwrap()).await?;
                Answer::Done
            }
            Act::SeeContainer { at } => {
                let seen = browse::container(app, by, &repository(at), 1000).await?;
                let images = seen.images.iter().map(|image| self.image(&image.hash));
                let open = match seen.repository.container.visibility {
                    Visibility::Public => Openness::Public,
                    Visibility::Internal => Openness::Internal,
                    Visibility::Private => Openness::Private,
                };
                let settings = format!("{open:?} {}", seen.repository.container.read_only);
                Answer::shown(images.chain(seen.tags.iter().map(|tag| self.tag(tag))).chain([settings]))
            }
            Act::Find { at, which, download } => {
                let purpose = if download { pull::Purpose::Download } else { pull::Purpose::Look };
                let found = pull::find(app, by, &self.reference(at, which), None, purpose).await?;
                Answer::shown([self.image(&found.image.hash)])
            }
            Act::Tags { at: (name, path) } => {
                let tags = tag::list(app, by, self.id(&format!("{name}/{path}")), 1000).await?;
                Answer::shown(tags.iter().map(|tag| self.tag(tag)))
            }
            Act::Images { at } => {
                let (_, page) = lists::images(app, by, &repository(at), &Listing::default()).await?;
                Answer::shown(page.rows.iter().map(|image| self.image(&image.hash)))
            }
            Act::Search { text } => self.search(by, text).await?,
            Act::Shares { at } => {
                let page = share::list(app, by, &repository(at), None).await?;
                let known = self.known.lock().unwrap();
                let made = |id| known.shares.iter().find(|(_, share)| share.0 == id).unwrap().0;
                Answer::shown(
                    page.rows.iter().map(|one| format!("{} {} {}", made(one.share.id), one.share.uses, one.over)),
                )
            }
            _ => self.list(by, act).await?,
        })
    }

    fn tag(&self, tag: &shared::store::rows::Tag) -> String {
        let image = tag.images.values().next();
        let image = image.map(|image| self.images.iter().position(|(_, own)| *own == image.hash).unwrap());
        format!("{} {image:?} {}", tag.name, tag.frozen)
    }

    async fn list(&self, by: &Shown, act: &Act) -> Result<Answer, Error> {
        let app = &self.app;
        Ok(match *act {
            Act::Entities => {
                let page = lists::entities(app, by, &Listing::default()).await?;
                let quota = |one: &browse::EntityView| one.account.quota.limit == QUOTA;
                Answer::shown(page.rows.iter().map(|one| format!("{} quota {}", one.entity.name, quota(one))))
            }
            Act::Collections { entity: name } => {
                let page = lists::collections(app, by, &entity(name), &Listing::default()).await?;
                Answer::shown(page.rows.iter().map(|one| one.name.to_string()))
            }
            Act::UsedCollections { entity: name } => {
                let used = browse::used_collections(app, by, &entity(name)).await?;
                Answer::shown(used.iter().map(|one| one.collection.name.to_string()))
            }
            Act::Containers { entity: name, collection } => {
                let collection = collection.map(|name| name.parse().unwrap());
                let page = lists::containers(app, by, &entity(name), collection.as_ref(), &Listing::default()).await?;
                Answer::shown(page.rows.iter().map(|one| below(&one.repository)))
            }
            Act::UsedContainers { at: (name, collection) } => {
                let used = browse::used_containers(app, by, &entity(name), &collection.parse().unwrap()).await?;
                Answer::shown(used.iter().map(|one| below(&one.container.repository)))
            }
            Act::EntityLog { entity: name } => self.log(by, events::Log::Entity(entity(name))).await?,
            Act::UserLog { name } => self.log(by, events::Log::User(name.parse().unwrap())).await?,
            Act::SiteLog => self.log(by, events::Log::Installation).await?,
            _ => unreachable!("{act:?}"),
        })
    }

    async fn log(&self, by: &Shown, log: events::Log) -> Result<Answer, Error> {
        events::list(&self.app, by, &log, &events::Filter::default(), None).await.map(|_| Answer::Done)
    }

    async fn search(&self, by: &Shown, text: Name) -> Result<Answer, Error> {
        let query = Query { text: text.to_owned(), ..Query::default() };
        // It finds what was changed before once the index has followed.
        outbox::follow(&self.app).await?;
        let found = search::search(&self.app, by, &query).await?;
        let entities = found.entities.iter().map(|one| format!("entity {}", one.name));
        let collections = found.collections.iter().map(|one| format!("collection {}", one.name));
        let containers = found.containers.iter().map(|(one, _)| format!("container {}", below(&one.repository)));
        let images = found.images.iter();
        let images = images.map(|(one, image)| format!("{} {}", below(&one.repository), self.image(&image.hash)));
        Ok(Answer::shown(entities.chain(collections).chain(containers).chain(images)))
    }

    async fn change(&self, by: &Shown, act: &Act) -> Result<Answer, Error> {
        let app = &self.app;
        match *act {
            Act::MakeGroup { name, private } => {
                let made = groups::make(app, by, &entity(name), &Description::default(), private).await?;
                self.learn(name.to_owned(), made.id);
            }
            Act::MakeEntity { name } => {
                let made = create::entity(app, by, entity(name), Properties::default()).await?;
                self.learn(name.to_owned(), made.id);
            }
            Act::MakeCollection { at: (name, collection), private: closed } => {
                let (parent, name_of) = (self.id(name), collection.parse().unwrap());
                let made = create::collection(app, by, parent, name_of, private(closed)).await?;
                self.learn(format!("{name}/{collection}"), made.id);
            }
            Act::MakeContainer { at: (name, path), private: closed } => {
                let (collection, container) = path.split_once('/').unwrap();
                let parent = self.id(&format!("{name}/{collection}"));
                let made = create::container(app, by, parent, &container.parse().unwrap(), private(closed)).await?;
                self.learn(format!("{name}/{path}"), made.id);
            }
            Act::Push { at, image } => return self.push(by, at, image).await,
            Act::Remove { what, how } => self.remove(by, what, how).await?,
            Act::SetTag { at: (name, path), tag: to, image } => {
                let path = format!("{name}/{path}");
                let image = self.id(&format!("{path} {image}"));
                let new = tag::SetTag { image, name: &to.parse::<TagName>().unwrap(), arch: Some("amd64") };
                tag::set(app, by, self.id(&path), new).await?;
            }
            Act::Delete { at, which } => delete::image(app, by, &self.reference(at, which), None).await?,
            Act::SetEntity { entity: name, private } => {
                let settings = Settings { private: Some(private), ..Settings::default() };
                settings::entity(app, by, &entity(name), &settings).await?;
            }
            Act::SetCollection { at: (name, collection), private } => {
                let settings = Settings { private: Some(private), ..Settings::default() };
                settings::collection(app, by, &entity(name), &collection.parse().unwrap(), &settings).await?;
            }
            Act::SetContainer { at, open, read_only } => {
                let visibility = open.map(|open| match open {
                    Openness::Public => Visibility::Public,
                    Openness::Internal => Visibility::Internal,
                    Openness::Private => Visibility::Private,
                });
                let settings = Settings { visibility, read_only, ..Settings::default() };
                settings::container(app, by, &repository(at), &settings).await?;
            }
            Act::Freeze { at, tag, frozen } => {
                let settings = Settings { frozen: Some(frozen), ..Settings::default() };
                settings::tag(app, by, &repository(at), &tag.parse().unwrap(), &settings).await?;
            }
            _ => unreachable!("{act:?}"),
        }
        Ok(Answer::Done)
    }

    /// Deletes something, and then collects what nothing names any more, so that its name is free at once.
    async fn remove(&self, by: &Shown, what: What, how: How) -> Result<(), Error> {
        let app = &self.app;
        let how = HowToDelete { cascade: how.cascade, force: how.force, dry_run: how.dry };
        let deleted = match what {
            What::Repository(name, path) => removal::container(app, by, &repository((name, path)), how).await?,
            What::Collection(name, collection) => {
                removal::collection(app, by, &entity(name), &collection.parse().unwrap(), how).await?
            }
            What::Entity(name) => removal::entity(app, by, &entity(name), how).await?,
            What::User(name) => removal::user(app, by, &name.parse().unwrap(), how).await?,
        };
        if !how.dry_run {
            // What ended is forgotten after days, which the model does not count.
            let ages = Ages { ended: Duration::from_hours(24 * 36_500), ..Ages::zero() };
            for _ in 0..3 {
                let swept = sweep::sweep(app, ages).await?;
                assert_eq!((swept.failed, swept.wrong_accounts.len()), (0, 0), "{what:?} {deleted:?}");
            }
        }
        Ok(())
    }

    /// As clients push: the image, and its bytes if they are asked for.
    async fn push(&self, by: &Shown, (name, path): (Name, Name), image: usize) -> Result<Answer, Error> {
        let (app, (bytes, digest)) = (&self.app, &self.images[image]);
        let container = self.id(&format!("{name}/{path}"));
        let (_, made) = create::image(app, by, container, *digest, Description::default()).await?;
        self.learn(format!("{name}/{path} {image}"), made.id);
        if made.content.is_some() {
            return Ok(Answer::shown(["known".to_owned()]));
        }
        let url = single::open(app, by, made.id, Announced { size: bytes.len() as u64, digest: Some(*digest) }).await?;
        let request = http::Request::put(&url).header("host", "stackroom.example");
        let request = request.header("content-length", bytes.len()).header("x-amz-content-sha256", digest.hex());
        let sent = self.face.call(request.body(Body::from(bytes.clone())).unwrap()).await;
        assert!(sent.status().is_success(), "{sent:?}");
        single::complete(app, by, made.id).await?;
        Ok(Answer::shown(["sent".to_owned()]))
    }

    async fn people(&self, by: &Shown, operation: &Operation) -> Result<Answer, Error> {
        let app = &self.app;
        match &operation.act {
            Act::Members { entity: name } => {
                let page = members::list(app, by, &entity(name), None).await?;
                assert!(page.next.is_none());
                return Ok(Answer::shown(page.rows.iter().map(|row| said(&row.actor, &row.roles))));
            }
            Act::SetRole { entity: name, who, part: path, rank } => {
                let at = RoleAt { part: part(*path), role: rank.map(role) };
                members::set(app, by, &entity(name), &actor(*who), &at).await?;
            }
            Act::RemoveMember { entity: name, who } => members::remove(app, by, &entity(name), &actor(*who)).await?,
            Act::Robots { entity: name } => {
                let robots = robots::list(app, by, &entity(name)).await?;
                return Ok(Answer::shown(robots.iter().map(|view| {
                    let name = view.robot.actor.to_string();
                    name.split_once('+').unwrap().1.to_owned()
                })));
            }
            Act::MakeRobot { entity: name, name: own, part: path, rank } => {
                let at = RoleAt { part: part(*path), role: Some(role(*rank)) };
                let new = robots::NewRobot { name: own.parse().unwrap(), description: Description::default(), at };
                robots::make(app, by, &entity(name), new).await?;
            }
            Act::RemoveRobot { entity: name, name: own } => {
                robots::remove(app, by, &entity(name), own.parse().unwrap()).await?;
            }
            Act::Tokens { .. } | Act::MakeToken { .. } | Act::RevokeToken { .. } => {
                return self.tokens(by, operation).await;
            }
            Act::AddUser { name, admin } => {
                let new = users::NewUser {
                    name: name.parse().unwrap(),
                    password: None,
                    email: None,
                    admin: *admin,
                    quota: None,
                };
                users::add(app, by, new).await?;
                let operator = self.credential(&Credential::Token(OPERATOR));
                let own = browse::entity(app, &operator, &entity(name)).await?;
                self.learn((*name).to_owned(), own.entity.id);
            }
            Act::Disable { name, disabled } => {
                users::change(app, by, &name.parse().unwrap(), users::Change::Disabled(*disabled)).await?;
            }
            Act::Share { .. } | Act::UseShare { .. } | Act::RevokeShare { .. } => {
                self.share(by, operation).await?;
            }
            _ => return self.invitations(by, operation).await,
        }
        Ok(Answer::Done)
    }

    async fn tokens(&self, by: &Shown, operation: &Operation) -> Result<Answer, Error> {
        let app = &self.app;
        match &operation.act {
            Act::Tokens { of } => {
                let rows = tokens::list(app, by, &actor(*of)).await?;
                let name = |name: &str| if name == "operator" { OPERATOR.to_string() } else { name.to_owned() };
                let said = |row: &shared::store::rows::Token| {
                    format!("{} until {:?}", name(&row.name), row.expires.map(|time| time.0))
                };
                return Ok(Answer::shown(rows.iter().map(said)));
            }
            Act::MakeToken { of, scope: asked, life } => {
                let expires = life.map(|life| Time(app.now().0 + life));
                let (name, scope) = (operation.number.to_string(), asked.as_ref().map(scope));
                let made = tokens::add(app, by, &actor(*of), tokens::NewToken { name, scope, expires }).await?;
                let credential = app.keys.token(made.secret.expose_secret(), app.now()).unwrap();
                self.known.lock().unwrap().tokens.insert(operation.number, credential);
            }
            Act::RevokeToken { of, token } => match self.credential(&Credential::Token(*token)) {
                Shown::Token { id, .. } => tokens::revoke(app, by, &actor(*of), id).await?,
                other => panic!("{other:?} is no token"),
            },
            act => unreachable!("{act:?}"),
        }
        Ok(Answer::Done)
    }

    async fn invitations(&self, by: &Shown, operation: &Operation) -> Result<Answer, Error> {
        let app = &self.app;
        match operation.act {
            Act::Invitations { entity: name } => {
                let rows = invitations::list(app, by, &entity(name)).await?;
                let known = self.known.lock().unwrap();
                let made = |id| known.invitations.iter().find(|(_, one)| one.0 == id).unwrap().0;
                return Ok(Answer::shown(rows.iter().map(|one| {
                    let part = one.part.as_ref().map(ToString::to_string);
                    format!("{} {:?} {part:?} {}/{}", made(one.id), rank(one.role), one.uses, one.max)
                })));
            }
            Act::Invite { entity: name, part: path, rank, most, life } => {
                let life = Duration::from_secs(life.unsigned_abs());
                let new = invitations::NewInvitation { role: role(rank), part: part(path), max: most, life };
                let (row, text) = invitations::make(app, by, &entity(name), new).await?;
                self.known.lock().unwrap().invitations.insert(operation.number, (row.id, text));
            }
            Act::Revoke { entity: name, invitation } => {
                let id = self.known.lock().unwrap().invitations[&invitation].0;
                invitations::revoke(app, by, &entity(name), id).await?;
            }
            Act::Accept { invitation, secret, .. } => {
                let text = self.known.lock().unwrap().invitations[&invitation].1.clone();
                let text = if secret { text } else { format!("{}x", text.expose_secret()).into() };
                invitations::accept(app, by, &text).await?;
            }
            _ => unreachable!("{:?}", operation.act),
        }
        Ok(Answer::Done)
    }

    async fn share(&self, by: &Shown, operation: &Operation) -> Result<(), Error> {
        let app = &self.app;
        match operation.act {
            Act::Share { at, which, life, most } => {
                let image = Chosen::of(self.reference(at, which).selector, None);
                let end = life.map(|life| End::At(Time(app.now().0 + life)));
                let new = NewShare { repository: repository(at), image, end, max: most };
                let made = share::make(app, by, new).await?;
                let url = made.url.expose_secret().to_owned();
                let mut parts = url.rsplit('/');
                let (file, key) = (parts.next().unwrap().to_owned(), parts.next().unwrap().parse().unwrap());
                self.known.lock().unwrap().shares.insert(operation.number, (made.share.id, key, file));
            }
            Act::UseShare { share } => {
                let (_, key, file) = self.known.lock().unwrap().shares[&share].clone();
                let found = share::find(app, &key, &file).await?;
                share::use_once(app, &found).await?;
            }
            Act::RevokeShare { share } => {
                let id = self.known.lock().unwrap().shares[&share].0;
                share::revoke(app, by, id).await?;
            }
            _ => unreachable!("{:?}", operation.act),
        }
        Ok(())
    }

    /// Whether something was made for this number.
    pub(crate) fn knows(&self, made: Made) -> bool {
        let known = self.known.lock().unwrap();
        known.tokens.contains_key(&made) || known.invitations.contains_key(&made) || known.shares.contains_key(&made)
    }
}

/// A member's roles, as the model says them.
fn said(actor: &Actor, roles: &Roles) -> String {
    let parts = roles.parts.iter().map(|(part, role)| (part.to_string(), *role));
    let parts: Vec<_> = parts.map(|(part, role)| format!(" {:?} of {part}", rank(role))).collect();
    let whole = RolesOf { whole: roles.entity.map(rank), ..RolesOf::default() };
    let whole = shown_roles(Who::User(""), &whole);
    format!("{actor}{whole}{}", parts.concat())
}

fn is_people(act: &Act) -> bool {
    matches!(
        act,
        Act::Members { .. }
            | Act::SetRole { .. }
            | Act::RemoveMember { .. }
            | Act::Robots { .. }
            | Act::MakeRobot { .. }
            | Act::RemoveRobot { .. }
            | Act::Tokens { .. }
            | Act::MakeToken { .. }
            | Act::RevokeToken { .. }
            | Act::AddUser { .. }
            | Act::Disable { .. }
            | Act::Share { .. }
            | Act::UseShare { .. }
            | Act::RevokeShare { .. }
            | Act::Invitations { .. }
            | Act::Invite { .. }
            | Act::Revoke { .. }
            | Act::Accept { .. }
    )
}

fn is_read(act: &Act) -> bool {
    matches!(
        act,
        Act::WhoAmI
            | Act::SeeEntity { .. }
            | Act::SeeCollection { .. }
            | Act::SeeContainer { .. }
            | Act::Find { .. }
            | Act::Tags { .. }
            | Act::Images { .. }
            | Act::Entities
            | Act::Collections { .. }
            | Act::UsedCollections { .. }
            | Act::Containers { .. }
            | Act::UsedContainers { .. }
            | Act::Search { .. }
            | Act::Shares { .. }
            | Act::EntityLog { .. }
            | Act::UserLog { .. }
            | Act::SiteLog
    )
}
