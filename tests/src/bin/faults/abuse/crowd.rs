//! Those who abuse the server: many connections that ask again and again, or that never finish what they send.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long one waits after a refusal, or after no answer: else they would mostly keep this process busy.
const PAUSE: Duration = Duration::from_millis(10);
/// What a stalled body states, and how much of it is sent.
const STATED: usize = 2 << 20;
const SENT: usize = STATED / 20 * 19;
/// How long it takes until all of them are there: all at once would measure the queue of new connections.
const COMING: Duration = Duration::from_secs(3);
/// How long connecting and sending may take.
const LONGEST_STALL: Duration = Duration::from_secs(20);

/// What a crowd was answered.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// How many requests were begun.
    pub(super) asked: u64,
    /// How many have sent all that they wanted, and then stalled.
    pub(super) stalled: u64,
    /// How often each status came.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// How often the connection ended without an answer.
    pub(super) nothing: u64,
    /// The bytes of the answers' bodies.
    bytes: u64,
}

impl Tally {
    fn count(&mut self, status: Option<u16>) {
        match status {
            Some(status) => *self.statuses.entry(status).or_default() += 1,
            None => self.nothing += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the crowd began {} requests", self.asked)?;
        if self.stalled > 0 {
            write!(f, ", stalled × {}", self.stalled)?;
        }
        for (status, count) in &self.statuses {
            write!(f, ", {status} × {count}")?;
        }
        let waiting = self.asked - self.statuses.values().sum::<u64>() - self.nothing;
        let Self { nothing, bytes, .. } = self;
        write!(f, ", no answer × {nothing}, still waiting at the end × {waiting}, {} MiB read", bytes >> 20)
    }
}

/// What a crowd does.
#[derive(Debug, Clone)]
pub(super) enum Abuse {
    /// Asks for a path again as soon as it is answered, with a token or without.
    Asks { path: String, token: Option<String> },
    /// Logs in with a wrong password, under another name each time, as soon as it is answered.
    Guesses,
    /// Sends most of a body, with a token or without, and then nothing.
    StallsBodies { token: Option<String> },
    /// Sends half a head, and then nothing.
    StallsHeads,
}

/// A crowd that is to come.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// How many connections.
    pub(super) size: usize,
    /// From how many addresses.
    pub(super) sources: usize,
    /// What each of them does.
    pub(super) abuse: Abuse,
}

/// Many connections, until they are ended.
pub(super) struct Crowd {
    tasks: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    tally: Arc<Mutex<Tally>>,
}

/// One of a crowd.
#[derive(Clone)]
struct Member {
    url: String,
    source: [u8; 4],
    stop: watch::Receiver<bool>,
    tally: Arc<Mutex<Tally>>,
}

impl Crowd {
    /// Begins.
    pub(super) fn begin(url: &str, plan: &Plan) -> Self {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::<Mutex<Tally>>::default();
        let tasks = (0..plan.size).map(|at| {
            let source = [127, 0, 2, u8::try_from(1 + at % plan.sources).unwrap()];
            let member = Member { url: url.to_owned(), source, stop: stopped.clone(), tally: Arc::clone(&tally) };
            let after = COMING * u32::try_from(at).unwrap() / u32::try_from(plan.size).unwrap();
            tokio::spawn(member.does(plan.abuse.clone(), after))
        });
        let tasks = tasks.collect();
        Self { tasks, stop, tally }
    }

    /// Waits for the requests that are still there, but not longer than this, and then ends all connections.
    pub(super) async fn end(self, within: Duration) -> Tally {
        let until = Instant::now() + within;
        self.stop.send_replace(true);
        for mut task in self.tasks {
            if timeout_at(until, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.tally.lock().unwrap().clone()
    }
}

impl Member {
    async fn does(self, abuse: Abuse, after: Duration) {
        if matches!(abuse, Abuse::StallsBodies { .. } | Abuse::StallsHeads) {
            sleep(after).await;
        }
        match abuse {
            Abuse::Asks { .. } | Abuse::Guesses => self.asks(&abuse).await,
            Abuse::StallsBodies { token } => {
                let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
                let head = format!("POST /v1/images HTTP/1.1\r\nhost: any\r\n{token}content-length: {STATED}\r\n\r\n");
                self.stalls(&head, SENT).await;
            }
            Abuse::StallsHeads => {
                self.stalls("GET /v1/images/bob/tools/hello:v1 HTTP/1.1\r\nhost: any\r\nx-nev", 0).await;
            }
        }
    }

    /// A request, by its number.
    fn request(&self, http: &reqwest::Client, abuse: &Abuse, number: u64) -> reqwest::RequestBuilder {
        if let Abuse::Asks { path, token } = abuse {
            let request = http.get(format!("{}{path}", self.url));
            return match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
        }
        // A name has few wrong passwords before no more are compared, also in a later phase.
        let [.., source] = self.source;
        let name = format!("nobody-{}-{source}-{number}", std::process::id());
        http.get(format!("{}/token?service=abuse", self.url)).basic_auth(name, Some("not the password"))
    }

    async fn asks(self, abuse: &Abuse) {
        let http = from(self.source).build().unwrap();
        while !*self.stop.borrow() {
            let number = {
                let mut tally = self.tally.lock().unwrap();
                tally.asked += 1;
                tally.asked
            };
            let status = match self.request(&http, abuse, number).send().await {
                Ok(mut response) => {
                    while let Ok(Some(chunk)) = response.chunk().await {
                        self.tally.lock().unwrap().bytes += chunk.len() as u64;
                    }
                    Some(response.status().as_u16())
                }
                Err(_) => None,
            };
            self.tally.lock().unwrap().count(status);
            if status.is_none_or(|status| super::LATER.contains(&status)) {
                sleep(PAUSE).await;
            }
        }
    }

    async fn stalls(mut self, head: &str, body: usize) {
        self.tally.lock().unwrap().asked += 1;
        let Ok(mut stream) = self.connect().await else { return self.tally.lock().unwrap().count(None) };
        // An answer may come before all is sent, and then end the connection.
        let sent = timeout(LONGEST_STALL, begin(&mut stream, head, body)).await;
        if sent.is_ok_and(|sent| sent.is_ok()) {
            self.tally.lock().unwrap().stalled += 1;
        }
        let mut answer = vec![0; 1 << 10];
        tokio::select! {
            read = stream.read(&mut answer) => {
                let text = String::from_utf8_lossy(&answer[..read.unwrap_or(0)]).into_owned();
                self.tally.lock().unwrap().count(text.split(' ').nth(1).and_then(|status| status.parse().ok()));
            }
            _ = self.stop.changed() => {}
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(address(self.source), 0))?;
        let host = self.url.trim_start_matches("http://").parse().map_err(std::io::Error::other)?;
        timeout(LONGEST_STALL, socket.connect(host)).await?
    }
}

/// Sends a head, and so many bytes of a body.
async fn begin(stream: &mut TcpStream, head: &str, body: usize) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    let block = vec![b'0'; 1 << 15];
    let mut left = body;
    while left > 0 {
        let some = left.min(block.len());
        stream.write_all(&block[..some]).await?;
        left -= some;
    }
    Ok(())
}

fn address(source: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(source).into()
}

/// A client whose connections come from an address.
pub(super) fn from(source: [u8; 4]) -> reqwest::ClientBuilder {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    http.local_address(address(source)).timeout(Duration::from_secs(30))
}
