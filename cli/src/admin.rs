//! `stackroom admin`: a client of the API of a running library.

use crate::accounts;
use crate::client::Client;
#[cfg(feature = "server")]
use crate::copies;
use crate::delete;
use crate::output::{bytes, password, print, seconds, table};
use crate::scrub;
use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

/// Administer a running library.
#[derive(Args)]
pub(crate) struct Admin {
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
    /// Manage users.
    #[command(subcommand)]
    User(User),
    /// Make a token for a user, and print only the token. It can't be shown again.
    Token {
        /// The user, or a robot as `GROUP+ROBOT`.
        user: String,
        /// A name by which the user recognises it.
        #[arg(long)]
        name: String,
        /// How long it is valid, like 12h, 30d or 52w; by default for ever.
        #[arg(long, value_parser = seconds)]
        expires: Option<u64>,
        /// Its scope: rights (pull, push, delete, manage, admin) and a place, like `pull,push@acme/tools/bb`.
        #[arg(long)]
        scope: Option<String>,
    },
    /// List a user's tokens.
    Tokens {
        /// The user.
        user: String,
    },
    /// Revoke a token at once.
    Revoke {
        /// The user.
        user: String,
        /// The token's id, as `tokens` prints it.
        id: String,
    },
    /// Create the first site administrator, `admin`, of a deployment on AWS, and print a token for them.
    ///
    /// Works directly on the table, with AWS credentials and the settings of a function in the environment:
    /// `STACKROOM_TABLE`, `STACKROOM_BUCKET`, `STACKROOM_PUBLIC_URL`, `STACKROOM_TOKEN_KEYS_SECRET`.
    #[cfg(feature = "server")]
    Bootstrap {
        /// Read a password from standard input.
        #[arg(long, required = true)]
        password_stdin: bool,
    },
    /// Make a link with which people can register, and print it. It can't be shown again.
    Invite {
        /// How many people it may bring in.
        #[arg(long, default_value = "1")]
        uses: u64,
        /// How long it is valid, like 12h or 7d.
        #[arg(long, value_parser = seconds, default_value = "7d")]
        expires: u64,
        /// A group in which they get a role.
        #[arg(long, requires = "role")]
        group: Option<String>,
        /// That role: reader or contributor.
        #[arg(long, requires = "group")]
        role: Option<String>,
        /// Only on this collection of the group, or this container as `COLLECTION/CONTAINER`.
        #[arg(long, requires = "group")]
        on: Option<String>,
    },
    /// List the invitations to register.
    Invitations,
    /// Revoke an invitation to register.
    Uninvite {
        /// The invitation's id, as `invitations` prints it.
        id: String,
    },
    /// Compare what the quota accounts say with everything that counts, while everything else goes on.
    ///
    /// Exits with an error if an account is wrong.
    Accounts {
        /// Correct those that are wrong.
        #[arg(long)]
        repair: bool,
    },
    /// Clean up after abandoned uploads and deleted images.
    Sweep {
        /// Clean up everything at once, regardless of age. Only use this while nobody pushes or pulls.
        #[arg(long)]
        now: bool,
        /// Only list what would be removed, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Read all stored bytes again and compare them with their digests, while everything else goes on.
    ///
    /// Bytes that are damaged are set aside, so that nobody gets them; the next push of the right ones replaces them.
    /// Exits with an error if anything is lost or damaged.
    Scrub {
        /// The most bytes to read in a second, like 100MiB; 0 for as fast as possible.
        #[arg(long, value_parser = bytes, default_value = "100MiB")]
        rate: u64,
        /// A file that records how far it is. If it exists, the scrub continues from there. Removed at the end.
        #[arg(long)]
        state: Option<PathBuf>,
    },
    /// Make the search index anew, and wait until it is whole. What is in it is found meanwhile. Needed only if something
    /// is not found that should be: changes come into the index by themselves.
    Reindex {
        /// Do not wait. On AWS, it is made by the sweeps of the next hours.
        #[arg(long)]
        no_wait: bool,
    },
    /// Copy the whole library to a folder, while everything else goes on. If the folder holds an earlier copy, only what
    /// changed is copied.
    ///
    /// Works directly on the stores: on the data folder (`--data`), which a server may be using, or on a table and a
    /// bucket, with AWS credentials. The keys that sign tokens are not copied.
    #[cfg(feature = "server")]
    Export(copies::Copy),
    /// Copy the whole library that is in a folder to an empty data folder (`--data`), or to an empty table and bucket.
    ///
    /// If it ends before its time, it continues where it was. Until it is done, no server starts there.
    #[cfg(feature = "server")]
    Import {
        #[command(flatten)]
        copy: copies::Copy,
        /// Make the table and the bucket, if they are not there.
        #[arg(long, requires = "table")]
        create: bool,
    },
}

#[derive(Subcommand)]
enum User {
    /// Add a user, with an entity of the same name.
    Add {
        /// The name.
        name: String,
        /// Make them a site administrator.
        #[arg(long)]
        admin: bool,
        /// The quota of their entity, like 500MiB or 10GiB; 0 for unlimited.
        #[arg(long, value_parser = bytes)]
        quota: Option<u64>,
        /// Read a password from standard input. Without a password, they can only use tokens.
        #[arg(long)]
        password_stdin: bool,
        /// Their e-mail address, which only they and administrators see.
        #[arg(long)]
        email: Option<String>,
    },
    /// Show a user: yourself, or as an administrator anybody.
    Show {
        /// The name.
        name: String,
    },
    /// Set a user's e-mail address, or remove it.
    Email {
        /// The name.
        name: String,
        /// The address; without it, there is none any more.
        email: Option<String>,
    },
    /// List users and their usage.
    List,
    /// Set a user's password, read from standard input.
    Passwd {
        /// The name.
        name: String,
    },
    /// Set the quota of a user's or group's entity.
    Quota {
        /// The name.
        name: String,
        /// Like 500MiB or 10GiB; 0 for unlimited.
        #[arg(value_parser = bytes)]
        limit: u64,
    },
    /// Disable a user, and all of their tokens.
    Disable {
        /// The name.
        name: String,
    },
    /// Enable a disabled user again.
    Enable {
        /// The name.
        name: String,
    },
    /// Delete a user with everything that is theirs: images, tokens, roles.
    Delete {
        /// The name.
        name: String,
        #[command(flatten)]
        how: delete::How,
    },
}

/// The maximum number of passes of `sweep --now`.
const FAILED: &str = "failed"; // counts no leftovers, but what could not be read or collected
const SWEEPS: usize = 5;

impl Admin {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match &self.command {
            Command::User(user) => self.user(user).await,
            Command::Token { user, name, expires, scope } => {
                let body = json!({ "name": name, "expires_in": expires, "scope": scope });
                let made = self.client.call(Method::POST, &["api", "users", user, "tokens"], Some(body)).await?;
                print(made.get("token").and_then(Value::as_str).unwrap_or_default())
            }
            Command::Tokens { user } => {
                let tokens = self.client.call(Method::GET, &["api", "users", user, "tokens"], None).await?;
                table(self.json, &tokens, &["id", "name", "scope", "created", "expires", "used"])
            }
            Command::Revoke { user, id } => {
                self.client.call(Method::DELETE, &["api", "users", user, "tokens", id], None).await.map(drop)
            }
            Command::Invite { uses, expires, group, role, on } => {
                let body = json!({ "uses": uses, "expires_in": expires, "group": group, "role": role, "on": on });
                let made = self.client.call(Method::POST, &["api", "invitations"], Some(body)).await?;
                print(made.get("link").and_then(Value::as_str).unwrap_or_default())
            }
            Command::Invitations => {
                let rows = self.client.call(Method::GET, &["api", "invitations"], None).await?;
                table(self.json, &rows, &["id", "group", "role", "on", "created_by", "expires", "over"])
            }
            Command::Uninvite { id } => {
                self.client.call(Method::DELETE, &["api", "invitations", id], None).await.map(drop)
            }
            Command::Accounts { repair } => accounts::run(&self.client, *repair, self.json).await,
            #[cfg(feature = "server")]
            Command::Bootstrap { .. } => print(&crate::serve::bootstrap(password).await?),
            #[cfg(feature = "server")]
            Command::Export(copy) => copy.export(self.client.data(), self.json).await,
            #[cfg(feature = "server")]
            Command::Import { copy, create } => copy.import(self.client.data(), *create, self.json).await,
            Command::Sweep { now, dry_run: true } => self.dry_run(*now).await,
            Command::Sweep { now, dry_run: false } => {
                // Each pass deletes what the pass before condemned.
                let mut all = serde_json::Map::new();
                for _ in 0..SWEEPS {
                    let swept = self.client.call(Method::POST, &["api", "sweep"], Some(json!({ "now": now }))).await?;
                    let mut done = 0;
                    for (name, value) in swept.as_object().into_iter().flatten() {
                        let before = all.get(name).and_then(Value::as_u64).unwrap_or(0);
                        // What failed is tried again by the next sweep, and is not done by this one.
                        done += if name == FAILED { 0 } else { value.as_u64().unwrap_or(0) };
                        all.insert(name.clone(), value.as_u64().map_or(value.clone(), |count| json!(before + count)));
                    }
                    if done == 0 || !now {
                        break;
                    }
                }
                print(&serde_json::to_string_pretty(&all)?)
            }
            Command::Reindex { no_wait } => self.reindex(!no_wait).await,
            Command::Scrub { rate, state } => {
                let report = scrub::run(&self.client, *rate, state.as_deref()).await?;
                print(&if self.json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
                report.verdict()
            }
        }
    }

