//! The embedded table, through the SDK's own client.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "a test stops at the first surprise"
)]

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, Delete, Get, KeySchemaElement, KeyType, KeysAndAttributes, Put,
    ReturnConsumedCapacity, ReturnValue, ScalarAttributeType, TransactGetItem, TransactWriteItem, Update,
};
use embedded::table::Table;
use std::collections::HashMap;
use std::path::Path;
use tempfile::TempDir;

fn client(table: &Table) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("local"))
        .endpoint_url("http://table")
        .credentials_provider(Credentials::new("id", "secret", None, None, "test"))
        .http_client(table.connector())
        .build();
    Client::from_conf(config)
}

async fn open(path: &Path) -> (Table, Client) {
    let table = Table::open(path).unwrap();
    let client = client(&table);
    let attribute = |name: &str| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
    client
        .create_table()
        .table_name("rooms")
        .billing_mode(BillingMode::PayPerRequest)
        .attribute_definitions(attribute("pk"))
        .attribute_definitions(attribute("sk"))
        .key_schema(key("pk", KeyType::Hash))
        .key_schema(key("sk", KeyType::Range))
        .send()
        .await
        .unwrap();
    (table, client)
}

async fn fresh() -> (TempDir, Table, Client) {
    let folder = tempfile::tempdir().unwrap();
    let (table, client) = open(&folder.path().join("table.db")).await;
    (folder, table, client)
}

