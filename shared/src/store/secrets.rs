//! AWS Secrets Manager, as far as we need it: reading the text of one secret.
//!
//! One signed request is all that it takes, so there is no SDK for it here: see
//! [decision 0029](../../../docs/decisions/0029-token-keys-at-init.md).

use super::StoreError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde::Deserialize;
use std::fmt;
use std::time::{Duration, SystemTime};

/// How long one request may take, with its connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most bytes of an answer: a secret has at most 64 KiB.
const LONGEST: usize = 128 << 10;

/// A secret in AWS Secrets Manager.
pub struct Secret {
    id: String,
    region: String,
    endpoint: String,
    credentials: SharedCredentialsProvider,
    connector: Connector,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("id", &self.id).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// What the service answers, as far as we read it.
#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "SecretString")]
    text: Option<SecretString>,
    #[serde(rename = "__type")]
    error: Option<String>,
}

impl Secret {
    /// A secret by its ARN, which names its region, or by its name in `region`. The endpoint is that of the region,
    /// unless one is given.
    pub fn new(id: String, region: &str, endpoint: Option<String>, credentials: SharedCredentialsProvider) -> Self {
        let region = id.strip_prefix("arn:").and_then(|rest| rest.split(':').nth(2)).unwrap_or(region).to_owned();
        let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
        let own = format!("https://secretsmanager.{region}.amazonaws.com{suffix}");
        let endpoint = endpoint.unwrap_or(own).trim_end_matches('/').to_owned();
        let connector = ConnectorBuilder::default().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build();
        Self { id, region, endpoint, credentials, connector }
    }

    /// The text of the secret's current version.
    pub async fn read(&self) -> Result<SecretString, StoreError> {
        let late = |_| StoreError::Unavailable(format!("{} does not answer in time", self.endpoint));
        tokio::time::timeout(PATIENCE, self.ask()).await.map_err(late)?
    }

    async fn ask(&self) -> Result<SecretString, StoreError> {
        let request = self.request().await?;
        let answer = self.connector.call(request).await.map_err(|error| StoreError::unavailable(&error))?;
        let status = answer.status().as_u16();
        let body = http_body_util::Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| self.failed(&format!("its answer broke off: {error}")))?.to_bytes();
        // No part of an answer is repeated in an error, lest it be the secret.
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| self.failed(&format!("it answers {status}")))?;
        match (status, answer) {
            (200, Answer { text: Some(text), .. }) => Ok(text),
            (200, _) => Err(self.failed("it has no text")),
            (_, Answer { error, .. }) => {
                let why = error.unwrap_or_default();
                Err(self.failed(&format!("it answers {status} {}", why.rsplit('#').next().unwrap_or(&why))))
            }
        }
    }

    fn failed(&self, why: &str) -> StoreError {
        StoreError::Unavailable(format!("can't read the secret `{}`: {why}", self.id))
    }

    /// The signed request for the secret.
    async fn request(&self) -> Result<HttpRequest, StoreError> {
        let mistake = |error: &dyn fmt::Display| StoreError::Mistake(format!("can't ask for a secret: {error}"));
        let credentials = self.credentials.provide_credentials().await;
        let identity = credentials.map_err(|error| StoreError::unavailable(&error))?.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("secretsmanager")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| mistake(&error))?
            .into();
        let url = format!("{}/", self.endpoint);
        let body = serde_json::json!({ "SecretId": self.id }).to_string();
        let headers =
            [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "secretsmanager.GetSecretValue")];
        let mut request = http::Request::post(&url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(SdkBody::from(body.as_str())).map_err(|error| mistake(&error))?;
        let signed = SignableRequest::new("POST", &url, headers.into_iter(), SignableBody::Bytes(body.as_bytes()));
        let signed = signed.and_then(|signable| sign(signable, &params)).map_err(|error| mistake(&error))?;
        signed.into_parts().0.apply_to_request_http1x(&mut request);
        HttpRequest::try_from(request).map_err(|error| mistake(&error))
    }
}
