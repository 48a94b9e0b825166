//! The embedded store in a folder: the table, the objects, the keys.
//!
//! | file | what |
//! |---|---|
//! | `lock` | held by the process that serves the folder, as the folder itself is |
//! | `in-use` | there while the databases are open: which files they consist of |
//! | `table.sqlite` | the table |
//! | `index.sqlite` | the search index, which is made anew if it is gone |
//! | `objects.sqlite` | which objects the files make up |
//! | `objects.copied` | held by those who read the object files by a copy of that |
//! | `objects/` | the object files; may be a link to another file system, including NFS |
//! | `keys` | the keys that sign tokens |
//! | `objects.key` | the key that signs presigned URLs |
//! | `admin.token` | the operator's token |

use anyhow::{Context, bail};
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use embedded::objects::{Readers, keep_files};
use embedded::wal::InUse;
use secrecy::SecretString;
use shared::app::{App, Parts, system_clock};
use shared::auth::Keys;
use shared::config::Config;
use shared::domain::Digest;
use shared::service::people::users;
use shared::store::table::backend::Backend;
use shared::store::{Objects, Table};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The bucket, and so the first part of the path of every presigned URL.
pub const BUCKET: &str = "objects";
/// The search index.
const INDEX: &str = "index.sqlite";
/// The name of the first site admin.
const FIRST: &str = "admin";
/// How many rows are read at a time: a few milliseconds.
const PAGE: u16 = 128;
const REGION: &str = "local";
/// The URL of an installation that nobody asks anything.
pub(crate) const NOWHERE: &str = "http://localhost";
const KEY_ID: &str = "stackroom";

/// An installation in a folder.
#[derive(Debug)]
pub struct Local {
    /// Goes before the databases are closed.
    _in_use: InUse,
    /// The installation.
    pub app: App,
    /// Its object store.
    pub objects: embedded::objects::Objects,
    folder: PathBuf,
    _lock: [File; 2],
}

impl Local {
    /// Opens the installation in `folder`, or creates it.
    pub async fn open(folder: &Path, config: Config) -> anyhow::Result<Self> {
        Self::open_through(folder, config, &Nothing).await
    }

    /// The same, with a layer between the app and its stores: for tests of events between two calls to a store.
    pub async fn open_through(folder: &Path, mut config: Config, layer: &dyn Layer) -> anyhow::Result<Self> {
        // This process is the store: a redirect would only lead back here, without the digest header. But where it leads
        // there, a proxy may send the bytes.
        config.serve_blobs = config.proxy_sends.is_none();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("can't create the data folder {}", folder.display()))?;
        embedded::owned_folder(folder)?;
        others_may_not_write(folder)?;
        embedded::private_file(&folder.join("lock"))?;
        // Somebody may remove the file, and the next server would make another one.
        let lock = [locked(folder, folder)?, locked(folder, &folder.join("lock"))?];
        let (mark, databases) =
            (folder.join("in-use"), ["table.sqlite", "objects.sqlite", INDEX].map(|name| folder.join(name)));
        let databases = databases.each_ref().map(PathBuf::as_path);
        InUse::check(&mark, &databases)?;
        let keys = Keys::parse(&kept(&folder.join("keys"), || Ok(Keys::generate()?))?)?;
        let secret = kept(&folder.join("objects.key"), random_text::<32>)?;
        embedded::owned_file(&folder.join("admin.token"))?;
        embedded::deny_others(&folder.join("admin.token"))?;

        let table = embedded::table::Table::open(&folder.join("table.sqlite"))?;
        let index = embedded::table::Table::open(&folder.join(INDEX))?;
        let readers = config.proxy_sends.clone().map_or(Readers::Nobody, Readers::Proxy);
        let objects = open_objects(folder, folder.join("objects.sqlite"), secret.clone(), readers)?;

