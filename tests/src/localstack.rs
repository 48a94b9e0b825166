//! `LocalStack`, or another emulator of AWS behind one address: a table and a bucket made from the resources of our own
//! template, keys that it knows and checks, and its stream.
//!
//! `AWS_ENDPOINT_URL` names one that runs already. Otherwise testcontainers starts one where a Docker engine answers:
//! `STACKROOM_LOCALSTACK_IMAGE`, or the last `LocalStack` that wants no account. It ends with the last test that uses it.
//!
//! An emulator is not believed in more than it can do. What it does not take of a resource's properties is in
//! [`Stack::refused`]; whether it supports presigned URLs with the hash of what they bring, [`Stack::pins`] tries out.

use anyhow::{Context, bail, ensure};
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use gateway::policy::{AccessKey, Effect, Issued, Issuer, Statement};
use gateway::template::{self, Deployment};
use serde_json::{Value, json};
use server::probe::probe;
use server::routes::TEMPLATE;
use shared::app::{App, Parts};
use shared::auth::Keys;
use shared::config::{Config, Pins};
use shared::store::{Objects, Table};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};
use testcontainers::core::IntoContainerPort;
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt};
use tokio::sync::OnceCell;

/// The last release that starts without an account. Later ones want `LOCALSTACK_AUTH_TOKEN`.
pub const IMAGE: &str = "localstack/localstack:4.14.0";
/// Where emulators listen, all services in one.
const PORT: u16 = 4566;
/// The region and the account of everything here.
pub const REGION: &str = "us-east-1";
const ACCOUNT: &str = "000000000000";
/// Key id and secret of the emulator's own administrator.
pub const ROOT: &str = "test";
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_mins(2);

/// An emulator that answers.
#[derive(Debug)]
pub struct Emulator {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    _container: Option<ContainerAsync<GenericImage>>,
}

/// A number that no other installation of this process has.
fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

impl Emulator {
    /// The one that `AWS_ENDPOINT_URL` names, or one that is started. All who have it at the same time have the same.
    pub async fn running() -> anyhow::Result<Arc<Self>> {
        static RUNNING: tokio::sync::Mutex<Weak<Emulator>> = tokio::sync::Mutex::const_new(Weak::new());
        let mut running = RUNNING.lock().await;
        if let Some(emulator) = running.upgrade() {
            return Ok(emulator);
        }
        let named = std::env::var("AWS_ENDPOINT_URL").ok().filter(|url| !url.is_empty());
        let (places, container) = match named {
            Some(url) => (vec![url.trim_end_matches('/').to_owned()], None),
            None => started().await?,
        };
        let emulator = Arc::new(Self { endpoint: answering(places).await?, _container: container });
        *running = Arc::downgrade(&emulator);
        Ok(emulator)
    }
}

/// Starts an emulator. Returns where it may be reached, until its container is dropped.
async fn started() -> anyhow::Result<(Vec<String>, Option<ContainerAsync<GenericImage>>)> {
    let image = std::env::var("STACKROOM_LOCALSTACK_IMAGE").unwrap_or_else(|_| IMAGE.to_owned());
    let (name, tag) =
        image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((image.as_str(), "latest"));
    let container = GenericImage::new(name, tag)
        .with_exposed_port(PORT.tcp())
        .with_env_var("SERVICES", "dynamodb,dynamodbstreams,iam,s3,sts")
        // LocalStack checks the signatures of URLs only then.
        .with_env_var("S3_SKIP_SIGNATURE_VALIDATION", "0")
        // And ministack all signatures and policies.
        .with_env_var("AUTH", "true")
        .with_startup_timeout(PATIENCE)
        .start()
        .await
        .with_context(|| format!("can't start {image}: is there a Docker engine? Or set `AWS_ENDPOINT_URL`"))?;
    let (host, port) = (container.get_host().await?.to_string(), container.get_host_port_ipv4(PORT).await?);
    // Whoever runs in a container is told the address of its engine's bridge, which is right if the engine is outside
    // and publishes ports there. If it runs beside us, and publishes on loopback, it is not.
    let mut hosts = vec!["127.0.0.1".to_owned(), host];
    hosts.retain(|host| host != "localhost");
    Ok((hosts.into_iter().map(|host| format!("http://{host}:{port}")).collect(), Some(container)))
}

