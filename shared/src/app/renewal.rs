//! New token keys without a new deployment: they are read again after a while, and when a request has a token of a key
//! that is not known yet.

use super::App;
use crate::error::Error;
use crate::store::Secret;
use secrecy::ExposeSecret;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How old the keys may get. A key that was taken out of the secret is believed for this long.
const AGE: Duration = Duration::from_mins(5);

/// How long we wait between two tries: anybody can send a token of an unknown key.
const PAUSE: Duration = Duration::from_secs(10);

/// The tries to read a secret at the start of a function.
const TRIES: u32 = 3;

/// Where token keys come from, and when they were read.
#[derive(Debug)]
pub(super) struct Renewal {
    secret: Secret,
    times: Mutex<Times>,
}

/// Times since 1970.
#[derive(Debug, Clone, Copy)]
struct Times {
    read: Duration,
    tried: Duration,
}

impl Renewal {
    /// Keys that were read from a secret just now.
    pub(super) fn new(secret: Secret, now: Duration) -> Self {
        Self { secret, times: Mutex::new(Times { read: now, tried: now }) }
    }

    /// Whether the keys are to be read now. Then the next answer is `false` for a while.
    fn due(&self, now: Duration, missing: bool) -> bool {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let old = now.saturating_sub(times.read) >= AGE;
        let due = (old || missing) && now.saturating_sub(times.tried) >= PAUSE;
        if due {
            times.tried = now;
        }
        due
    }

    fn done(&self, now: Duration) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).read = now;
    }
}

