//! `stackroom serve`: the whole library behind one listener.

use crate::limits::{self, Addresses, Limits};
use crate::local::Local;
use crate::metrics::{self, Metrics};
use crate::probe::probe;
use crate::site::Site;
use anyhow::{Context, bail};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use axum::serve::Listener;
use futures::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{Method, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use shared::App;
use shared::app::{Assembly, Deployed};
use shared::config::{Config, Pins};
use shared::service::people::users;
use shared::service::sweep::{self, Ages};
use shared::service::uploads::verify;
use shared::service::{copy, downloads, installation, outbox, search};
use shared::telemetry::Address;
use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The settings of `serve`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub stores: Stores,
    /// The address that only accepts blob uploads, if any.
    pub ingest_listen: Option<SocketAddr>,
    /// The URL under which clients reach the server, if it is not simply the listening address.
    pub public_url: Option<String>,
    /// The address that answers with metrics and nothing else, if any.
    pub metrics: Option<SocketAddr>,
}

/// Where a library is kept.
#[derive(Debug, Clone)]
pub enum Stores {
    /// In a folder, by this process alone.
    Folder(PathBuf),
    /// On a table and a bucket that several servers use.
    Shared {
        /// The name of the table.
        table: String,
        /// The name of the bucket.
        bucket: String,
        /// Whether to make them, if they are not there.
        create: bool,
    },
}

/// The most bytes that a connection of HTTP/1 reads ahead, and about the most that wait to be written.
const BUFFER: usize = 32 << 10;
/// The longest time for the head of a request, and for an idle connection between two requests.
const HEAD: Duration = Duration::from_secs(75);
/// When a server sweeps first: a start is when everybody comes back.
const FIRST_SWEEP: Duration = Duration::from_mins(5);
/// How long after a failure a background task starts again.
const RESTART_AFTER: Duration = Duration::from_secs(10);
/// How often a server sweeps.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// Object files that nothing names are deleted once they are older than this.
const LEFTOVERS_AFTER: Duration = Duration::from_hours(1);

/// Serves until the process is told to stop.
pub async fn serve(settings: Settings) -> anyhow::Result<()> {
    limits::raise_open_files();
    let listener = listen(settings.listen).await?;
    let address = listener.local_addr()?;
    let public_url = match (settings.public_url, &settings.stores) {
        (Some(url), _) => url,
        (None, Stores::Shared { .. }) => {
            bail!("several servers are one library under one URL: say which with --public-url")
        }
        (None, Stores::Folder(_)) if address.ip().is_unspecified() => {
            bail!("clients can't reach {address}: give an address that they can reach with --public-url")
        }
        (None, Stores::Folder(_)) => format!("http://{address}"),
    };
    let measured = Measured::at(settings.metrics).await?;
    let metrics = measured.as_ref().map(|measured| measured.metrics.clone());
    let serving = match settings.stores {
        Stores::Folder(data) => in_folder(&data, &public_url, metrics).await?,
        Stores::Shared { table, bucket, create } => {
            on_stores(Deployed { table, bucket, public_url }, create, metrics).await?
        }
    };
    serving.answer(listener, settings.ingest_listen, measured).await
}

/// The metrics, and where somebody may ask for them.
struct Measured {
    metrics: Metrics,
    listener: TcpListener,
}

impl Measured {
    async fn at(address: Option<SocketAddr>) -> anyhow::Result<Option<Self>> {
        let Some(address) = address else { return Ok(None) };
        let listener = listen(address).await?;
        tracing::info!(address = %listener.local_addr()?, "answering with metrics");
        Ok(Some(Self { metrics: Metrics::new(), listener }))
    }

    /// Answers until the process is told to stop.
    fn answer(self, config: &Config) -> JoinHandle<()> {
        tokio::spawn(answer(self.listener, self.metrics.router(), Limits::of(config), stopped()))
    }
}

/// What stands in front of a router: the limits of its listener, and who counts its requests.
#[derive(Debug, Clone)]
pub struct Front {
    /// The limits.
    pub limits: Limits,
    /// The metrics, if there are any.
    pub metrics: Option<Metrics>,
}

impl From<Limits> for Front {
    fn from(limits: Limits) -> Self {
        Self { limits, metrics: None }
    }
}

/// A library that can be served, and what is done for it meanwhile.
struct Serving {
    app: App,
    site: Site,
    tasks: Vec<JoinHandle<()>>,
}

