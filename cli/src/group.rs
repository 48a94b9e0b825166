//! `stackroom group`: groups and other entities with members, through the API of a running library.

use crate::client::Client;
use crate::output::{print, seconds, table};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

/// Manage groups and other entities with members: roles, invitations, robots.
#[derive(Args)]
pub(crate) struct Group {
    #[command(flatten)]
    client: Client,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// Browses, and pulls what is private.
    Reader,
    /// Also pushes and tags, and deletes what they pushed themselves.
    Contributor,
    /// Also changes settings and members, and deletes everything.
    Admin,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Contributor => "contributor",
            Self::Admin => "admin",
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Make a group. You are its first admin.
    Make {
        /// Its name.
        name: String,
        /// A description.
        #[arg(long, default_value = "")]
        description: String,
        /// Make new containers in it private.
        #[arg(long)]
        private: bool,
    },
    /// List the members.
    Members {
        /// The group.
        group: String,
    },
    /// Give somebody a role, or change it.
    Add {
        /// The group.
        group: String,
        /// The name of a user, or of a robot as `GROUP+ROBOT`.
        member: String,
        /// The role.
        #[arg(long)]
        role: Role,
        /// Only on this collection, or this container as `COLLECTION/CONTAINER`.
        #[arg(long)]
        on: Option<String>,
    },
    /// Take somebody's roles away: all of them, or only the one on a collection or container.
    Remove {
        /// The group.
        group: String,
        /// The name of a user.
        member: String,
        /// Only the role on this collection, or this container as `COLLECTION/CONTAINER`.
        #[arg(long)]
        on: Option<String>,
    },
    /// Leave a group.
    Leave {
        /// The group.
        group: String,
    },
    /// Make a link that brings people into a group, and print it. It can't be shown again.
    Invite {
        /// The group.
        group: String,
        /// The role that it gives.
        #[arg(long)]
        role: Role,
        /// Only on this collection, or this container as `COLLECTION/CONTAINER`.
        #[arg(long)]
        on: Option<String>,
        /// How many people it may bring in.
        #[arg(long, default_value = "1")]
        uses: u64,
        /// How long it is valid, like 12h or 7d.
        #[arg(long, value_parser = seconds, default_value = "7d")]
        expires: u64,
    },
    /// List the invitations.
    Invitations {
        /// The group.
        group: String,
    },
    /// Revoke an invitation.
    Uninvite {
        /// The group.
        group: String,
        /// The invitation's id, as `invitations` prints it.
        id: String,
    },
    /// Accept an invitation.
    Join {
        /// Its link.
        link: String,
    },
    /// Manage robots: accounts for jobs, which have a role in this group and nowhere else.
    #[command(subcommand)]
    Robot(Robot),
}

