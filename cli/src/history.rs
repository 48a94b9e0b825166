//! `stackroom history`: where a tag led.

use crate::client::Client;
use crate::output::table;
use crate::path::plain;
use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

/// Show where a tag led, since when, and who set it, the latest first.
#[derive(Args)]
pub(crate) struct History {
    #[command(flatten)]
    client: Client,
    /// `ENTITY/COLLECTION/CONTAINER:TAG`, or the name of another repository with a tag.
    tag: String,
    /// Only where it led at this time, like 2026-03-01 or 2026-03-01T12:00:00Z.
    #[arg(long)]
    at: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl History {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path = plain(&self.tag);
        let (repository, tag) = path.split_once(':').context("name a tag, like alice/tools/hello:1.0")?;
        let mut query = Map::from_iter(
            [("repository", repository), ("tag", tag)].map(|(name, value)| (name.to_owned(), value.into())),
        );
        query.extend(self.at.map(|at| ("at".to_owned(), at.into())));
        let rows = self.client.list(&["api", "history"], query).await?;
        let shown = if self.json { rows } else { rows.iter().map(for_people).collect() };
        table(self.json, &Value::Array(shown), &["since", "by", "led to"])
    }
}

/// An entry with one column for all that the tag led to: the images, or else the manifest.
fn for_people(entry: &Value) -> Value {
    let images = entry.get("images").and_then(Value::as_object).into_iter().flatten();
    let images: Vec<String> = images.filter_map(|(arch, image)| Some(format!("{arch} {}", image.as_str()?))).collect();
    let led = match entry.get("digest").and_then(Value::as_str) {
        _ if !images.is_empty() => images.join(", "),
        None | Some("") => "nothing: it was removed".to_owned(),
        Some(digest) => digest.to_owned(),
    };
    json!({ "since": entry.get("since"), "by": entry.get("by"), "led to": led })
}