impl Serving {
    async fn answer(
        self,
        listener: TcpListener,
        ingest: Option<SocketAddr>,
        measured: Option<Measured>,
    ) -> anyhow::Result<()> {
        let metrics = measured.as_ref().map(|measured| measured.metrics.clone());
        let front = Front { limits: Limits::of(&self.app.config), metrics };
        let mut others = Vec::new();
        if let Some(address) = ingest {
            let listener = listen(address).await?;
            others.push(tokio::spawn(answer(listener, Site::ingest(&self.app), front.clone(), stopped())));
        }
        others.extend(measured.map(|measured| measured.answer(&self.app.config)));
        answer(listener, self.site, front, stopped()).await;
        for other in others {
            other.await?;
        }
        for task in self.tasks {
            task.abort();
        }
        let last = tokio::time::timeout(LAST_COUNT, downloads::write_down(&self.app)).await;
        if let Ok(Err(error)) = last {
            tracing::error!(%error, cause = error.cause(), "the latest downloads are not counted");
        } else if last.is_err() {
            tracing::error!("the latest downloads are not counted: the table does not answer");
        }
        Ok(())
    }
}

/// An error of a use case with its internal cause, which only the operator may see.
pub fn explained(error: shared::Error) -> anyhow::Error {
    let cause = error.cause();
    let error = anyhow::Error::from(error);
    match cause {
        Some(cause) => error.context(cause),
        None => error,
    }
}

/// What is set for a server on shared stores, and means nothing for a folder.
const OF_SHARED: [&str; 4] =
    ["STACKROOM_TOKEN_KEYS_SECRET", "STACKROOM_TOKEN_KEYS_FILE", "STACKROOM_TOKEN_KEYS", "STACKROOM_S3_PUBLIC_URL"];

/// Opens the library in a folder.
async fn in_folder(data: &Path, public_url: &str, metrics: Option<Metrics>) -> anyhow::Result<Serving> {
    // A server that lost its table would otherwise serve a new, empty library beside the others.
    if let Some(name) = OF_SHARED.into_iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    {
        bail!("{name} is for a library on a table and a bucket: give --table and --bucket, or unset it");
    }
    let config = Config::read(public_url, |name| std::env::var(name).ok())?;
    let local = Arc::new(Local::open(data, config).await?);
    copy::served(&local.app).await.map_err(explained)?;
    let password = local.first_admin().await?;
    local.renew_admin_token().await?;
    greet(&local, password.as_deref());
    let (site, app) = (Site::folder(&local)?, local.app.clone());
    let mut tasks = kept_up(&app, Some(&local.objects), metrics.as_ref());
    tasks.push(tokio::spawn(restarted("renewing the operator's token", move || renew_always(Arc::clone(&local)))));
    Ok(Serving { app, site, tasks })
}

/// Opens a library on a table and a bucket that other servers use, too. Nothing of it is kept in this process: each may
/// end at any time, and any of them answers any request.
///
/// 1. With `create`, make the table and the bucket, if they are not there. *Twice at once*: one of them makes them.
/// 2. Try the stores out, and choose how uploads are checked.
/// 3. See that the table and the bucket belong together. Only then anything of them is swept.
async fn on_stores(place: Deployed, create: bool, metrics: Option<Metrics>) -> anyhow::Result<Serving> {
    let (table, bucket) = (place.table.clone(), place.bucket.clone());
    let mut assembly = Assembly::of(place).await.map_err(explained)?;
    if assembly.parts.config.proxy_sends.is_some() {
        bail!("STACKROOM_PROXY_SENDS is for a library in a folder: a bucket sends its objects itself, so unset it");
    }
    if create {
        assembly.made().await.map_err(explained).context("the table and the bucket can't be made")?;
    }
    // No token may reach the bucket, wherever it is configured.
    let url = assembly.parts.objects.presign_get("x", None, Duration::from_mins(1)).await?;
    shared::config::beside(&assembly.parts.config.public_url, &url)?;
    let probed = probe(&assembly.parts.table, &assembly.parts.objects).await?;
    let config = &mut assembly.parts.config;
    if probed.pins != Pins::Bytes && config.pin_uploads != probed.pins {
        tracing::warn!(
            "the bucket does not refuse other bytes than those that a URL is for: uploads are read and hashed instead, \
             as with STACKROOM_PIN_UPLOADS={}",
            probed.pins
        );
        config.pin_uploads = probed.pins;
    }
    let app = assembly.app();
    installation::mark(&app).await.map_err(explained)?;
    copy::served(&app).await.map_err(explained)?;
    let url = &app.config.public_url;
    tracing::info!(url, table, bucket, pins = %app.config.pin_uploads, "serving a library on shared stores");
    if users::none(&app).await? {
        tracing::warn!("there are no users yet: `stackroom admin bootstrap` makes the first administrator");
    }
    let site = Site::shared(&app)?;
    let tasks = kept_up(&app, None, metrics.as_ref());
    Ok(Serving { app, site, tasks })
}

