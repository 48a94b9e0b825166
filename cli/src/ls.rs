//! `stackroom ls`, `info`: what there is, and what it says of itself.

use crate::client::Client;
use crate::output::{print, table};
use crate::path::{plain, route};
use clap::Args;
use reqwest::Method;
use serde_json::Value;

/// List your entities, the collections of an entity, the containers of a collection, or the tags of a container.
#[derive(Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    client: Client,
    /// `ENTITY`, `ENTITY/COLLECTION`, `ENTITY/COLLECTION/CONTAINER`, or the name of another repository. Without it: the
    /// entities in which you have a role.
    path: Option<String>,
    /// The path is the name of a repository, though it has only two parts; or an entity, of which all repositories are
    /// listed, whatever their paths.
    #[arg(long)]
    repository: bool,
    /// The order: `name`, `created` or, of tags, `updated`; `-name` and so on for the other way round.
    #[arg(long, allow_hyphen_values = true)]
    sort: Option<String>,
    /// Only names that begin like this.
    #[arg(long)]
    prefix: Option<String>,
    /// Tags: only those for this architecture.
    #[arg(long)]
    arch: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path = self.path.as_deref().map(plain).filter(|path| !path.is_empty());
        let (route, of, columns): (&[&str], _, &[&str]) = match path.map(|path| (path, path.split('/').count())) {
            None => (&["v1", "entities"], None, &["name", "quota", "description"]),
            Some((path, 1)) if self.repository => {
                (&["api", "repositories"], Some(("entity", path)), &["name", "visibility", "description"])
            }
            Some((path, 1)) => (&["v1", "collections"], Some(("entity", path)), &["name", "private", "description"]),
            Some((path, 2)) if !self.repository => {
                (&["v1", "containers"], Some(("collection", path)), &["name", "private", "readOnly", "description"])
            }
            Some((path, _)) => (&["api", "tags"], Some(("repository", path)), &["name", "digest", "frozen", "updated"]),
        };
        let said = [("sort", &self.sort), ("prefix", &self.prefix), ("arch", &self.arch)];
        let said = said.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let query = said.chain(of).map(|(name, value)| (name.to_owned(), value.into())).collect();
        let rows = self.client.list(route, query).await?;
        table(self.json, &Value::Array(rows), columns)
    }
}

/// Show an entity, a collection, a container or another repository, with its README.
#[derive(Args)]
pub(crate) struct Info {
    #[command(flatten)]
    client: Client,
    /// `ENTITY`, `ENTITY/COLLECTION`, `ENTITY/COLLECTION/CONTAINER`, that with `:TAG` for one image, or the name of
    /// another repository.
    path: String,
    /// The path is the name of a repository, though it has only two parts.
    #[arg(long)]
    repository: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        const README: &str = "fullDescription";
        let found = self.client.call(Method::GET, &route(plain(&self.path), self.repository), None).await?;
        if self.json {
            return print(&serde_json::to_string_pretty(&found)?);
        }
        for (name, value) in found.as_object().into_iter().flatten().filter(|(name, _)| *name != README) {
            match value {
                Value::Null | Value::Array(_) | Value::Object(_) => {}
                Value::String(text) if text.is_empty() => {}
                Value::String(text) => print(&format!("{name}: {text}"))?,
                other => print(&format!("{name}: {other}"))?,
            }
        }
        match found.get(README).and_then(Value::as_str) {
            Some(readme) if !readme.is_empty() => print(&format!("\n{readme}")),
            _ => Ok(()),
        }
    }
}
