//! The settings, each defined once, with its default.

pub use crate::domain::Pins;
use crate::domain::Registration;
use crate::domain::reference::Defaults;
use crate::domain::time::SKEW;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

/// The settings of an installation.
#[derive(Debug, Clone)]
pub struct Config {
    /// The URL under which clients reach us, without a slash at the end. `STACKROOM_PUBLIC_URL`.
    pub public_url: String,
    /// The defaults for missing parts of a reference. `STACKROOM_DEFAULT_ENTITY`, `STACKROOM_DEFAULT_COLLECTION`.
    pub defaults: Defaults,
    /// The quota of a new entity in bytes, 0 for unlimited. `STACKROOM_DEFAULT_QUOTA`.
    pub default_quota: u64,
    /// The time limit of an upload, and so the lifetime of its URLs. `STACKROOM_UPLOAD_LIFE`, seconds.
    pub upload_life: Duration,
    /// The largest multipart upload, in bytes, that is verified before its completion is answered. Larger ones are
    /// answered first, and the `verify` function verifies them later. `STACKROOM_VERIFY_AT_ONCE`, by default no limit.
    pub verify_at_once: u64,
    /// What the URL of an upload fixes of its bytes. `STACKROOM_PIN_UPLOADS`: `true`, `header` or `false`.
    pub pin_uploads: Pins,
    /// The time limit of a download, and so the lifetime of its URLs. `STACKROOM_DOWNLOAD_LIFE`, seconds. The
    /// registry's own redirects last 20 minutes at most.
    pub download_life: Duration,
    /// Where registry clients upload blobs, if that is another host than [`Self::public_url`]: the one with
    /// `stackroom ingest`. `STACKROOM_INGEST_URL`.
    pub ingest_url: Option<String>,
    /// Memory for buffering blob uploads, in MiB. `STACKROOM_BUFFERS`.
    pub buffers: u32,
    /// The most bytes of a blob that one request can send. `STACKROOM_LONGEST_CHUNK`;
    /// functions accept no more than 4 MiB.
    pub longest_chunk: u64,
    /// The time that a client may take for a manifest or for a MiB of a blob, and the time that it waits for its turn
    /// if many clients upload at once. `STACKROOM_PATIENCE`, seconds.
    pub patience: Duration,
    /// The most connections of one address at a time, 0 for no limit. `STACKROOM_CONNECTIONS`.
    pub connections: u64,
    /// The networks of proxies, which bring the connections of others. `STACKROOM_PROXIES`, separated by commas.
    pub proxies: Vec<Network>,
    /// The most long lists and searches at a time, 0 for half as many as there are cores. `STACKROOM_LONG_READS`.
    pub long_reads: u64,
    /// How many groups a user may make, 0 if only operators may make them. `STACKROOM_GROUPS_PER_USER`.
    pub groups_per_user: u64,
    /// The quota of a new group in bytes, 0 for unlimited. `STACKROOM_GROUP_QUOTA`, by default that of any entity.
    pub group_quota: u64,
    /// Whether the groups of directories can have roles. `STACKROOM_DIRECTORY_GROUPS`. It costs every lookup of somebody
    /// who is logged in one more row.
    pub directory_groups: bool,
    /// How long the groups count that a directory named for a user. `STACKROOM_GROUPS_LIFE`, seconds.
    pub groups_life: Duration,
    /// How long events are kept. `STACKROOM_EVENT_LIFE`, seconds.
    pub event_life: Duration,
    /// How long a share lasts if its maker says nothing. `STACKROOM_SHARE_LIFE`, seconds.
    pub share_life: Duration,
    /// The longest life of a share. `STACKROOM_MAX_SHARE_LIFE`, seconds.
    pub max_share_life: Duration,
    /// The path below which a proxy in front has the object files of an embedded store, to send them itself.
    /// `STACKROOM_PROXY_SENDS`.
    pub proxy_sends: Option<String>,
    /// Whether we send blobs to registry clients ourselves, instead of redirecting them to the store.
    /// `STACKROOM_SERVE_BLOBS`.
    pub serve_blobs: bool,
    /// The namespace in `CloudWatch` of the metrics of functions, `None` if they publish none.
    /// `STACKROOM_METRICS_NAMESPACE`.
    pub metrics_namespace: Option<String>,
    /// What the operator decides about accounts.
    pub policy: Policy,
}

