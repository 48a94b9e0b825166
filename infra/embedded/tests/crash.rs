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

use common::{BUCKET, Store, bytes, client, open};
use embedded::table::Table;
use shared::store::keys::Key;
use shared::store::table::backend::{Attributes, Backend};
use shared::store::table::write::Operation;
use shared::store::table::{Condition, Written};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const FOLDER: &str = "EMBEDDED_CRASH_FOLDER";

fn open_table(folder: &Path) -> Table {
    Table::open(&folder.join("table.sqlite")).unwrap()
}

fn key(name: &str) -> Key {
    Key { pk: name.to_owned(), sk: "-".to_owned() }
}

/// Writes until it is killed, and prints what was acknowledged.
async fn write_until_killed(folder: &Path) {
    let objects = open(folder);
    let s3 = client(&objects);
    let table = open_table(folder);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_u32 {
        let (s3, table) = (s3.clone(), table.clone());
        tasks.spawn(async move {
            for number in 0..100_000_u32 {
                let name = format!("{task}-{number}");
                let body = bytes(20_000 + number as usize, task as u8);
                s3.put_object().bucket(BUCKET).key(&name).body(body.into()).send().await.unwrap();
                let put = Operation::Put(key(&name), "{}".to_owned(), Condition::None);
                assert_eq!(table.transact(vec![put]).await.unwrap(), Written::Done);
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
    let table = open_table(folder.path());
    for name in &done {
        let found = table.get(&[key(name)], Attributes::All).await.unwrap();
        assert!(found[0].is_some(), "row {name} is lost");
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
