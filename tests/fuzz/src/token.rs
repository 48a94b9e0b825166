//! Tokens: nothing that we did not sign is accepted; what we signed reads as what it said, and only where it is meant.
//!
//! The first byte of the input says what the rest is: `t` a text as it is, `c` changes to a signed text, `f` the parts
//! of a forged token, `d` values to be signed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use shared::auth::token::UploadTicket;
use shared::auth::{Credential, Keys};
use shared::domain::{Actor, Time, TokenId, TokenScope, UploadId, UserName};
use std::sync::LazyLock;

const NOW: Time = Time(1_800_000_000);
const LATER: Time = Time(NOW.0 + 300);
/// Neither clients nor we accept a longer token.
const LONGEST: usize = 4096;

/// Two keys of ours, and the same with a newer one in front, as after a key rotation.
static KEYS: LazyLock<Keys> = LazyLock::new(|| keys(&[("k1", "01"), ("k0", "02")]));
static RENEWED: LazyLock<Keys> = LazyLock::new(|| keys(&[("k2", "03"), ("k1", "01"), ("k0", "02")]));
/// Somebody else's keys, with the same ids.
static FOREIGN: LazyLock<Keys> = LazyLock::new(|| keys(&[("k1", "04"), ("k0", "05")]));
static SIGNED: LazyLock<Vec<(String, Said)>> = LazyLock::new(signed);

/// What a signed text says.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Token(Credential),
    Upload(UploadTicket),
    Url(String),
}

fn keys(lines: &[(&str, &str)]) -> Keys {
    let lines: Vec<String> = lines.iter().map(|(id, byte)| format!("{id}:{}\n", byte.repeat(32))).collect();
    Keys::parse(&lines.concat()).expect("keys")
}

fn signed() -> Vec<(String, Said)> {
    let user: Actor = "alice".parse().expect("a name");
    let id = TokenId::from_random([7; 12]);
    let access: Vec<TokenScope> = vec!["pull,push@alice/tools/hello".parse().expect("a scope")];
    let token = Credential::Token { actor: user.clone(), id };
    let short = Credential::Registry { actor: user.clone(), id: Some(id), password: None, access: access.clone() };
    let upload = UploadTicket {
        upload: UploadId::from_random([8; 16]),
        repository: "alice/tools/hello".parse().expect("a path"),
        actor: user.clone(),
        token: Some(id),
        password: None,
        container: None,
        until: LATER,
    };
    let url = "http://127.0.0.1:8080/objects/x?X-Amz-Expires=60".to_owned();
    let text = |signed: secrecy::SecretString| signed.expose_secret().to_owned();
    let access_of = |who: &Credential| text(KEYS.sign_access(who, access.clone(), NOW, LATER).expect("a token"));
    vec![
        (text(KEYS.sign(&user, id, NOW, None).expect("a token")), Said::Token(token.clone())),
        (text(KEYS.sign(&user, id, NOW, Some(LATER)).expect("a token")), Said::Token(token.clone())),
        (access_of(&token), Said::Token(short)),
        (access_of(&Credential::Anonymous), Said::Token(Credential::Anonymous)),
        (KEYS.sign_upload(&upload).expect("a ticket"), Said::Upload(upload)),
        (KEYS.seal(&url).expect("a ticket"), Said::Url(url)),
    ]
}

/// What all readers together make of a text: at most one of them accepts it.
fn read(keys: &Keys, text: &str, at: Time) -> Option<Said> {
    let token = keys.token(text, at).map(Said::Token);
    assert_eq!(keys.token(text, at).map(Said::Token), token, "what is remembered is what was read");
    let all = [token, keys.upload(text, at).map(Said::Upload), keys.unseal(text).map(Said::Url)];
    let mut all = all.into_iter().flatten();
    let said = all.next();
    assert_eq!(all.next(), None, "`{text}` is two things");
    said
}

/// What a text says, if it is exactly one that we signed.
fn known(text: &str) -> Option<Said> {
    SIGNED.iter().find(|(signed, _)| signed == text).map(|(_, said)| said.clone())
}

/// Only what we signed is accepted.
fn as_it_comes(text: &str) {
    assert_eq!(read(&KEYS, text, NOW), known(text), "{text:?}");
    assert_eq!(read(&RENEWED, text, NOW), known(text), "{text:?}");
    assert_eq!(read(&FOREIGN, text, NOW), None, "{text:?}");
    let header = text.trim();
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    let token = token.trim();
    let caller = KEYS.credential(Some(text), NOW);
    match (scheme.eq_ignore_ascii_case("bearer"), token, known(token)) {
        (true, "", _) => assert_eq!(caller.ok(), Some(Credential::Anonymous)),
        (true, _, Some(Said::Token(signer))) => assert_eq!(caller.ok(), Some(signer)),
        _ => assert!(caller.is_err(), "{text:?}"),
    }
}

