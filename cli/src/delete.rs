//! `stackroom delete`: deletes images, containers, collections and groups.

use crate::client::Client;
use crate::output::{human, print};
use crate::path::{plain, route};
use anyhow::bail;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};

/// Delete an image, a container, a collection or a group, with everything in it.
#[derive(Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    client: Client,
    /// `GROUP`, `ENTITY/COLLECTION`, `ENTITY/COLLECTION/CONTAINER`, that with `:TAG` or `:sha256.HASH` for one image, or
    /// the name of another repository. With or without `library://`.
    path: String,
    /// The path is the name of a repository, though it has only two parts.
    #[arg(long)]
    repository: bool,
    #[command(flatten)]
    how: How,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How something is deleted.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command")]
pub(crate) struct How {
    /// Delete also what is in it. Otherwise, it must be empty.
    #[arg(long)]
    cascade: bool,
    /// Delete it even if a tag in it is frozen, or a container read-only. A user, even if a group is left without an
    /// admin.
    #[arg(long)]
    force: bool,
    /// Only show what would be deleted.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl Delete {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let path = plain(&self.path);
        let route = route(path, self.repository);
        if !path.contains(':') {
            return self.how.delete(&self.client, &route, path, self.json).await;
        }
        if self.how.dry_run || self.how.force {
            bail!(
                "an image has nothing in it to show, and a frozen one is unfrozen first: use neither --dry-run nor --force"
            );
        }
        self.how.confirmed(path)?;
        self.client.call(Method::DELETE, &route, None).await.map(drop)
    }
}

impl How {
    /// Shows what is in something, asks whether to delete it, and does.
    pub(crate) async fn delete(
        &self,
        client: &Client,
        route: &[&str],
        what: &str,
        as_json: bool,
    ) -> anyhow::Result<()> {
        if self.dry_run || (!self.yes && self.cascade) {
            let dry = client.call(Method::DELETE, route, Some(json!({ "dry-run": true }))).await?;
            if self.dry_run && as_json {
                return print(&serde_json::to_string_pretty(&dry)?);
            }
            let shown = format!("in {what}: {}", contents(&dry));
            if self.dry_run {
                return print(&shown);
            }
            eprintln!("{shown}");
        }
        self.confirmed(what)?;
        let query = json!({ "cascade": self.cascade, "force": self.force });
        let deleted = client.call(Method::DELETE, route, Some(query)).await?;
        if as_json {
            return print(&serde_json::to_string_pretty(&deleted)?);
        }
        if deleted.get("done") == Some(&Value::Bool(true)) {
            eprintln!("deleted {what}");
        } else {
            eprintln!("deleted {what}: nobody sees it any more, and what is left of it is removed by the next sweeps");
        }
        Ok(())
    }

    /// Asks at a terminal. Elsewhere, `--yes` has to say so.
    fn confirmed(&self, what: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            bail!("to delete {what} without being asked, say --yes");
        }
        eprint!("delete {what}? It can't be undone. [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => bail!("nothing was deleted"),
        }
    }
}

/// What is in something, in words.
fn contents(answer: &Value) -> String {
    let number = |name: &str| answer.pointer(&format!("/contents/{name}")).and_then(Value::as_u64).unwrap_or(0);
    let counts = ["collections", "containers", "images", "manifests", "tags"];
    let mut all: Vec<String> = counts.iter().map(|name| format!("{} {name}", number(name))).collect();
    all.push(human(number("bytes")));
    for (name, meaning) in [("frozen", "frozen"), ("readOnly", "read-only")] {
        let what = answer.pointer(&format!("/contents/{name}")).and_then(Value::as_str);
        all.extend(what.map(|what| format!("{meaning}: {what}")));
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_it_names() {
        let named = |path, repository| route(path, repository).join("/");
        assert_eq!(named("acme", false), "v1/entities/acme");
        assert_eq!(named("acme/tools", false), "v1/collections/acme/tools");
        assert_eq!(named("acme/tools", true), "api/repositories/acme/tools");
        assert_eq!(named("acme/tools/sb", false), "v1/containers/acme/tools/sb");
        assert_eq!(named("acme/a/b/c", false), "api/repositories/acme/a/b/c");
        assert_eq!(named("acme/tools/sb:v1", false), "v1/images/acme/tools/sb:v1");
    }
}
