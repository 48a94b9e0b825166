//! What was acknowledged is there after `kill -9`. The writer is this test binary, started again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "a test stops at the first surprise"
)]

mod common;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use common::{BUCKET, Store, bytes, client, open};
use embedded::table::Table;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER: &str = "EMBEDDED_CRASH_FOLDER";

fn table_client(folder: &Path) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .endpoint_url("http://table")
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(Table::open(&folder.join("table.db")).unwrap().connector())
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

async fn make_table(folder: &Path) {
    let pk = AttributeDefinition::builder().attribute_name("pk");
    let hash = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash);
    table_client(folder)
        .create_table()
        .table_name("rooms")
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(pk.attribute_type(ScalarAttributeType::S).build().unwrap())
        .key_schema(hash.build().unwrap())
        .send()
        .await
        .unwrap();
}

/// Writes until it is killed, and prints what was acknowledged.
async fn write_until_killed(folder: &Path) {
    let objects = open(folder);
    let s3 = client(&objects);
    let table = table_client(folder);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_u32 {
        let (s3, table) = (s3.clone(), table.clone());
        tasks.spawn(async move {
            for number in 0..100_000_u32 {
                let name = format!("{task}-{number}");
                let body = bytes(20_000 + number as usize, task as u8);
                s3.put_object().bucket(BUCKET).key(&name).body(body.into()).send().await.unwrap();
                let put = table.put_item().table_name("rooms");
                put.item("pk", AttributeValue::S(name.clone())).send().await.unwrap();
                writeln!(std::io::stdout().lock(), "done {name}").unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    // The writer is this same test in a process of its own.
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write_until_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    make_table(folder.path()).await;
    let mut done = Vec::new();
    for _ in 0..3 {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "what_was_acknowledged_survives_kill_9"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .filter_map(|line| Some(line.strip_prefix("done ")?.to_owned()))
                .collect::<Vec<_>>()
        });
        std::thread::sleep(Duration::from_millis(700));
        writer.kill().unwrap();
        writer.wait().unwrap();
        done.extend(reader.join().unwrap());
    }
    assert!(done.len() > 20, "only {} writes", done.len());

    let objects = open(folder.path());
    let s3 = client(&objects);
    let table = table_client(folder.path());
    for name in &done {
        let get = table.get_item().table_name("rooms").consistent_read(true);
        let item = get.key("pk", AttributeValue::S(name.clone())).send().await.unwrap();
        assert!(item.item.is_some(), "row {name} is lost");
    }
    // And whatever is listed, acknowledged or not, is complete.
    let store = Store { folder, objects, s3 };
    let mut listed = Vec::new();
    let mut pages = store.s3.list_objects_v2().bucket(BUCKET).into_paginator().send();
    while let Some(page) = pages.next().await {
        listed.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    for name in &done {
        assert!(listed.contains(name), "object {name} is lost");
    }
    for name in &listed {
        let (task, number) = name.split_once('-').unwrap();
        let expected = bytes(20_000 + number.parse::<usize>().unwrap(), task.parse().unwrap());
        assert!(store.get(name).await.unwrap() == expected, "object {name} is torn");
    }
    store.objects.collect(Duration::ZERO).unwrap();
    assert_eq!(store.files().len(), listed.len());
}
