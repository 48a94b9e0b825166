//! `stackroom log`: the logs of changes of a running library.

use crate::client::Client;
use crate::output::{print, seconds};
use clap::Args;
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Show what was changed, by whom, when, and from where: the latest first.
#[derive(Args)]
pub(crate) struct Log {
    #[command(flatten)]
    client: Client,
    /// The entity; without it, the installation.
    entity: Option<String>,
    /// The account of this user, instead of an entity.
    #[arg(long, conflicts_with = "entity")]
    user: Option<String>,
    /// Only changes by this user, or robot as `GROUP+ROBOT`.
    #[arg(long)]
    actor: Option<String>,
    /// Only this action, like push, delete or manage.
    #[arg(long)]
    action: Option<String>,
    /// Only the last time, like 12h or 30d.
    #[arg(long, value_parser = seconds)]
    since: Option<u64>,
    /// At most so many changes; 0 for all.
    #[arg(long, default_value = "100")]
    limit: usize,
    /// Print JSON, a line for each change.
    #[arg(long)]
    json: bool,
}

impl Log {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path: Vec<&str> = match (&self.entity, &self.user) {
            (Some(entity), _) => vec!["api", "entities", entity, "events"],
            (None, Some(user)) => vec!["api", "users", user, "events"],
            (None, None) => vec!["api", "events"],
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let asked = [
            ("actor", self.actor.map(|actor| json!(actor))),
            ("action", self.action.map(|action| json!(action))),
            ("since", self.since.map(|since| json!(now.saturating_sub(since)))),
        ];
        let asked = asked.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let mut query: Map<String, Value> = asked.collect();
        let mut left = if self.limit == 0 { usize::MAX } else { self.limit };
        loop {
            let page = self.client.whole(reqwest::Method::GET, &path, Some(Value::Object(query.clone()))).await?;
            for event in page.get("data").and_then(Value::as_array).into_iter().flatten().take(left) {
                print(&if self.json { event.to_string() } else { line(event) })?;
                left -= 1;
            }
            match page.pointer("/page/next").and_then(Value::as_str) {
                Some(next) if left > 0 && !next.is_empty() => drop(query.insert("after".to_owned(), json!(next))),
                _ => return Ok(()),
            }
        }
    }
}

/// A change for people, on one line.
fn line(event: &Value) -> String {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or("-");
    let what = event.get("what").and_then(Value::as_array).into_iter().flatten();
    let what: Vec<String> = what.map(|what| what.as_str().map_or_else(|| what.to_string(), str::to_owned)).collect();
    format!(
        "{}  {}  {}  {}  {}  {}",
        text("time"),
        text("actor"),
        text("from"),
        text("action"),
        text("place"),
        what.join(", ")
    )
}
