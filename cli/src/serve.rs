//! The commands that work directly on the stores, not through a running library: `serve`, `ingest`, `admin bootstrap`.

use anyhow::bail;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serve the whole library in one process.
#[derive(Args)]
pub(crate) struct Serve {
    /// Where to listen.
    #[arg(long, env = "STACKROOM_LISTEN", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The folder that holds everything.
    #[arg(long, env = "STACKROOM_DATA", default_value = "data")]
    data: PathBuf,
    /// A second address that only accepts blob uploads; `STACKROOM_INGEST_URL` sends registry clients there.
    #[arg(long, env = "STACKROOM_INGEST_LISTEN")]
    ingest_listen: Option<SocketAddr>,
    /// The URL under which clients reach the server; by default http:// and the listening address.
    #[arg(long, env = "STACKROOM_PUBLIC_URL")]
    public_url: Option<String>,
}

impl Serve {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { listen, data, ingest_listen, public_url } = self;
        server::serve::serve(server::serve::Settings { listen, data, ingest_listen, public_url }).await
    }
}

/// Accept blob uploads for a library on functions.
#[derive(Args)]
pub(crate) struct Ingest {
    /// Where to listen. Put a proxy with TLS in front of it.
    #[arg(long, env = "STACKROOM_LISTEN", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

impl Ingest {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        server::serve::ingest(self.listen).await
    }
}

/// Creates the first site administrator of a deployment on AWS, and returns a token for them.
pub(crate) async fn bootstrap(password: impl FnOnce() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let app = shared::App::from_env().await.map_err(explained)?;
    let password = SecretString::from(password()?);
    let made = shared::service::people::users::bootstrap(&app, "admin".parse()?, password).await.map_err(explained)?;
    match made {
        Some(token) => Ok(token.expose_secret().to_owned()),
        None => bail!("users exist already: a site administrator can make tokens with `stackroom admin token`"),
    }
}

/// An error of a use case with its internal cause, which only the operator may see.
fn explained(error: shared::Error) -> anyhow::Error {
    let cause = error.cause();
    let error = anyhow::Error::from(error);
    match cause {
        Some(cause) => error.context(cause),
        None => error,
    }
}