        let s3 = s3_client(&objects, secret, &config.public_url, layer);
        let app = App::new(Parts {
            config,
            table: Table::on(layer.rows(Arc::new(table))).in_pages_of(PAGE),
            index: Table::on(layer.index(Arc::new(index))).in_pages_of(PAGE),
            objects: Objects::new(s3.clone(), s3, BUCKET.to_owned()),
            keys,
            clock: system_clock,
        });
        app.table.create().await?;
        let in_use = InUse::mark(mark, &databases)?;
        Ok(Self { app, objects, folder: folder.to_owned(), _in_use: in_use, _lock: lock })
    }

    /// In an empty installation, creates the first site admin, `admin`, and writes the operator's token to
    /// `admin.token`. Returns the password, which is not stored anywhere.
    pub async fn first_admin(&self) -> anyhow::Result<Option<String>> {
        let (password, file) = (random_text::<12>()?, self.admin_token());
        let secret = SecretString::from(password.clone());
        // It is there, and empty, from before the administrator is made until their token is in it: so a start that ends
        // in between, or can't write it, leaves no library without a way in.
        if users::none(&self.app).await? {
            write_private(&file, "")?;
        }
        let made = users::bootstrap(&self.app, FIRST.parse()?, secret).await?;
        let (token, password) = match made {
            Some(token) => (token, Some(password)),
            None if std::fs::metadata(&file).is_ok_and(|known| known.len() == 0) => {
                let Some(operator) = users::operator(&self.app, &FIRST.parse()?).await? else { return Ok(None) };
                (users::operator_token(&self.app, &operator).await?, None)
            }
            None => return Ok(None),
        };
        write_private(&file, secrecy::ExposeSecret::expose_secret(&token))?;
        Ok(password)
    }

    /// Writes the operator's token anew before its life is over, where the lives of tokens are limited: whoever holds the
    /// data folder is the operator. One that was revoked stays so.
    pub async fn renew_admin_token(&self) -> anyhow::Result<()> {
        let file = self.admin_token();
        let Ok(token) = std::fs::read_to_string(&file) else { return Ok(()) };
        let token = SecretString::from(token.trim().to_owned());
        if let Some(token) = users::operator_token_renewed(&self.app, &token).await? {
            write_private(&file, secrecy::ExposeSecret::expose_secret(&token))?;
        }
        Ok(())
    }

    /// Makes the next start of a server write the operator's token, if there is none: for a library that was copied here.
    pub fn needs_admin_token(&self) -> anyhow::Result<()> {
        let file = self.admin_token();
        if file.exists() { Ok(()) } else { write_private(&file, "") }
    }

    /// Where the operator's token is.
    pub fn admin_token(&self) -> PathBuf {
        self.folder.join("admin.token")
    }
}

/// What may stand between an app and its stores.
pub trait Layer: Sync {
    /// Stands in front of the table.
    fn rows(&self, rows: Arc<dyn Backend>) -> Arc<dyn Backend> {
        rows
    }

    /// Stands in front of the search index.
    fn index(&self, rows: Arc<dyn Backend>) -> Arc<dyn Backend> {
        rows
    }

    /// Stands behind the SDK's client of a `DynamoDB`.
    fn dynamodb(&self, client: SharedHttpClient) -> SharedHttpClient {
        client
    }

    /// Stands behind the SDK's client of a bucket.
    fn s3(&self, client: SharedHttpClient) -> SharedHttpClient {
        client
    }
}

/// The layer that is none.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Layer for Nothing {}

/// A client of the embedded objects. `secret` signs presigned URLs.
fn s3_client(
    objects: &embedded::objects::Objects,
    secret: String,
    public_url: &str,
    layer: &dyn Layer,
) -> aws_sdk_s3::Client {
    // The endpoint is the public one, since it is signed into the URLs; the connector ignores the host.
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(KEY_ID, secret, None, None, "data folder"))
        .endpoint_url(public_url)
        .force_path_style(true)
        // What fails here fails again at once: a full disk, a broken file.
        .retry_config(RetryConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // Nobody is between us and the bucket: no stream can stall.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(layer.s3(objects.connector()))
        .build();
    aws_sdk_s3::Client::from_conf(config)
}

/// The objects of an installation, by the index at `index`.
fn open_objects(
    folder: &Path,
    index: PathBuf,
    secret: String,
    readers: Readers,
) -> Result<embedded::objects::Objects, embedded::Error> {
    embedded::objects::Objects::open(embedded::objects::Config {
        folder: folder.join("objects"),
        index,
        bucket: BUCKET.to_owned(),
        region: REGION.to_owned(),
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: secret,
        readers,
    })
}

/// An installation in a folder as it was at one moment, to be read. A server may be using the folder meanwhile.
///
/// 1. Copy the table's file.
/// 2. Then copy the index of the objects: whatever the rows name is in it, since an object is deleted hours after the
///    last row that names it. The object files are read where they are, and stay there.
#[derive(Debug)]
pub struct Snapshot {
    /// The installation.
    pub app: App,
    /// What tells it from others: the beginning of a digest of a key that it alone has.
    pub of: String,
    _scratch: Scratch,
    /// While this is held, no object gets other files than those that the copy of the index names.
    _files: File,
}

/// A folder that is removed in the end.
#[derive(Debug)]
struct Scratch(PathBuf);

