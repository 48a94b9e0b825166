//! `stackroom admin scrub`: asks a running library to read its bytes again, piece by piece, at a pace.

use crate::client::Client;
use crate::output::human;
use anyhow::{Context, bail};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fmt;
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a scrub has found so far, and where it continues.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    objects: u64,
    bytes: u64,
    lost: Vec<Finding>,
    damaged: Vec<Finding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Finding {
    digest: String,
    size: u64,
    object: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aside: Option<String>,
}

impl Report {
    fn extend(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
        self.lost.extend(more.lost);
        self.damaged.extend(more.damaged);
        self.next = more.next;
    }

    /// An error if anything is wrong.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        match (self.lost.len(), self.damaged.len()) {
            (0, 0) => Ok(()),
            (lost, damaged) => bail!("{lost} objects are lost and {damaged} damaged: push their images again"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { digest, size, object, .. } in &self.lost {
            writeln!(f, "lost     {digest}  {size} bytes, object {object}")?;
        }
        for Finding { digest, size, aside, .. } in &self.damaged {
            writeln!(f, "damaged  {digest}  {size} bytes, set aside as {}", aside.as_deref().unwrap_or("-"))?;
        }
        write!(f, "{} objects with {} read", self.objects, human(self.bytes))
    }
}

/// Scrubs from where `state` says, or from the beginning, at most `rate` bytes a second.
pub(crate) async fn run(client: &Client, rate: u64, state: Option<&Path>) -> anyhow::Result<Report> {
    let mut report = state.map(load).transpose()?.unwrap_or_default();
    loop {
        let began = Instant::now();
        let body = json!({ "after": report.next, "bytes": (rate > 0).then_some(rate) });
        let answer = client.call(Method::POST, &["api", "scrub"], Some(body)).await?;
        let part: Report = serde_json::from_value(answer).context("the library's answer can't be read")?;
        let read = part.bytes;
        report.extend(part);
        progress(&report);
        if report.next.is_none() {
            if let Some(state) = state {
                remove(state)?;
            }
            return Ok(report);
        }
        if let Some(state) = state {
            save(state, &report)?;
        }
        // A rate of 0 is none.
        let due = read.saturating_mul(1000).checked_div(rate).map(Duration::from_millis).unwrap_or_default();
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
}

/// Shows how far it is, at a terminal.
fn progress(report: &Report) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let end = if report.next.is_some() { "\r" } else { "\n" };
        // Nothing depends on it.
        let _ = write!(out, "\r{} objects, {}   {end}", report.objects, human(report.bytes));
    }
}

fn load(state: &Path) -> anyhow::Result<Report> {
    match std::fs::read(state) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{} is no state of a scrub", state.display()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Report::default()),
        Err(error) => Err(error).with_context(|| format!("can't read {}", state.display())),
    }
}

/// Replaces the file at once, so that an interruption leaves the old one or the new one.
fn save(state: &Path, report: &Report) -> anyhow::Result<()> {
    let new = state.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(report)?)
        .and_then(|()| std::fs::rename(&new, state))
        .with_context(|| format!("can't write {}", state.display()))
}

fn remove(state: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(state) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", state.display()))
        }
        _ => Ok(()),
    }
}