#[derive(Subcommand)]
enum Robot {
    /// Make a robot. Its name for logins is `GROUP+NAME`.
    Make {
        /// The group.
        group: String,
        /// Its name.
        name: String,
        /// The role: reader or contributor.
        #[arg(long)]
        role: Role,
        /// Only on this collection, or this container as `COLLECTION/CONTAINER`.
        #[arg(long)]
        on: Option<String>,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the robots.
    List {
        /// The group.
        group: String,
    },
    /// Make a token for a robot, and print only the token. It can't be shown again.
    Token {
        /// The group.
        group: String,
        /// The robot's name.
        name: String,
        /// A name by which the token is recognised.
        #[arg(long, default_value = "job")]
        label: String,
        /// How long it is valid, like 12h, 30d or 52w; by default for ever.
        #[arg(long, value_parser = seconds)]
        expires: Option<u64>,
        /// Its scope, like `pull@GROUP` or `pull,push@GROUP/tools/bb`; by default pulling and pushing in the group.
        #[arg(long)]
        scope: Option<String>,
    },
    /// Remove a robot with its tokens.
    Remove {
        /// The group.
        group: String,
        /// The robot's name.
        name: String,
    },
}

impl Group {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match &self.command {
            Command::Make { name, description, private } => {
                let body = json!({ "name": name, "description": description, "private": private });
                self.send(Method::POST, &["api", "groups"], body).await.map(drop)
            }
            Command::Members { group } => {
                let rows = self.of(Method::GET, group, &["members"], None).await?;
                self.members(rows)
            }
            Command::Add { group, member, role, on } => {
                let body = json!({ "role": role.word(), "on": on });
                self.of(Method::PUT, group, &["members", member], Some(body)).await.map(drop)
            }
            Command::Remove { group, member, on: Some(on) } => {
                let body = json!({ "role": null, "on": on });
                self.of(Method::PUT, group, &["members", member], Some(body)).await.map(drop)
            }
            Command::Remove { group, member, on: None } => {
                self.of(Method::DELETE, group, &["members", member], None).await.map(drop)
            }
            Command::Leave { group } => {
                let own = self.client.whoami().await?;
                self.of(Method::DELETE, group, &["members", &own], None).await.map(drop)
            }
            Command::Invite { group, role, on, uses, expires } => {
                let body = json!({ "role": role.word(), "on": on, "uses": uses, "expires_in": expires });
                let made = self.of(Method::POST, group, &["invitations"], Some(body)).await?;
                print(made.get("link").and_then(Value::as_str).unwrap_or_default())
            }
            Command::Invitations { group } => {
                let rows = self.of(Method::GET, group, &["invitations"], None).await?;
                table(self.json, &rows, &["id", "role", "on", "created_by", "expires", "over"])
            }
            Command::Uninvite { group, id } => {
                self.of(Method::DELETE, group, &["invitations", id], None).await.map(drop)
            }
            Command::Join { link } => {
                let joined = self.send(Method::POST, &["api", "join"], json!({ "invitation": link })).await?;
                print(joined.get("name").and_then(Value::as_str).unwrap_or_default())
            }
            Command::Robot(robot) => self.robot(robot).await,
        }
    }

    async fn robot(&self, robot: &Robot) -> anyhow::Result<()> {
        match robot {
            Robot::Make { group, name, role, on, description } => {
                let body = json!({ "name": name, "role": role.word(), "on": on, "description": description });
                let made = self.of(Method::POST, group, &["robots"], Some(body)).await?;
                print(made.get("name").and_then(Value::as_str).unwrap_or_default())
            }
            Robot::List { group } => {
                let rows = self.of(Method::GET, group, &["robots"], None).await?;
                self.members(rows)
            }
            Robot::Token { group, name, label, expires, scope } => {
                let body = json!({ "name": label, "expires_in": expires, "scope": scope });
                let made =
                    self.send(Method::POST, &["api", "users", &format!("{group}+{name}"), "tokens"], body).await?;
                print(made.get("token").and_then(Value::as_str).unwrap_or_default())
            }
            Robot::Remove { group, name } => self.of(Method::DELETE, group, &["robots", name], None).await.map(drop),
        }
    }

    async fn send(&self, method: Method, path: &[&str], body: Value) -> anyhow::Result<Value> {
        self.client.call(method, path, Some(body)).await
    }

    /// Sends a request about a group.
    async fn of(&self, method: Method, group: &str, what: &[&str], body: Option<Value>) -> anyhow::Result<Value> {
        let path: Vec<&str> = ["api", "entities", group].into_iter().chain(what.iter().copied()).collect();
        self.client.call(method, &path, body).await
    }

    /// Prints members with their roles; those on parts of the group follow after the others.
    fn members(&self, mut rows: Value) -> anyhow::Result<()> {
        if !self.json {
            for row in rows.as_array_mut().into_iter().flatten() {
                let on = row.get("on").and_then(Value::as_object).into_iter().flatten();
                let on: Vec<String> =
                    on.map(|(part, role)| format!("{part}: {}", role.as_str().unwrap_or_default())).collect();
                if let Some(row) = row.as_object_mut() {
                    row.insert("on".to_owned(), if on.is_empty() { Value::Null } else { json!(on.join(", ")) });
                }
            }
        }
        table(self.json, &rows, &["name", "role", "on"])
    }
}
