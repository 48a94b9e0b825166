//! API Gateway, Lambda and IAM on one machine, for tests of a SAM template and the functions that it deploys.
//!
//! The functions are the real ones: programs that talk to the Lambda Runtime API, started as processes. Clients are real,
//! too: they send HTTP. In between is what AWS would do with a request, as far as it is documented or was seen by others,
//! and in front of the stores is what IAM would do with a call.
//!
//! ```text
//!  client ──HTTP──▶ api ──event──▶ lambda ──Runtime API──▶ process ──SigV4──▶ doors ──▶ the caller's stores
//!                    ▲                                        ▲                  ▲
//!                    └──────── routes ──── template ── variables, limits ── policies
//! ```
//!
//! | part | what it simulates |
//! |---|---|
//! | [`template`] | SAM: functions with their routes, variables and policies, resolved |
//! | [`api`] | API Gateway with an HTTP API: routes, limits, its own answers |
//! | [`event`] | payload format 2.0, there and back |
//! | [`lambda`] | instances: one process each, one event at a time, frozen in between, thrown away |
//! | [`logs`] | `CloudWatch` Logs: the lines that a function wants, as an event |
//! | [`policy`] | IAM: what a call of `DynamoDB` or S3 needs, and what a function may |
//! | [`doors`] | the endpoints of the stores, where calls are refused in each service's own form |
//! | [`faults`] | what goes wrong on purpose, drawn from a seed |
//!
//! Each rule names its source: a page of AWS's documentation by its title, or a thread in which somebody reports what they
//! saw on AWS. What is only believed says so.
//!
//! # What is not simulated
//!
//! - **Signatures.** The key id says who calls; whether the signature is right is for the store behind the door.
//! - **Memory and processor.** `MemorySize` is told to the function, and neither limits nor slows it.
//! - **Time.** Functions run as fast as this machine. A cold start costs what starting a process costs here.
//! - **The file system.** Functions see the machine's own; `/var/task` is a name, and `/tmp` is shared.
//! - **Event sources.** Nothing watches a clock, a stream, a log or a queue: the caller makes the event and delivers it
//!   ([`lambda::Function::deliver`]), which may then arrive twice. Whether a record of a stream fits a filter,
//!   [`template::Event::takes`] says.
//! - **Policies** beyond `Effect`, `Action` and `Resource`: a statement with a condition is an error. No policies of
//!   resources, no boundaries, no managed policies, no templates of policies. `DeleteObjects` is refused.
//! - **The API** beyond routes: no authorizers, no CORS, no mappings of parameters, no custom domains, no access logs, no
//!   throttling of routes, no WAF. Clients speak HTTP/1.1 without TLS.
//! - **A type for bodies that have none.** If AWS adds a `Content-Type` to a response without one, this does not.
//! - **Credentials that expire.** Those of an instance last as long as this process.

pub mod api;
pub mod doors;
pub mod event;
pub mod faults;
pub mod lambda;
pub mod logs;
pub mod policy;
pub mod template;

use api::Api;
use axum::Router;
use axum::serve::ListenerExt;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Serves a router on a free port of loopback. Returns where, and what to abort in the end.
pub async fn serve(router: Router) -> std::io::Result<(SocketAddr, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let serving = async move {
        // It ends only with the process.
        let _ = axum::serve(listener, router).await;
    };
    Ok((address, tokio::spawn(serving)))
}

/// Serves an API on a listener. `around` may put layers around it.
pub fn serve_api(listener: TcpListener, api: Arc<Api>, around: impl FnOnce(Router) -> Router) -> JoinHandle<()> {
    let router = around(api.router()).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    })
}

/// New ids for a request.
#[derive(Debug)]
struct Ids {
    /// Of the request itself.
    request: String,
    /// Of its trace. Source: *X-Ray Developer Guide*, "Tracing header".
    trace: String,
}

fn ids() -> std::io::Result<Ids> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let digits = bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
    let at = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    let request = format!("{}-{}-4{}-8{}-{}", at(0, 8), at(8, 12), at(12, 15), at(15, 18), at(18, 30));
    let trace = format!("Root=1-{}-{};Parent={};Sampled=0", at(0, 8), at(8, 32), at(32, 48));
    Ok(Ids { request, trace })
}
