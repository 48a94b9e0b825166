//! `stackroom doctor`: whether a deployment does what its clients rely on, seen from outside and, where there are
//! credentials, from inside.

pub(crate) mod outside;

use crate::client::token_at;
use crate::output::print;
use anyhow::{Context, bail};
use clap::Args;
use outside::{Finding, Settings, Status};
use reqwest::{Client, Url};
use serde_json::json;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Look whether a deployment does what its clients rely on.
///
/// It asks as clients do. With a token it pushes and pulls in a private collection of its own, which it deletes at the
/// end. It fails if a probe fails.
#[derive(Args)]
pub(crate) struct Doctor {
    /// The URL of the library.
    #[arg(env = "STACKROOM_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The token to use. Without one, only what anybody sees is probed.
    #[arg(long, env = "STACKROOM_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The data folder of a library on this machine. Its admin.token is used if the URL is this machine's, unless there
    /// is another token.
    #[arg(long, env = "STACKROOM_DATA", default_value = "data")]
    data: PathBuf,
    /// Where to push: an entity in which you may make and delete collections. By default your own.
    #[arg(long)]
    entity: Option<String>,
    /// Also push 500 MiB.
    #[arg(long)]
    large: bool,
    /// From inside: the table, with AWS credentials that may use it.
    #[cfg(feature = "server")]
    #[arg(long, env = "STACKROOM_TABLE", requires = "bucket")]
    table: Option<String>,
    /// From inside: the bucket that goes with the table.
    #[cfg(feature = "server")]
    #[arg(long, env = "STACKROOM_BUCKET", requires = "table")]
    bucket: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let url = Url::parse(&self.url).with_context(|| format!("`{}` is not a URL", self.url))?;
        if url.host().is_none() {
            bail!("`{}` is not the URL of a library", self.url);
        }
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE).build()?;
        // The operator's token is for the library on this machine, and for no other.
        let own = || token_at(&self.data).ok().filter(|_| outside::on_this_machine(&url));
        let token = self.token.clone().or_else(own);
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let lines = Lines::new(self.json);
        let settings = Settings { url, client, token, entity: self.entity.clone(), large: self.large };
        let findings = outside::run(settings, |finding| lines.show(finding)).await;
        #[cfg(feature = "server")]
        let findings = self.and_inside(findings, &lines).await;
        let failed = findings.iter().filter(|finding| finding.status == Status::Failed).count();
        if self.json {
            let report = json!({ "url": self.url, "ok": failed == 0, "probes": findings });
            print(&serde_json::to_string_pretty(&report)?)?;
        }
        match failed {
            0 => Ok(()),
            failed => bail!("{failed} of {} probes failed", findings.len()),
        }
    }

    /// Adds what the stores look like from inside, if the settings say where they are.
    #[cfg(feature = "server")]
    async fn and_inside(&self, mut findings: Vec<Finding>, lines: &Lines) -> Vec<Finding> {
        let set = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let Some((table, bucket)) = set(&self.table).zip(set(&self.bucket)) else { return findings };
        let inside = crate::serve::examine(table, bucket, self.url.clone()).await;
        for finding in &inside {
            lines.show(finding);
        }
        findings.extend(inside);
        findings
    }
}

/// What people see, line by line. As JSON, they see all at the end.
struct Lines {
    json: bool,
    coloured: bool,
}

impl Lines {
    fn new(json: bool) -> Self {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { json, coloured }
    }

    fn show(&self, finding: &Finding) {
        if self.json {
            return;
        }
        for line in lines(finding, self.coloured) {
            // The exit status says it, too.
            let _ = print(&line);
        }
    }
}

/// A finding for people.
fn lines(finding: &Finding, coloured: bool) -> Vec<String> {
    let (word, colour) = match finding.status {
        Status::Ok => ("ok", 32),
        Status::Warning => ("warning", 33),
        Status::Failed => ("FAILED", 31),
        Status::Skipped => ("skipped", 90),
    };
    let word = if coloured { format!("\u{1b}[{colour}m{word:8}\u{1b}[0m") } else { format!("{word:8}") };
    let mut lines = vec![format!("{word} {:20} {}", finding.probe, finding.seen)];
    if let (Some(means), Some(advice), Some(page)) = (finding.means, finding.advice, finding.page) {
        lines.extend(
            [means.to_owned(), advice.to_owned(), format!("See {page}.")].map(|more| format!("{:30}{more}", "")),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_unless_all_is_well() {
        let well = Finding {
            probe: "ranges",
            status: Status::Ok,
            checks: "",
            seen: "parts".to_owned(),
            means: None,
            advice: None,
            page: None,
        };
        assert_eq!(lines(&well, false), ["ok       ranges               parts"]);
        let failed = Finding {
            status: Status::Failed,
            means: Some("It breaks."),
            advice: Some("Mend it."),
            page: Some("x"),
            ..well
        };
        let said = lines(&failed, true);
        assert!(said[0].starts_with("\u{1b}[31mFAILED  \u{1b}[0m ranges"), "{said:?}");
        assert_eq!(said[1..].iter().map(|line| line.trim()).collect::<Vec<_>>(), ["It breaks.", "Mend it.", "See x."]);
    }
}
