//! What anybody sees: whether the library answers, and what lies between it and its clients.

use super::site::{Answer, Site, send};
use super::{Verdict, on_this_machine};
use anyhow::{Context, bail};
use reqwest::Method;
use std::time::{SystemTime, UNIX_EPOCH};

/// An answer to somebody without a token.
async fn anonymous(site: &Site, method: Method, path: &str) -> anyhow::Result<Answer> {
    send(site.bare(method, path)?).await
}

pub(super) async fn version(site: &Site) -> anyhow::Result<Verdict> {
    let answer = anonymous(site, Method::GET, "/version").await?.is(200, "`/version`")?;
    let (version, api) = (answer.text("/data/version"), answer.text("/data/apiVersion"));
    if version.is_empty() || api.is_empty() {
        bail!("`/version` is answered, but not by a library");
    }
    Ok(Verdict::Ok(format!("{version}, library API {api}")))
}

pub(super) async fn stores_ready(site: &Site) -> anyhow::Result<Verdict> {
    anonymous(site, Method::GET, "/readyz").await?.is(200, "`/readyz`")?;
    Ok(Verdict::Ok("table and bucket answer".to_owned()))
}

pub(super) async fn addresses(site: &Site) -> anyhow::Result<Verdict> {
    let answer = anonymous(site, Method::GET, "/assets/config/config.prod.json").await?;
    let answer = answer.is(200, "the list of services")?;
    let asked = site.url.as_str().trim_end_matches('/');
    for service in ["libraryAPI", "keystoreAPI", "tokenAPI"] {
        let said = answer.text(&format!("/{service}/uri"));
        if said.trim_end_matches('/') != asked {
            bail!("clients are told that the `{service}` is at `{said}`, and you asked at `{asked}`");
        }
    }
    Ok(Verdict::Ok(format!("clients are sent to {asked}")))
}

pub(super) async fn tls(site: &Site) -> anyhow::Result<Verdict> {
    // With a certificate that is not valid, there is no answer.
    anonymous(site, Method::GET, "/livez").await?;
    Ok(match site.url.scheme() {
        "https" => Verdict::Ok("the certificate is valid for this host".to_owned()),
        _ if on_this_machine(&site.url) => Verdict::Ok("none, on this machine".to_owned()),
        _ => Verdict::Warning("tokens and passwords travel unencrypted".to_owned()),
    })
}

/// The place that a challenge names for getting tokens.
pub(super) fn realm(answer: &Answer) -> anyhow::Result<String> {
    let challenge = answer.header("www-authenticate");
    let parameters = challenge.strip_prefix("Bearer ").with_context(|| match challenge {
        "" => "there is no `WWW-Authenticate`".to_owned(),
        other => format!("the challenge is `{other}`"),
    })?;
    let realm = parameters.split_once("realm=\"").and_then(|(_, rest)| Some(rest.split_once('"')?.0));
    realm.map(str::to_owned).with_context(|| format!("the challenge names no realm: `{challenge}`"))
}

pub(super) async fn challenge(site: &Site) -> anyhow::Result<Verdict> {
    for (method, path) in [(Method::GET, "/v2/"), (Method::HEAD, "/v2/"), (Method::GET, "/v2")] {
        let asked = format!("`{method} {path}` without a token");
        let answer = anonymous(site, method, path).await?.is(401, &asked)?;
        let realm = realm(&answer).context(asked)?;
        if !site.own(&site.at(&realm)?) {
            bail!("clients are sent to `{realm}` for a token, which is another host");
        }
    }
    Ok(Verdict::Ok("clients are told where to log in".to_owned()))
}

pub(super) async fn own_errors(site: &Site) -> anyhow::Result<Verdict> {
    let missing = "/v1/images/nobody-of-that-name/nothing/nothing:latest";
    let answer = anonymous(site, Method::GET, missing).await?.is(404, "a lookup of what is not there")?;
    if answer.json().pointer("/error/code").and_then(serde_json::Value::as_u64) != Some(404) {
        bail!("a lookup of what is not there gets a 404 that is not the library's: {}", beginning(&answer));
    }
    let missing = "/v2/nobody-of-that-name/nothing/manifests/latest";
    let answer = anonymous(site, Method::GET, missing).await?.is(401, "a manifest that is not there")?;
    if answer.text("/errors/0/code") != "UNAUTHORIZED" {
        bail!("a manifest that is not there gets a 401 that is not the registry's: {}", beginning(&answer));
    }
    Ok(Verdict::Ok("errors arrive in the form that clients read".to_owned()))
}

/// The first characters of an answer.
fn beginning(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.bytes).chars().take(80).collect()
}

pub(super) async fn trailing_slash(site: &Site) -> anyhow::Result<Verdict> {
    let answer = anonymous(site, Method::GET, "/v1/entities/").await?;
    let json = answer.json();
    if json.get("data").is_none() && json.get("error").is_none() {
        bail!("`/v1/entities/` is answered with {}, and not by the library", answer.said());
    }
    Ok(Verdict::Ok("`/v1/entities/` reaches the library".to_owned()))
}

/// How far clocks may differ without harm, in seconds, and from where on signed URLs are refused.
const SKEW: u64 = 30;
const TOO_FAR: u64 = 300;

pub(super) async fn clock(site: &Site) -> anyhow::Result<Verdict> {
    let answer = anonymous(site, Method::GET, "/version").await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let Some(theirs) = seconds(answer.header("date")) else {
        return Ok(Verdict::Warning("the answers have no `Date` that can be read".to_owned()));
    };
    match now.abs_diff(theirs) {
        apart @ TOO_FAR.. => bail!("the clock there and the one here are {apart} seconds apart"),
        apart @ SKEW.. => Ok(Verdict::Warning(format!("the clock there and the one here are {apart} seconds apart"))),
        apart => Ok(Verdict::Ok(format!("{apart} seconds apart"))),
    }
}

/// The seconds since 1970 of a date in HTTP's own form, like `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds(date: &str) -> Option<u64> {
    let words: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = words.as_slice() else { return None };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| name == month)? as u64;
    let number = |text: &str| text.parse::<u64>().ok();
    let year = number(year).filter(|year| (1970..10_000).contains(year))?;
    // Years begin in March, so that the day that some of them have more is the last.
    let (year, month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + number(day)?;
    let days = days.checked_sub(719_469)?;
    Some(((days * 24 + number(hour)?) * 60 + number(minute)?) * 60 + number(second)?)
}

/// The seconds since 1970 of a date in the form of signed URLs, like `20261122T134500Z`.
pub(super) fn signed(date: &str) -> Option<u64> {
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let part = |from: usize, to: usize| date.get(from..to);
    let month = months.get(part(4, 6)?.parse::<usize>().ok()?.checked_sub(1)?)?;
    let (day, year) = (part(6, 8)?, part(0, 4)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    seconds(&format!("-, {day} {month} {year} {hour}:{minute}:{second} GMT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        for (date, there) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
        ] {
            assert_eq!(seconds(date), Some(there), "{date}");
        }
        assert_eq!(signed("19941106T084937Z"), seconds("Sun, 06 Nov 1994 08:49:37 GMT"));
        for date in ["", "yesterday", "Sun, 06 Foo 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT"] {
            assert_eq!(seconds(date), None, "{date}");
        }
        assert_eq!(signed("2026"), None);
    }
}
