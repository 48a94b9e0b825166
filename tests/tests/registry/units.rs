//! What operations cost on AWS, in read and write units of the table and calls of the bucket: the numbers of
//! `docs/cost.md`, counted. With `UPDATE=1` they are written there.

use crate::library::{Parts, hash, opened_parts, sif};
use reqwest::Method;
use serde_json::json;
use shared::domain::Digest;
use shared::service::sweep::{Ages, sweep};
use shared::service::uploads::verify;
use stackroom_tests::cost::{Meter, Row, Tally, Units, of_library, of_registry};
use stackroom_tests::functions::{only_in_one_process, only_on_one_server};
use stackroom_tests::{Caller, Server, send};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Images that are pushed to see what each of them adds.
const MORE: u32 = 64;

struct Counted {
    rows: Vec<Row>,
    /// Read units of a sweep for each image in the library.
    sweeping: f64,
    /// The same of a search, for each image that the caller may browse.
    searching: f64,
}

async fn metered(settings: &[(&str, &str)]) -> (Server, Meter) {
    let meter = Meter::default();
    let server = Server::start_on_dynamodb(settings, &meter).await;
    (server, meter)
}

/// An upload that is verified later: sealed when its client is done, and then verified without any client.
async fn of_verifying(rows: &mut Vec<Row>) {
    let (server, meter) = metered(&[("STACKROOM_VERIFY_AT_ONCE", "1000")]).await;
    let alice = server.user("alice", 0).await;
    let bytes = sif(1);
    let parts: Parts = opened_parts(&alice, "alice/tools/bb", &bytes).await;
    let etags = parts.send_all(&alice, &bytes).await;
    let mut tally = Tally::new(&meter);
    parts.complete_all(&alice, &etags).await.ok();
    tally.forget();
    let waiting = verify::listed(&server.local.app).await.unwrap();
    tally.forget();
    verify::upload(&server.local.app, waiting[0]).await.unwrap();
    tally.row("verifying an upload of up to 4 GiB later");
    // It is an invocation, if no request.
    rows.extend(tally.rows.into_iter().map(|row| Row { requests: 1, ..row }));
}

async fn swept(server: &Server, meter: &Meter) -> Units {
    meter.take();
    let swept = sweep(&server.local.app, Ages::safe(&server.local.app)).await.unwrap();
    assert_eq!((swept.failed, swept.wrong_accounts.len()), (0, 0));
    meter.take()
}

async fn searched(server: &Server, meter: &Meter, alice: &Caller, value: &str) -> Units {
    server.followed().await;
    meter.take();
    alice.get(&format!("/v1/search?value={value}")).await.ok();
    meter.take()
}

async fn count() -> Counted {
    let (server, meter) = metered(&[]).await;
    let alice = server.user("alice", 0).await;
    let mut tally = Tally::new(&meter);
    of_library(&mut tally, &alice, &server.nobody, true).await;
    of_registry(&mut tally, &alice, &server.nobody).await;
    let mut rows = tally.rows;
    of_verifying(&mut rows).await;

    let (server, meter) = metered(&[]).await;
    let alice = server.user("alice", 0).await;
    let units = swept(&server, &meter).await;
    rows.push(Row { name: "sweep of an empty library", requests: 1, units });
    alice.push("alice/tools/bb", "first", "amd64", &sif(1000)).await.ok();
    let search = searched(&server, &meter, &alice, "tools").await;
    let units = searched(&server, &meter, &alice, "first").await;
    rows.push(Row { name: "search that finds an image and its container", requests: 1, units });
    let one = searched(&server, &meter, &alice, "first&arch=amd64").await;
    let before = swept(&server, &meter).await;
    for number in 1..=MORE {
        alice.push("alice/tools/bb", &format!("v{number}"), "amd64", &sif(1000 + u64::from(number))).await.ok();
    }
    let more = searched(&server, &meter, &alice, "tools").await;
    let same = searched(&server, &meter, &alice, "first&arch=amd64").await;
    assert_eq!(same, one, "a search costs by what it finds, and not by what is there");
    let after = swept(&server, &meter).await;
    let each = |after: Units, before: Units| (after.read - before.read) / f64::from(MORE);
    Counted { rows, sweeping: each(after, before), searching: each(more, search) }
}

