//! The doors of the stores: endpoints for `DynamoDB`, S3 and Secrets Manager that let a function in only as far as its policy
//! goes, and pass on the rest to whatever store the caller has.
//!
//! Source: *IAM User Guide*, "AWS Signature Version 4 for API requests": the credential stands in the header
//! `Authorization`, or, in a presigned URL, in `X-Amz-Credential`; a session token stands beside it. *S3 User Guide*,
//! "Download and upload objects with presigned URLs": a URL may do what its signer may, at the time when it is used.
//!
//! Signatures are not checked here. The store behind may do that: [`Upstream`] hears who calls, with the secret.

use crate::faults::Faults;
use crate::policy::{Call, Denial, Need, Principal, Principals, Side, dynamodb, s3};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use std::future::{Future, pending};
use std::sync::Arc;

/// What is behind a door: a function that answers a request of somebody who may make it.
pub trait Upstream: Clone + Send + Sync + 'static {
    /// Answers a request.
    fn answer(
        &self,
        request: http::Request<Bytes>,
        caller: Arc<Principal>,
    ) -> impl Future<Output = Response<Bytes>> + Send;
}

impl<F, A> Upstream for F
where
    F: Fn(http::Request<Bytes>, Arc<Principal>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Bytes>> + Send,
{
    fn answer(
        &self,
        request: http::Request<Bytes>,
        caller: Arc<Principal>,
    ) -> impl Future<Output = Response<Bytes>> + Send {
        self(request, caller)
    }
}

/// Who may come in, and what goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Everybody who has a key.
    pub principals: Arc<Principals>,
    /// What goes wrong on purpose.
    pub faults: Arc<Faults>,
}

/// The service behind a door.
#[derive(Debug, Clone)]
pub enum Service {
    /// `DynamoDB`, with what the ARN of each of its tables begins with: `arn:aws:dynamodb:⟨region⟩:⟨account⟩:table/`.
    DynamoDb(String),
    /// S3, with the bucket in the path.
    S3,
    /// Secrets Manager, whose callers name secrets by their ARNs.
    SecretsManager,
}

/// What a request asks of a service.
struct Asked {
    operation: String,
    needs: Vec<Need>,
    to_hear_of_nothing: Option<Need>,
}

impl Service {
    fn asked(&self, request: &http::Request<Bytes>) -> Option<Asked> {
        match self {
            Self::DynamoDb(prefix) => {
                let asked = dynamodb::asked(request.headers(), request.body(), prefix)?;
                Some(Asked { operation: asked.operation, needs: asked.needs, to_hear_of_nothing: None })
            }
            Self::S3 => {
                let (uri, headers) = (request.uri(), request.headers());
                let asked = s3::asked(request.method(), uri.path(), uri.query().unwrap_or_default(), headers)?;
                let (operation, to_hear_of_nothing) = (asked.operation.to_owned(), asked.to_hear_of_nothing);
                Some(Asked { operation, needs: asked.needs, to_hear_of_nothing })
            }
            Self::SecretsManager => {
                // Source: *Service Authorization Reference*, "Actions, resources, and condition keys for AWS Secrets
                // Manager": the resource is the secret.
                let operation = dynamodb::operation(request.headers())?.to_owned();
                let body: serde_json::Value = serde_json::from_slice(request.body()).ok()?;
                let secret = body.get("SecretId")?.as_str()?;
                let needs = vec![Need::new(format!("secretsmanager:{operation}"), secret)];
                Some(Asked { operation, needs, to_hear_of_nothing: None })
            }
        }
    }

