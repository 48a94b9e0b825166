//! `stackroom share`: URLs that let their holders download one image.

use crate::client::Client;
use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::Write;

/// Share images: make URLs that let anybody who has one download one image, private ones too.
#[derive(Args)]
pub(crate) struct Share {
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a share, and print its URL. It can't be shown again.
    Make {
        /// The image: `REPOSITORY:TAG`, `REPOSITORY:sha256.HASH` or `REPOSITORY@DIGEST`; without any of these, the tag
        /// `latest`.
        image: String,
        /// How long it is valid, like 12h or 7d; by default as long as the server says, which is usually a day.
        #[arg(long, value_parser = crate::output::seconds)]
        expires: Option<u64>,
        /// How many times it can be used; by default without a limit.
        #[arg(long)]
        uses: Option<u64>,
        /// The architecture, like amd64, if the tag has several images.
        #[arg(long)]
        arch: Option<String>,
    },
    /// List your shares of a repository, or all of them if you manage it.
    List {
        /// The name of the repository.
        repository: String,
    },
    /// Revoke a share at once. Downloads that have begun go on, for up to an hour.
    Revoke {
        /// The share's id, as `list` prints it, or its URL.
        share: String,
    },
}

/// The fields that name an image for the server.
fn named(image: &str) -> Value {
    let image = image.strip_prefix("library://").unwrap_or(image).trim_start_matches('/');
    if let Some((repository, digest)) = image.split_once('@') {
        return json!({ "repository": repository, "digest": digest });
    }
    let (repository, tag) = image.split_once(':').unwrap_or((image, "latest"));
    match tag.strip_prefix("sha256.") {
        Some(hash) => json!({ "repository": repository, "digest": format!("sha256:{hash}") }),
        None => json!({ "repository": repository, "tag": tag }),
    }
}

/// The id of a share, from itself or from the share's URL.
fn id_of(share: &str) -> &str {
    let key = share.split_once("/dl/").map_or(share, |(_, rest)| rest);
    key.split(['.', '/']).next().unwrap_or(key)
}

impl Share {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match &self.command {
            Command::Make { image, expires, uses, arch } => {
                let mut body = named(image);
                for (name, value) in [("expires_in", json!(expires)), ("uses", json!(uses)), ("arch", json!(arch))] {
                    if let Some(fields) = body.as_object_mut().filter(|_| !value.is_null()) {
                        fields.insert(name.to_owned(), value);
                    }
                }
                let made = self.client.call(Method::POST, &["api", "shares"], Some(body)).await?;
                if self.json {
                    return print(&serde_json::to_string_pretty(&made)?);
                }
                let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
                print(text("url"))?;
                eprintln!("valid until {}; to download: curl -LO URL", text("expires"));
                eprintln!("to revoke it: stackroom share revoke {}", text("id"));
                Ok(())
            }
            Command::List { repository } => {
                let query = [("repository".to_owned(), json!(repository))].into_iter().collect();
                let shares = self.client.list(&["api", "shares"], query).await?;
                if self.json { print(&serde_json::to_string_pretty(&shares)?) } else { table(&shares) }
            }
            Command::Revoke { share } => {
                self.client.call(Method::DELETE, &["api", "shares", id_of(share)], None).await.map(drop)
            }
        }
    }
}

/// Prints shares for people.
fn table(shares: &[Value]) -> anyhow::Result<()> {
    const COLUMNS: [&str; 7] = ["id", "file", "created_by", "expires", "used", "uses", "over"];
    let cell = |share: &Value, column: &str| match share.get(column) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        _ => "-".to_owned(),
    };
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    lines.extend(shares.iter().map(|share| COLUMNS.map(|column| cell(share, column))));
    let mut widths = [0; COLUMNS.len()];
    for line in &lines {
        for (width, text) in widths.iter_mut().zip(line) {
            *width = text.chars().count().max(*width);
        }
    }
    for line in lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(text, width)| format!("{text:width$}")).collect();
        print(cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("can't write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_in_each_of_its_forms() {
        for (image, fields) in [
            ("alice/tools/bb:1.0", json!({ "repository": "alice/tools/bb", "tag": "1.0" })),
            ("library://alice/tools/bb", json!({ "repository": "alice/tools/bb", "tag": "latest" })),
            ("alice/tools/bb:sha256.ab", json!({ "repository": "alice/tools/bb", "digest": "sha256:ab" })),
            ("alice/files@sha256:ab", json!({ "repository": "alice/files", "digest": "sha256:ab" })),
        ] {
            assert_eq!(named(image), fields);
        }
    }

    #[test]
    fn a_share_is_known_by_its_id_or_its_url() {
        for share in ["0123ab", "0123ab.secret", "http://h:1/dl/0123ab.secret/a.sif", "https://h/dl/0123ab.s.sif"] {
            assert_eq!(id_of(share), "0123ab");
        }
    }
}