/// What the names of such folders begin with.
const SNAPSHOT: &str = "snapshot-";
/// After this time, nobody reads one any more.
const OLD: Duration = Duration::from_hours(7 * 24);

impl Scratch {
    /// Removes those that were left long ago by processes that were killed.
    fn tidied(beside: &Path) {
        for entry in std::fs::read_dir(beside).into_iter().flatten().flatten() {
            let left = entry.file_name().to_string_lossy().starts_with(SNAPSHOT);
            let age = entry.metadata().and_then(|known| known.modified()).ok().and_then(|time| time.elapsed().ok());
            if left && age.is_some_and(|age| age > OLD) {
                drop(Self(entry.path()));
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "a temporary folder stays");
        }
    }
}

impl Snapshot {
    /// Takes one of the installation in `folder`. `beside` is a folder with room for a copy of the table.
    pub async fn take(folder: &Path, beside: &Path) -> anyhow::Result<Self> {
        let table = folder.join("table.sqlite");
        embedded::owned_folder(folder)?;
        let key = folder.join("objects.key");
        embedded::owned_file(&key)?;
        let secret = std::fs::read_to_string(&key).with_context(|| format!("can't read {}", key.display()))?;
        Scratch::tidied(beside);
        let scratch = beside.join(format!("{SNAPSHOT}{}", random_text::<8>()?));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&scratch)
            .with_context(|| format!("can't create {}", scratch.display()))?;
        let scratch = Scratch(scratch);
        let (rows, index) = (scratch.0.join("table.sqlite"), scratch.0.join("objects.sqlite"));
        let files = keep_files(&folder.join("objects.sqlite"))?;
        let (both, objects, mark) =
            ((rows.clone(), index.clone()), folder.join("objects.sqlite"), folder.join("in-use"));
        let copied = move || {
            embedded::snapshot(&table, &both.0, &mark).and_then(|()| embedded::snapshot(&objects, &both.1, &mark))
        };
        tokio::task::spawn_blocking(copied).await??;
        let table = embedded::table::Table::open(&rows)?;
        // Whoever gets a copy makes an index of their own.
        let no_index = embedded::table::Table::open(&scratch.0.join(INDEX))?;
        let objects = open_objects(folder, index, secret.clone(), Readers::AsBefore)?;
        let of = Digest::of(secret.as_bytes()).hex().chars().take(16).collect();
        let config = Config::read(NOWHERE, |_| None)?;
        let s3 = s3_client(&objects, secret, &config.public_url, &Nothing);
        let app = App::new(Parts {
            config,
            table: Table::on(Arc::new(table)).in_pages_of(PAGE),
            index: Table::on(Arc::new(no_index)).in_pages_of(PAGE),
            objects: Objects::new(s3.clone(), s3, BUCKET.to_owned()),
            keys: Keys::parse(&Keys::generate()?)?,
            clock: system_clock,
        });
        Ok(Self { app, of, _scratch: scratch, _files: files })
    }
}

/// Locks a file of the data folder, or the folder itself. For a moment it may still be locked by a server that ends, or
/// by a child of one that is about to run another program.
fn locked(folder: &Path, path: &Path) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("can't open {}", path.display()))?;
    for _ in 0..10 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
            Err(TryLockError::Error(error)) => return Err(error).context("can't lock the data folder"),
        }
    }
    bail!("another process serves {}; stop it first, or use another --data", folder.display())
}

/// Random hexadecimal digits from `N` bytes.
pub(crate) fn random_text<const N: usize>() -> anyhow::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    Ok(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

/// Refuses a folder in which others could put files in the place of ours. What we make in it is readable by us alone,
/// so they may look into it.
fn others_may_not_write(folder: &Path) -> anyhow::Result<()> {
    let rights = std::fs::metadata(folder).with_context(|| format!("can't read {}", folder.display()))?.permissions();
    if rights.mode() & 0o022 == 0 {
        return Ok(());
    }
    let folder = folder.display();
    bail!(
        "others may write in the data folder {folder}: make sure that nobody else has put anything there, \
         run `chmod go-w {folder}` as its owner, and start again"
    )
}

/// The text of a file that is created once and then kept.
fn kept(path: &Path, make: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    embedded::owned_file(path)?;
    if !path.exists() {
        write_private(path, &make()?)?;
    }
    embedded::deny_others(path)?;
    std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("{}.new", random_text::<8>()?));
    let written = || -> std::io::Result<()> {
        // A new file: one that was there before could be a link, or be readable by others.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    written().with_context(|| format!("can't write {}", path.display()))
}
