//! Copies of whole libraries: from a folder, or a table and a bucket, to others.

use crate::local::{Local, NOWHERE, Snapshot};
use crate::serve::{Stores, explained};
use anyhow::{Context, bail};
use shared::App;
use shared::app::{Assembly, Deployed};
use shared::config::Config;
use shared::service::copy::{self, Copying, Progress, Report};
use shared::service::installation;

/// Copies a library. `tell` is told from time to time how far it is.
///
/// # Errors
/// If a store can't be used, or the target holds something else.
pub async fn copied(from: &Stores, to: &Stores, tell: &(dyn Fn(Progress) + Sync)) -> anyhow::Result<Report> {
    from.check()?;
    // First, so that nobody else copies there.
    let target = Target::open(to).await?;
    let source = Source::open(from, to).await?;
    let copying = Copying { from: source.app(), of: source.of(), to: target.app(), tell };
    let report = copy::copy(copying).await.map_err(explained)?;
    if let Target::Folder(local) = &target {
        local.needs_admin_token()?;
    }
    Ok(report)
}

/// How much there is to copy of a library. Nothing is written but a temporary folder beside it.
///
/// # Errors
/// If a store can't be read.
pub async fn surveyed(from: &Stores) -> anyhow::Result<Progress> {
    let source = Source::open(from, from).await?;
    copy::survey(source.app()).await.map_err(explained)
}

impl Stores {
    /// Sees that a folder that is to be read holds a library, before anything is made.
    fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) if !folder.join("table.sqlite").exists() => {
                bail!("there is no library in {}", folder.display())
            }
            _ => Ok(()),
        }
    }
}

enum Source {
    Folder(Snapshot),
    Shared { app: App, of: String },
}

impl Source {
    /// Opens a library to be read. Servers may be using it.
    async fn open(from: &Stores, to: &Stores) -> anyhow::Result<Self> {
        match from {
            Stores::Folder(folder) => {
                from.check()?;
                // A copy of its table needs room: there is some where the copy of all goes.
                let Stores::Folder(beside) = to else { return Ok(Self::Folder(Snapshot::take(folder, folder).await?)) };
                Ok(Self::Folder(Snapshot::take(folder, beside).await?))
            }
            Stores::Shared { table, bucket, .. } => {
                let app = on(table, bucket).await?.app();
                let of = copy::identity(&app).await.map_err(explained);
                let of = of.with_context(|| format!("the table {table} belongs to no library"))?;
                Ok(Self::Shared { app, of })
            }
        }
    }

    fn app(&self) -> &App {
        match self {
            Self::Folder(snapshot) => &snapshot.app,
            Self::Shared { app, .. } => app,
        }
    }

    fn of(&self) -> &str {
        match self {
            Self::Folder(snapshot) => &snapshot.of,
            Self::Shared { of, .. } => of,
        }
    }
}

enum Target {
    Folder(Local),
    Shared(App),
}

impl Target {
    /// Opens the place of a copy. No server may be using it.
    async fn open(to: &Stores) -> anyhow::Result<Self> {
        match to {
            Stores::Folder(folder) => Ok(Self::Folder(Local::open(folder, Config::read(NOWHERE, |_| None)?).await?)),
            Stores::Shared { table, bucket, create } => {
                let assembly = on(table, bucket).await?;
                if *create {
                    assembly.made().await?;
                }
                let app = assembly.app();
                installation::mark(&app).await.map_err(explained)?;
                Ok(Self::Shared(app))
            }
        }
    }

    fn app(&self) -> &App {
        match self {
            Self::Folder(local) => &local.app,
            Self::Shared(app) => app,
        }
    }
}

/// A library on shared stores, of which only the rows and objects are used: no token is read or signed.
async fn on(table: &str, bucket: &str) -> anyhow::Result<Assembly> {
    let place = Deployed { table: table.to_owned(), bucket: bucket.to_owned(), public_url: NOWHERE.to_owned() };
    Assembly::without_tokens(place).await.map_err(explained)
}