/// What every server does from time to time. Several may do it at once: each step has its conditions.
fn kept_up(app: &App, objects: Option<&embedded::objects::Objects>, metrics: Option<&Metrics>) -> Vec<JoinHandle<()>> {
    let (swept, objects, verified, followed) = (app.clone(), objects.cloned(), app.clone(), app.clone());
    let (first, second, third) = (metrics.cloned(), metrics.cloned(), metrics.cloned());
    let every = if objects.is_some() { FOLLOW_ALONE } else { FOLLOW_EVERY };
    let (counted, fourth) = (app.clone(), metrics.cloned());
    app.keep_downloads();
    vec![
        tokio::spawn(restarted("counting downloads", move || count_always(counted.clone(), fourth.clone()))),
        tokio::spawn(restarted("sweeping", move || sweep_always(swept.clone(), objects.clone(), first.clone()))),
        tokio::spawn(restarted("verifying", move || verify_always(verified.clone(), second.clone()))),
        tokio::spawn(restarted("following changes", move || follow_always(followed.clone(), every, third.clone()))),
    ]
}

/// Accepts blob uploads for a deployment on functions, until the process is told to stop.
pub async fn ingest(address: SocketAddr, metrics: Option<SocketAddr>) -> anyhow::Result<()> {
    limits::raise_open_files();
    let listener = listen(address).await?;
    let measured = Measured::at(metrics).await?;
    let app = shared::App::from_env().await.map_err(explained)?;
    tracing::info!(address = %listener.local_addr()?, "accepting uploads of blobs");
    let metrics = measured.as_ref().map(|measured| measured.metrics.clone());
    let other = measured.map(|measured| measured.answer(&app.config));
    answer(listener, Site::ingest(&app), Front { limits: Limits::of(&app.config), metrics }, stopped()).await;
    if let Some(other) = other {
        other.await?;
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("can't listen on {address}, is something else listening there?"))
}

/// Answers requests until `stop` completes, and then finishes those in progress. The head of a request must arrive
/// within 1.25 times the patience and within [`HEAD`]: `axum::serve` would wait for it for ever. An address that has
/// too many connections gets no more: they are closed without an answer.
pub async fn answer(
    mut listener: TcpListener,
    site: impl Into<Site>,
    front: impl Into<Front>,
    stop: impl Future<Output = ()>,
) {
    let (Front { limits, metrics }, site) = (front.into(), site.into());
    // Longer than the minute after which proxies close idle connections: the proxy must be the one to close them.
    let patience = (limits.patience * 5 / 4).min(HEAD);
    let addresses = Addresses::new(limits);
    // Each connection holds a receiver: through it, the connection learns that the server stops. The server ends only
    // when the last receiver is gone.
    let (stopping, watching) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            (stream, from) = Listener::accept(&mut listener) => {
                let from = from.ip();
                let Some(place) = addresses.connection(from) else {
                    metrics.iter().for_each(Metrics::refused_connection);
                    continue;
                };
                // A small answer must not wait until the client has acknowledged the last one.
                let _ = stream.set_nodelay(true);
                let (site, addresses, metrics) = (site.clone(), addresses.clone(), metrics.clone());
                let client = Client { site, addresses, from, metrics };
                let answering = connection(stream, client, patience, watching.clone());
                tokio::spawn(async move {
                    answering.await;
                    drop(place);
                });
            }
            () = &mut stop => break,
        }
    }
    drop((listener, watching));
    stopping.send_replace(true);
    stopping.closed().await;
}

/// The other end of a connection, and what answers it.
#[derive(Clone)]
struct Client {
    site: Site,
    addresses: Addresses,
    from: IpAddr,
    metrics: Option<Metrics>,
}

impl Client {
    async fn answer(self, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
        let bodiless = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let response = match self.metrics.clone() {
            Some(metrics) => metrics.around(request, |request| self.pass(request)).await,
            None => self.pass(request.map(Body::new)).await,
        }?;
        Ok(if bodiless { without_body(response) } else { response })
    }

    async fn pass(self, mut request: Request) -> Result<Response, Infallible> {
        if let Some(address) = self.addresses.of(self.from, request.headers()) {
            request.extensions_mut().insert(Address(address));
        }
        let place = if limits::has_password(&request) {
            match self.addresses.login(self.from, request.headers()).await {
                Some(place) => place,
                None => {
                    return Ok(shared::http::busy(request.uri().path(), "too many passwords at once, try again later"));
                }
            }
        } else {
            None
        };
        let answer = self.site.answer(request).await;
        drop(place);
        Ok(answer)
    }
}