/// One of the signed texts, with some bytes of it replaced, removed or added.
fn changed(input: &[u8]) -> String {
    let (which, edits) = input.split_first().unwrap_or((&0, &[]));
    let (text, _) = SIGNED.get(usize::from(*which) % SIGNED.len()).expect("one of them");
    let mut text = text.clone().into_bytes();
    for edit in edits.chunks_exact(4) {
        let [how, high, low, byte] = edit else { continue };
        let at = usize::from(u16::from_be_bytes([*high, *low])) % text.len().max(1);
        match (how % 3, text.get_mut(at)) {
            (0, Some(place)) => *place = *byte,
            (1, Some(_)) => drop(text.remove(at)),
            _ => text.insert(at, *byte),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Header, claims and signature as given, one on each line.
fn forged(input: &[u8]) -> String {
    let parts = input.splitn(3, |byte| *byte == b'\n');
    parts.map(|part| URL_SAFE_NO_PAD.encode(part)).collect::<Vec<_>>().join(".")
}

/// Values to be signed, taken from the input: texts in lines, then numbers.
struct Drawn {
    user: UserName,
    access: Vec<TokenScope>,
    url: String,
    id: [u8; 12],
    expires: Option<Time>,
    at: Time,
}

impl Drawn {
    fn from(input: &[u8]) -> Option<Self> {
        let (numbers, texts) = input.split_first_chunk::<17>()?;
        let (id, times) = numbers.split_first_chunk::<12>()?;
        let mut lines = str::from_utf8(texts).ok()?.lines();
        let user = lines.next()?.parse().ok()?;
        let url = lines.next()?.to_owned();
        let access = lines.take(20).filter_map(|line| line.parse().ok()).collect();
        let time = |bytes: &[u8]| bytes.iter().fold(0, |sum: i64, byte| sum * 256 + i64::from(*byte));
        let expires = Some(time(times.get(..2)?)).filter(|time| *time > 0).map(|time| Time(NOW.0 + time));
        Some(Self { user, access, url, id: *id, expires, at: Time(NOW.0 + time(times.get(2..4)?)) })
    }
}

/// What we sign reads as what it was until it expires, with later keys too. With other keys it is nothing.
fn drawn(drawn: Drawn) {
    let Drawn { user, access, url, id, expires, at } = drawn;
    let lasts = expires.is_none_or(|expires| expires > at);
    let id = TokenId::from_random(id);
    let same = |text: &str, said: Option<Said>| {
        for keys in [&KEYS, &RENEWED] {
            assert_eq!(read(keys, text, at), said, "{text}");
        }
        assert_eq!(read(&FOREIGN, text, at), None, "{text}");
    };

    let actor = Actor::from(user.clone());
    let token = Credential::Token { actor: actor.clone(), id };
    let text = KEYS.sign(&actor, id, NOW, expires).expect("a token");
    assert!((200..=LONGEST).contains(&text.expose_secret().len()), "a length that clients take");
    same(text.expose_secret(), Some(Said::Token(token.clone())).filter(|_| lasts));

    let until = expires.unwrap_or(LATER);
    let mark = Some("0123456789abcdef".to_owned());
    let password = Credential::Registry { actor: actor.clone(), id: None, password: mark, access: Vec::new() };
    for who in [token, password, Credential::Anonymous] {
        let text = KEYS.sign_access(&who, access.clone(), NOW, until).expect("a token");
        let text = text.expose_secret();
        let said = match who {
            Credential::Token { actor, id } => {
                Credential::Registry { actor, id: Some(id), password: None, access: access.clone() }
            }
            Credential::Registry { actor, id, password, .. } => {
                Credential::Registry { actor, id, password, access: access.clone() }
            }
            Credential::Anonymous => Credential::Anonymous,
        };
        same(text, Some(Said::Token(said)).filter(|_| until > at && text.len() <= LONGEST));
    }

    let ticket = UploadTicket {
        upload: UploadId::from_random([9; 16]),
        repository: format!("{user}/tools/hello").parse().expect("a path"),
        actor,
        token: expires.map(|_| id),
        password: expires.is_none().then(|| "0123456789abcdef".to_owned()),
        container: None,
        until,
    };
    let text = KEYS.sign_upload(&ticket).expect("a ticket");
    same(&text, Some(Said::Upload(ticket)).filter(|_| until > at));
    let text = KEYS.seal(&url).expect("a ticket");
    same(&text, Some(Said::Url(url)));
}

/// Checks one input.
///
/// # Panics
/// If something is wrong.
pub fn run(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else { return };
    match kind {
        b'c' => as_it_comes(&changed(rest)),
        b'f' => as_it_comes(&forged(rest)),
        b'd' => {
            if let Some(input) = Drawn::from(rest) {
                drawn(input);
            }
        }
        _ => as_it_comes(&String::from_utf8_lossy(rest)),
    }
}
