//! What operations consume by DynamoDB Local's own account, compared with what the page of costs says.

use crate::{PATIENCE, Server};
use stackroom_tests::cost::{Meter, Tally, of_library, of_registry};
use stackroom_tests::foreign::Place;
use std::path::PathBuf;

/// The cells of the row of the page that begins with a name.
fn said(page: &str, name: &str) -> Vec<String> {
    let row = page.lines().find_map(|line| line.strip_prefix(&format!("| {name} | ")));
    let row = row.unwrap_or_else(|| panic!("the page does not have {name}"));
    row.split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[tokio::test]
async fn dynamodb_local_counts_the_read_units_that_the_page_of_costs_says() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/cost.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut place = Place::all().into_iter().find(|one| one.name.starts_with("DynamoDB-Local")).unwrap();
    let meter = Meter::default();
    place.dynamodb = meter.proxy(&place.dynamodb).await;
    let counting = async {
        let server = Server::start(place, None).await;
        let alice = server.user("alice", 0).await;
        let mut tally = Tally::new(&meter);
        of_library(&mut tally, &alice, &server.nobody, server.pins).await;
        of_registry(&mut tally, &alice, &server.nobody).await;
        tally.rows
    };
    let rows = tokio::time::timeout(PATIENCE, counting).await.unwrap();
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for row in rows {
        let (cells, said) = (row.cells(), said(&page, row.name));
        println!("{}: {cells:?}", row.name);
        // It counts transactions otherwise than AWS says that `DynamoDB` does: each write of them once, or not at all.
        let reads_only = said[2] == "0";
        compared += usize::from(reads_only);
        if reads_only && cells[..3] != said[..3] {
            wrong.push(format!("{}: {:?}, and the page says {:?}", row.name, &cells[..3], &said[..3]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 5, "only {compared} operations that write nothing");
}
