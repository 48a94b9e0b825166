//! `stackroom set`: changes what things say of themselves, who may read them, and what is protected.

use crate::client::Client;
use crate::path::plain;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Change an entity, a collection, a container or another repository, or a tag.
#[derive(Args)]
pub(crate) struct Set {
    #[command(flatten)]
    client: Client,
    /// `entity`, `entity/collection`, `entity/collection/container`, the name of a repository, or that with `:tag`. Two
    /// parts mean a repository if `--visibility`, `--read-only` or `--vcs-url` is given, since collections have none.
    path: String,
    /// A description.
    #[arg(long)]
    description: Option<String>,
    /// A file with the README, in Markdown; `-` for standard input. An empty one removes it.
    #[arg(long)]
    readme: Option<PathBuf>,
    /// A file with data of your own, any text; `-` for standard input. An empty one removes it.
    #[arg(long)]
    custom_data: Option<PathBuf>,
    /// Container or repository: where its sources are, a URL with http or https. An empty one removes it.
    #[arg(long)]
    vcs_url: Option<String>,
    /// Entity or collection: whether new containers in it are private.
    #[arg(long)]
    private: Option<bool>,
    /// Container or repository: who may read it: public, internal or private.
    #[arg(long)]
    visibility: Option<String>,
    /// Container or repository: whether it is read-only.
    #[arg(long)]
    read_only: Option<bool>,
    /// Tag: whether it is protected from being moved or deleted.
    #[arg(long)]
    frozen: Option<bool>,
}

impl Set {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path = plain(&self.path);
        let of_repository =
            path.contains(':') || self.visibility.is_some() || self.read_only.is_some() || self.vcs_url.is_some();
        let (api, kind) = match path.split('/').count() {
            1 => ("v1", "entities"),
            2 if !of_repository => ("v1", "collections"),
            _ => ("api", "repositories"),
        };
        let is_stdin = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
        if is_stdin(&self.readme) && is_stdin(&self.custom_data) {
            bail!("only one of --readme and --custom-data can be read from standard input");
        }
        let mut body = json!({
            "description": self.description, "readme": text(self.readme.as_deref())?,
            "customData": text(self.custom_data.as_deref())?, "vcsUrl": self.vcs_url, "private": self.private,
            "visibility": self.visibility, "readOnly": self.read_only, "frozen": self.frozen,
        });
        if let Some(body) = body.as_object_mut() {
            body.retain(|_, value| !value.is_null());
            if body.is_empty() {
                bail!("say what to change, for example --description or --visibility");
            }
        }
        let path: Vec<&str> = [api, kind].into_iter().chain(path.split('/')).collect();
        self.client.call(Method::PATCH, &path, Some(body)).await.map(drop)
    }
}

/// The text of a file.
fn text(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    /// More than any of the texts may have: the library says how long each may be.
    const MOST: u64 = 1 << 20;
    let Some(file) = file else { return Ok(None) };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MOST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text))
    };
    read.with_context(|| format!("can't read {}", file.display()))?;
    Ok(Some(text))
}