    /// A refusal in the service's own form.
    fn refused(&self, refusal: &Refusal, head: bool) -> Response<Bytes> {
        let Refusal { dynamodb, s3, message } = refusal;
        let ((status, body), kind) = match self {
            Self::DynamoDb(_) => (dynamodb::refusal(dynamodb, message), "application/x-amz-json-1.0"),
            Self::SecretsManager => (dynamodb::refusal(dynamodb, message), "application/x-amz-json-1.1"),
            Self::S3 => (s3::refusal(s3, message), "application/xml"),
        };
        let status = if *s3 == "SlowDown" && matches!(self, Self::S3) { 503 } else { status };
        let mut response = Response::new(if head { Bytes::new() } else { Bytes::from(body) });
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

/// Why a request does not come in, with the code of each service for it.
struct Refusal {
    dynamodb: &'static str,
    s3: &'static str,
    message: String,
}

impl Refusal {
    /// Source: *`DynamoDB` Developer Guide*, "Error messages and codes"; *S3 API Reference*, "List of error codes".
    fn unsigned() -> Self {
        Self {
            dynamodb: "MissingAuthenticationTokenException",
            s3: "AccessDenied",
            message: "Request is missing Authentication Token".to_owned(),
        }
    }

    fn unknown() -> Self {
        Self {
            dynamodb: "UnrecognizedClientException",
            s3: "InvalidAccessKeyId",
            message: "The security token included in the request is invalid.".to_owned(),
        }
    }

    fn token() -> Self {
        Self { s3: "InvalidToken", ..Self::unknown() }
    }

    fn slow() -> Self {
        Self {
            dynamodb: "ThrottlingException",
            s3: "SlowDown",
            message: "Rate of requests exceeds the allowed throughput.".to_owned(),
        }
    }

    fn denied(function: &str, need: &Need) -> Self {
        let Need { action, resource } = need;
        let message = format!(
            "User: {function} is not authorized to perform: {action} on resource: {resource} because no identity-based \
             policy allows the {action} action"
        );
        Self { dynamodb: "AccessDeniedException", s3: "AccessDenied", message }
    }
}

/// The door of a service, in front of a store.
pub fn door(service: Service, guard: Guard, upstream: impl Upstream) -> Router {
    Router::new().fallback(move |request: Request| {
        let (service, guard, upstream) = (service.clone(), guard.clone(), upstream.clone());
        async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
                return Response::builder().status(StatusCode::BAD_REQUEST).body(Body::empty()).unwrap_or_default();
            };
            let request = http::Request::from_parts(parts, body);
            let head = request.method() == Method::HEAD;
            let passed = passed(&service, &guard, &upstream, request).await;
            passed.unwrap_or_else(|refusal| service.refused(&refusal, head)).map(Body::from)
        }
    })
}

async fn passed(
    service: &Service,
    guard: &Guard,
    upstream: &impl Upstream,
    request: http::Request<Bytes>,
) -> Result<Response<Bytes>, Refusal> {
    let signed = Signed::of(&request).ok_or_else(Refusal::unsigned)?;
    let caller = guard.principals.of(&signed.access_key_id).ok_or_else(Refusal::unknown)?;
    if signed.session_token.as_deref().unwrap_or_default() != caller.session_token {
        return Err(Refusal::token());
    }
    let refuse = |operation: &str, need: Need| {
        let refusal = Refusal::denied(&caller.function, &need);
        if !signed.presigned {
            caller.note(Call { operation: operation.to_owned(), needs: vec![need.clone()], denied: true });
        }
        let (function, presigned) = (caller.function.clone(), signed.presigned);
        guard.principals.deny(Denial { function, need, presigned });
        refusal
    };
    let Some(Asked { operation, needs, to_hear_of_nothing }) = service.asked(&request) else {
        let what = format!("{} {}", request.method(), request.uri().path());
        return Err(refuse("unknown", Need::new("an operation that is not known here", what)));
    };
    if let Some(need) = needs.iter().find(|need| !caller.may(need)) {
        return Err(refuse(&operation, need.clone()));
    }
    for need in &needs {
        guard.principals.note(&caller.function, need);
    }
    if guard.faults.happens(|rates| rates.slow) {
        return Err(Refusal::slow());
    }
    // Presigned requests are not the function's own.
    let death = if signed.presigned { None } else { caller.step() };
    if death == Some(Side::Before) {
        caller.spring();
        return pending().await;
    }
    if !signed.presigned {
        tokio::time::sleep(guard.faults.late()).await;
    }
    if !signed.presigned {
        caller.note(Call { operation: operation.clone(), needs, denied: false });
    }
    let response = upstream.answer(request, Arc::clone(&caller)).await;
    if death == Some(Side::After) {
        caller.spring();
        return pending().await;
    }
    match to_hear_of_nothing.filter(|_| response.status() == StatusCode::NOT_FOUND) {
        Some(need) if !caller.may(&need) => Err(refuse(&operation, need)),
        Some(need) => {
            guard.principals.note(&caller.function, &need);
            Ok(response)
        }
        None => Ok(response),
    }
}