/// Waits until one of some places says that it is well, and returns which.
async fn answering(places: Vec<String>) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
    let asked = async {
        loop {
            for place in &places {
                let answer = client.get(format!("{place}/_localstack/health")).send().await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return place.clone();
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.with_context(|| format!("no emulator answers at {}", places.join(", ")))
}

/// The table and the bucket of an installation, on an emulator.
#[derive(Debug)]
pub struct Stack {
    /// Where they are.
    pub emulator: Arc<Emulator>,
    /// The name of both.
    pub name: String,
    /// What the emulator did not take of the properties of their resources, and why.
    pub refused: Vec<String>,
    client: reqwest::Client,
}

/// What is sent to an emulator.
struct Call<'a> {
    service: &'a str,
    method: http::Method,
    /// From the slash on.
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Stack {
    /// Makes a new table and a new bucket from the resources of the template.
    pub async fn create(public_url: &str) -> anyhow::Result<Self> {
        Self::create_named(&format!("stackroom-{}-{}", std::process::id(), number()), public_url).await
    }

    /// The same with a name that the caller chose.
    pub async fn create_named(name: &str, public_url: &str) -> anyhow::Result<Self> {
        let emulator = Emulator::running().await?;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
        let mut stack = Self { emulator, name: name.to_owned(), refused: Vec::new(), client };
        let mut deployment = stack.deployment(public_url, "");
        // Nothing here is to be kept.
        deployment.parameters.insert("DeletionProtection".to_owned(), "false".to_owned());
        for (resource, name) in [("Table", stack.name.clone()), ("Index", stack.index())] {
            stack.make_table(&name, template::properties(TEMPLATE, &deployment, resource)?).await?;
        }
        stack.make_bucket(template::properties(TEMPLATE, &deployment, "Bucket")?).await?;
        Ok(stack)
    }

    /// What the template leaves open.
    pub fn deployment(&self, public_url: &str, secret: &str) -> Deployment {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Deployment {
            region: REGION.to_owned(),
            account: ACCOUNT.to_owned(),
            parameters: BTreeMap::from([pair("PublicUrl", public_url), pair("TokenKeysSecret", secret)]),
            names: BTreeMap::from([
                pair("Table", &self.name),
                pair("Index", &self.index()),
                pair("Bucket", &self.name),
            ]),
            ..Deployment::default()
        }
    }

    /// The name of the table of the search index.
    fn index(&self) -> String {
        format!("{}-index", self.name)
    }

    /// The installation itself, as the emulator's administrator.
    pub fn app(&self, config: Config, keys: &str) -> App {
        let credentials = Credentials::new(ROOT, ROOT, None, None, "emulator");
        let table = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials.clone())
            .endpoint_url(&self.emulator.endpoint);
        // Configured as a deployment's client is.
        let bucket = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        let public = bucket.clone().endpoint_url(&config.public_url);
        let bucket = bucket.endpoint_url(&self.emulator.endpoint);
        let table = aws_sdk_dynamodb::Client::from_conf(table.build());
        App::new(Parts {
            config,
            table: Table::new(table.clone(), self.name.clone()),
            index: Table::new(table, self.index()),
            objects: Objects::new(
                aws_sdk_s3::Client::from_conf(bucket.build()),
                aws_sdk_s3::Client::from_conf(public.build()),
                self.name.clone(),
            ),
            keys: Keys::parse(keys).unwrap(),
            clock: shared::app::system_clock,
        })
    }

    /// The properties of the resource are the fields of the request, but for those that have requests of their own.
    async fn make_table(&mut self, name: &str, mut properties: Value) -> anyhow::Result<()> {
        let fields = properties.as_object_mut().context("a table without properties")?;
        let life = fields.remove("TimeToLiveSpecification");
        let backup = fields.remove("PointInTimeRecoverySpecification");
        fields.insert("TableName".to_owned(), json!(name));
        // A parameter is text, and a stream that is described is one that is wanted.
        let protected = fields.get("DeletionProtectionEnabled") == Some(&json!("true"));
        fields.insert("DeletionProtectionEnabled".to_owned(), json!(protected));
        if let Some(Value::Object(stream)) = fields.get_mut("StreamSpecification") {
            stream.insert("StreamEnabled".to_owned(), json!(true));
        }
        self.dynamodb("CreateTable", &properties).await?;
        let named = json!({ "TableName": name });
        let active = async {
            loop {
                let found = self.dynamodb("DescribeTable", &named).await?;
                if found["Table"]["TableStatus"] == "ACTIVE" {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, active).await.context("the table is never active")??;
        for (operation, field, value) in [
            ("UpdateTimeToLive", "TimeToLiveSpecification", life),
            ("UpdateContinuousBackups", "PointInTimeRecoverySpecification", backup),
        ] {
            let Some(value) = value else { continue };
            let made = self.dynamodb(operation, &json!({ "TableName": name, field: value })).await;
            self.refused.extend(made.err().map(|error| format!("{field}: {error}")));
        }
        Ok(())
    }

    /// Each property of the resource has a request of its own, whose document says the same in XML.
    async fn make_bucket(&mut self, properties: Value) -> anyhow::Result<()> {
        self.s3(http::Method::PUT, "", String::new()).await?;
        let fields = properties.as_object().context("a bucket without properties")?;
        for (property, value) in fields {
            let (query, document) = match property.as_str() {
                "PublicAccessBlockConfiguration" => ("publicAccessBlock", "PublicAccessBlockConfiguration"),
                "OwnershipControls" => ("ownershipControls", "OwnershipControls"),
                "BucketEncryption" => ("encryption", "ServerSideEncryptionConfiguration"),
                "VersioningConfiguration" => ("versioning", "VersioningConfiguration"),
                "LifecycleConfiguration" => ("lifecycle", "LifecycleConfiguration"),
                "CorsConfiguration" => ("cors", "CORSConfiguration"),
                other => bail!("nothing here makes {other} of a bucket"),
            };
            let made = self.s3(http::Method::PUT, &format!("?{query}"), element(document, &xml(value))).await;
            self.refused.extend(made.err().map(|error| format!("{property}: {error}")));
        }
        Ok(())
    }

    /// Tries out whether the stores do what they must, and whether the bucket supports presigned URLs with the hash of what
    /// they bring: as `stackroom serve` does with stores that it does not know. Once in a process.
    pub async fn pins(&self) -> anyhow::Result<Pins> {
        static PINS: OnceCell<Pins> = OnceCell::const_new();
        let probed = async {
            let app = self.app(Config::read(&self.emulator.endpoint, |_| None)?, &Keys::generate()?);
            anyhow::Ok(probe(&app.table, &app.objects).await?.pins)
        };
        Box::pin(PINS.get_or_try_init(|| probed)).await.copied()
    }

    /// A call of `DynamoDB`.
    pub async fn dynamodb(&self, operation: &str, body: &Value) -> anyhow::Result<Value> {
        self.json(&format!("DynamoDB_20120810.{operation}"), body).await
    }

    async fn json(&self, target: &str, body: &Value) -> anyhow::Result<Value> {
        let headers =
            vec![("content-type", "application/x-amz-json-1.0".to_owned()), ("x-amz-target", target.to_owned())];
        let (path, body) = ("/".to_owned(), body.to_string());
        let answer = self.send(Call { service: "dynamodb", method: http::Method::POST, path, headers, body }).await?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// A call of S3 on the bucket.
    pub async fn s3(&self, method: http::Method, query: &str, body: String) -> anyhow::Result<String> {
        let path = format!("/{}{query}", self.name);
        self.send(Call { service: "s3", method, path, headers: Vec::new(), body }).await
    }

    async fn iam(&self, action: &str, fields: &[(&str, &str)]) -> anyhow::Result<String> {
        let always = [("Action", action), ("Version", "2010-05-08")];
        let pairs: Vec<String> =
            always.iter().chain(fields).map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let headers = vec![("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned())];
        let (path, body) = ("/".to_owned(), pairs.join("&"));
        self.send(Call { service: "iam", method: http::Method::POST, path, headers, body }).await
    }

    /// Sends a call, signed by the emulator's administrator, and returns the body of a success.
    async fn send(&self, call: Call<'_>) -> anyhow::Result<String> {
        let Call { service, method, path, headers, body } = call;
        let identity = Credentials::new(ROOT, ROOT, None, None, "emulator").into();
        let mut settings = SigningSettings::default();
        if service == "s3" {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        let params = v4::SigningParams::builder().identity(&identity).region(REGION).name(service);
        let params = params.time(SystemTime::now()).settings(settings).build()?.into();
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.emulator.endpoint));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(body)?;
        let uri = request.uri().to_string();
        let headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let signable = SignableRequest::new(
            request.method().as_str(),
            uri,
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())),
            SignableBody::Bytes(request.body().as_bytes()),
        )?;
        let (instructions, _) = sign(signable, &params)?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        let answer = self.client.execute(request.try_into()?).await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{status}: {text}");
        Ok(text)
    }

    /// The stream of the table, from its beginning.
    pub async fn stream(self: &Arc<Self>) -> anyhow::Result<Stream> {
        let found = self.dynamodb("DescribeTable", &json!({ "TableName": self.name })).await?;
        let arn = found["Table"]["LatestStreamArn"].as_str().context("the table has no stream")?.to_owned();
        Ok(Stream { stack: Arc::clone(self), arn, places: BTreeMap::new() })
    }
}

/// A reader of the changes of a table.
#[derive(Debug)]
pub struct Stream {
    stack: Arc<Stack>,
    arn: String,
    /// Where it is in each shard; nothing in those that are read to their end.
    places: BTreeMap<String, Option<String>>,
}

impl Stream {
    async fn ask(&self, operation: &str, body: Value) -> anyhow::Result<Value> {
        self.stack.json(&format!("DynamoDBStreams_20120810.{operation}"), &body).await
    }

    /// The records since it was asked last.
    pub async fn next(&mut self) -> anyhow::Result<Vec<Value>> {
        let found = self.ask("DescribeStream", json!({ "StreamArn": self.arn })).await?;
        for shard in found["StreamDescription"]["Shards"].as_array().into_iter().flatten() {
            let id = shard["ShardId"].as_str().context("a shard without an id")?.to_owned();
            if !self.places.contains_key(&id) {
                let asked = json!({ "StreamArn": self.arn, "ShardId": id, "ShardIteratorType": "TRIM_HORIZON" });
                let place = self.ask("GetShardIterator", asked).await?["ShardIterator"].as_str().map(str::to_owned);
                self.places.insert(id, place);
            }
        }
        let mut records = Vec::new();
        for (shard, place) in self.places.clone() {
            let mut place = place;
            while let Some(at) = place.take() {
                let found = self.ask("GetRecords", json!({ "ShardIterator": at, "Limit": 1000 })).await?;
                place = found["NextShardIterator"].as_str().map(str::to_owned);
                let some = found["Records"].as_array().cloned().unwrap_or_default();
                let last = some.is_empty();
                records.extend(some);
                if last {
                    break;
                }
            }
            self.places.insert(shard, place);
        }
        Ok(records)
    }
}

impl Issuer for Stack {
    /// A user of the emulator's IAM for each instance, who may do what its function may. A function on AWS has a role and
    /// a session; but `LocalStack` knows the secrets of users only, when it checks the signature of a URL.
    fn issue<'a>(&'a self, function: &'a str, statements: &'a [Statement]) -> Issued<'a> {
        Box::pin(async move {
            let user = format!("{}-{function}-{}", self.name, number());
            let made = async {
                self.iam("CreateUser", &[("UserName", &user)]).await?;
                if !statements.is_empty() {
                    let policy = json!({ "Version": "2012-10-17", "Statement": statements.iter().map(said).collect::<Vec<_>>() });
                    let policy = policy.to_string();
                    let fields = [("UserName", user.as_str()), ("PolicyName", "own"), ("PolicyDocument", &policy)];
                    self.iam("PutUserPolicy", &fields).await?;
                }
                let key = self.iam("CreateAccessKey", &[("UserName", &user)]).await?;
                let field = |name: &str| {
                    let found = key.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
                    found.map(|(value, _)| value.to_owned()).with_context(|| format!("no {name} in {key}"))
                };
                anyhow::Ok(AccessKey {
                    access_key_id: field("AccessKeyId")?,
                    secret_access_key: field("SecretAccessKey")?,
                    session_token: String::new(),
                })
            };
            made.await.map_err(|error| std::io::Error::other(format!("no key for {function}: {error:#}")))
        })
    }
}

/// A statement as IAM writes it.
fn said(statement: &Statement) -> Value {
    let effect = match statement.effect {
        Effect::Allow => "Allow",
        Effect::Deny => "Deny",
    };
    json!({ "Effect": effect, "Action": statement.actions, "Resource": statement.resources })
}

/// Text in the form of a form.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |made, byte| {
        if plain(byte) { made + &char::from(byte).to_string() } else { made + &format!("%{byte:02X}") }
    })
}

