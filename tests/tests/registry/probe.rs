//! Stores are tried out before anybody is served: what they fail at is named, and nothing is left behind.

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use serde_json::Value;
use server::probe::{Probed, probe};
use stackroom_tests::Server;

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    None,
    /// Rows that must be new are written over those that are there.
    NoConditions,
    /// Lists come forwards, whatever was asked for.
    Forwards,
    /// Objects come whole, whatever range was asked for.
    Whole,
    /// Deletions of objects are answered, and nothing is done.
    Keeps,
}

#[derive(Debug)]
struct Lying {
    inner: SharedHttpConnector,
    lie: Lie,
}

fn lying(client: &SharedHttpClient, lie: Lie) -> SharedHttpClient {
    let client = client.clone();
    http_client_fn(move |settings, components| {
        SharedHttpConnector::new(Lying { inner: client.http_connector(settings, components), lie })
    })
}

/// Takes away that rows must be new, and that a list comes backwards.
fn without(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            if fields.get(name).is_some_and(|said| said == "attribute_not_exists(pk)" || said == false) {
                fields.remove(name);
            }
            // A check is nothing but its condition.
            let others = fields.iter_mut().filter(|(kind, _)| *kind != "ConditionCheck");
            others.for_each(|(_, value)| without(value, name));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| without(value, name)),
        _ => {}
    }
}

impl HttpConnector for Lying {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let of_table = request.headers().contains_key("x-amz-target");
        let dropped = match self.lie {
            Lie::NoConditions if of_table => Some("ConditionExpression"),
            Lie::Forwards if of_table => Some("ScanIndexForward"),
            _ => None,
        };
        if let Some(name) = dropped {
            let mut body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
            without(&mut body, name);
            *request.body_mut() = SdkBody::from(body.to_string());
        }
        if self.lie == Lie::Whole {
            request.headers_mut().remove("range");
        }
        if self.lie == Lie::Keeps && request.method() == "DELETE" {
            let done = HttpResponse::new(204.try_into().unwrap(), SdkBody::empty());
            return HttpConnectorFuture::ready(Ok(done));
        }
        self.inner.call(request)
    }
}

async fn tried(lie: Lie) -> (Server, Result<Probed, String>) {
    let server = Server::start_through(&[], |client| lying(&client, lie)).await;
    let probed = probe(&server.local.app.table, &server.local.app.objects).await;
    (server, probed.map_err(|error| format!("{error:#}")))
}

#[tokio::test]
async fn stores_that_do_what_they_must_pass_and_nothing_is_left_in_them() {
    let (server, probed) = tried(Lie::None).await;
    assert_eq!(probed, Ok(Probed { pins: true }));
    assert_eq!(server.objects().await, Vec::<String>::new());
    assert!(server.local.app.objects.open_parts().await.unwrap().is_empty());
    let (rows, _) = server.local.app.table.scan(None).await.unwrap();
    assert!(!rows.is_empty() && !rows.iter().any(|row| row.key.pk.starts_with("T#")));
}

#[tokio::test]
async fn what_a_store_fails_at_is_named() {
    for (lie, of, why) in [
        (Lie::NoConditions, "the table", "refusing to write a row that must be new over one that is there"),
        (Lie::Forwards, "the table", "listing rows backwards"),
        (Lie::Whole, "the bucket", "reading a range"),
        (Lie::Keeps, "the bucket", "forgetting at once what was deleted"),
    ] {
        let (_server, probed) = tried(lie).await;
        let said = probed.unwrap_err();
        assert!(said.starts_with(&format!("{of} can't be used: it fails at")) && said.contains(why), "{lie:?}: {said}");
    }
}