    async fn reindex(&self, wait: bool) -> anyhow::Result<()> {
        let mut state = self.client.call(Method::POST, &["api", "index"], None).await?;
        let began = std::time::Instant::now();
        while wait && state.get("whole") != Some(&json!(true)) {
            let mut out = std::io::stderr();
            if out.is_terminal() {
                // Nothing depends on it.
                let _ = write!(out, "\rmaking the search index, {} s so far", began.elapsed().as_secs());
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            state = self.client.call(Method::GET, &["api", "index"], None).await?;
        }
        if self.json {
            return print(&serde_json::to_string_pretty(&state)?);
        }
        print(if wait { "the search index is whole" } else { "the search index will be made anew" })
    }

    async fn user(&self, user: &User) -> anyhow::Result<()> {
        match user {
            User::Add { name, admin, quota, password_stdin, email } => {
                let password = if *password_stdin { Some(password()?) } else { None };
                let body =
                    json!({ "name": name, "admin": admin, "quota": quota, "password": password, "email": email });
                self.client.call(Method::POST, &["api", "users"], Some(body)).await.map(drop)
            }
            User::Show { name } => {
                let user = self.client.call(Method::GET, &["api", "users", name], None).await?;
                let columns = ["name", "email", "admin", "disabled", "used", "reserved", "limit", "level"];
                if self.json {
                    print(&serde_json::to_string_pretty(&user)?)
                } else {
                    table(false, &json!([user]), &columns)
                }
            }
            User::Email { name, email } => {
                let body = json!({ "email": email });
                self.client.call(Method::PUT, &["api", "users", name, "email"], Some(body)).await.map(drop)
            }
            User::List => {
                let users = self.client.call(Method::GET, &["api", "users"], None).await?;
                table(self.json, &users, &["name", "admin", "disabled", "used", "reserved", "limit", "level"])
            }
            User::Passwd { name } => {
                let body = json!({ "password": password()? });
                self.client.call(Method::PUT, &["api", "users", name, "password"], Some(body)).await.map(drop)
            }
            User::Quota { name, limit } => {
                let body = json!({ "limit": limit });
                self.client.call(Method::PUT, &["api", "entities", name, "quota"], Some(body)).await.map(drop)
            }
            User::Disable { name } => self.disabled(name, true).await,
            User::Enable { name } => self.disabled(name, false).await,
            User::Delete { name, how } => how.delete(&self.client, &["api", "users", name], name, self.json).await,
        }
    }

    async fn dry_run(&self, now: bool) -> anyhow::Result<()> {
        let swept = self.client.call(Method::GET, &["api", "sweep"], Some(json!({ "now": now }))).await?;
        if self.json {
            return print(&serde_json::to_string_pretty(&swept)?);
        }
        let found = swept.get("found").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for what in found.iter().filter_map(Value::as_str) {
            print(what)?;
        }
        // All other numbers in the answer count things that are left over.
        let counts = swept.as_object().into_iter().flatten().filter(|(name, _)| *name != FAILED);
        let all: u64 = counts.filter_map(|(_, count)| count.as_u64()).sum();
        match all.saturating_sub(found.len() as u64) {
            0 if all == 0 => print("nothing is left over")?,
            0 => {}
            more => print(&format!("and {more} more"))?,
        }
        match swept.get(FAILED).and_then(Value::as_u64).unwrap_or(0) {
            0 => Ok(()),
            failed => bail!("{failed} rows or objects could not be read; the server's log says why"),
        }
    }

    async fn disabled(&self, name: &str, disabled: bool) -> anyhow::Result<()> {
        let body = json!({ "disabled": disabled });
        self.client.call(Method::PUT, &["api", "users", name, "disabled"], Some(body)).await.map(drop)
    }
}
