//! `stackroom admin export` and `import`: they work directly on the stores, not through a running library.

use crate::output::{human, print};
use anyhow::bail;
use clap::Args;
use server::copies;
use server::serve::Stores;
use shared::service::copy::{Lost, Progress, Report};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A copy of a library in a folder, and the library that it is of or becomes.
#[derive(Args)]
pub(crate) struct Copy {
    /// The folder of the copy: a data folder, which `stackroom serve --data` can serve.
    folder: PathBuf,
    // Not from the environment: it may be that of a server, and one of the two places is changed.
    /// The table of the library, if it is not in the data folder: on AWS's `DynamoDB` or a store that speaks its protocol.
    #[arg(long, requires = "bucket")]
    table: Option<String>,
    /// The bucket that goes with the table.
    #[arg(long, requires = "table")]
    bucket: Option<String>,
    /// Only say how much there is to copy.
    #[arg(long)]
    dry_run: bool,
}

impl Copy {
    /// Copies the library to the folder.
    pub(crate) async fn export(&self, data: &Path, json: bool) -> anyhow::Result<()> {
        self.run(&self.library(data, false), &Stores::Folder(self.folder.clone()), json).await
    }

    /// Copies the folder to the library.
    pub(crate) async fn import(&self, data: &Path, create: bool, json: bool) -> anyhow::Result<()> {
        self.run(&Stores::Folder(self.folder.clone()), &self.library(data, create), json).await
    }

    fn library(&self, data: &Path, create: bool) -> Stores {
        match self.table.clone().zip(self.bucket.clone()) {
            Some((table, bucket)) => Stores::Shared { table, bucket, create },
            None => Stores::Folder(data.to_owned()),
        }
    }

    async fn run(&self, from: &Stores, to: &Stores, json: bool) -> anyhow::Result<()> {
        if self.dry_run {
            let found = copies::surveyed(from).await?;
            if json {
                return print(&serde_json::to_string_pretty(&found)?);
            }
            let Progress { rows, objects, bytes, .. } = found;
            return print(&format!("{} has {rows} rows, and {objects} objects with {}", place(from), human(bytes)));
        }
        let _ = writeln!(std::io::stderr().lock(), "copying {} to {}", place(from), place(to));
        let told = Mutex::new(Instant::now());
        let report = copies::copied(from, to, &|progress| tell(&told, progress)).await?;
        print(&if json { serde_json::to_string_pretty(&report)? } else { summary(&report) })?;
        if report.lost.is_empty() {
            return Ok(());
        }
        bail!("the source has lost {} objects; the copy has all the rest", report.lost.len())
    }
}

/// How often people are told how far it is.
const EVERY: Duration = Duration::from_secs(5);

/// Says how far a copy is, if it was not said just now.
fn tell(told: &Mutex<Instant>, Progress { rows, objects, bytes, .. }: Progress) {
    let Ok(mut last) = told.try_lock() else { return };
    if last.elapsed() >= EVERY {
        *last = Instant::now();
        // If nobody reads it, the copy goes on.
        let _ = writeln!(std::io::stderr().lock(), "{rows} rows, {objects} objects, {} copied", human(bytes));
    }
}

fn place(stores: &Stores) -> String {
    match stores {
        Stores::Folder(folder) => format!("the folder {}", folder.display()),
        Stores::Shared { table, bucket, .. } => format!("the table {table} and the bucket {bucket}"),
    }
}

fn summary(report: &Report) -> String {
    let Progress { rows, objects, present, bytes } = report.done;
    let copied = human(bytes);
    let mut lines =
        vec![format!("{rows} rows and {objects} objects are there, of these {present} already; {copied} copied")];
    if report.settled > 0 {
        lines.push(format!("{} rows were read again, because the library was changed meanwhile", report.settled));
    }
    let lost = |lost: &Lost| format!("lost: {} ({}, object {})", lost.digest, human(lost.size), lost.object);
    lines.extend(report.lost.iter().map(lost));
    lines.join("\n")
}
