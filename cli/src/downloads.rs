//! `stackroom downloads`: how often something was downloaded.

use crate::client::Client;
use crate::output::{print, table};
use crate::path::plain;
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value};

/// Show how often a container, one of its images or one of its tags was downloaded.
#[derive(Args)]
pub(crate) struct Downloads {
    #[command(flatten)]
    client: Client,
    /// `ENTITY/COLLECTION/CONTAINER[:TAG-OR-HASH]`, or the name of another repository.
    path: String,
    /// How many days to show, at most 400.
    #[arg(long, default_value_t = 30)]
    days: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Downloads {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path = plain(&self.path);
        let (repository, of) = path.split_once(':').map_or((path, None), |(path, of)| (path, Some(of)));
        let mut query = Map::from_iter([("repository".to_owned(), Value::from(repository))]);
        query.insert("days".to_owned(), self.days.into());
        if let Some(of) = of {
            let is_hash = of.starts_with("sha256.") || of.starts_with("sha256:");
            query.insert(if is_hash { "image" } else { "tag" }.to_owned(), of.into());
        }
        let shown = self.client.call(Method::GET, &["api", "downloads"], Some(Value::Object(query))).await?;
        if self.json {
            return print(&serde_json::to_string_pretty(&shown)?);
        }
        let number = |name: &str| shown.get(name).and_then(Value::as_u64).unwrap_or_default();
        let [all, library, registry, share] = ["all", "library", "registry", "share"].map(number);
        print(&format!(
            "{all} downloads: {library} by library clients, {registry} by registry clients, {share} by shares"
        ))?;
        if let Some(latest) = shown.get("latest").and_then(Value::as_str).filter(|latest| !latest.is_empty()) {
            print(&format!("the latest: {latest}"))?;
        }
        match shown.get("days") {
            Some(Value::Array(days)) if !days.is_empty() => {
                table(false, &Value::Array(days.clone()), &["day", "all", "library", "registry", "share"])
            }
            _ => Ok(()),
        }
    }
}
