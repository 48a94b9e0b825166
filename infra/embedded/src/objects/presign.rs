//! Whether a presigned request may pass: Signature Version 4 in the query.
//!
//! The signature is recomputed from the request as it arrived, with the only key there is. The request that is passed
//! on contains what was signed and nothing more. The parameters of the signature are removed. Whatever could turn the
//! request into another one (an unsigned `x-amz-copy-source` would make a `PUT` a copy of somebody else's object) is
//! refused. Unsigned headers that would be returned with the object to everybody who reads it are dropped.

use super::{Config, hex, unhex};
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES, HOST,
    HeaderName,
};
use http::request::Parts;
use http::{Method, Uri};
use s3s::{S3Result, s3_error};
use sha2::{Digest, Sha256};
use std::time::SystemTime;
use subtle::ConstantTimeEq;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// The longest lifetime of a presigned URL, in seconds: seven days.
const LONGEST: i64 = 7 * 24 * 60 * 60;
/// Headers that describe an object to its readers. A writer may not set them unless they were signed.
const DESCRIPTIONS: [HeaderName; 6] =
    [CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, EXPIRES];
/// How far the clocks of two machines may differ, in seconds.
const SKEW: i64 = 15 * 60;

/// Admits a presigned request, and removes its signature.
pub(super) fn admit(config: &Config, mut parts: Parts, now: SystemTime) -> S3Result<Parts> {
    let denied = |why: &str| s3_error!(AccessDenied, "{why}");
    let query =
        Query::parse(parts.uri.query().unwrap_or_default()).ok_or_else(|| denied("The query could not be read."))?;
    if query.one("X-Amz-Signature").is_none() {
        return Err(denied("Only presigned requests are answered here."));
    }
    verify(config, &parts, &query, now)?;
    let signed = query.one("X-Amz-SignedHeaders").unwrap_or_default();
    for name in DESCRIPTIONS.iter().filter(|name| signed.split(';').all(|signed| signed != name.as_str())) {
        parts.headers.remove(name);
    }

    // The signer may have meant a signed operation for another endpoint: here requests read one object, or write one
    // object or part.
    let key = parts.uri.path().strip_prefix('/').and_then(|path| path.split_once('/'));
    if !key.is_some_and(|(bucket, key)| bucket == config.bucket && !key.is_empty()) {
        return Err(denied("There is nothing at this path."));
    }
    let rest: Vec<&(String, String)> =
        query.pairs.iter().filter(|(name, _)| !name.to_ascii_lowercase().starts_with("x-amz-")).collect();
    let reading = parts.method == Method::GET || parts.method == Method::HEAD;
    let writing = parts.method == Method::PUT;
    let allowed = |name: &str| match name {
        "x-id" => reading || writing,
        "uploadId" | "partNumber" => writing,
        name => reading && name.starts_with("response-"),
    };
    if !(reading || writing) || !rest.iter().all(|(name, _)| allowed(name)) {
        return Err(denied("This operation is not open to presigned requests here."));
    }

    let rest: Vec<String> =
        rest.into_iter().map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false))).collect();
    let path = if rest.is_empty() {
        String::from(parts.uri.path())
    } else {
        format!("{}?{}", parts.uri.path(), rest.join("&"))
    };
    parts.uri = path.parse::<Uri>().map_err(|_| denied("The path could not be read."))?;
    parts.headers.remove(AUTHORIZATION);
    Ok(parts)
}

