//! The page of a share: what the file is, and a button.

use axum::response::{Html, IntoResponse, Response};
use http::header;
use shared::service::share::Usable;
use shared::{App, Error};

/// The page, with a policy that permits its form and nothing else. A browser compares the form's policy with the target
/// of the redirect too, so that has to be named.
pub(crate) async fn of(app: &App, usable: &Usable) -> Result<Response, Error> {
    let share = &usable.share;
    let policy = format!(
        "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' {}",
        usable.origin(app).await?
    );
    let left = match share.max.map(|max| max.saturating_sub(share.uses)) {
        None => String::new(),
        Some(1) => " It can be downloaded once.".to_owned(),
        Some(left) => format!(" It can be downloaded {left} more times."),
    };
    let page = Html(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{file}</title>\n\
         <h1>{file}</h1>\n\
         <p>{size} bytes, shared by {by} until {until}.{left}</p>\n\
         <p><code>{digest}</code></p>\n\
         <form method=\"post\"><button>Download</button></form>\n</html>\n",
        file = escaped(share.file.as_str()),
        size = share.size,
        by = escaped(&share.by.to_string()),
        until = escaped(&share.expires.to_string()),
        digest = escaped(&share.blob.to_string()),
    ));
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response())
}

/// The text as it is written in a page.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_page_is_taken_for_markup() {
        assert_eq!(escaped("<b a='x' c=\"y\">&</b>"), "&lt;b a=&#39;x&#39; c=&quot;y&quot;&gt;&amp;&lt;/b&gt;");
    }
}
