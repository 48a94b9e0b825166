//! Bob, who looks up his image, and logs in.

use super::crowd::from;
use super::fill::{BOBS, Filled};
use reqwest::StatusCode;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// Where bob's connections come from.
const ADDRESS: [u8; 4] = [127, 0, 1, 1];
/// How many lookups he makes at a time. The last of them opens a connection for each.
const AT_ONCE: usize = 4;
/// How often each of them asks.
const EVERY: Duration = Duration::from_millis(20);
/// How many logins he makes at a time, and how long after each other.
const LOGINS: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(500);
/// He waits no longer for a lookup.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long answers took.
///
/// A lookup that is due while the one before still waits is counted with what is left of that wait: else a server that
/// stands still would be asked less, and look the better for it.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// In order.
    milliseconds: Vec<f64>,
    /// How many requests there were.
    pub(super) asked: u32,
    /// How many of them had no answer, or a refusal.
    pub(super) wrong: u32,
}

impl Times {
    fn add(&mut self, took: Duration, right: bool, every: Option<Duration>) {
        self.asked += 1;
        self.wrong += u32::from(!right);
        let mut left = took;
        self.milliseconds.push(left.as_secs_f64() * 1e3);
        while let Some(more) = every.and_then(|every| left.checked_sub(every)) {
            self.milliseconds.push(more.as_secs_f64() * 1e3);
            left = more;
        }
    }

    /// The sum of several.
    fn of(all: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = all.into_iter().fold(Self::default(), |mut sum, one| {
            sum.milliseconds.extend(one.milliseconds);
            Self { milliseconds: sum.milliseconds, asked: sum.asked + one.asked, wrong: sum.wrong + one.wrong }
        });
        sum.milliseconds.sort_by(f64::total_cmp);
        sum
    }

    /// How many had the right answer.
    pub(super) fn right(&self) -> u32 {
        self.asked - self.wrong
    }

    /// The time within which so many of a hundred were answered, in milliseconds.
    pub(super) fn share(&self, percent: usize) -> f64 {
        let last = self.milliseconds.len().saturating_sub(1);
        self.milliseconds
            .get(self.milliseconds.len() * percent / 100)
            .or(self.milliseconds.get(last))
            .copied()
            .unwrap_or(0.0)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} / {:.1} / {:.1}", self.share(50), self.share(99), self.share(100))
    }
}

/// Bob.
#[derive(Debug, Clone)]
pub(super) struct Bob {
    url: String,
    token: String,
    password: String,
}

impl Bob {
    pub(super) fn new(url: &str, filled: &Filled) -> Self {
        Self { url: url.to_owned(), token: filled.bob.clone(), password: filled.password.clone() }
    }

    /// Looks up for so long. On a thread of its own: the crowd keeps those of this runtime busy.
    pub(super) async fn look_up(&self, length: Duration) -> Times {
        let bob = self.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let until = Instant::now() + length;
                Times::of(futures::future::join_all((0..AT_ONCE).map(|at| bob.again(at, until))).await)
            })
        });
        looking.await.unwrap()
    }

    async fn again(&self, at: usize, until: Instant) -> Times {
        // Idle connections: one, or none, so that each lookup must first be accepted.
        let http = from(ADDRESS).pool_max_idle_per_host(usize::from(at + 1 < AT_ONCE)).build().unwrap();
        let path = format!("{}/v1/images/{BOBS}?arch=amd64", self.url);
        let mut times = Times::default();
        let mut due = Instant::now() + EVERY / 4 * u32::try_from(at).unwrap();
        while due < until {
            tokio::time::sleep_until(due).await;
            let began = Instant::now();
            let right = match http.get(&path).bearer_auth(&self.token).timeout(PATIENCE).send().await {
                Ok(response) => response.status() == StatusCode::OK && response.bytes().await.is_ok(),
                Err(_) => false,
            };
            times.add(began.elapsed(), right, Some(EVERY));
            due = (due + EVERY).max(Instant::now());
        }
        times
    }

    /// Logs in with the right password so many times, three at a time, within a time. What has no time left is wrong.
    pub(super) async fn log_in(&self, count: u32, within: Duration) -> Times {
        let until = Instant::now() + within;
        let http = from(ADDRESS).build().unwrap();
        let trying = (0..LOGINS).map(|_| async {
            let mut times = Times::default();
            for _ in 0..count / LOGINS {
                let began = Instant::now();
                let request = http.get(format!("{}/token?service=abuse", self.url));
                let asked = request.basic_auth("bob", Some(&self.password)).send();
                let answer = tokio::time::timeout_at(until, asked).await;
                let right = matches!(answer, Ok(Ok(response)) if response.status() == StatusCode::OK);
                times.add(began.elapsed(), right, None);
                tokio::time::sleep_until((began + BETWEEN).min(until)).await;
            }
            times
        });
        Times::of(futures::future::join_all(trying).await)
    }
}