fn verify(config: &Config, parts: &Parts, query: &Query, now: SystemTime) -> S3Result<()> {
    let wrong = |what: &str| s3_error!(AuthorizationQueryParametersError, "Error parsing the X-Amz-{what} parameter");
    let get = |what: &str| query.one(&format!("X-Amz-{what}")).ok_or_else(|| wrong(what));

    if get("Algorithm")? != ALGORITHM {
        return Err(wrong("Algorithm"));
    }
    let date = get("Date")?;
    let signed_at = instant(date).ok_or_else(|| wrong("Date"))?;
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/{}/s3/aws4_request", config.region);
    if get("Credential")? != format!("{}/{scope}", config.access_key_id) {
        // Also for an unknown key id, so that nobody learns which one is known.
        return Err(s3_error!(SignatureDoesNotMatch, "The credential is not one of this store."));
    }
    let lives: i64 = get("Expires")?.parse().map_err(|_| wrong("Expires"))?;
    if !(1..=LONGEST).contains(&lives) {
        return Err(wrong("Expires"));
    }
    let now = DateTime::from(now).secs();
    if signed_at > now + SKEW {
        return Err(s3_error!(AccessDenied, "Request is not yet valid"));
    }
    if now > signed_at + lives {
        return Err(s3_error!(AccessDenied, "Request has expired"));
    }

    let names: Vec<&str> = get("SignedHeaders")?.split(';').collect();
    if !names.contains(&"host") {
        return Err(wrong("SignedHeaders"));
    }
    for name in parts.headers.keys() {
        let name = name.as_str();
        let copies = name.starts_with("x-amz-copy-source");
        if copies || (name.starts_with("x-amz-") && name != CONTENT_SHA256 && !names.contains(&name)) {
            return Err(s3_error!(
                AccessDenied,
                "There were headers present in the request which were not signed or not allowed: {name}"
            ));
        }
    }
    let mut headers = String::new();
    for name in &names {
        let value = header(parts, name).ok_or_else(mismatch)?;
        headers.extend([name, ":", &value, "\n"]);
    }
    // Old clients send this header whether or not it was signed, and stores differ in how they treat it. The body is
    // checked against it in any case.
    let said = header(parts, CONTENT_SHA256);
    if said.as_deref().is_some_and(|said| said != UNSIGNED && unhex::<32>(said).is_none()) {
        return Err(s3_error!(InvalidArgument, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD or a SHA-256 in hex."));
    }
    let payloads = match &said {
        Some(said) if names.contains(&CONTENT_SHA256) => vec![said.as_str()],
        Some(said) => vec![UNSIGNED, said.as_str()],
        None => vec![UNSIGNED],
    };
    let path = decode(parts.uri.path(), false).ok_or_else(mismatch)?;
    let given: [u8; 32] = unhex(get("Signature")?).ok_or_else(mismatch)?;
    let key = [day, &config.region, "s3", "aws4_request"]
        .into_iter()
        .fold(format!("AWS4{}", config.secret_access_key).into_bytes(), |key, step| hmac(&key, step).to_vec());
    let matches = payloads.into_iter().any(|payload| {
        let request = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{payload}",
            parts.method,
            encode(&path, true),
            query.canonical(),
            names.join(";"),
        );
        let request = hex(&Sha256::digest(request));
        let expected = hmac(&key, &format!("{ALGORITHM}\n{date}\n{scope}\n{request}"));
        bool::from(expected.ct_eq(&given))
    });
    if matches { Ok(()) } else { Err(mismatch()) }
}

fn mismatch() -> s3s::S3Error {
    s3_error!(SignatureDoesNotMatch, "The request signature we calculated does not match the signature you provided.")
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    // A key of any length will do, so this can't fail.
    Hmac::<Sha256>::new_from_slice(key).map_or([0; 32], |mut mac| {
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    })
}

/// A header as it is signed: values joined by commas, white space folded.
fn header(parts: &Parts, name: &str) -> Option<String> {
    let mut values = Vec::new();
    for value in parts.headers.get_all(name) {
        let value: Vec<&str> = value.to_str().ok()?.split_whitespace().collect();
        values.push(value.join(" "));
    }
    if values.is_empty() && name == HOST.as_str() {
        // HTTP/2 has it in the URI.
        values.extend(parts.uri.authority().map(ToString::to_string));
    }
    (!values.is_empty()).then(|| values.join(","))
}

/// `YYYYMMDDTHHMMSSZ` in seconds since 1970.
fn instant(date: &str) -> Option<i64> {
    let part = |from: usize, to: usize| date.get(from..to);
    let digits = date.bytes().enumerate().all(|(at, byte)| match at {
        8 => byte == b'T',
        15 => byte == b'Z',
        _ => byte.is_ascii_digit(),
    });
    if date.len() != 16 || !digits {
        return None;
    }
    let date = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(9, 11)?,
        part(11, 13)?,
        part(13, 15)?
    );
    DateTime::from_str(&date, Format::DateTime).ok().map(|date| date.secs())
}

/// The parameters of a query, decoded.
struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    fn parse(query: &str) -> Option<Self> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name, true)?, decode(value, true)?))
        });
        Some(Self { pairs: pairs.collect::<Option<_>>()? })
    }

    /// The value of a parameter that occurs exactly once: if it occurs twice, two readers may each use a different one.
    fn one(&self, name: &str) -> Option<&str> {
        let mut values = self.pairs.iter().filter(|(found, _)| found == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// As it is signed: everything but the signature, encoded and sorted.
    fn canonical(&self) -> String {
        let mut pairs: Vec<(String, String)> = self
            .pairs
            .iter()
            .filter(|(name, _)| name != "X-Amz-Signature")
            .map(|(name, value)| (encode(name, false), encode(value, false)))
            .collect();
        pairs.sort();
        let pairs: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("&")
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters; S3 paths are encoded once.
fn encode(text: &str, path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (path && byte == b'/') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

/// Undoes percent-encoding. In a query a plus is a space, as the parser behind this reads it.
fn decode(text: &str, query: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                let [byte] = unhex(std::str::from_utf8(&digits).ok()?)?;
                byte
            }
            b'+' if query => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}
