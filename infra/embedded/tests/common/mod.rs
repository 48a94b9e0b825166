//! An object store in a temporary folder, and clients for it.
#![allow(dead_code, reason = "each test binary uses some of it")]

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use embedded::objects::{Config, Objects, Readers};
use std::path::Path;
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "objects";
pub(crate) const KEY_ID: &str = "AKIALOCAL";
pub(crate) const SECRET: &str = "a secret of this store";
pub(crate) const MIB: usize = 1024 * 1024;

pub(crate) struct Store {
    pub(crate) folder: TempDir,
    pub(crate) objects: Objects,
    pub(crate) s3: Client,
}

pub(crate) fn open(folder: &Path) -> Objects {
    open_for(folder, Readers::Nobody)
}

pub(crate) fn open_for(folder: &Path, readers: Readers) -> Objects {
    Objects::open(Config {
        folder: folder.join("files"),
        index: folder.join("index.db"),
        bucket: BUCKET.to_owned(),
        region: "local".to_owned(),
        access_key_id: KEY_ID.to_owned(),
        secret_access_key: SECRET.to_owned(),
        readers,
    })
    .unwrap()
}

pub(crate) fn client(objects: &Objects) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .endpoint_url("http://lab.example:8080")
        .force_path_style(true)
        .credentials_provider(Credentials::new(KEY_ID, SECRET, None, None, "test"))
        .request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(aws_sdk_s3::config::ResponseChecksumValidation::WhenRequired)
        .http_client(objects.connector())
        .build();
    Client::from_conf(config)
}

pub(crate) fn store() -> Store {
    store_for(Readers::Nobody)
}

pub(crate) fn store_for(readers: Readers) -> Store {
    let folder = tempfile::tempdir().unwrap();
    let objects = open_for(folder.path(), readers);
    let s3 = client(&objects);
    Store { folder, objects, s3 }
}

impl Store {
    pub(crate) async fn put(&self, key: &str, body: impl Into<Vec<u8>>) -> String {
        let put = self.s3.put_object().bucket(BUCKET).key(key).body(body.into().into());
        put.send().await.unwrap().e_tag.unwrap()
    }

    pub(crate) async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let output = match self.s3.get_object().bucket(BUCKET).key(key).send().await {
            Ok(output) => output,
            Err(error) => {
                assert!(error.into_service_error().is_no_such_key());
                return None;
            }
        };
        Some(output.body.collect().await.unwrap().to_vec())
    }

    /// The files on disk: a refused or deleted object must leave none.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in std::fs::read_dir(self.folder.path().join("files")).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                found.push(file.unwrap().file_name().into_string().unwrap());
            }
        }
        found
    }
}

/// Bytes whose pattern does not repeat at the size of a chunk.
pub(crate) fn bytes(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| ((at % 251) as u8).wrapping_add((at / 65_521) as u8).wrapping_add(seed)).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