fn s(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn n(number: i64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn key(pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    HashMap::from([("pk".to_owned(), s(pk)), ("sk".to_owned(), s(sk))])
}

async fn put(client: &Client, pk: &str, sk: &str, value: i64) {
    let mut item = key(pk, sk);
    item.insert("v".to_owned(), n(value));
    client.put_item().table_name("rooms").set_item(Some(item)).send().await.unwrap();
}

async fn get(client: &Client, pk: &str, sk: &str) -> Option<HashMap<String, AttributeValue>> {
    let get = client.get_item().table_name("rooms").set_key(Some(key(pk, sk)));
    get.consistent_read(true).send().await.unwrap().item
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_write_happens_once() {
    let (_folder, _table, client) = fresh().await;
    let put = || {
        client
            .put_item()
            .table_name("rooms")
            .set_item(Some(key("a", "1")))
            .condition_expression("attribute_not_exists(pk)")
            .send()
    };
    put().await.unwrap();
    let error = put().await.unwrap_err().into_service_error();
    assert!(error.is_conditional_check_failed_exception(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_conditional_writers_exactly_one_wins() {
    let (_folder, _table, client) = fresh().await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let client = client.clone();
        tasks.spawn(async move {
            client
                .put_item()
                .table_name("rooms")
                .set_item(Some(key("a", "1")))
                .condition_expression("attribute_not_exists(pk)")
                .send()
                .await
                .is_ok()
        });
    }
    assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn update_expressions_add_set_and_default() {
    let (_folder, _table, client) = fresh().await;
    for expected in ["5", "10"] {
        let updated = client
            .update_item()
            .table_name("rooms")
            .set_key(Some(key("a", "1")))
            .update_expression("ADD used :n SET seen = if_not_exists(seen, :first), top = :n")
            .expression_attribute_values(":n", n(5))
            .expression_attribute_values(":first", s("first"))
            .return_values(ReturnValue::AllNew)
            .send()
            .await
            .unwrap()
            .attributes
            .unwrap();
        assert_eq!(updated["used"].as_n().unwrap(), expected);
        assert_eq!(updated["seen"], s("first"));
        assert_eq!(updated["top"], n(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_transaction_names_its_reasons_in_order_and_changes_nothing() {
    let (_folder, _table, client) = fresh().await;
    put(&client, "a", "there", 1).await;
    let put = |sk: &str| {
        let put = Put::builder()
            .table_name("rooms")
            .set_item(Some(key("a", sk)))
            .condition_expression("attribute_not_exists(pk)");
        TransactWriteItem::builder().put(put.build().unwrap()).build()
    };
    let delete = Delete::builder()
        .table_name("rooms")
        .set_key(Some(key("a", "gone")))
        .condition_expression("attribute_exists(pk)");
    let error = client
        .transact_write_items()
        .transact_items(put("new"))
        .transact_items(put("there"))
        .transact_items(TransactWriteItem::builder().delete(delete.build().unwrap()).build())
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error else {
        panic!("{error:?}");
    };
    let codes: Vec<_> = cancelled.cancellation_reasons().iter().filter_map(|r| r.code()).collect();
    assert_eq!(codes, ["None", "ConditionalCheckFailed", "ConditionalCheckFailed"]);
    assert_eq!(get(&client, "a", "new").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_transactions_are_not_kept() {
    let (_folder, _table, client) = fresh().await;
    let update = Update::builder()
        .table_name("rooms")
        .set_key(Some(key("a", "1")))
        .update_expression("ADD v :one")
        .expression_attribute_values(":one", n(1))
        .build()
        .unwrap();
    let send = |token: Option<&str>| {
        client
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().update(update.clone()).build())
            .set_client_request_token(token.map(str::to_owned))
            .send()
    };
    // Who sends a token twice has lost an answer, and in this process none is lost. Keeping them made each commit look
    // through all those of the last ten minutes.
    send(Some("one-token")).await.unwrap();
    send(Some("one-token")).await.unwrap();
    assert_eq!(get(&client, "a", "1").await.unwrap()["v"], n(2));
    // The SDK makes up a different token each time.
    send(None).await.unwrap();
    send(None).await.unwrap();
    assert_eq!(get(&client, "a", "1").await.unwrap()["v"], n(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_read_finds_what_was_just_written() {
    let (_folder, _table, client) = fresh().await;
    for number in 0..20 {
        put(&client, "a", &number.to_string(), number).await;
        // Each reader in turn must see it at once.
        assert!(get(&client, "a", &number.to_string()).await.is_some());
    }
    let keys = (0..25).map(|number| key("a", &number.to_string())).collect();
    let keys = KeysAndAttributes::builder().set_keys(Some(keys)).build().unwrap();
    let output = client
        .batch_get_item()
        .request_items("rooms", keys)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(output.responses.as_ref().unwrap()["rooms"].len(), 20);
    assert!(output.unprocessed_keys.is_none_or(|keys| keys.is_empty()));
    let capacity: f64 = output.consumed_capacity.unwrap().iter().filter_map(|c| c.capacity_units).sum();
    assert!((capacity - 12.5).abs() < f64::EPSILON, "{capacity}");
}

/// Plain reads are answered from the stored text. If the capacity is asked for too, the library itself answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_read_gives_what_the_library_gives() {
    let (_folder, _table, client) = fresh().await;
    let texts = ["a", "ü#\u{1f980}", "quote\" back\\ line\n tab\t null\u{1}", "S:", "a/b/c"];
    for (number, text) in texts.iter().enumerate() {
        let blob = aws_smithy_types::Blob::new([0, 1, 254, 255]);
        let mut item = key(text, text);
        item.extend(
            [
                ("s", s(text)),
                ("n", AttributeValue::N("-1.50".to_owned())),
                ("b", AttributeValue::B(blob.clone())),
                ("bool", AttributeValue::Bool(number == 1)),
                ("null", AttributeValue::Null(true)),
                ("ss", AttributeValue::Ss(texts.map(str::to_owned).to_vec())),
                ("ns", AttributeValue::Ns(["10", "9", "1e3"].map(str::to_owned).to_vec())),
                ("bs", AttributeValue::Bs(vec![blob])),
                ("l", AttributeValue::L(vec![s(""), n(1), AttributeValue::L(Vec::new())])),
                ("m", AttributeValue::M([(text.to_string(), n(2))].into())),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        client.put_item().table_name("rooms").set_item(Some(item)).send().await.unwrap();
    }
    let both = [None, Some(ReturnConsumedCapacity::Total)];
    for text in texts.into_iter().chain(["missing"]) {
        let get = |capacity| {
            let get = client.get_item().table_name("rooms").set_key(Some(key(text, text)));
            get.consistent_read(true).set_return_consumed_capacity(capacity).send()
        };
        let [plain, asked] = both.clone().map(get);
        let (plain, asked) = (plain.await.unwrap().item, asked.await.unwrap().item);
        assert_eq!((&plain, plain.is_some()), (&asked, text != "missing"));
    }
    let batch = |keys: Vec<_>, capacity| {
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build().unwrap();
        client.batch_get_item().request_items("rooms", keys).set_return_consumed_capacity(capacity).send()
    };
    let keys: Vec<_> = texts.into_iter().chain(["missing"]).map(|text| key(text, text)).collect();
    let [plain, asked] = both.clone().map(|capacity| batch(keys.clone(), capacity));
    let (plain, asked) = (plain.await.unwrap(), asked.await.unwrap());
    let sorted = |answer: &aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput| {
        let mut items = answer.responses.as_ref().unwrap()["rooms"].clone();
        items.sort_by_key(|item| item["pk"].as_s().unwrap().clone());
        items
    };
    assert_eq!(sorted(&plain).len(), texts.len());
    assert_eq!(sorted(&plain), sorted(&asked));
    assert_eq!(plain.unprocessed_keys, asked.unprocessed_keys);
    // What must be refused is refused in the library's words.
    let long = "x".repeat(3000);
    for keys in [vec![], vec![key("a", "1"); 2], vec![key("", "1")], vec![key(&long, "1")], vec![key("a", "1"); 101]] {
        let [plain, asked] = both.clone().map(|capacity| batch(keys.clone(), capacity));
        let words = |error: aws_sdk_dynamodb::error::SdkError<_, _>| {
            let error: aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemError = error.into_service_error();
            error.meta().message().unwrap().to_owned()
        };
        assert_eq!(words(plain.await.unwrap_err()), words(asked.await.unwrap_err()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_by_prefix_comes_in_pages() {
    let (_folder, _table, client) = fresh().await;
    for number in 0..25 {
        put(&client, "a", &format!("tag#{number:02}"), number).await;
        put(&client, "a", &format!("zzz#{number:02}"), number).await;
    }
    let mut seen = Vec::new();
    let mut start = None;
    let mut pages = 0;
    loop {
        let page = client
            .query()
            .table_name("rooms")
            .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
            .expression_attribute_values(":pk", s("a"))
            .expression_attribute_values(":prefix", s("tag#"))
            .limit(10)
            .set_exclusive_start_key(start)
            .send()
            .await
            .unwrap();
        pages += 1;
        seen.extend(page.items().iter().map(|item| item["sk"].as_s().unwrap().clone()));
        start = page.last_evaluated_key;
        if start.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen, (0..25).map(|number| format!("tag#{number:02}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_filters() {
    let (_folder, _table, client) = fresh().await;
    for number in 0..10 {
        put(&client, &format!("p{number}"), "1", number).await;
    }
    let scan = client
        .scan()
        .table_name("rooms")
        .filter_expression("#v >= :least")
        .expression_attribute_names("#v", "v")
        .expression_attribute_values(":least", n(7))
        .send()
        .await
        .unwrap();
    assert_eq!((scan.count, scan.scanned_count), (3, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn consumed_capacity_is_counted_as_dynamodb_does() {
    let (_folder, _table, client) = fresh().await;
    let mut item = key("a", "1");
    item.insert("blob".to_owned(), s(&"x".repeat(5000)));
    let put = client
        .put_item()
        .table_name("rooms")
        .set_item(Some(item))
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(put.consumed_capacity.unwrap().capacity_units, Some(5.0));
    let get = client
        .get_item()
        .table_name("rooms")
        .set_key(Some(key("a", "1")))
        .consistent_read(true)
        .return_consumed_capacity(ReturnConsumedCapacity::Total)
        .send()
        .await
        .unwrap();
    assert_eq!(get.consumed_capacity.unwrap().capacity_units, Some(2.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_read_answers_in_order() {
    let (_folder, _table, client) = fresh().await;
    put(&client, "a", "1", 1).await;
    let get = |sk: &str| {
        let get = Get::builder().table_name("rooms").set_key(Some(key("a", sk))).build().unwrap();
        TransactGetItem::builder().get(get).build()
    };
    let output =
        client.transact_get_items().transact_items(get("missing")).transact_items(get("1")).send().await.unwrap();
    let items: Vec<_> = output.responses().iter().map(|r| r.item().is_some()).collect();
    assert_eq!(items, [false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_tables_and_operations_are_refused() {
    let (_folder, _table, client) = fresh().await;
    let error = client.get_item().table_name("other").set_key(Some(key("a", "1"))).send().await.unwrap_err();
    assert!(error.into_service_error().is_resource_not_found_exception());
    let error = client.list_backups().send().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("ValidationException"));
    assert!(error.meta().message().unwrap().contains("ListBackups"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_reopening_and_in_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.db");
    let (table, first) = open(&path).await;
    put(&first, "a", "1", 7).await;
    let taken = folder.path().join("snapshot.db");
    embedded::snapshot(&path, &taken, &folder.path().join("in-use")).unwrap();
    put(&first, "a", "2", 8).await;
    drop((table, first));
    let again = client(&Table::open(&path).unwrap());
    assert_eq!(get(&again, "a", "1").await.unwrap()["v"], n(7));
    assert_eq!(get(&again, "a", "2").await.unwrap()["v"], n(8));
    let copy = client(&Table::open(&taken).unwrap());
    assert_eq!(get(&copy, "a", "1").await.unwrap()["v"], n(7));
    assert_eq!(get(&copy, "a", "2").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_for_a_writer() {
    let (folder, _table, client) = fresh().await;
    put(&client, "a", "1", 1).await;
    // Another connection holds the write lock, as a writer waiting for the disk does.
    let other = rusqlite::Connection::open(folder.path().join("table.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let read = tokio::time::timeout(std::time::Duration::from_secs(2), get(&client, "a", "1"));
    assert!(read.await.unwrap().is_some());
    other.execute_batch("ROLLBACK").unwrap();
}

/// `synchronous` belongs to a connection, and the library's can't be asked. But the library never sets it outside of
/// bulk loading, so its connections have the bundled build's default, as this one has.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_in_wal_mode_with_full_synchronisation() {
    let (folder, _table, client) = fresh().await;
    put(&client, "a", "1", 1).await;
    let other = rusqlite::Connection::open(folder.path().join("table.db")).unwrap();
    let mode: String = other.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
    let synchronous: i64 = other.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
}
