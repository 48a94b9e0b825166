//! The metrics of this process, in the text format of Prometheus, on a listener of their own.
//!
//! A label is a group of routes, a method of HTTP or a status: the groups are the functions of `template.yaml`, `objects`
//! for the bytes of the embedded store, `ingest` for the listener that only takes blobs, and `none` for what no route
//! answered. So there are never more series than these make, and none of them says which entity, user or path it is
//! about.
//!
//! What requests count beside that is summed up by [`telemetry`](shared::telemetry), and read when somebody asks for it.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text,
};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use shared::telemetry::{Count, Counts, Origin, Sums};
use std::fmt::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The group of routes that answered. Whatever answers adds it to the extensions of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group(pub &'static str);

/// What no route answered.
const NONE: Group = Group("none");

/// The upper bounds of the histogram, in seconds: from a lookup to a blob that takes as long as a client waits.
const BOUNDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Answers up to this length are counted whole when they begin.
const SHORT: u64 = 64 << 10;

/// The metrics. Clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Of, Histogram, fn() -> Histogram>,
    received: Family<Of, Counter>,
    sent: Family<Of, Counter>,
    in_flight: Gauge,
    connections_refused: Counter,
    unverified: Gauge,
    sums: Arc<Counts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    group: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    group: &'static str,
    method: &'static str,
    status: Status,
}

/// A status, or none if the client went away before its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Status(Option<u16>);

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => write!(encoder, "{status}"),
            None => encoder.write_str("gone"),
        }
    }
}

/// The methods that are told apart: a client may send any other word.
fn known(method: &Method) -> &'static str {
    let all = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
    ];
    all.into_iter().find(|(known, _)| known == method).map_or("other", |(_, name)| name)
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of a process that starts now.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<Answered, Counter>::default();
        let histogram: fn() -> Histogram = || Histogram::new(BOUNDS);
        let durations = Family::new_with_constructor(histogram);
        let (received, sent) = (Family::<Of, Counter>::default(), Family::<Of, Counter>::default());
        let (in_flight, unverified) = (Gauge::default(), Gauge::default());
        let connections_refused = Counter::default();
        let sums = Arc::new(Counts::default());
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("stackroom_build", "The version of the server", version);
        let what = "Requests that were answered; the status is gone if the client went away before";
        registry.register("stackroom_http_requests", what, requests.clone());
        let what = "Time from the head of a request to the head of its answer";
        registry.register_with_unit("stackroom_http_request_duration", what, Unit::Seconds, durations.clone());
        let what = "Bytes of the bodies of requests, as far as they were read";
        registry.register("stackroom_http_request_bytes", what, received.clone());
        let what = "Bytes of the bodies of answers, as far as they were sent";
        registry.register("stackroom_http_response_bytes", what, sent.clone());
        let what = "Requests whose answer has not begun";
        registry.register("stackroom_http_requests_in_flight", what, in_flight.clone());
        let what = "Connections that were closed because their address had too many";
        registry.register("stackroom_connections_refused", what, connections_refused.clone());
        let what = "Uploads that could not be verified when that was last tried";
        registry.register("stackroom_uploads_unverified", what, unverified.clone());
        registry.register_collector(Box::new(Summed(Arc::clone(&sums))));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        registry.register_collector(Box::new(Process { started: now.as_secs_f64() }));
        let inner =
            Inner { registry, requests, durations, received, sent, in_flight, connections_refused, unverified, sums };
        Self(Arc::new(inner))
    }

    /// Where requests, and what is done without one, add what they count.
    pub fn sums(&self) -> Sums {
        Sums(Arc::clone(&self.0.sums))
    }

    /// A connection was closed without an answer.
    pub(crate) fn refused_connection(&self) {
        self.0.connections_refused.inc();
    }

    /// How many uploads could not be verified.
    pub(crate) fn unverified(&self, uploads: u64) {
        self.0.unverified.set(i64::try_from(uploads).unwrap_or(i64::MAX));
    }

    /// All metrics as text.
    ///
    /// # Errors
    /// If the text can't be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.0.registry)?;
        Ok(text)
    }

    /// What answers on the listener of the metrics.
    pub fn router(&self) -> Router {
        let metrics = self.clone();
        Router::new().route("/metrics", get(async move || metrics.answer()))
    }

    fn answer(&self) -> Response {
        match self.text() {
            Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
            Err(error) => {
                tracing::error!(%error, "the metrics can't be written");
                http::StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }

    /// Passes a request on to what answers it, and counts both.
    pub(crate) async fn around<B, F, E>(
        &self,
        request: Request<B>,
        answer: impl FnOnce(Request<Body>) -> F,
    ) -> Result<Response, E>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
        F: Future<Output = Result<Response, E>>,
    {
        let running = Running::begin(self, request.method());
        let mut arriving = None;
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::new(body);
            }
            let tally = Tally::default();
            arriving = Some(tally.clone());
            Body::new(Counted { body: Body::new(body), tally })
        });
        request.extensions_mut().insert(self.sums());
        let response = answer(request).await?;
        let group = response.extensions().get::<Group>().copied().unwrap_or(NONE);
        let of = Of { group: group.0 };
        if let Some(tally) = arriving {
            tally.goes_to(self.0.received.get_or_create_owned(&of));
        }
        let head = running.method == "HEAD";
        running.end(group, response.status().as_u16());
        let known = if head { Some(0) } else { response.size_hint().exact() };
        if let Some(length) = known.filter(|length| *length <= SHORT) {
            self.0.sent.get_or_create(&of).inc_by(length);
            return Ok(response);
        }
        let tally = Tally::default();
        tally.goes_to(self.0.sent.get_or_create_owned(&of));
        Ok(response.map(|body| Body::new(Counted { body, tally })))
    }
}

