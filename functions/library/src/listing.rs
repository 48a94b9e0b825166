//! What a client may ask of a list: its order, which entries, and which page.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderValue, header};
use serde::Deserialize;
use shared::domain::Visibility;
use shared::http::library::Failure;
use shared::service::lists::{Filter, Listing};
use shared::service::{FEW_SHOWN, MAX_LISTED};
use shared::{App, Error};
use std::convert::Infallible;

/// The longest token of a page with the beginning of names that are looked for, in bytes: together they are no longer
/// than a key of the table.
const LONGEST: usize = 512;

/// The query of a list.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    #[serde(default)]
    pub(crate) entity: String,
    #[serde(default)]
    pub(crate) collection: String,
    #[serde(default)]
    pub(crate) container: String,
    #[serde(default)]
    pub(crate) repository: String,
    after: Option<String>,
    sort: Option<String>,
    prefix: Option<String>,
    private: Option<String>,
    visibility: Option<String>,
    read_only: Option<String>,
    arch: Option<String>,
    signed: Option<String>,
    frozen: Option<String>,
}

fn invalid(why: String) -> Failure {
    Failure(Error::Invalid(why))
}

fn choice(name: &str, text: Option<&String>) -> Result<Option<bool>, Failure> {
    let Some(text) = text else { return Ok(None) };
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(Some(true)),
        "false" | "0" => Ok(Some(false)),
        _ => Err(invalid(format!("`{name}` is `true` or `false`"))),
    }
}

impl Asked {
    /// The list that is asked for, by names that are kept in lower case.
    pub(crate) fn listing(&self) -> Result<Listing, Failure> {
        let mut listing = self.listing_of_tags()?;
        listing.prefix = listing.prefix.to_ascii_lowercase();
        Ok(listing)
    }

    /// The same for tags, which keep their case.
    pub(crate) fn listing_of_tags(&self) -> Result<Listing, Failure> {
        let prefix = self.prefix.clone().unwrap_or_default();
        if self.after.as_ref().is_some_and(|after| after.is_empty() || after.len() > LONGEST) {
            return Err(invalid("`after` must be the `page.next` of the previous page".to_owned()));
        }
        if prefix.len() + self.after.as_ref().map_or(0, String::len) > LONGEST {
            return Err(invalid(format!("`prefix` and `after` can have at most {LONGEST} bytes")));
        }
        let word = |text: &String| serde_json::from_value::<Visibility>(text.as_str().into());
        let visibility = self.visibility.as_ref().map(word).transpose();
        let visibility =
            visibility.map_err(|_| invalid("`visibility` is `public`, `internal` or `private`".to_owned()))?;
        let filter = Filter {
            private: choice("private", self.private.as_ref())?,
            visibility,
            read_only: choice("readOnly", self.read_only.as_ref())?,
            arch: self.arch.clone().filter(|arch| !arch.is_empty()),
            signed: choice("signed", self.signed.as_ref())?,
            frozen: choice("frozen", self.frozen.as_ref())?,
        };
        let order = self.sort.as_ref().map(|sort| sort.parse()).transpose()?.unwrap_or_default();
        Ok(Listing { order, prefix, filter, after: self.after.clone() })
    }
}

/// How many images and tags of a container to show.
///
/// Each push of apptainer or singularity asks for a container and for its tags, and looks at no more than an id: what a
/// push costs must not grow with the container. Whoever lists tags is another client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown(pub(crate) usize);

impl FromRequestParts<App> for Shown {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        let agent = parts.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        let begins = |name: &[u8]| agent.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        let looks_at_none = begins(b"apptainer/") || begins(b"singularity/") || begins(b"singularity-");
        Ok(Self(if looks_at_none { FEW_SHOWN } else { MAX_LISTED }))
    }
}
