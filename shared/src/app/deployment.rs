//! An installation on AWS, or on stores that speak its protocols, from the variables in the environment.

use super::renewal::{self, Renewal};
use super::{App, Parts, system_clock};
use crate::auth::Keys;
use crate::config::Config;
use crate::error::Error;
use crate::store::{Objects, Secret, Table};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// How the services of AWS are reached.
struct Access {
    table: aws_sdk_dynamodb::config::Builder,
    bucket: aws_sdk_s3::config::Builder,
    region: String,
    credentials: SharedCredentialsProvider,
    /// Whether the bucket is another store than AWS's.
    elsewhere: bool,
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A setting that a deployment must have, or an error that names it.
fn setting(name: &str) -> Result<String, Error> {
    variable(name).ok_or_else(|| Error::Internal(format!("`{name}` is not set")))
}

/// The endpoint of a service, if it is not AWS's own.
fn endpoint(service: &str) -> Option<String> {
    variable(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| variable("AWS_ENDPOINT_URL"))
}

/// How a function of AWS Lambda reaches the services: all that it needs is in its environment. So none of the other
/// places is looked at where the SDK would find credentials, and their code is not in the function.
fn in_lambda() -> Result<Access, Error> {
    let region = setting("AWS_REGION")?;
    let credentials = Credentials::new(
        setting("AWS_ACCESS_KEY_ID")?,
        setting("AWS_SECRET_ACCESS_KEY")?,
        variable("AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    let credentials = SharedCredentialsProvider::new(credentials);
    // One for both: certificates are read once.
    let client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
    let mut table = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.clone()))
        .credentials_provider(credentials.clone())
        .http_client(client.clone());
    let mut bucket = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.clone()))
        .credentials_provider(credentials.clone())
        .http_client(client);
    table.set_endpoint_url(endpoint("DYNAMODB"));
    bucket.set_endpoint_url(endpoint("S3"));
    Ok(Access { table, bucket, region, credentials, elsewhere: endpoint("S3").is_some() })
}

/// How a program elsewhere reaches the services: as the SDK finds out, from profiles and roles too.
#[cfg(feature = "profiles")]
async fn anywhere() -> Result<Access, Error> {
    let aws = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let credentials = aws.credentials_provider();
    Ok(Access {
        table: aws_sdk_dynamodb::config::Builder::from(&aws),
        bucket: aws_sdk_s3::config::Builder::from(&aws),
        region: aws.region().map(ToString::to_string).unwrap_or_default(),
        credentials: credentials.ok_or_else(|| Error::Internal("there are no AWS credentials".to_owned()))?,
        // A profile may name one, too.
        elsewhere: aws.endpoint_url().is_some() || endpoint("S3").is_some(),
    })
}

/// The token keys of a deployment, and what is needed to read them again.
async fn keys(access: &Access) -> Result<(Keys, Option<Renewal>), Error> {
    let Some(id) = variable("STACKROOM_TOKEN_KEYS_SECRET") else {
        return Ok((Keys::parse(&own_keys()?)?, None));
    };
    let secret = Secret::new(id, &access.region, endpoint("SECRETS_MANAGER"), access.credentials.clone());
    let keys = Keys::parse(&renewal::first(&secret).await?)?;
    Ok((keys, Some(Renewal::new(secret, system_clock()))))
}

/// The token keys of an installation that has them in its environment, or in a file.
fn own_keys() -> Result<String, Error> {
    if let Some(file) = variable("STACKROOM_TOKEN_KEYS_FILE") {
        let read = std::fs::read_to_string(&file);
        return read.map_err(|error| Error::Internal(format!("the token keys in {file} can't be read: {error}")));
    }
    variable("STACKROOM_TOKEN_KEYS").ok_or_else(|| {
        let needed = "set `STACKROOM_TOKEN_KEYS_SECRET`, `STACKROOM_TOKEN_KEYS_FILE` or `STACKROOM_TOKEN_KEYS`";
        Error::Internal(format!("there are no token keys: {needed}"))
    })
}

/// Puts an installation together: `STACKROOM_TABLE`, `STACKROOM_BUCKET`, `STACKROOM_PUBLIC_URL`, and the settings in
/// [`Config`].
fn app(access: Access, keys: Keys, renewal: Option<Renewal>) -> Result<App, Error> {
    let place = Deployed {
        table: setting("STACKROOM_TABLE")?,
        bucket: setting("STACKROOM_BUCKET")?,
        public_url: setting("STACKROOM_PUBLIC_URL")?,
    };
    Ok(App::assembled(parts(access, keys, place)?, renewal))
}