/// What requests consume that ask for one thing, or change it, in a container with so many others.
async fn beside(others: usize) -> Vec<(&'static str, f64, f64)> {
    let (server, meter) = metered(&[]).await;
    let alice = server.user("alice", 0).await;
    let agent = "Apptainer/1.4.5 (Linux amd64) Go/1.24.6";
    let container = alice.container("alice/tools/bb").await;
    for number in 0..others {
        let bytes = sif(1000 + u64::try_from(number).unwrap());
        alice.push("alice/tools/bb", &format!("o{number}"), "amd64", &bytes).await.ok();
    }
    let manifest = |layer: &[u8]| {
        let blob = |bytes: &[u8]| json!({ "mediaType": "application/octet-stream", "size": bytes.len(), "digest": Digest::of(bytes) });
        json!({ "schemaVersion": 2, "config": blob(b"{}"), "layers": [blob(layer)] }).to_string()
    };
    let put = async |path: String, body: Vec<u8>| {
        let request =
            alice.request(Method::PUT, &path).header("content-type", "application/vnd.oci.image.manifest.v1+json");
        assert_eq!(send(request.body(body)).await.status.as_u16(), 201);
    };
    for bytes in [b"{}".as_slice(), b"layer"] {
        let upload = format!("/v2/alice/tools/bb/blobs/uploads/?digest={}", Digest::of(bytes));
        assert_eq!(send(alice.request(Method::POST, &upload).body(bytes.to_vec())).await.status.as_u16(), 201);
    }
    let (bytes, document) = (sif(1), manifest(b"layer"));
    let mut found = Vec::new();
    let mut note = |name| {
        let Units { read, write, .. } = meter.take();
        found.push((name, read, write));
    };
    meter.take();
    alice.push("alice/tools/bb", "v1", "amd64", &bytes).await.ok();
    note("library push");
    for path in [format!("/v2/tags/{container}"), "/v1/containers/alice/tools/bb".to_owned()] {
        send(alice.request(Method::GET, &path).header("user-agent", agent)).await.ok();
    }
    note("what else a client asks for in a push");
    alice.get("/v1/images/alice/tools/bb:v1?arch=amd64").await.ok();
    note("lookup");
    put("/v2/alice/tools/bb/manifests/m".to_owned(), document.clone().into()).await;
    note("push of a manifest");
    let path = format!("/v2/alice/tools/bb/manifests/{}", Digest::of(document.as_bytes()));
    assert_eq!(alice.delete(&path).await.status.as_u16(), 202);
    note("delete of a manifest");
    assert_eq!(alice.delete("/v2/alice/tools/bb/manifests/v1").await.status.as_u16(), 202);
    note("untag");
    alice.delete(&format!("/v1/images/alice/tools/bb:{}?arch=amd64", hash(&bytes))).await.ok();
    note("delete of an image");
    server.sweep_all().await;
    found
}

#[tokio::test]
async fn what_one_thing_costs_does_not_grow_with_its_container() {
    if only_in_one_process("it counts the calls of this process") || only_on_one_server("it counts those of one server")
    {
        return;
    }
    // More than clients are shown that look at none.
    let (few, many) = (beside(12).await, beside(120).await);
    for ((name, read, write), (_, more_read, more_write)) in few.into_iter().zip(many) {
        assert_eq!((more_read, more_write), (read, write), "{name}");
    }
}

/// The numbers in the first table of the page whose cells have a name and a number: its assumptions.
struct Assumed(BTreeMap<String, f64>);

impl Assumed {
    fn of(page: &str) -> Self {
        let cells = page.lines().filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
            let name = cells.next()?.strip_suffix('`')?;
            Some((name.to_owned(), cells.next()?.parse().ok()?))
        });
        Self(cells.collect())
    }

    fn at(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("the page does not say `{name}`"))
    }

    /// What a million of these cost, in US dollars: the formula of the page.
    fn million(&self, row: &Row) -> f64 {
        let request = self.at("gateway")
            + self.at("invocation")
            + 1e6 * self.invoked()
            + self.at("log-line") / 1024.0 * self.at("logs") * 1e6 / (1024.0 * 1024.0);
        let Units { read, write, puts, gets, .. } = row.units;
        f64::from(row.requests) * request
            + read * self.at("read-unit")
            + write * self.at("write-unit")
            + f64::from(puts) * self.at("s3-put") * 1000.0
            + f64::from(gets) * self.at("s3-get") * 1000.0
    }

    /// The time of one invocation.
    fn invoked(&self) -> f64 {
        self.at("milliseconds") / 1000.0 * self.at("memory") / 1024.0 * self.at("gigabyte-second")
    }
}

fn dollars(sum: f64) -> String {
    if sum < 10.0 { format!("{sum:.2}") } else { format!("{sum:.0}") }
}

