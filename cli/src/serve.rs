//! The commands that work directly on the stores, not through a running library: `serve`, `ingest`, `admin bootstrap`, and
//! what `doctor` sees from inside.

use crate::doctor::outside::{Finding, Status};
use anyhow::bail;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use server::examine::{self, Examined, Outcome};
use server::serve::{Settings, Stores, explained};
use shared::app::Deployed;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serve the whole library in one process.
#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen.
    #[arg(long, env = "STACKROOM_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The folder that holds everything, for a library of one server.
    #[arg(long, env = "STACKROOM_DATA", default_value = "data")]
    data: PathBuf,
    /// Instead of a folder: a table on AWS's `DynamoDB` or a store that speaks its protocol, which any number of servers
    /// use together. `AWS_ENDPOINT_URL_DYNAMODB` says where it is, if not on AWS.
    #[arg(long, env = "STACKROOM_TABLE", requires = "bucket", conflicts_with = "data")]
    table: Option<String>,
    /// The bucket that goes with the table, on AWS's S3 or a store that speaks its protocol, at `AWS_ENDPOINT_URL_S3`.
    #[arg(long, env = "STACKROOM_BUCKET", requires = "table")]
    bucket: Option<String>,
    /// Make the table and the bucket, if they are not there.
    #[arg(long, requires = "table")]
    create: bool,
    /// A second address that only accepts blob uploads; `STACKROOM_INGEST_URL` sends registry clients there.
    #[arg(long, env = "STACKROOM_INGEST_LISTEN")]
    ingest_listen: Option<SocketAddr>,
    /// The URL under which clients reach the server; for a library in a folder, by default http:// and the listening
    /// address.
    #[arg(long, env = "STACKROOM_PUBLIC_URL")]
    public_url: Option<String>,
    /// An address of its own that answers with metrics for Prometheus, at `/metrics`. It asks nobody who they are.
    #[arg(long, env = "STACKROOM_METRICS")]
    metrics: Option<SocketAddr>,
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { listen, data, table, bucket, create, ingest_listen, public_url, metrics } = self;
        let set = |name: Option<String>| name.filter(|name| !name.is_empty());
        let stores = match set(table).zip(set(bucket)) {
            Some((table, bucket)) => Stores::Shared { table, bucket, create },
            None => Stores::Folder(data),
        };
        server::serve::serve(Settings { listen, stores, ingest_listen, public_url, metrics }).await
    }
}

/// Accept blob uploads for a library on functions.
#[derive(Args)]
pub(crate) struct Ingest {
    /// Where to listen. Put a proxy with TLS in front of it.
    #[arg(long, env = "STACKROOM_LISTEN", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// An address of its own that answers with metrics for Prometheus, at `/metrics`. It asks nobody who they are.
    #[arg(long, env = "STACKROOM_METRICS")]
    metrics: Option<SocketAddr>,
}

impl Ingest {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        server::serve::ingest(self.listen, self.metrics).await
    }
}

/// Creates the first site administrator of a deployment on AWS, and returns a token for them.
pub(crate) async fn bootstrap(password: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let app = shared::App::from_env().await.map_err(explained)?;
    shared::service::installation::mark(&app).await.map_err(explained)?;
    let password = SecretString::from(password()?);
    let made = shared::service::people::users::bootstrap(&app, "admin".parse()?, password).await.map_err(explained)?;
    match made {
        Some(token) => Ok(token.expose_secret().to_owned()),
        None => bail!("users exist already: a site administrator can make tokens with `stackroom admin token`"),
    }
}

/// Tries the stores of a deployment out, with the settings and the AWS credentials of the environment.
pub(crate) async fn examine(table: String, bucket: String, url: String) -> Vec<Finding> {
    let public_url = std::env::var("STACKROOM_PUBLIC_URL").ok().filter(|set| !set.is_empty()).unwrap_or(url);
    let examined = examine::deployment(Deployed { table, bucket, public_url }).await;
    examined.into_iter().map(finding).collect()
}

fn finding(examined: Examined) -> Finding {
    let Examined { check, outcome } = examined;
    let (status, seen) = match outcome {
        Outcome::Ok(seen) => (Status::Ok, seen),
        Outcome::Warning(seen) => (Status::Warning, seen),
        Outcome::Failed(seen) => (Status::Failed, seen),
        Outcome::Skipped(why) => (Status::Skipped, why),
    };
    let wrong = matches!(status, Status::Warning | Status::Failed);
    let of = |text: &'static str| wrong.then_some(text);
    Finding {
        probe: check.name,
        status,
        checks: check.checks,
        seen,
        means: of(check.means),
        advice: of(check.advice),
        page: of(check.page),
    }
}