/// Where an installation is.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The name of its table.
    pub table: String,
    /// The name of its bucket.
    pub bucket: String,
    /// The URL under which clients reach it.
    pub public_url: String,
}

/// The parts of an installation. `STACKROOM_S3_PUBLIC_URL` is the bucket's endpoint for clients, if it differs from ours.
/// `STACKROOM_INDEX` is the table of the search index, if it is not called as the other one with `-index`.
fn parts(access: Access, keys: Keys, place: Deployed) -> Result<Parts, Error> {
    let config = Config::read(&place.public_url, |name| std::env::var(name).ok());
    let config = config.map_err(|error| Error::Internal(error.to_string()))?;
    let s3 = access
        .bucket
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        // Stores other than AWS's address their buckets by path.
        .force_path_style(access.elsewhere);
    let public = variable("STACKROOM_S3_PUBLIC_URL");
    if let Some(url) = &public {
        crate::config::beside(&config.public_url, url).map_err(|error| Error::Internal(error.to_string()))?;
    }
    let public = public.map_or_else(|| s3.clone(), |url| s3.clone().endpoint_url(url));
    let rows = aws_sdk_dynamodb::Client::from_conf(access.table.build());
    let index = variable("STACKROOM_INDEX").unwrap_or_else(|| format!("{}-index", place.table));
    Ok(Parts {
        config,
        table: Table::new(rows.clone(), place.table),
        index: Table::new(rows, index),
        objects: Objects::new(
            aws_sdk_s3::Client::from_conf(s3.build()),
            aws_sdk_s3::Client::from_conf(public.build()),
            place.bucket,
        ),
        keys,
        clock: system_clock,
    })
}

/// An installation on stores that others use too, before it is put together: its settings may depend on what the stores
/// can do.
#[cfg(feature = "profiles")]
#[derive(Debug)]
pub struct Assembly {
    /// The parts.
    pub parts: Parts,
    renewal: Option<Renewal>,
}

#[cfg(feature = "profiles")]
impl Assembly {
    /// Takes the token keys, the credentials and all other settings from the environment.
    pub async fn of(place: Deployed) -> Result<Self, Error> {
        let access = anywhere().await?;
        let (keys, renewal) = keys(&access).await?;
        Ok(Self { parts: parts(access, keys, place)?, renewal })
    }

    /// The same for somebody who only reads and writes rows and objects: no token of it would be believed.
    pub async fn without_tokens(place: Deployed) -> Result<Self, Error> {
        let access = anywhere().await?;
        Ok(Self { parts: parts(access, Keys::parse(&Keys::generate()?)?, place)?, renewal: None })
    }

    /// Makes the tables and the bucket, if they are not there.
    pub async fn made(&self) -> Result<(), Error> {
        let Parts { table, index, objects, .. } = &self.parts;
        for table in [table, index] {
            table.create().await?;
            table.usable().await?;
        }
        Ok(objects.create().await?)
    }

    /// Puts it together.
    pub fn app(self) -> App {
        App::assembled(self.parts, self.renewal)
    }
}

impl App {
    /// The installation that a function of AWS Lambda belongs to. The token keys come from the secret that
    /// `STACKROOM_TOKEN_KEYS_SECRET` names, or from `STACKROOM_TOKEN_KEYS`.
    pub async fn in_function() -> Result<Self, Error> {
        let access = in_lambda()?;
        let (keys, renewal) = keys(&access).await?;
        app(access, keys, renewal)
    }

    /// The same for a function that neither signs nor reads tokens: it can't read the token keys, and asks nobody for
    /// anything before its first request.
    pub fn in_function_without_tokens() -> Result<Self, Error> {
        // These keys are nobody's: a token that came here all the same would not be believed.
        app(in_lambda()?, Keys::parse(&Keys::generate()?)?, None)
    }

    /// The installation that a command on another machine works on: its environment has the settings of a function, and
    /// credentials are where the AWS SDK finds them.
    #[cfg(feature = "profiles")]
    pub async fn from_env() -> Result<Self, Error> {
        let access = anywhere().await?;
        let (keys, renewal) = keys(&access).await?;
        app(access, keys, renewal)
    }
}