/// Reads the keys for the first time.
pub(super) async fn first(secret: &Secret) -> Result<String, Error> {
    let mut tries = 1;
    loop {
        match secret.read().await {
            Ok(text) => return Ok(text.expose_secret().to_owned()),
            Err(error) if tries == TRIES => return Err(Error::Internal(error.to_string())),
            Err(error) => tracing::warn!(%error, "reading the token keys"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

impl App {
    /// Reads the token keys again, if they came from a secret and it is time to: because they are old, or because
    /// `missing` says that a request has a token of a key that is not among them. If they can't be read, the present
    /// ones stay.
    pub async fn renew_keys(&self, missing: bool) {
        let Some(renewal) = self.renewal() else { return };
        if !renewal.due((self.clock)(), missing) {
            return;
        }
        let read = renewal.secret.read().await.map_err(Error::from);
        match read.and_then(|text| self.keys.replace(text.expose_secret())) {
            Ok(()) => renewal.done((self.clock)()),
            Err(error) => {
                let cause = error.cause().unwrap_or_else(|| error.to_string());
                tracing::error!(cause, "the token keys can't be read again, the present ones stay");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Parts;
    use crate::auth::Keys;
    use crate::config::Config;
    use crate::store::{Objects, Table};
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
    use axum::Router;
    use axum::extract::{Request, State};
    use http::StatusCode;
    use sha2::{Digest, Sha256};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What a fake Secrets Manager answers, and what it was asked.
    #[derive(Clone, Default)]
    struct Fake {
        answer: Arc<Mutex<(u16, String)>>,
        asked: Arc<Mutex<Vec<String>>>,
    }

    impl Fake {
        fn answers(&self, status: u16, answer: &serde_json::Value) {
            *self.answer.lock().unwrap() = (status, answer.to_string());
        }

        fn asked(&self) -> usize {
            self.asked.lock().unwrap().len()
        }
    }

    /// The `Authorization` that a request must have, computed from the request as it arrived.
    fn expected(headers: &http::HeaderMap, body: &[u8]) -> String {
        let hex = crate::domain::digest::hex;
        let signed = ["content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"];
        let lines = signed.map(|name| format!("{name}:{}\n", headers[name].to_str().unwrap())).concat();
        let request = format!("POST\n/\n\n{lines}\n{}\n{}", signed.join(";"), hex(&Sha256::digest(body)));
        let date = headers["x-amz-date"].to_str().unwrap();
        let scope = format!("{}/eu-north-1/secretsmanager/aws4_request", &date[..8]);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&Sha256::digest(request)));
        let key = generate_signing_key("secret", std::time::SystemTime::now(), "eu-north-1", "secretsmanager");
        let signature = calculate_signature(key, text.as_bytes());
        format!("AWS4-HMAC-SHA256 Credential=akid/{scope}, SignedHeaders={}, Signature={signature}", signed.join(";"))
    }

    async fn answer(State(fake): State<Fake>, request: Request) -> (StatusCode, String) {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        assert_eq!(parts.headers["x-amz-target"], "secretsmanager.GetSecretValue");
        assert_eq!(parts.headers["authorization"], expected(&parts.headers, &body).as_str());
        fake.asked.lock().unwrap().push(String::from_utf8(body.to_vec()).unwrap());
        let (status, text) = fake.answer.lock().unwrap().clone();
        (StatusCode::from_u16(status).unwrap(), text)
    }

    const ARN: &str = "arn:aws:secretsmanager:eu-north-1:000000000000:secret:stackroom/keys-abcdef";

    /// A fake, and a secret that it keeps.
    async fn kept(text: &str) -> (Fake, Secret) {
        let fake = Fake::default();
        fake.answers(200, &serde_json::json!({ "ARN": ARN, "SecretString": text }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let credentials = Credentials::new("akid", "secret", Some("session".to_owned()), None, "test");
        let credentials = SharedCredentialsProvider::new(credentials);
        (fake, Secret::new(ARN.to_owned(), "elsewhere", Some(url), credentials))
    }

    static NOW: AtomicU64 = AtomicU64::new(1_800_000_000);

    fn now() -> Duration {
        Duration::from_secs(NOW.load(Ordering::SeqCst))
    }

    fn later(time: Duration) {
        NOW.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    /// An installation whose stores are never asked.
    fn app(keys: Keys, secret: Secret) -> App {
        let region = aws_sdk_s3::config::Region::new("local");
        let s3 = aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(region.clone());
        let s3 = aws_sdk_s3::Client::from_conf(s3.build());
        let table = aws_sdk_dynamodb::Config::builder()
            .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
            .region(region);
        let table = aws_sdk_dynamodb::Client::from_conf(table.build());
        let parts = Parts {
            config: Config::read("http://h", |_| None).unwrap(),
            table: Table::new(table.clone(), "table".to_owned()),
            index: Table::new(table, "index".to_owned()),
            objects: Objects::new(s3.clone(), s3, "bucket".to_owned()),
            keys,
            clock: now,
        };
        App::assembled(parts, Some(Renewal::new(secret, now())))
    }

    fn signs(app: &App) -> String {
        let token = app.keys.seal("http://h").unwrap();
        jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
    }

    #[tokio::test]
    async fn keys_are_read_again_when_they_are_old_or_one_is_missing_but_not_at_each_request() {
        let (digits, pause) = ("ab".repeat(32), PAUSE + Duration::from_secs(1));
        let (fake, secret) = kept(&format!("one:{digits}\n")).await;
        let app = app(Keys::parse(&first(&secret).await.unwrap()).unwrap(), secret);
        assert_eq!(*fake.asked.lock().unwrap(), [format!("{{\"SecretId\":\"{ARN}\"}}")]);
        fake.answers(200, &serde_json::json!({ "SecretString": format!("two:{digits}\none:{digits}") }));
        // Neither old nor missing; missing, but just read.
        later(pause);
        app.renew_keys(false).await;
        later(Duration::ZERO);
        assert_eq!((fake.asked(), signs(&app).as_str()), (1, "one"));
        app.renew_keys(true).await;
        assert_eq!((fake.asked(), signs(&app).as_str()), (2, "two"));
        for _ in 0..100 {
            app.renew_keys(true).await;
        }
        assert_eq!(fake.asked(), 2, "tokens with keys that nobody has cost no requests");
        // Old, but refused: the present keys stay, and the next try waits a while.
        later(AGE);
        for (status, answer) in [
            (400, serde_json::json!({ "__type": "AccessDeniedException", "Message": "no" })),
            (200, serde_json::json!({ "SecretString": "not keys" })),
            (200, serde_json::json!({ "SecretBinary": "AA==" })),
            (500, serde_json::json!("?")),
        ] {
            fake.answers(status, &answer);
            let before = fake.asked();
            app.renew_keys(false).await;
            app.renew_keys(false).await;
            assert_eq!((fake.asked(), signs(&app).as_str()), (before + 1, "two"), "{answer}");
            later(pause);
        }
        fake.answers(200, &serde_json::json!({ "SecretString": format!("three:{digits}") }));
        app.renew_keys(false).await;
        assert_eq!(signs(&app), "three");
    }

    #[tokio::test]
    async fn a_secret_that_can_not_be_read_is_named_and_nothing_of_it_is_said() {
        let (fake, secret) = kept("").await;
        for (status, answer, said) in [
            (400, serde_json::json!({ "__type": "x#AccessDeniedException", "m": "hush" }), "400 AccessDeniedException"),
            (200, serde_json::json!({ "Name": "hush" }), "it has no text"),
            (200, serde_json::json!(["hush"]), "it answers 200"),
        ] {
            fake.answers(status, &answer);
            let error = secret.read().await.unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(ARN) && !error.contains("hush"), "{error}");
        }
        let before = fake.asked();
        assert!(first(&secret).await.is_err());
        assert_eq!(fake.asked(), before + 3);
    }

    #[tokio::test]
    async fn no_service_is_waited_for_without_end() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let credentials = SharedCredentialsProvider::new(Credentials::new("akid", "secret", None, None, "test"));
        let secret = Secret::new("name".to_owned(), "local", Some(url), credentials);
        let error = secret.read().await.unwrap_err().to_string();
        assert!(error.contains("in time"), "{error}");
    }
}