/// What the operator decides about accounts.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The longest life of a token, whatever it says itself; `None` for no limit. `STACKROOM_MAX_TOKEN_LIFE`, seconds.
    pub max_token_life: Option<Duration>,
    /// The percentage of its quota from which an entity's pushes are answered with a warning, 0 for none.
    /// `STACKROOM_QUOTA_WARNING`.
    pub quota_warning: u64,
    /// Who may make an account for themselves. `STACKROOM_REGISTRATION`.
    pub registration: Registration,
    /// How often one address may try to register within a day, where anybody may. `STACKROOM_REGISTRATIONS_PER_DAY`.
    pub registrations_per_day: u64,
}

/// The longest lifetime of any URL: S3's own limit.
pub const LONGEST_URL: Duration = Duration::from_hours(7 * 24);
// The bucket's own rule in template.yaml aborts multipart uploads after eight days, by its own clock.
const _: () = assert!(LONGEST_URL.as_secs() + SKEW.as_secs() < 8 * 24 * 3600);

/// The environment has invalid settings. Lists all of them, not only the first.
#[derive(Debug, thiserror::Error)]
#[error("invalid settings: {}", .0.join("; "))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// Reads the settings through `get`, which looks up an environment variable.
    pub fn read(public_url: &str, get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut wrong = Vec::new();
        let mut number = |name: &str, default: u64| whole(get(name), name, default, &mut wrong);
        let default_quota = number("STACKROOM_DEFAULT_QUOTA", 0);
        let pin_uploads = pins(get("STACKROOM_PIN_UPLOADS").as_deref());
        let verify_at_once = number("STACKROOM_VERIFY_AT_ONCE", u64::MAX);
        let upload_life = Duration::from_secs(number("STACKROOM_UPLOAD_LIFE", 24 * 3600));
        let download_life = Duration::from_secs(number("STACKROOM_DOWNLOAD_LIFE", 24 * 3600));
        let buffers = u32::try_from(number("STACKROOM_BUFFERS", 128)).unwrap_or(u32::MAX).clamp(8, 1 << 20);
        // Proxies wait for the same time for a client's next bytes, and clients for ours.
        let patience = Duration::from_secs(number("STACKROOM_PATIENCE", 60).max(1));
        let connections = number("STACKROOM_CONNECTIONS", 512);
        let long_reads = number("STACKROOM_LONG_READS", 0);
        let groups_per_user = number("STACKROOM_GROUPS_PER_USER", 5);
        let group_quota = number("STACKROOM_GROUP_QUOTA", default_quota);
        let groups_life = Duration::from_secs(number("STACKROOM_GROUPS_LIFE", 30 * 24 * 3600));
        let event_life = Duration::from_secs(number("STACKROOM_EVENT_LIFE", 400 * 24 * 3600));
        let share_life = Duration::from_secs(number("STACKROOM_SHARE_LIFE", 24 * 3600));
        let max_share_life = Duration::from_secs(number("STACKROOM_MAX_SHARE_LIFE", 30 * 24 * 3600));
        let longest_chunk = number("STACKROOM_LONGEST_CHUNK", u64::MAX);
        in_bounds("STACKROOM_UPLOAD_LIFE", upload_life, LONGEST_URL, &mut wrong);
        in_bounds("STACKROOM_DOWNLOAD_LIFE", download_life, LONGEST_URL, &mut wrong);
        in_bounds("STACKROOM_SHARE_LIFE", share_life, max_share_life, &mut wrong);
        let policy = Policy::read(&get, &mut wrong);
        let proxies = networks(get("STACKROOM_PROXIES").as_deref(), &mut wrong);
        let directory_groups = get("STACKROOM_DIRECTORY_GROUPS").is_some_and(|text| text == "true");
        let serve_blobs = get("STACKROOM_SERVE_BLOBS").is_some_and(|text| text == "true");
        let proxy_sends = folder(get("STACKROOM_PROXY_SENDS"), &mut wrong);
        let metrics_namespace = namespace(get("STACKROOM_METRICS_NAMESPACE"), &mut wrong);
        let ingest_url = get("STACKROOM_INGEST_URL").filter(|url| !url.is_empty());
        let ingest_url = ingest_url.map(|url| url.trim_end_matches('/').to_owned());
        let name = |name: &str, default: &str| get(name).unwrap_or_else(|| default.to_owned());
        let entity = name("STACKROOM_DEFAULT_ENTITY", "library").parse();
        let collection = name("STACKROOM_DEFAULT_COLLECTION", "default").parse();
        check_hosts(public_url, ingest_url.as_deref(), &mut wrong);
        match (entity, collection) {
            (Ok(entity), Ok(collection)) if wrong.is_empty() => Ok(Self {
                public_url: public_url.trim_end_matches('/').to_owned(),
                defaults: Defaults { entity, collection },
                default_quota,
                upload_life,
                verify_at_once,
                pin_uploads,
                download_life,
                ingest_url,
                buffers,
                longest_chunk,
                patience,
                connections,
                proxies,
                long_reads,
                groups_per_user,
                group_quota,
                directory_groups,
                groups_life,
                event_life,
                share_life,
                max_share_life,
                proxy_sends,
                serve_blobs,
                metrics_namespace,
                policy,
            }),
            (entity, collection) => {
                wrong.extend(entity.err().map(|error| error.to_string()));
                wrong.extend(collection.err().map(|error| error.to_string()));
                Err(ConfigError(wrong))
            }
        }
    }
}

