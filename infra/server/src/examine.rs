//! What `stackroom doctor` sees from inside: the settings and the stores of a deployment.
//!
//! The trials are those of a start of `stackroom serve`, see [`crate::probe`]. Nothing of the library is changed.

use crate::probe::{TriedBucket, try_bucket, try_table};
use crate::serve::explained;
use shared::app::{App, Assembly, Deployed};
use shared::config::Pins;
use shared::service::installation;
use std::time::Duration;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub checks: &'static str,
    /// What it means if it fails.
    pub means: &'static str,
    /// What to do then.
    pub advice: &'static str,
    /// The page that says more.
    pub page: &'static str,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Ok(String),
    /// It works, but not as well as it could.
    Warning(String),
    /// It does not work.
    Failed(String),
    /// It was not tried.
    Skipped(String),
}

/// One check with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The check.
    pub check: Check,
    /// What was seen.
    pub outcome: Outcome,
}

/// The settings, the credentials and the token keys.
pub const SETTINGS: Check = Check {
    name: "inside-settings",
    checks: "The settings, the AWS credentials and the token keys can be read.",
    means: "Functions and servers with the same settings do not start.",
    advice: "Set what is missing; the keys are what `STACKROOM_TOKEN_KEYS_SECRET` or its neighbours name.",
    page: "docs/unverified.md#the-token-keys",
};
/// The table.
pub const TABLE: Check = Check {
    name: "inside-table",
    checks: "The table keeps the promises that the library relies on.",
    means: "Pushes are lost, counted wrongly or refused.",
    advice: "Use a table of DynamoDB, or a store that keeps its promises.",
    page: "docs/admin/several-servers.md",
};
/// The bucket.
pub const BUCKET: Check = Check {
    name: "inside-bucket",
    checks: "The bucket keeps the promises that the library relies on.",
    means: "Images can't be pushed or pulled, or not in parts.",
    advice: "Use a bucket of S3, or a store that keeps its promises; look at the bucket's policy.",
    page: "docs/admin/several-servers.md",
};
/// Whether the bucket checks uploads itself.
pub const PINS: Check = Check {
    name: "inside-pinned-put",
    checks: "The bucket refuses other bytes than those whose digest a URL names.",
    means: "Functions rely on it: wrong bytes can be stored under a digest.",
    advice: "Set `STACKROOM_PIN_UPLOADS=false`. `stackroom serve` does so by itself.",
    page: "docs/unverified.md#s3-enforces-the-pinned-hash",
};
/// Whether table and bucket are one installation.
pub const MARK: Check = Check {
    name: "inside-mark",
    checks: "The table and the bucket belong together.",
    means: "A sweep would take the objects of another installation for leftovers. It refuses.",
    advice: "Compare `STACKROOM_TABLE` and `STACKROOM_BUCKET` with the outputs of the stack.",
    page: "docs/admin/several-servers.md",
};

/// Examines a deployment, with the environment's settings and credentials.
pub async fn deployment(place: Deployed) -> Vec<Examined> {
    let app = match Assembly::of(place).await {
        Ok(assembly) => assembly.app(),
        Err(error) => {
            let wrong = Examined { check: SETTINGS, outcome: Outcome::Failed(format!("{:#}", explained(error))) };
            let skipped = || Outcome::Skipped("see `inside-settings`".to_owned());
            let others = [TABLE, BUCKET, PINS, MARK].map(|check| Examined { check, outcome: skipped() });
            return [wrong].into_iter().chain(others).collect();
        }
    };
    let read = Outcome::Ok("settings, credentials and token keys were read".to_owned());
    let mut examined = vec![Examined { check: SETTINGS, outcome: read }];
    examined.extend(stores(&app).await);
    examined
}

/// Examines the stores of an installation.
pub async fn stores(app: &App) -> Vec<Examined> {
    let table = match try_table(&app.table).await {
        Ok(wrong) => kept(&wrong, "all that was tried on rows of its own"),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    let (bucket, pins) = match url_of(app).await {
        Ok(()) => match try_bucket(&app.objects).await {
            Ok(TriedBucket { pins, wrong }) => {
                (kept(&wrong, "all that was tried on objects of its own"), pinning(app, pins))
            }
            Err(error) => (Outcome::Failed(format!("{error:#}")), Outcome::Skipped("see `inside-bucket`".to_owned())),
        },
        Err(error) => (Outcome::Failed(format!("{error:#}")), Outcome::Skipped("see `inside-bucket`".to_owned())),
    };
    let mark = match installation::check(app).await {
        Ok(()) => Outcome::Ok("they belong together".to_owned()),
        Err(error) => Outcome::Failed(format!("{:#}", explained(error))),
    };
    [(TABLE, table), (BUCKET, bucket), (PINS, pins), (MARK, mark)]
        .map(|(check, outcome)| Examined { check, outcome })
        .into()
}

fn kept(wrong: &[&str], well: &str) -> Outcome {
    match wrong {
        [] => Outcome::Ok(well.to_owned()),
        wrong => Outcome::Failed(format!("it fails at {}", wrong.join("; at "))),
    }
}

fn pinning(app: &App, pins: Pins) -> Outcome {
    match (pins, app.config.pin_uploads) {
        (Pins::Bytes, _) => Outcome::Ok("it refuses other bytes".to_owned()),
        (pins, said) if pins == said => Outcome::Warning("it does not, and `STACKROOM_PIN_UPLOADS` says so".to_owned()),
        (pins, _) => {
            Outcome::Failed(format!("it accepts other bytes, or refuses all: set `STACKROOM_PIN_UPLOADS={pins}`"))
        }
    }
}

/// Checks that no token can reach the bucket: its host must not be the library's, nor below it.
async fn url_of(app: &App) -> anyhow::Result<()> {
    let url = app.objects.presign_get("x", None, Duration::from_mins(1)).await?;
    Ok(shared::config::beside(&app.config.public_url, &url)?)
}
