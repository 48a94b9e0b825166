//! How fast the embedded stores are on this machine: the table at its seam, the objects through the SDK's own client.
//!
//! `cargo run --release -p embedded --example speed [folder]`
#![expect(clippy::print_stdout, reason = "this is a program that prints")]

use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use embedded::objects::{Config, Objects, Readers};
use embedded::table::Table;
use shared::store::keys::Key;
use shared::store::table::Condition;
use shared::store::table::backend::{Attributes, Backend};
use shared::store::table::write::Operation;
use std::error::Error;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const MIB: usize = 1024 * 1024;

#[tokio::main]
async fn main() -> Outcome {
    let folder = match std::env::args().nth(1) {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    table(&folder.path().join("table.db")).await?;
    objects(folder.path()).await?;
    println!("peak memory {} MiB", peak()? / 1024);
    Ok(())
}

/// The peak resident size of this process, in KiB.
fn peak() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.and_then(|line| line.split_whitespace().next()).unwrap_or("0").parse()?)
}

/// Runs `one` in so many tasks at once, and prints how many calls were done in a second.
async fn rate<F, Fut>(name: &str, at_once: usize, one: F) -> Outcome
where
    F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Outcome> + Send + 'static,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..at_once as u64 {
        let one = one.clone();
        tasks.spawn(async move {
            let mut done = 0_u64;
            while begun.elapsed() < Duration::from_secs(2) {
                one(task * 1_000_000 + done).await?;
                done += 1;
            }
            Outcome::Ok(done)
        });
    }
    let mut done = 0;
    while let Some(task) = tasks.join_next().await {
        done += task??;
    }
    let each = begun.elapsed().as_micros() / u128::from(done.max(1));
    println!("{name}, {at_once} at once: {}/s, one each {each} µs", done / 2);
    Ok(())
}

fn key(number: u64) -> Key {
    Key { pk: format!("key{number}"), sk: "-".to_owned() }
}

async fn table(path: &std::path::Path) -> Outcome {
    let table = Table::open(path)?;
    let put = {
        let table = table.clone();
        move |number: u64| {
            let table = table.clone();
            async move {
                let text = format!("{{\"text\":\"{}\"}}", "x".repeat(300));
                let _written = table.transact(vec![Operation::Put(key(number), text, Condition::None)]).await?;
                Ok(())
            }
        }
    };
    let get = move |number: u64| {
        let table = table.clone();
        async move {
            table.get(&[key(number % 100)], Attributes::All).await?;
            Ok(())
        }
    };
    rate("transaction", 1, put.clone()).await?;
    rate("transaction", 32, put.clone()).await?;
    rate("get", 1, get.clone()).await?;
    rate("get", 32, get.clone()).await?;
    println!("and with 4 writers beside it:");
    let writers = tokio::spawn(async move { rate("transaction", 4, put).await });
    rate("get", 1, get).await?;
    writers.await?
}

async fn objects(folder: &std::path::Path) -> Outcome {
    let objects = Objects::open(Config {
        folder: folder.join("files"),
        index: folder.join("index.db"),
        bucket: "objects".to_owned(),
        region: "local".to_owned(),
        access_key_id: "id".to_owned(),
        secret_access_key: "secret".to_owned(),
        readers: Readers::Nobody,
    })?;
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .endpoint_url("http://objects")
        .force_path_style(true)
        .credentials_provider(Credentials::new("id", "secret", None, None, "speed"))
        .request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(aws_sdk_s3::config::ResponseChecksumValidation::WhenRequired)
        .http_client(objects.connector())
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);

    // The same 64 KiB over and over, in the pieces in which a network would deliver them.
    let piece = Bytes::from(vec![7_u8; 64 * 1024]);
    let pieces = 1024 * MIB / piece.len();
    for key in ["large", "larger"] {
        let piece = piece.clone();
        let stream = futures::stream::iter(
            (0..pieces).map(move |_| Ok::<_, std::io::Error>(http_body::Frame::data(piece.clone()))),
        );
        let body = http_body_util::StreamBody::new(stream);
        let begun = Instant::now();
        client
            .put_object()
            .bucket("objects")
            .key(key)
            .content_length(i64::try_from(1024 * MIB)?)
            .body(ByteStream::new(SdkBody::from_body_1_x(body)))
            .send()
            .await?;
        println!("put 1 GiB: {:.0} MB/s", 1073.74 / begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        let mut got = client.get_object().bucket("objects").key(key).send().await?.body;
        let mut size = 0;
        while let Some(chunk) = got.next().await {
            size += chunk?.len();
        }
        println!("get {} MiB: {:.0} MB/s", size / MIB, 1073.74 / begun.elapsed().as_secs_f64());
    }
    let put = {
        let client = client.clone();
        move |number: u64| {
            let client = client.clone();
            async move {
                let put = client.put_object().bucket("objects").key(format!("key{}", number % 100));
                put.body(ByteStream::from_static(&[1; 4096])).send().await?;
                Ok(())
            }
        }
    };
    let get = move |number: u64| {
        let client = client.clone();
        async move {
            let get = client.get_object().bucket("objects").key(format!("key{}", number % 100));
            get.send().await?.body.collect().await?;
            Ok(())
        }
    };
    rate("put 4 KiB", 1, put.clone()).await?;
    rate("put 4 KiB", 32, put).await?;
    rate("get 4 KiB", 1, get.clone()).await?;
    rate("get 4 KiB", 32, get).await
}