impl Policy {
    fn read(get: &impl Fn(&str) -> Option<String>, wrong: &mut Vec<String>) -> Self {
        let mut number = |name: &str, default: u64| whole(get(name), name, default, wrong);
        let max_token_life = Some(number("STACKROOM_MAX_TOKEN_LIFE", 0)).filter(|life| *life > 0);
        let quota_warning = number("STACKROOM_QUOTA_WARNING", 90);
        let registrations_per_day = number("STACKROOM_REGISTRATIONS_PER_DAY", 20);
        if quota_warning > 100 {
            wrong.push("`STACKROOM_QUOTA_WARNING` is a percentage, at most 100".to_owned());
        }
        let registration = get("STACKROOM_REGISTRATION").map_or(Ok(Registration::Closed), |text| text.parse());
        let registration = registration.unwrap_or_else(|()| {
            wrong.push("`STACKROOM_REGISTRATION` is `open`, `invitation` or `closed`".to_owned());
            Registration::Closed
        });
        let max_token_life = max_token_life.map(Duration::from_secs);
        Self { max_token_life, quota_warning, registration, registrations_per_day }
    }
}

/// Reads a whole number.
fn whole(text: Option<String>, name: &str, default: u64, wrong: &mut Vec<String>) -> u64 {
    match text.map(|text| text.parse()) {
        None => default,
        Some(Ok(number)) => number,
        Some(Err(_)) => {
            wrong.push(format!("`{name}` is not a whole number"));
            default
        }
    }
}

fn pins(text: Option<&str>) -> Pins {
    match text {
        Some("false") => Pins::Nothing,
        Some("header") => Pins::Header,
        _ => Pins::Bytes,
    }
}

/// Reads a path that ends with a slash.
fn folder(text: Option<String>, wrong: &mut Vec<String>) -> Option<String> {
    let text = text.filter(|text| !text.is_empty())?;
    let spelt = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    if text.len() < 3 || !text.starts_with('/') || !text.ends_with('/') || !text.chars().all(spelt) {
        wrong.push("`STACKROOM_PROXY_SENDS` is a path of the proxy, like `/object-files/`".to_owned());
        return None;
    }
    Some(text)
}

/// Reads a namespace of `CloudWatch`. Those that begin with `AWS/` are AWS's own.
fn namespace(text: Option<String>, wrong: &mut Vec<String>) -> Option<String> {
    let text = text.filter(|text| !text.is_empty())?;
    let spelt = |c: char| c.is_ascii_alphanumeric() || "._-/#:".contains(c);
    if text.len() > 255 || !text.chars().all(spelt) || text.starts_with(':') || text.starts_with("AWS/") {
        wrong.push("`STACKROOM_METRICS_NAMESPACE` is no namespace that CloudWatch accepts".to_owned());
        return None;
    }
    Some(text)
}

/// Refuses URLs that clients can't use, or to which they would send their token.
fn check_hosts(public_url: &str, ingest_url: Option<&str>, wrong: &mut Vec<String>) {
    if !public_url.starts_with("http://") && !public_url.starts_with("https://") {
        wrong.push("`STACKROOM_PUBLIC_URL` must begin with http:// or https://".to_owned());
    }
    if ingest_url.is_some_and(|url| lies_below(host(url), host(public_url))) {
        wrong.push(
            "the host of `STACKROOM_INGEST_URL` must not be a subdomain of that of `STACKROOM_PUBLIC_URL`: clients \
             written in Go pass their token on to all subdomains of the host that they asked; use a name beside it"
                .to_owned(),
        );
    }
}

/// Checks that the life that a setting gives is one, and not too long.
fn in_bounds(name: &str, life: Duration, longest: Duration, wrong: &mut Vec<String>) {
    if life.is_zero() || life > longest {
        wrong.push(format!("`{name}` must be between 1 and {} seconds", longest.as_secs()));
    }
}

