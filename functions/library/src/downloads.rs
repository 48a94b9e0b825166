//! How often things were downloaded: as numbers, and as a badge for a page.

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde::{Deserialize, Serialize};
use shared::auth::Credential;
use shared::domain::{Day, Digest, Downloads, OciDigest, Repository, TagName};
use shared::http::library::{Answer, Failure, data};
use shared::service::downloads::{self, DAYS, Shown};
use shared::store::rows::Counted;
use shared::{App, Error};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(of)).routes(routes!(badge))
}

/// How many days are shown, unless the caller asks for another number.
const SHOWN: u16 = 30;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    repository: String,
    tag: Option<String>,
    image: Option<String>,
    days: Option<u16>,
}

impl Asked {
    fn chosen(&self) -> Result<(Repository, Counted), Failure> {
        let of = match (&self.tag, &self.image) {
            (None, None) => Counted::Repository,
            (Some(tag), None) => Counted::Tag(tag.parse::<TagName>()?),
            (None, Some(image)) => Counted::Image(digest(image)?),
            (Some(_), Some(_)) => {
                return Err(Failure(Error::Invalid("ask for a tag or for an image, not for both".to_owned())));
            }
        };
        Ok((self.repository.parse()?, of))
    }
}

/// A digest as either protocol writes it: `sha256:…` or `sha256.…`.
fn digest(text: &str) -> Result<OciDigest, Failure> {
    let library = || Digest::from_library(text).ok().map(OciDigest::from);
    let digest = text.parse().ok().or_else(library);
    digest.ok_or_else(|| Failure(Error::Invalid("a digest is written like `sha256.…` or `sha256:…`".to_owned())))
}

/// How often something was downloaded.
#[derive(Debug, Serialize, ToSchema)]
struct DownloadCounts {
    /// By all ways together.
    all: u64,
    /// By library clients.
    library: u64,
    /// By registry clients.
    registry: u64,
    /// By shares.
    share: u64,
}

impl From<Downloads> for DownloadCounts {
    fn from(downloads: Downloads) -> Self {
        let Downloads { library, registry, share } = downloads;
        Self { all: downloads.all(), library, registry, share }
    }
}

/// The downloads of a day.
#[derive(Debug, Serialize, ToSchema)]
struct DownloadsOfDay {
    /// The day in UTC, like `2026-12-31`.
    day: String,
    #[serde(flatten)]
    downloads: DownloadCounts,
}

/// The downloads of a repository, an image or a tag.
#[derive(Debug, Serialize, ToSchema)]
struct DownloadsShown {
    #[serde(flatten)]
    downloads: DownloadCounts,
    /// When the latest was; empty if there was none.
    latest: String,
    /// The days on which there were any, the latest first.
    days: Vec<DownloadsOfDay>,
}

/// How often a repository, one of its images or one of its tags was downloaded: in all, and on each of the last days.
///
/// An image counts when its bytes, or its manifest, are fetched; a tag when it is named in that. What was downloaded in
/// the last minutes may not be counted yet.
#[utoipa::path(
    get,
    path = "/api/downloads",
    tag = "downloads",
    params(
        ("repository" = String, Query, description = "The name of a repository"),
        ("tag" = Option<String>, Query, description = "Only of this tag"),
        ("image" = Option<String>, Query, description = "Only of the image with this digest: of a SIF image that of its bytes, otherwise that of its manifest"),
        ("days" = Option<u16>, Query, description = "How many days to show, at most 400; 30 by default"),
    ),
    responses((status = 200, body = DownloadsShown), (status = 400), (status = 404)),
)]
async fn of(State(app): State<App>, caller: Credential, Query(asked): Query<Asked>) -> Answer {
    let (repository, of) = asked.chosen()?;
    let days = asked.days.unwrap_or(SHOWN);
    if days > DAYS {
        return Err(Failure(Error::Invalid(format!("`days` is {DAYS} at most"))));
    }
    let Shown { all, latest, days } = downloads::of(&app, &caller, &repository, &of, days).await?;
    let day = |(day, downloads): (Day, Downloads)| DownloadsOfDay { day: day.to_string(), downloads: downloads.into() };
    Ok(data(DownloadsShown {
        downloads: all.into(),
        latest: latest.map(|time| time.to_string()).unwrap_or_default(),
        days: days.into_iter().map(day).collect(),
    }))
}

/// A badge with the number of downloads of a repository, one of its images or one of its tags, for a README.
#[utoipa::path(
    get,
    path = "/api/badge",
    tag = "downloads",
    params(
        ("repository" = String, Query, description = "The name of a repository"),
        ("tag" = Option<String>, Query, description = "Only of this tag"),
        ("image" = Option<String>, Query, description = "Only of the image with this digest"),
    ),
    responses((status = 200, content_type = "image/svg+xml"), (status = 400), (status = 404)),
)]
async fn badge(State(app): State<App>, caller: Credential, Query(asked): Query<Asked>) -> Answer {
    let (repository, of) = asked.chosen()?;
    let shown = downloads::of(&app, &caller, &repository, &of, 0).await?;
    let kept = if matches!(caller, Credential::Anonymous) { "public, max-age=300" } else { "private, max-age=300" };
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, kept)];
    let response: Response = (headers, drawn("downloads", &short(shown.all.all()))).into_response();
    Ok(response)
}

/// A number in at most four characters: `999`, `1.2k`, `12k`, `3.4M`.
fn short(number: u64) -> String {
    let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| number >= *unit) else { return number.to_string() };
    match (number / unit, number % unit * 10 / unit) {
        (whole @ 0..10, tenth) => format!("{whole}.{tenth}{name}"),
        (whole, _) if whole < 1000 => format!("{whole}{name}"),
        _ => "many".to_owned(),
    }
}

/// Two boxes side by side. Both texts are our own, and need no escaping.
fn drawn(left: &str, right: &str) -> String {
    // About the width of a letter, and what is around a text.
    let width = |text: &str| text.len() * 7 + 10;
    let (first, second) = (width(left), width(right));
    let (all, middle) = (first + second, first + second / 2);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{all}" height="20" role="img" aria-label="{left}: {right}">
<title>{left}: {right}</title>
<rect width="{first}" height="20" fill="#555"/><rect x="{first}" width="{second}" height="20" fill="#2766ae"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{}" y="14">{left}</text><text x="{middle}" y="14">{right}</text></g></svg>
"##,
        first / 2
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_on_a_badge_is_short() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (1299, "1.2k"),
            (9999, "9.9k"),
            (10_000, "10k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (34_567_890, "34M"),
            (5_600_000_000, "5.6G"),
            (1_000_000_000_000, "many"),
            (u64::MAX, "many"),
        ] {
            assert_eq!(short(number), shown);
        }
    }
}
