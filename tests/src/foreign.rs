//! Stores of somebody else: a table and a bucket at endpoints that `STACKROOM_TEST_STORES` names, made anew for each
//! installation. A line of it is a name, the table's endpoint, the bucket's endpoint, and what
//! `STACKROOM_PIN_UPLOADS` should be there. `scripts/test emulators` and `scripts/test servers` start them.

use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use server::local::{Layer, Nothing};
use shared::app::{App, Parts};
use shared::auth::Keys;
use shared::config::{Config, Pins};
use shared::store::table::backend::Backend;
use shared::store::table::dynamodb::DynamoDb;
use shared::store::{Objects, Table};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const REGION: &str = "us-east-1";
/// Key id and secret with which they are asked.
const CREDENTIALS: (&str, &str) = ("test", "test");

/// Stores that run.
#[derive(Debug, Clone)]
pub struct Place {
    /// What they are.
    pub name: String,
    /// The endpoint of its table.
    pub dynamodb: String,
    /// The endpoint of its bucket.
    pub s3: String,
    /// What the URLs of its uploads can fix.
    pub pins: Pins,
}

impl Place {
    /// All that the environment names.
    pub fn all() -> Vec<Self> {
        let places =
            std::env::var("STACKROOM_TEST_STORES").expect("STACKROOM_TEST_STORES: run `scripts/test emulators`");
        places.lines().filter(|line| !line.trim().is_empty()).map(Self::parse).collect()
    }

    fn parse(line: &str) -> Self {
        let parts: Vec<&str> = line.split_whitespace().collect();
        let [name, dynamodb, s3, pins] = parts[..] else { panic!("{line}") };
        let pins = [Pins::Bytes, Pins::Header, Pins::Nothing].into_iter().find(|known| known.to_string() == pins);
        let [name, dynamodb, s3] = [name, dynamodb, s3].map(str::to_owned);
        Self { name, dynamodb, s3, pins: pins.unwrap_or_else(|| panic!("{line}")) }
    }

    /// Makes a new table and a new bucket there.
    pub async fn create(self) -> Stores {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("stackroom-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let stores = Stores { place: self, name };
        stores.bucket(&Nothing).create_bucket().bucket(&stores.name).send().await.unwrap();
        stores.rows(&Nothing).create().await.unwrap();
        DynamoDb::new(stores.dynamodb(&Nothing), stores.index()).create().await.unwrap();
        stores
    }
}

/// A table and a bucket.
#[derive(Debug)]
pub struct Stores {
    /// Where they are.
    pub place: Place,
    /// The name of both.
    pub name: String,
}

fn credentials() -> Credentials {
    let (id, secret) = CREDENTIALS;
    Credentials::new(id, secret, None, None, "tests")
}

fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_http()
}

impl Stores {
    /// What keeps the rows there, through a layer.
    pub fn rows(&self, layer: &dyn Layer) -> Arc<dyn Backend> {
        layer.rows(Arc::new(DynamoDb::new(self.dynamodb(layer), self.name.clone())))
    }

    /// The name of the table of the search index.
    fn index(&self) -> String {
        format!("{}-index", self.name)
    }

    fn dynamodb(&self, layer: &dyn Layer) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials())
            .endpoint_url(&self.place.dynamodb)
            .http_client(layer.dynamodb(http_client()));
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// Configured as a deployment's client is.
    fn bucket(&self, layer: &dyn Layer) -> aws_sdk_s3::Client {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials())
            .endpoint_url(&self.place.s3)
            .http_client(layer.s3(http_client()))
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        aws_sdk_s3::Client::from_conf(config.build())
    }

    /// A server of the installation there, with a layer between it and its stores.
    pub fn app(&self, config: Config, keys: &str, layer: &dyn Layer) -> App {
        let bucket = self.bucket(layer);
        App::new(Parts {
            config,
            table: Table::on(self.rows(layer)),
            index: Table::on(layer.index(Arc::new(DynamoDb::new(self.dynamodb(layer), self.index())))),
            objects: Objects::new(bucket.clone(), bucket, self.name.clone()),
            keys: Keys::parse(keys).unwrap(),
            clock: shared::app::system_clock,
        })
    }

    /// What another process needs in its environment to serve the same installation.
    pub fn environment(&self, public_url: &str, keys: &str) -> Vec<(&'static str, String)> {
        let (id, secret) = CREDENTIALS;
        [
            ("STACKROOM_PUBLIC_URL", public_url),
            ("STACKROOM_TABLE", &self.name),
            ("STACKROOM_BUCKET", &self.name),
            ("STACKROOM_TOKEN_KEYS", keys),
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.place.dynamodb),
            ("AWS_ENDPOINT_URL_S3", &self.place.s3),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }
}