/// The answer to a `HEAD`: the length of its body, but no body (RFC 9110, section 9.3.2). Over HTTP/1, hyper does it.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| Body::empty())
}

/// Answers the requests of one connection.
async fn connection(stream: TcpStream, client: Client, patience: Duration, mut stopping: watch::Receiver<bool>) {
    let begun = Arc::new(Notify::new());
    let heard = begun.clone();
    let service = hyper::service::service_fn(move |request| {
        heard.notify_one();
        client.clone().answer(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(BUFFER);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(patience).keep_alive_timeout(patience);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // Only the first bytes tell the version of HTTP: before the first request, hyper has no timeout of its own.
    let mut first = pin!(tokio::time::timeout(patience, begun.notified()));
    let (mut waits, mut ends) = (true, false);
    loop {
        tokio::select! {
            // The client notices by itself if a connection fails.
            _ = &mut connection => return,
            first = &mut first, if waits => match first {
                Ok(()) => waits = false,
                Err(_) => return,
            },
            _ = stopping.changed(), if !ends => {
                ends = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Removes files of objects that nothing names.
pub(crate) async fn collect(objects: embedded::objects::Objects, age: Duration) {
    let collected = tokio::task::spawn_blocking(move || objects.collect(age)).await;
    if let Ok(Err(error)) = collected {
        tracing::error!(%error, "collecting leftover files");
    }
}

/// Runs a background task, and starts it again if it panics.
async fn restarted<F: Future<Output = ()>>(task: &str, start: impl Fn() -> F) {
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        tracing::error!(task, "a background task failed, it starts again");
        tokio::time::sleep(RESTART_AFTER).await;
    }
}

/// A random number between 0 and 1; 0 if there is no randomness.
fn fraction() -> f64 {
    let mut byte = [0];
    let drawn = getrandom::fill(&mut byte).is_ok();
    if drawn { f64::from(u8::from_ne_bytes(byte)) / 256.0 } else { 0.0 }
}

async fn sweep_always(app: App, objects: Option<embedded::objects::Objects>, metrics: Option<Metrics>) {
    // Servers of one library that start together don't sweep together.
    let later = SWEEP_EVERY.mul_f64(if objects.is_some() { 0.0 } else { fraction() });
    let mut every = tokio::time::interval_at(Instant::now() + FIRST_SWEEP + later, SWEEP_EVERY);
    loop {
        every.tick().await;
        match metrics::counted(metrics.as_ref(), Box::pin(sweep::sweep(&app, Ages::safe(&app)))).await {
            Ok(swept) => {
                tracing::info!(swept = %serde_json::json!(swept), "sweep");
                if let Err(error) =
                    metrics::counted(metrics.as_ref(), Box::pin(verify::unlisted(&app, &swept.sealed))).await
                {
                    tracing::error!(%error, cause = error.cause(), "verifying");
                }
            }
            Err(error) => tracing::error!(%error, cause = error.cause(), "sweep"),
        }
        if let Some(objects) = &objects {
            collect(objects.clone(), LEFTOVERS_AFTER).await;
        }
    }
}

/// The longest time between two looks at the operator's token.
const RENEW_EVERY: Duration = Duration::from_hours(1);

/// Keeps the operator's token alive, if tokens don't live for ever.
async fn renew_always(local: Arc<Local>) {
    let Some(longest) = local.app.config.policy.max_token_life else { return std::future::pending().await };
    loop {
        tokio::time::sleep((longest / 10).clamp(Duration::from_secs(1), RENEW_EVERY)).await;
        if let Err(error) = local.renew_admin_token().await {
            tracing::error!(%error, "the operator's token could not be renewed");
        }
    }
}

/// How often a server looks for changes of others, and when it tries those again that it could not follow.
const FOLLOW_EVERY: Duration = Duration::from_secs(5);
/// The same for a server that has no others beside it.
const FOLLOW_ALONE: Duration = Duration::from_mins(1);
/// How long it waits for more changes, to follow them together.
const GATHER: Duration = Duration::from_millis(50);

/// How often a server looks whether the search index is to be made anew, and for how long changes wait meanwhile.
const INDEX_EVERY: Duration = Duration::from_mins(1);
const INDEX_FOR: Duration = Duration::from_secs(2);

/// Does what follows from changes, and makes the search index if there is none.
async fn follow_always(app: App, every: Duration, metrics: Option<Metrics>) {
    let mut looked = None;
    loop {
        let follow = async {
            outbox::follow(&app).await?;
            if looked.is_none_or(|at: Instant| at.elapsed() >= INDEX_EVERY) {
                let whole = search::make(&app, Some((Instant::now() + INDEX_FOR).into_std())).await?;
                looked = whole.then(Instant::now);
            }
            Ok::<_, shared::Error>(looked.is_some())
        };
        match metrics::counted(metrics.as_ref(), Box::pin(follow)).await {
            // There is more to be made.
            Ok(false) => {}
            Ok(true) => {
                let _ = tokio::time::timeout(every, app.outbox_filled()).await;
                tokio::time::sleep(GATHER).await;
            }
            Err(error) => {
                tracing::error!(%error, cause = error.cause(), "following changes");
                tokio::time::sleep(FOLLOW_EVERY).await;
            }
        }
    }
}

/// For how long a server that ends tries to write down what was downloaded.
const LAST_COUNT: Duration = Duration::from_secs(10);
/// How often a server writes down what was downloaded. A server that is killed loses the numbers since the last time.
const COUNT_EVERY: Duration = Duration::from_mins(1);

async fn count_always(app: App, metrics: Option<Metrics>) {
    loop {
        tokio::time::sleep(COUNT_EVERY).await;
        if let Err(error) = metrics::counted(metrics.as_ref(), Box::pin(downloads::write_down(&app))).await {
            tracing::error!(%error, cause = error.cause(), "counting downloads");
        }
    }
}

/// How often a server looks for uploads to verify, if its settings leave any to be verified later.
const VERIFY_EVERY: Duration = Duration::from_secs(5);

async fn verify_always(app: App, metrics: Option<Metrics>) {
    let mut every = tokio::time::interval(VERIFY_EVERY);
    // Uploads left over from an earlier run are verified in any case.
    let always = app.config.verify_at_once < u64::MAX;
    loop {
        every.tick().await;
        let failed = |error: shared::Error| tracing::error!(%error, cause = error.cause(), "verifying");
        let verified = metrics::counted(metrics.as_ref(), Box::pin(verify::pending(&app))).await;
        if let (Ok(verified), Some(metrics)) = (&verified, &metrics) {
            metrics.unverified(verified.failed);
        }
        match verified {
            Ok(verified) if !always && verified.failed == 0 => return,
            Ok(_) => {}
            Err(error) => failed(error),
        }
    }
}

async fn stopped() {
    let interrupted = tokio::signal::ctrl_c();
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = interrupted => {}
        () = terminated => {}
    }
}

/// Says how to connect. This is for people, so it goes to standard error.
fn greet(local: &Local, password: Option<&str>) {
    let url = &local.app.config.public_url;
    let token = local.admin_token();
    // The options that `stackroom admin` would not guess.
    let folder = token.parent().unwrap_or(&token);
    let guessed = url.as_str() == "http://127.0.0.1:8080" && folder == Path::new("data");
    let at = if guessed { String::new() } else { format!(" --url {url} --data {}", folder.display()) };
    let first = password.map_or_else(String::new, |password| {
        // Elsewhere this is a log, which others may read.
        let shown = if std::io::stderr().is_terminal() {
            format!(", with the password {password}\nwhich is not shown again")
        } else {
            format!(" (to set a password: `stackroom admin{at} user passwd admin < FILE`)")
        };
        format!(
            "\nThis is a new library. Its administrator is `admin`{shown}.\nThe administrator's token is in {}.\n",
            token.display()
        )
    });
    let behind = if url.starts_with("http://") {
        "\nOther machines need a host name and TLS: put a reverse proxy with a certificate in front,\n\
         and start this server with --public-url https://its.name\n"
    } else {
        ""
    };
    let text = format!(
        "Stackroom serves {url}\n{first}\n\
         To use it with apptainer or singularity on this machine:\n\n\
         \x20   stackroom admin{at} user add NAME && stackroom admin{at} token NAME --name laptop   # prints a token\n\
         \x20   stackroom connect {url}    # once: adds the remote `stackroom`, and makes it active\n\
         \x20   apptainer remote login stackroom          # paste the token\n\
         \x20   apptainer push -U image.sif library://NAME/tools/hello:1.0\n\
         \x20   apptainer pull library://NAME/tools/hello:1.0\n\n\
         and the same with `singularity`.\n{behind}"
    );
    // On a thread of its own: if nobody reads it, or nobody can, serve anyway.
    std::thread::spawn(move || {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    });
}
