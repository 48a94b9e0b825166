//! Telemetry: what a request did, collected while it runs and logged as one line at its end; and the sums of all.

pub mod counts;
pub mod emf;

pub use self::counts::{Count, Counts};

use std::any::Any;
use std::future::Future;
use std::io::{BufWriter, IsTerminal, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

tokio::task_local! {
    static RECORD: Arc<Record>;
}

/// The address from which a request came, as far as it is known. Whoever takes requests in adds it to their extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub IpAddr);

/// Where all that requests count is summed up. Whoever wants the sums adds this to the extensions of each request.
#[derive(Debug, Clone)]
pub struct Sums(pub Arc<Counts>);

/// What is known of a request from outside.
#[derive(Debug, Default)]
pub struct Origin {
    /// Where it came from.
    pub from: Option<Address>,
    /// Where what it counts is added, too.
    pub sums: Option<Sums>,
}

/// The facts about a request so far.
#[derive(Debug, Default)]
pub struct Record {
    origin: Origin,
    counts: Counts,
    words: Mutex<Words>,
}

#[derive(Debug, Default)]
struct Words {
    caller: &'static str,
    decision: &'static str,
    cause: Option<String>,
    route: String,
    noted: Option<Noted>,
}

/// What work noted for whoever records it.
pub type Noted = Arc<dyn Any + Send + Sync>;

/// The summary of a request, for its log line.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Rounds of reads to the table.
    pub reads: u32,
    /// Writes to the table.
    pub writes: u32,
    /// The kind of caller.
    pub caller: &'static str,
    /// What was decided last.
    pub decision: &'static str,
    /// The internal cause of an error, for the log.
    pub cause: Option<String>,
    /// The route that it took, if there is one.
    pub route: String,
    /// What it noted.
    pub noted: Option<Noted>,
    /// What it let somebody download.
    pub download: Option<String>,
    /// All that it counted.
    pub counts: Counts,
}

/// Runs `work` for a request, or for something that is done without one, and returns its result with a summary of what
/// it did.
pub async fn recorded<T>(origin: Origin, work: impl Future<Output = T>) -> (T, Summary) {
    let record = Arc::new(Record { origin, ..Record::default() });
    let result = RECORD.scope(Arc::clone(&record), work).await;
    let words = record.words.lock().map(|mut words| std::mem::take(&mut *words)).unwrap_or_default();
    let Words { caller, decision, cause, route, noted } = words;
    let counts = record.counts.clone();
    let number = |count| u32::try_from(counts.of(count)).unwrap_or(u32::MAX);
    let (reads, writes) = (number(Count::TableReads), number(Count::TableWrites));
    (result, Summary { reads, writes, caller, decision, cause, route, noted, download: None, counts })
}

/// Runs `work` to its end even if nobody waits for it any more, for example after a client's connection breaks. What
/// it does is still recorded for the same request.
pub fn spawn_detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    match RECORD.try_with(Arc::clone) {
        Ok(record) => tokio::spawn(RECORD.scope(record, work)),
        Err(_) => tokio::spawn(work),
    }
}

fn note(change: impl FnOnce(&Record)) {
    // Outside a request, nothing is recorded.
    let _ = RECORD.try_with(|record| change(record));
}

fn word(change: impl FnOnce(&mut Words)) {
    note(|record| {
        if let Ok(mut words) = record.words.lock() {
            change(&mut words);
        }
    });
}

/// The address from which this request came, if it is known.
pub(crate) fn from() -> Option<IpAddr> {
    RECORD.try_with(|record| record.origin.from).ok().flatten().map(|Address(address)| address)
}

/// Counts something, for the request and for the sums.
pub(crate) fn count(what: Count, number: u64) {
    note(|record| {
        record.counts.add(what, number);
        if let Some(Sums(sums)) = &record.origin.sums {
            sums.add(what, number);
        }
    });
}

/// The table was read.
pub(crate) fn read() {
    count(Count::TableReads, 1);
}

/// The table was written.
pub(crate) fn wrote() {
    count(Count::TableWrites, 1);
}

/// Records the caller, once it is known.
pub(crate) fn caller(kind: &'static str) {
    word(|words| words.caller = kind);
}

/// Records the route, once it is known.
pub(crate) fn route(path: &str) {
    word(|words| path.clone_into(&mut words.route));
}

/// Notes something for whoever records this work.
pub(crate) fn noted(noted: Noted) {
    word(|words| words.noted = Some(noted));
}

/// Something was decided.
pub(crate) fn decided(decision: &'static str) {
    word(|words| words.decision = decision);
}

/// Records an internal error, which is never shown to the client.
pub fn cause(text: String) {
    word(|words| words.cause = Some(text));
}

/// The default for `STACKROOM_LOG`. The S3 interface logs every refusal as an error; our own errors are logged
/// elsewhere.
pub const FILTER: &str = "info,s3s=off";

/// The most lines that wait to be written. Further ones are lost: a request must not wait for whoever reads the log.
const WAITING_LINES: usize = 8192;
/// About the most bytes of lines that are written at once.
const AT_ONCE: usize = 64 << 10;

/// Starts logging to standard error: JSON lines, or readable ones at a terminal or with `STACKROOM_LOG_FORMAT=pretty`.
/// `STACKROOM_LOG` sets the level. For functions: a line is written before the answer, because nothing runs after it.
pub fn init() {
    start(|| Tolerant);
}

/// The same for a process that goes on: lines are written in the background, so a log that can't be written, or whose
/// reader is stuck, holds nothing up. What still waits is written when the guard is dropped.
#[must_use = "what waits is written when this is dropped"]
pub fn init_in_background() -> WorkerGuard {
    let lines = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING_LINES);
    // All lines that wait are written at once.
    let (writer, guard) = lines.finish(BufWriter::with_capacity(AT_ONCE, Tolerant));
    start(writer);
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "a mistake of ours")));
    guard
}

fn start(writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static) {
    // Not the crate's larger filter, which reads spans and regular expressions: these would be in every function.
    let wanted = std::env::var("STACKROOM_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = wanted.or_else(|| FILTER.parse().ok()).unwrap_or_default();
    let format = std::env::var("STACKROOM_LOG_FORMAT").unwrap_or_default();
    let builder = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(writer);
    let terminal = std::io::stderr().is_terminal();
    // A second call, as in tests, changes nothing.
    let _ = if format == "pretty" || (format.is_empty() && terminal) {
        let ansi = terminal && std::env::var_os("NO_COLOR").is_none();
        builder.compact().with_target(false).with_ansi(ansi).finish().with(filter).try_init()
    } else {
        builder.json().flatten_event(true).with_target(false).with_current_span(false).finish().with(filter).try_init()
    };
}

/// Writes a line of its own to standard error, beside those of the log. For functions.
fn line(text: &str) {
    let _ = Tolerant.write(format!("{text}\n").as_bytes());
}

/// Standard error, where nothing goes wrong: if a line can't be written, it is lost, and the request goes on.
#[derive(Debug, Clone, Copy)]
struct Tolerant;

impl Write for Tolerant {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = std::io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