/// Who signed a request.
struct Signed {
    access_key_id: String,
    session_token: Option<String>,
    presigned: bool,
}

impl Signed {
    fn of(request: &http::Request<Bytes>) -> Option<Self> {
        let query = request.uri().query().unwrap_or_default();
        let in_query = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(found, _)| *found == name).map(|(_, value)| crate::event::unescaped(value))
        };
        let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let presigned = in_query("X-Amz-Credential");
        let (credential, session_token) = if let Some(credential) = &presigned {
            (credential.clone(), in_query("X-Amz-Security-Token"))
        } else {
            let authorization = header("authorization")?;
            let mut fields = authorization.strip_prefix("AWS4-HMAC-SHA256")?.split(',');
            let credential = fields.find_map(|field| field.trim().strip_prefix("Credential="))?;
            (credential.to_owned(), header("x-amz-security-token"))
        };
        let access_key_id = credential.split('/').next()?.to_owned();
        Some(Self { access_key_id, session_token, presigned: presigned.is_some() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{AccessKey, Effect, Statement};
    use crate::serve;

    const TABLE: &str = "arn:aws:dynamodb:r:1:table/";

    fn statement(action: &str, resource: &str) -> Statement {
        Statement { effect: Effect::Allow, actions: vec![action.to_owned()], resources: vec![resource.to_owned()] }
    }

    /// A door in front of a store that says 404 to whoever asks for `missing`.
    async fn behind(service: Service, statements: Vec<Statement>) -> (String, Guard, Arc<Principal>) {
        let guard = Guard::default();
        let key = AccessKey::generate().unwrap();
        let principal = guard.principals.admit("Reader", &Arc::new(statements), key);
        let store = |request: http::Request<Bytes>, _: Arc<Principal>| async move {
            let mut response = Response::new(Bytes::from("stored"));
            if request.uri().path().ends_with("missing") {
                *response.status_mut() = StatusCode::NOT_FOUND;
            }
            response
        };
        let (address, _) = serve(door(service, guard.clone(), store)).await.unwrap();
        (format!("http://{address}"), guard, principal)
    }

    fn signed(request: reqwest::RequestBuilder, principal: &Principal) -> reqwest::RequestBuilder {
        let credential = format!("{}/20261122/r/s/aws4_request", principal.access_key_id);
        request
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"),
            )
            .header("x-amz-security-token", &principal.session_token)
    }

    async fn said(request: reqwest::RequestBuilder) -> (u16, String) {
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// *`DynamoDB` Developer Guide*, "Error messages and codes".
    #[tokio::test]
    async fn the_table_refuses_what_no_statement_allows_and_says_so_in_its_own_form() {
        let statements = vec![statement("dynamodb:GetItem", &format!("{TABLE}t"))];
        let (url, guard, reader) = behind(Service::DynamoDb(TABLE.to_owned()), statements).await;
        let client = reqwest::Client::new();
        let call = |operation: &str| {
            client
                .post(&url)
                .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
                .body(r#"{"TableName":"t"}"#)
        };
        assert_eq!(said(signed(call("GetItem"), &reader)).await, (200, "stored".to_owned()));
        let (status, body) = said(signed(call("DeleteItem"), &reader)).await;
        assert_eq!(status, 400);
        assert!(body.contains("#AccessDeniedException") && body.contains("dynamodb:DeleteItem"), "{body}");
        let used = Need::new("dynamodb:GetItem", format!("{TABLE}t"));
        assert_eq!(guard.principals.used().into_iter().collect::<Vec<_>>(), [("Reader".to_owned(), used)]);
        let denial = Denial {
            function: "Reader".to_owned(),
            need: Need::new("dynamodb:DeleteItem", format!("{TABLE}t")),
            presigned: false,
        };
        assert_eq!(guard.principals.denials(), [denial]);
        let calls: Vec<(String, bool)> =
            reader.take_calls().into_iter().map(|call| (call.operation, call.denied)).collect();
        assert_eq!(calls, [("GetItem".to_owned(), false), ("DeleteItem".to_owned(), true)]);
        for (request, code) in [
            (call("GetItem"), "MissingAuthenticationToken"),
            (call("GetItem").header("authorization", "AWS4-HMAC-SHA256 Credential=ASIA/x"), "UnrecognizedClient"),
            (signed(client.post(&url), &reader), "AccessDenied"),
        ] {
            let (status, body) = said(request).await;
            assert!(status == 400 && body.contains(code), "{status} {body}");
        }
    }

    /// *S3 API Reference*, "Error responses", and "`GetObject`", "Permissions".
    #[tokio::test]
    async fn the_bucket_says_403_instead_of_404_to_who_may_not_list_it() {
        let mut statements = vec![statement("s3:GetObject", "arn:aws:s3:::b/*")];
        let (url, guard, reader) = behind(Service::S3, statements.clone()).await;
        let client = reqwest::Client::new();
        assert_eq!(said(signed(client.get(format!("{url}/b/there")), &reader)).await, (200, "stored".to_owned()));
        let (status, body) = said(signed(client.get(format!("{url}/b/missing")), &reader)).await;
        assert!(status == 403 && body.contains("<Code>AccessDenied</Code>"), "{body}");
        assert_eq!(said(signed(client.head(format!("{url}/b/missing")), &reader)).await, (403, String::new()));
        assert_eq!(said(signed(client.put(format!("{url}/b/there")), &reader)).await.0, 403);
        let denied: Vec<String> = guard.principals.denials().into_iter().map(|denial| denial.need.action).collect();
        assert_eq!(denied, ["s3:ListBucket", "s3:ListBucket", "s3:PutObject"]);
        statements.push(statement("s3:ListBucket", "arn:aws:s3:::b"));
        let (url, _, lister) = behind(Service::S3, statements).await;
        assert_eq!(said(signed(client.get(format!("{url}/b/missing")), &lister)).await.0, 404);
    }

    /// *S3 User Guide*, "Download and upload objects with presigned URLs".
    #[tokio::test]
    async fn a_presigned_url_may_do_what_its_signer_may() {
        let (url, guard, reader) = behind(Service::S3, vec![statement("s3:GetObject", "arn:aws:s3:::b/*")]).await;
        let client = reqwest::Client::new();
        let url = format!(
            "{url}/b/k?X-Amz-Credential={}%2F20261122%2Fr%2Fs3%2Faws4_request&X-Amz-Security-Token={}",
            reader.access_key_id,
            reader.session_token.replace('/', "%2F").replace('+', "%2B"),
        );
        // A client may send a token of its own: the credential of the URL counts.
        let request = client.get(&url).header("authorization", "Bearer x");
        assert_eq!(said(request).await, (200, "stored".to_owned()));
        assert_eq!(said(client.put(&url)).await.0, 403);
        let denials = guard.principals.denials();
        assert!(denials.len() == 1 && denials[0].presigned, "{denials:?}");
        let (status, body) = said(client.get(url.replace("Security-Token=", "Security-Token=x"))).await;
        assert!(status == 403 && body.contains("InvalidToken"), "{body}");
        assert!(reader.take_calls().is_empty(), "the calls of others are not the function's");
    }

    /// *`DynamoDB` Developer Guide*, "Error handling with `DynamoDB`"; *S3 API Reference*, "`SlowDown`".
    #[tokio::test]
    async fn a_store_that_is_asked_too_often_says_so() {
        let client = reqwest::Client::new();
        for (service, status, code) in
            [(Service::DynamoDb(TABLE.to_owned()), 400, "ThrottlingException"), (Service::S3, 503, "SlowDown")]
        {
            let (url, guard, reader) = behind(service, vec![statement("*", "*")]).await;
            guard.faults.set(crate::faults::Rates { slow: 1.0, ..Default::default() });
            let request =
                client.get(format!("{url}/b/k")).header("x-amz-target", "x.GetItem").body(r#"{"TableName":"t"}"#);
            let (found, body) = said(signed(request, &reader)).await;
            assert!(found == status && body.contains(code), "{found} {body}");
        }
    }
}
