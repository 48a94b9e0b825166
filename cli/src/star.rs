//! `stackroom star`: marks containers that one likes, and lists them.

use crate::client::Client;
use crate::output::table;
use crate::path::{plain, route};
use anyhow::Context;
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value};

/// Star a container, or list the containers that you have starred.
#[derive(Args)]
pub(crate) struct Star {
    #[command(flatten)]
    client: Client,
    /// `ENTITY/COLLECTION/CONTAINER`. Without it: list what you have starred.
    path: Option<String>,
    /// Take your star back.
    #[arg(long, requires = "path")]
    remove: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Star {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let user = self.client.whoami().await?;
        let stars = ["v1", "users", &user, "stars"];
        if let Some(path) = &self.path {
            let found = self.client.call(Method::GET, &route(plain(path), false), None).await?;
            let id = found.get("id").and_then(Value::as_str).context("only containers can be starred")?;
            let method = if self.remove { Method::DELETE } else { Method::POST };
            let route: Vec<&str> = stars.into_iter().chain([id]).collect();
            return self.client.call(method, &route, None).await.map(drop);
        }
        let rows = self.client.list(&stars, Map::new()).await?;
        table(self.json, &Value::Array(rows), &["entityName", "collectionName", "name"])
    }
}