/// The type of the text, as the specification of `OpenMetrics` says it. Prometheus reads it as its own older format, too.
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Does something for the process itself, and adds what it counts.
pub(crate) async fn counted<T>(metrics: Option<&Metrics>, work: impl Future<Output = T>) -> T {
    let origin = Origin { from: None, sums: metrics.map(Metrics::sums) };
    shared::telemetry::recorded(origin, work).await.0
}

/// A request that is being answered. If this is dropped before its end, the client went away.
struct Running {
    metrics: Metrics,
    method: &'static str,
    began: Instant,
    ended: Option<(Group, u16)>,
}

impl Running {
    fn begin(metrics: &Metrics, method: &Method) -> Self {
        metrics.0.in_flight.inc();
        Self { metrics: metrics.clone(), method: known(method), began: Instant::now(), ended: None }
    }

    fn end(mut self, group: Group, status: u16) {
        self.ended = Some((group, status));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Inner { requests, durations, in_flight, .. } = &*self.metrics.0;
        in_flight.dec();
        let (Group(group), status) = self.ended.map_or((NONE, None), |(group, status)| (group, Some(status)));
        requests.get_or_create(&Answered { group, method: self.method, status: Status(status) }).inc();
        durations.get_or_create(&Of { group }).observe(self.began.elapsed().as_secs_f64());
    }
}

/// Bytes that pass, kept back until it is known whose they are.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<Passing>>);

#[derive(Default)]
struct Passing {
    kept: u64,
    counter: Option<Counter>,
}

impl Tally {
    fn goes_to(&self, counter: Counter) {
        if let Ok(mut passing) = self.0.lock() {
            counter.inc_by(std::mem::take(&mut passing.kept));
            passing.counter = Some(counter);
        }
    }

    fn add(&self, bytes: u64) {
        if let Ok(mut passing) = self.0.lock() {
            match &passing.counter {
                Some(counter) => {
                    counter.inc_by(bytes);
                }
                None => passing.kept += bytes,
            }
        }
    }
}

