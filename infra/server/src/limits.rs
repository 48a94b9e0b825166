//! What one address may hold: connections, and with them half-sent heads.

use shared::config::Config;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The limits of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long a client may take for a piece of a request.
    pub(crate) patience: Duration,
    connections: usize,
    proxies: Vec<IpAddr>,
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

/// How many connections each address has.
type Open = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// The open connections of each address.
#[derive(Debug)]
pub(crate) struct Connections {
    limits: Limits,
    open: Open,
}

impl Connections {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Counts one more connection until the place is dropped; `None` if its address has too many.
    pub(crate) fn place(&self, address: IpAddr) -> Option<ConnectionPlace> {
        let address = address.to_canonical();
        if self.limits.proxies.contains(&address) {
            return Some(ConnectionPlace { counted: None });
        }
        let mut open = lock(&self.open);
        let count = open.entry(address).or_default();
        if *count >= self.limits.connections {
            return None;
        }
        *count += 1;
        Some(ConnectionPlace { counted: Some((address, Arc::clone(&self.open))) })
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct ConnectionPlace {
    counted: Option<(IpAddr, Open)>,
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let Some((address, open)) = &self.counted else { return };
        let mut open = lock(open);
        if let Some(count) = open.get_mut(address) {
            *count -= 1;
            if *count == 0 {
                open.remove(address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn an_address_has_its_places_and_no_more() {
        let config = |name: &str| match name {
            "STACKROOM_CONNECTIONS" => Some("2".to_owned()),
            _ => None,
        };
        let connections = Connections::new(Limits::of(&Config::read("http://h", config).unwrap()));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = connections.place(address("192.0.2.1"));
        // The same address as a dual-stack listener sees it.
        let two = connections.place(address("::ffff:192.0.2.1"));
        assert!(one.is_some() && two.is_some() && connections.place(address("192.0.2.1")).is_none());
        assert!(connections.place(address("192.0.2.2")).is_some());
        drop(one);
        assert!(connections.place(address("192.0.2.1")).is_some());
        // A proxy brings everybody.
        let many: Vec<_> = (0..10).map(|_| connections.place(address("127.0.0.1"))).collect();
        assert!(many.iter().all(Option::is_some));
        drop((two, many));
        assert!(lock(&connections.open).is_empty());
    }
}