/// Addresses that begin alike: one address, or `ADDRESS/BITS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Whether an address lies in it. IPv4 addresses in the form of IPv6 are IPv4 addresses.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, width: u32| {
            let rest = width.saturating_sub(self.bits);
            one.checked_shr(rest).unwrap_or(0) == other.checked_shr(rest).unwrap_or(0)
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().map_err(drop)?.to_canonical();
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(width), str::parse).map_err(drop)?;
        if bits > width { Err(()) } else { Ok(Self { address, bits }) }
    }
}

/// The networks of the setting `STACKROOM_PROXIES`: a proxy on the same machine, unless it says otherwise.
fn networks(listed: Option<&str>, wrong: &mut Vec<String>) -> Vec<Network> {
    let listed = listed.unwrap_or("127.0.0.1,::1").split(',').map(str::trim).filter(|network| !network.is_empty());
    let mut networks = Vec::new();
    for network in listed {
        match network.parse() {
            Ok(network) => networks.push(network),
            Err(()) => wrong.push(format!("`STACKROOM_PROXIES` has `{network}`, which is no IP address or network")),
        }
    }
    networks
}

/// Makes sure that clients send no token to the bucket: its public host must not be a subdomain of our own.
///
/// # Errors
/// If it is one.
pub fn beside(public_url: &str, bucket: &str) -> Result<(), ConfigError> {
    if !lies_below(host(bucket), host(public_url)) {
        return Ok(());
    }
    let why = "the host of the bucket (`STACKROOM_S3_PUBLIC_URL`) must not be a subdomain of that of `STACKROOM_PUBLIC_URL`: clients \
               written in Go pass their token on to all subdomains of the host that they asked; use a name beside it";
    Err(ConfigError(vec![why.to_owned()]))
}

/// The host of a URL, without its port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => host.split(':').next().unwrap_or(host).trim_end_matches('.'),
    }
}

/// Whether a name is a subdomain of another one.
fn lies_below(name: &str, other: &str) -> bool {
    let (name, other) = (name.to_ascii_lowercase(), other.to_ascii_lowercase());
    name.strip_suffix(&other).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        for (network, inside, outside) in [
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("10.1.0.0/16", "10.1.255.3", "10.2.0.0"),
            ("10.1.0.0/16", "::ffff:10.1.2.3", "::1"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network:?} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network:?} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "name", "::/129"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let error = Config::read("host", |name| match name {
            "STACKROOM_DEFAULT_QUOTA" => Some("1GB".to_owned()),
            "STACKROOM_UPLOAD_LIFE" => Some("0".to_owned()),
            "STACKROOM_DEFAULT_ENTITY" => Some("v2".to_owned()),
            "STACKROOM_PROXIES" => Some("127.0.0.1, proxy".to_owned()),
            "STACKROOM_QUOTA_WARNING" => Some("101".to_owned()),
            "STACKROOM_REGISTRATION" => Some("Open".to_owned()),
            "STACKROOM_METRICS_NAMESPACE" => Some("AWS/Stackroom".to_owned()),
            "STACKROOM_PROXY_SENDS" => Some("files".to_owned()),
            _ => None,
        });
        assert_eq!(error.unwrap_err().0.len(), 9);
    }

    #[test]
    fn hazard_redirect_auth_leak_no_ingest_host_lies_below_the_public_one() {
        for (public, ingest, good) in [
            ("https://library.example.org", "https://ingest.library.example.org", false),
            ("https://library.example.org:8443", "https://a.b.Library.example.org./x", false),
            ("https://LIBRARY.example.org/", "http://user@ingest.library.example.org:9", false),
            ("https://library.example.org", "https://ingest.example.org", true),
            ("https://library.example.org", "https://ingestlibrary.example.org", true),
            ("https://ingest.library.example.org", "https://library.example.org", true),
            ("http://127.0.0.1:1", "http://localhost:2", true),
            ("http://localhost:1", "http://localhost:2", true),
            ("http://[::1]:1", "http://[::1]:2", true),
            ("https://library.example.org", "", true),
        ] {
            let read = Config::read(public, |name| (name == "STACKROOM_INGEST_URL").then(|| ingest.to_owned()));
            assert_eq!(read.is_ok(), good, "{public} {ingest}");
            let said = read.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(good || (said.contains("STACKROOM_INGEST_URL") && said.contains("token")), "{said}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_old_public_library() {
        let config = Config::read("http://h/", |_| None).unwrap();
        assert_eq!(config.public_url, "http://h");
        assert_eq!(config.defaults.container("alpine").unwrap().to_string(), "library/default/alpine");
    }
}