/// A body whose bytes are counted as they pass.
struct Counted {
    body: Body,
    tally: Tally,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(bytes) = frame.data_ref()
        {
            self.tally.add(bytes.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What requests counted.
#[derive(Debug)]
struct Summed(Arc<Counts>);

impl Collector for Summed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for what in Count::ALL {
            written(&mut encoder, what.name(), what.help(), &ConstCounter::new(self.0.of(what)))?;
        }
        let Some(ended) = self.0.last_sweep() else { return Ok(()) };
        let (name, what) = ("stackroom_sweep_last_end_timestamp_seconds", "When the last sweep ended, since 1970");
        written(&mut encoder, name, what, &ConstGauge::new(f64::from(u32::try_from(ended).unwrap_or(u32::MAX))))
    }
}

/// Writes a metric as the registry writes its own: with a full stop.
fn written(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, &format!("{help}."), None, metric.metric_type())?)
}

/// The process itself, under the names that Prometheus's own libraries use.
#[derive(Debug)]
struct Process {
    started: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let what = "When the process started, since 1970";
        written(&mut encoder, "process_start_time_seconds", what, &ConstGauge::new(self.started))?;
        let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let spent = Duration::try_from(spent).unwrap_or_default().as_secs_f64();
        let what = "Processor time that the process spent";
        written(&mut encoder, "process_cpu_seconds", what, &ConstCounter::new(spent))?;
        // Where there is no such folder, there is no such metric.
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One of them reads the folder.
            let open = u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX);
            written(&mut encoder, "process_open_fds", "Open file descriptors", &ConstGauge::new(f64::from(open)))?;
        }
        if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            let most = f64::from(u32::try_from(most).unwrap_or(u32::MAX));
            written(
                &mut encoder,
                "process_max_fds",
                "The most file descriptors that may be open",
                &ConstGauge::new(most),
            )?;
        }
        if let Some(resident) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident) {
            let what = "Memory of the process that is not swapped";
            written(&mut encoder, "process_resident_memory_bytes", what, &ConstGauge::new(resident))?;
        }
        Ok(())
    }
}

/// The resident memory in bytes, as the kernel tells it in KiB.
fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_makes_no_label() {
        let odd = Method::from_bytes(b"ALICE").unwrap();
        assert_eq!(known(&odd), "other");
        assert_eq!(known(&Method::PATCH), "PATCH");
    }

    #[test]
    fn the_memory_is_what_the_kernel_says() {
        assert_eq!(resident("VmPeak:\t    9 kB\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!(resident("VmRSS: x"), None);
    }

    /// Bytes that arrive before it is known who reads them are counted as well, and each once.
    #[tokio::test]
    async fn bytes_are_counted_whether_they_are_read_before_or_after_the_answer_begins() {
        let metrics = Metrics::new();
        for late in [false, true] {
            let request = Request::post("/objects/secret").body(Body::from(vec![0; 1000])).unwrap();
            let body = std::cell::RefCell::new(None);
            let answer = async |request: Request<Body>| {
                assert!(request.extensions().get::<Sums>().is_some());
                if late {
                    *body.borrow_mut() = Some(request.into_body());
                } else {
                    axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
                }
                let mut response = Response::new(Body::from(vec![0; 100_000]));
                response.extensions_mut().insert(Group("objects"));
                Ok::<_, std::convert::Infallible>(response)
            };
            let response = metrics.around(request, answer).await.unwrap();
            assert_eq!(response.size_hint().exact(), Some(100_000));
            axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
            if let Some(body) = body.take() {
                axum::body::to_bytes(body, 1000).await.unwrap();
            }
        }
        let running = Running::begin(&metrics, &Method::GET);
        assert!(metrics.text().unwrap().contains("stackroom_http_requests_in_flight 1\n"));
        drop(running);
        let text = metrics.text().unwrap();
        for line in [
            r#"stackroom_http_request_bytes_total{group="objects"} 2000"#,
            r#"stackroom_http_response_bytes_total{group="objects"} 200000"#,
            r#"stackroom_http_requests_total{group="objects",method="POST",status="200"} 2"#,
            r#"stackroom_http_requests_total{group="none",method="GET",status="gone"} 1"#,
            "stackroom_http_requests_in_flight 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("secret") && !text.contains("alice"));
    }
}