fn element(name: &str, inside: &str) -> String {
    format!("<{name}>{inside}</{name}>")
}

/// The XML of S3 for properties of `CloudFormation`: nearly the same names, and lists without an element around them.
fn xml(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let made = fields.iter().map(|(name, value)| {
                let name = match name.as_str() {
                    "CorsRules" => "CORSRule",
                    "AllowedOrigins" => "AllowedOrigin",
                    "AllowedMethods" => "AllowedMethod",
                    "AllowedHeaders" => "AllowedHeader",
                    "ExposedHeaders" => "ExposeHeader",
                    "MaxAge" => "MaxAgeSeconds",
                    "Rules" | "ServerSideEncryptionConfiguration" => "Rule",
                    "ServerSideEncryptionByDefault" => "ApplyServerSideEncryptionByDefault",
                    // A rule of a lifecycle, whose XML says that it is for all objects.
                    "Id" => return element("ID", &xml(value)) + "<Filter><Prefix></Prefix></Filter>",
                    other => other,
                };
                match value {
                    Value::Array(items) => items.iter().map(|item| element(name, &xml(item))).collect(),
                    one => element(name, &xml(one)),
                }
            });
            made.collect()
        }
        Value::String(text) => text.replace('&', "&amp;").replace('<', "&lt;"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_properties_of_a_bucket_are_written_as_s3_wants_them() {
        let rules = json!({ "CorsRules": [{ "AllowedMethods": ["GET", "PUT"], "MaxAge": 3600 }] });
        let said = "<CORSRule><AllowedMethod>GET</AllowedMethod><AllowedMethod>PUT</AllowedMethod><MaxAgeSeconds>3600</MaxAgeSeconds></CORSRule>";
        assert_eq!(xml(&rules), said);
        assert_eq!(escaped("a b&ä~"), "a%20b%26%C3%A4~");
    }
}
