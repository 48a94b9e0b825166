//! The token keys of a deployment are read again from time to time, and when a request shows that there is a new one.

use crate::app::App;
use axum::extract::Request;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::AUTHORIZATION;

/// Has the token keys renewed, if need be, before a request is answered. Nothing is to be done for an installation with
/// keys of its own.
pub fn renewed(app: &App, request: &Request) -> impl Future<Output = ()> + Send + use<> {
    let missing = || texts(request).iter().any(|text| app.keys.misses(text));
    let renewal = app.renews_keys().then(|| (app.clone(), missing()));
    async {
        if let Some((app, missing)) = renewal {
            app.renew_keys(missing).await;
        }
    }
}

/// All in a request that may be a token: a bearer's, a password, a part of the query.
fn texts(request: &Request) -> Vec<String> {
    let mut texts = Vec::new();
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, text)) = header.and_then(|header| header.trim().split_once(' ')) {
        let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(text.trim()).ok()).flatten();
        let pair = decoded.and_then(|pair| String::from_utf8(pair).ok());
        let password = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password);
        texts.push(password.unwrap_or(text.trim()).to_owned());
    }
    let query = request.uri().query().unwrap_or_default().split(['&', '=']);
    texts.extend(query.filter(|text| text.matches('.').count() == 2).map(str::to_owned));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn a_token_is_seen_wherever_clients_send_it() {
        let seen = |uri: &str, authorization: &str| {
            let request = Request::get(uri).header(AUTHORIZATION, authorization).body(Body::empty()).unwrap();
            texts(&request)
        };
        let basic = BASE64_STANDARD.encode("alice:a.b.c");
        assert_eq!(seen("/", "BEARER  a.b.c"), ["a.b.c"]);
        assert_eq!(seen("/", &format!("Basic {basic}")), ["a.b.c"]);
        assert_eq!(seen("/v1/hop?to=a.b.c&x=1", ""), ["a.b.c"]);
        assert!(seen("/v1/hop?x=1", "").is_empty());
    }
}