fn table(counted: &Counted, assumed: &Assumed) -> String {
    let mut text =
        "| operation | requests | read units | write units | S3 `PUT`s | S3 `GET`s | rows read in `E#` | rows \
                    written in `E#` | $ a million |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in &counted.rows {
        let cells = row.cells().join(" | ");
        writeln!(text, "| {} | {cells} | {} |", row.name, dollars(assumed.million(row))).unwrap();
    }
    text
}

fn sums(counted: &Counted, assumed: &Assumed) -> String {
    let million = |name: &str, times: f64| {
        let row = counted.rows.iter().find(|row| row.name == name);
        times * assumed.million(row.unwrap_or_else(|| panic!("{name} is not counted")))
    };
    let thousand = (counted.sweeping * 1000.0 / 10.0).round() * 10.0;
    let gets = 1e6 * assumed.at("image") / assumed.at("range") * assumed.at("s3-get") / 1000.0;
    let pulled = 1e6 * assumed.at("image") / 1024.0 * assumed.at("egress");
    let library = million("library pull by tag", 1.0) + gets - 1000.0 * assumed.at("s3-get");
    let registry = million("registry token, for nobody", 1.0)
        + million("registry HEAD of a manifest by tag", 1.0)
        + million("registry GET of a manifest by digest", 1.0)
        + million("registry GET of a blob", 6.0);
    let push = million("registry token, for a user", 1.0)
        + million("registry push of a blob, PATCH and PUT", 6.0)
        + million("registry push of a manifest with 5 layers", 1.0);
    let hours = 730.0;
    let idle = hours / 1e6 * million("sweep of an empty library", 1.0) + assumed.at("secret");
    let scans = |images: f64| hours * images / 1000.0 * thousand / 1e6 * assumed.at("read-unit");
    let rows = [
        ("a million pulls of an image through the library, without the bytes", library),
        ("a million pulls of an image with 5 layers through the registry, without the bytes", registry),
        ("the bytes of a million pulls", pulled),
        ("a million lookups by tag", million("library lookup by tag", 1.0)),
        ("a million pushes through the library", million("library push, one PUT", 1.0)),
        ("a million pushes of an image with 5 new layers through the registry", push),
        ("a TiB stored, a month", 1024.0 * assumed.at("s3-storage")),
        ("a TiB pulled", 1024.0 * assumed.at("egress")),
        ("an idle library, a month", idle),
        ("the sweeps of 100 000 images, a month", scans(1e5)),
        ("the sweeps of 1 000 000 images, a month", scans(1e6)),
    ];
    let mut text = "| what | $ |\n|---|---|\n".to_owned();
    for (what, sum) in rows {
        writeln!(text, "| {what} | {} |", dollars(sum)).unwrap();
    }
    text
}

/// What stands between two comments of the page.
fn part<'a>(page: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    page.split(&begin).nth(1).and_then(|rest| rest.split(&end).next()).unwrap_or_else(|| panic!("no {name}"))
}

/// The number before a phrase of the page.
fn said(page: &str, phrase: &str) -> f64 {
    let before = page.split(phrase).next().filter(|before| before.len() < page.len());
    let word = before.and_then(|before| before.split_whitespace().next_back());
    word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number before `{phrase}`"))
}

#[tokio::test]
async fn the_page_of_costs_has_what_operations_consume() {
    if only_in_one_process("it counts the calls of this process") || only_on_one_server("it counts those of one server")
    {
        return;
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/cost.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    let (counted, assumed) = (count().await, Assumed::of(&page));
    let parts = [("counted", table(&counted, &assumed)), ("sums", sums(&counted, &assumed))];
    if std::env::var_os("UPDATE").is_some() {
        for (name, text) in &parts {
            let old = format!("<!-- {name} -->\n{}<!-- end", part(&page, name));
            page = page.replace(&old, &format!("<!-- {name} -->\n{text}<!-- end"));
        }
        std::fs::write(&path, &page).unwrap();
    }
    for (name, text) in &parts {
        assert_eq!(part(&page, name), text, "UPDATE=1 writes it");
    }
    let counts = counted.rows.iter().map(|row| format!("{:<56}{}", row.name, row.cells().join("  ")));
    insta::assert_snapshot!(counts.collect::<Vec<_>>().join("\n"));
    // These depend on how long names and numbers are, so they are said with two digits.
    for (said, is) in [
        (said(&page, " read units of a sweep for each 1000 images"), counted.sweeping * 1000.0),
        (said(&page, " read units of a search for each 100 images that it finds"), counted.searching * 100.0),
    ] {
        assert!((said - is).abs() < 0.05 * is, "the page says {said}, and it is {is}");
    }
}
