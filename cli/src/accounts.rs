//! `stackroom admin accounts`: whether the quota accounts are the sums of everything that counts.

use crate::client::Client;
use crate::output::{human, print};
use anyhow::bail;
use reqwest::Method;
use serde_json::{Value, json};

/// Compares the accounts with everything that counts, and corrects those that are wrong if that is wanted.
pub(crate) async fn run(client: &Client, repair: bool, as_json: bool) -> anyhow::Result<()> {
    let path = ["api", "accounts"];
    let report = if repair {
        client.call(Method::POST, &path, Some(json!({ "repair": true }))).await?
    } else {
        client.call(Method::GET, &path, None).await?
    };
    let list = |name: &str| report.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (wrong, undecided) = (list("wrong"), list("undecided"));
    let failed = report.get("failed").and_then(Value::as_u64).unwrap_or(0);
    if as_json {
        print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        for one in &wrong {
            print(&line(one))?;
        }
        for name in undecided.iter().filter_map(Value::as_str) {
            print(&format!("{name}: changes too fast to be told, ask again later"))?;
        }
        if wrong.is_empty() && undecided.is_empty() {
            print(&format!("{} accounts are right", report.get("checked").and_then(Value::as_u64).unwrap_or(0)))?;
        }
    }
    let left = wrong.iter().filter(|one| one.get("repaired") != Some(&Value::Bool(true))).count();
    match (left, failed) {
        (0, 0) => Ok(()),
        (0, failed) => bail!("{failed} rows could not be read; the server's log says why"),
        (left, _) if repair => bail!("{left} wrong accounts changed meanwhile and are not corrected, try again"),
        (left, _) => bail!("{left} accounts are wrong: `stackroom admin accounts --repair` corrects them"),
    }
}

/// A wrong account, on one line.
fn line(one: &Value) -> String {
    let name = one.get("entity").and_then(Value::as_str).unwrap_or("-");
    let number = |side: &str, what: &str| one.get(side).and_then(|side| side.get(what)).and_then(Value::as_u64);
    let mut differences = Vec::new();
    for what in ["used", "reserved", "surplus", "rows"] {
        let (says, is) = (number("account", what).unwrap_or(0), number("sum", what).unwrap_or(0));
        if says != is && what == "rows" {
            differences.push(format!("rows {says} instead of {is}"));
        } else if says != is {
            differences.push(format!("{what} {} instead of {} ({says} and {is} bytes)", human(says), human(is)));
        }
    }
    let repaired = if one.get("repaired") == Some(&Value::Bool(true)) { ", corrected" } else { "" };
    format!("{name}: {}{repaired}", differences.join(", "))
}
