//! `stackroom create`: makes collections and containers before anything is pushed to them.

use crate::client::Client;
use crate::path::plain;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

/// Make a collection or a container. A push makes what is missing by itself.
#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    client: Client,
    /// `ENTITY/COLLECTION` or `ENTITY/COLLECTION/CONTAINER`. The collection of a new container must be there.
    path: String,
    /// A description.
    #[arg(long)]
    description: Option<String>,
    /// Container: only members of its entity may read it. Collection: so it is with new containers in it.
    #[arg(long)]
    private: bool,
}

impl Create {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path = plain(&self.path);
        let (within, route, field, name) = match path.split('/').collect::<Vec<_>>().as_slice() {
            [entity, name] => (vec!["v1", "entities", entity], "collections", "entity", *name),
            [entity, collection, name] => {
                (vec!["v1", "collections", entity, collection], "containers", "collection", *name)
            }
            _ => bail!("`{path}` is neither a collection nor a container; to make a group: stackroom group make"),
        };
        let parent = self.client.call(Method::GET, &within, None).await?;
        let parent = parent.get("id").and_then(Value::as_str).context("the library did not say its id")?;
        let mut body = json!({ "name": name, "description": self.description, "private": self.private });
        if let Some(body) = body.as_object_mut() {
            body.insert(field.to_owned(), parent.into());
        }
        self.client.call(Method::POST, &["v1", route], Some(body)).await.map(drop)
    }
}
