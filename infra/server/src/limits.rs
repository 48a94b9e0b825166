//! What one address may hold: connections, and with them half-sent heads; and the comparing of passwords.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method, Request};
use shared::app::places::{Place, Places};
use shared::config::{Config, Network};
use std::net::IpAddr;
use std::time::Duration;

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a client may take for a piece of a request.
    pub(crate) patience: Duration,
    connections: usize,
    proxies: Vec<Network>,
}

impl Limits {
    /// The limits that the settings name.
    pub fn of(config: &Config) -> Self {
        let connections = match config.connections {
            0 => usize::MAX,
            most => usize::try_from(most).unwrap_or(usize::MAX),
        };
        Self { patience: config.patience, connections, proxies: config.proxies.clone() }
    }
}

/// What one address may have at a time.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    limits: Limits,
    connections: Places<IpAddr>,
    logins: Places<IpAddr>,
    /// How long a password waits for the others of its address.
    patience: Duration,
}

/// How many requests with a password one address may have at a time: each costs memory and a core, and further ones wait
/// beside the queue of everybody.
const LOGINS: usize = 4;
const LOGIN_PATIENCE: Duration = Duration::from_secs(20);

/// Something of an address that is counted until this is dropped; nothing for proxies.
pub(crate) type Counted = Option<Place<IpAddr>>;

impl Addresses {
    pub(crate) fn new(limits: Limits) -> Self {
        let (connections, logins) = (Places::new(limits.connections), Places::new(LOGINS));
        Self { limits, connections, logins, patience: LOGIN_PATIENCE }
    }

    fn is_proxy(&self, address: IpAddr) -> bool {
        self.limits.proxies.iter().any(|network| network.contains(address))
    }

    /// Counts one more connection; `None` if its address has too many.
    pub(crate) fn connection(&self, address: IpAddr) -> Option<Counted> {
        let address = address.to_canonical();
        if self.is_proxy(address) { Some(None) } else { self.connections.now(&address).map(Some) }
    }

    /// The address from which a request comes. A proxy says whose it is; `None` if it says nothing.
    pub(crate) fn of(&self, address: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let address = address.to_canonical();
        if self.is_proxy(address) { forwarded(headers) } else { Some(address) }
    }

    /// Waits until an address may send one more password; `None` if that takes too long.
    pub(crate) async fn login(&self, address: IpAddr, headers: &HeaderMap) -> Option<Counted> {
        match self.of(address, headers) {
            Some(address) => self.logins.wait(&address, self.patience).await.map(Some),
            None => Some(None),
        }
    }
}

/// The address for which a proxy asks: the last one that it names, since its client may have sent others.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Whether a request may have a password that is compared: in its header, or in the body of a login. A request that
/// sends bytes to an upload is permitted by its URL alone, and may take hours.
pub(crate) fn has_password<B>(request: &Request<B>) -> bool {
    let uri = shared::http::normal(request.uri());
    let mut from_end = uri.path().rsplit('/');
    let id = from_end.next().is_some_and(|id| !id.is_empty());
    if id && from_end.next() == Some("uploads") && from_end.next() == Some("blobs") {
        return false;
    }
    let basic = |value: &HeaderValue| value.as_bytes().get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"basic"));
    let form = matches!(uri.path(), "/token" | "/auth/tokens" | "/v1/get-token" | "/api/register" | "/v1/register");
    (form && request.method() == Method::POST) || request.headers().get(AUTHORIZATION).is_some_and(basic)
}

/// Lets the process have as many open files as the system permits: each connection is one, and the default is 1024.
pub(crate) fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(connections: &'static str) -> Addresses {
        let setting = |name: &str| (name == "STACKROOM_CONNECTIONS").then(|| connections.to_owned());
        Addresses::new(Limits::of(&Config::read("http://h", setting).unwrap()))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_connections_and_no_more() {
        let addresses = addresses("2");
        let one = addresses.connection(ip("192.0.2.1"));
        // The same address as a dual-stack listener sees it.
        let two = addresses.connection(ip("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some() && addresses.connection(ip("192.0.2.1")).is_none());
        assert!(addresses.connection(ip("192.0.2.2")).is_some());
        drop(one);
        assert!(addresses.connection(ip("192.0.2.1")).is_some());
        // A proxy brings everybody.
        let many: Vec<_> = (0..10).map(|_| addresses.connection(ip("127.0.0.1"))).collect();
        assert!(many.iter().all(|place| matches!(place, Some(None))));
    }

    #[test]
    fn an_upload_takes_no_place_of_a_password() {
        let asked = |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).header("authorization", "Basic YTpi");
            has_password(&request.body(()).unwrap())
        };
        assert!(!asked("PATCH", "/v2/a/b/blobs/uploads/0123?ticket=x"));
        for path in ["/v2/a/b/blobs/uploads/", "/v2/a/b/blobs/uploads", "/v2/a/b/blobs/uploads//", "/v2/", "/token"] {
            assert!(asked("POST", path), "{path}");
        }
        assert!(asked("GET", "/v2/blobs/uploads/manifests/x"));
        let bare = |path: &str| has_password(&Request::builder().method("POST").uri(path).body(()).unwrap());
        assert!(
            bare("/token") && bare("//token") && bare("/v1/get-token") && bare("/api/register") && !bare("/v1/images")
        );
    }

    #[tokio::test]
    async fn passwords_of_one_address_wait_for_each_other_and_for_nobody_else() {
        let addresses = Addresses { patience: Duration::from_millis(20), ..addresses("0") };
        let mut headers = HeaderMap::new();
        let mut held = Vec::new();
        for _ in 0..LOGINS {
            held.push(addresses.login(ip("192.0.2.1"), &headers).await.unwrap());
        }
        assert!(addresses.login(ip("192.0.2.1"), &headers).await.is_none());
        assert!(addresses.login(ip("192.0.2.2"), &headers).await.is_some());
        // What others say of themselves does not count; what a proxy says last does.
        headers.insert("x-forwarded-for", "192.0.2.2, 192.0.2.1".parse().unwrap());
        assert!(addresses.login(ip("127.0.0.1"), &headers).await.is_none());
        assert!(addresses.login(ip("192.0.2.3"), &headers).await.is_some());
        headers.remove("x-forwarded-for");
        assert!(matches!(addresses.login(ip("127.0.0.1"), &headers).await, Some(None)));
        drop(held.pop());
        assert!(addresses.login(ip("192.0.2.1"), &headers).await.is_some());
    }
}
