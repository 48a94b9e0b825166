//! The HTTP client of a running library: its address, the token to use, and its error messages.

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

// The options that say which running library to use. Not a doc comment: clap would use it as the command's
// description.
#[derive(Args)]
pub(crate) struct Client {
    /// The URL of the library.
    #[arg(long, env = "STACKROOM_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: String,
    /// The data folder of a library on this machine. Its admin.token is used unless `STACKROOM_TOKEN` is set.
    #[arg(long, env = "STACKROOM_DATA", default_value = "data", global = true)]
    data: PathBuf,
}

impl Client {
    /// The data folder of a library on this machine.
    #[cfg(feature = "server")]
    pub(crate) fn data(&self) -> &std::path::Path {
        &self.data
    }

    /// Sends a request to the library, and returns the `data` of its answer. A `GET` and a `DELETE` send the fields
    /// of the body as their query.
    pub(crate) async fn call(&self, method: Method, path: &[&str], body: Option<Value>) -> anyhow::Result<Value> {
        Ok(self.whole(method, path, body).await?.get("data").cloned().unwrap_or_default())
    }

    /// The same for somebody who has no token yet.
    pub(crate) async fn call_without_token(&self, method: Method, path: &[&str], body: Value) -> anyhow::Result<Value> {
        let answer = self.answer(method, path, Some(body), None).await?;
        Ok(answer.get("data").cloned().unwrap_or_default())
    }

    /// The same with the whole answer, which for a list says where the next page begins.
    pub(crate) async fn whole(&self, method: Method, path: &[&str], body: Option<Value>) -> anyhow::Result<Value> {
        let token = self.token()?;
        self.answer(method, path, body, Some(token.trim())).await
    }

    /// All pages of a list.
    pub(crate) async fn list(&self, path: &[&str], mut query: Map<String, Value>) -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        loop {
            let page = self.whole(Method::GET, path, Some(Value::Object(query.clone()))).await?;
            all.extend(page.get("data").and_then(Value::as_array).into_iter().flatten().cloned());
            match page.pointer("/page/next").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => drop(query.insert("after".to_owned(), next.into())),
                _ => return Ok(all),
            }
        }
    }

    async fn answer(
        &self,
        method: Method,
        path: &[&str],
        body: Option<Value>,
        token: Option<&str>,
    ) -> anyhow::Result<Value> {
        let mut url = reqwest::Url::parse(&self.url).with_context(|| format!("`{}` is not a URL", self.url))?;
        url.path_segments_mut()
            .map_err(|()| anyhow::anyhow!("`{}` is not the URL of a library", self.url))?
            .pop_if_empty()
            .extend(path);
        let asks = method == Method::GET || method == Method::DELETE;
        for (name, value) in body.iter().filter(|_| asks).filter_map(Value::as_object).flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            url.query_pairs_mut().append_pair(name, &value);
        }
        let mut request = reqwest::Client::new().request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body.filter(|_| !asks) {
            request = request.json(&body);
        }
        let answer =
            request.send().await.with_context(|| format!("can't reach {}, is the library running?", self.url))?;
        let status = answer.status();
        let body: Value = answer
            .json()
            .await
            .with_context(|| format!("{} answered {status}, but not in Stackroom's format", self.url))?;
        if status.is_success() {
            return Ok(body);
        }
        let message = body.pointer("/error/message").and_then(Value::as_str).unwrap_or("no reason given");
        bail!("{message} ({status})")
    }

    /// The name of whoever the token is for.
    pub(crate) async fn whoami(&self) -> anyhow::Result<String> {
        let url = format!("{}/v1/rbac/users/current", self.url.trim_end_matches('/'));
        let answer = reqwest::Client::new().get(url).bearer_auth(self.token()?.trim()).send().await;
        let answer = answer.with_context(|| format!("can't reach {}, is the library running?", self.url))?;
        let body: Value = answer.json().await.context("the library did not say whose the token is")?;
        let name = body.get("username").and_then(Value::as_str);
        name.map(str::to_owned).context("the library did not say whose the token is: is it still valid?")
    }

    fn token(&self) -> anyhow::Result<String> {
        if let Ok(token) = std::env::var("STACKROOM_TOKEN") {
            return Ok(token);
        }
        token_at(&self.data)
    }
}

/// The operator's token in the data folder of a library on this machine.
pub(crate) fn token_at(data: &Path) -> anyhow::Result<String> {
    let file = data.join("admin.token");
    std::fs::read_to_string(&file).with_context(|| {
        format!("STACKROOM_TOKEN is not set and {} can't be read; run this on the library's machine, or set both STACKROOM_URL and STACKROOM_TOKEN", file.display())
    })
}
