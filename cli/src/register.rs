//! `stackroom register`: makes an account for oneself on a running library that lets people do so.

use crate::client::Client;
use crate::output::{password, print};
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

/// Make an account for yourself, with a password read from standard input, and print a token for it.
///
/// Works where the operator lets people register: everybody, or those with an invitation. The token can't be shown again.
#[derive(Args)]
pub(crate) struct Register {
    #[command(flatten)]
    client: Client,
    /// The name of the account, and of your place in the library.
    name: String,
    /// Your e-mail address, which only you and administrators see.
    #[arg(long)]
    email: Option<String>,
    /// The link of an invitation.
    #[arg(long)]
    invitation: Option<String>,
}

impl Register {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let Self { client, name, email, invitation } = self;
        let body = json!({ "name": name, "password": password()?, "email": email, "invitation": invitation });
        let made = client.call_without_token(Method::POST, &["api", "register"], body).await?;
        print(made.get("token").and_then(Value::as_str).unwrap_or_default())
    }
}
