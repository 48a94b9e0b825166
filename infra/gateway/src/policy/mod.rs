//! What a function may do: its statements, who calls, and what a call needs.
//!
//! Source: *IAM User Guide*, "Policy evaluation logic", "IAM JSON policy elements: Action", "… Resource"; *Service
//! Authorization Reference*, "Actions, resources, and condition keys for Amazon `DynamoDB`", "… for Amazon S3".
//!
//! Every instance of a function has an access key of its own, as on Lambda. The [doors](crate::doors) of the stores see
//! by that key who calls, ask here what the call needs, and refuse what no statement of that function allows.

pub mod dynamodb;
pub mod s3;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a statement does with what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Allows it.
    Allow,
    /// Denies it, whatever else allows it.
    Deny,
}

/// A statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it does.
    pub effect: Effect,
    /// The actions, like `s3:GetObject`, where `*` is any text and `?` any character.
    pub actions: Vec<String>,
    /// The ARNs, in the same way.
    pub resources: Vec<String>,
}

/// Something that a call needs to be allowed: an action on a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Like `dynamodb:GetItem`.
    pub action: String,
    /// Its ARN.
    pub resource: String,
}

impl Need {
    /// An action on a resource.
    pub fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resource: resource.into() }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.action, self.resource)
    }
}

/// Whether statements allow what a call needs. Source: *IAM User Guide*, "Policy evaluation logic": denied unless
/// something allows it, and an explicit denial wins.
pub fn allows(statements: &[Statement], need: &Need) -> bool {
    let applies = |statement: &&Statement| {
        // Source: "IAM JSON policy elements: Action": the case of actions does not matter, that of ARNs does.
        let action = need.action.to_lowercase();
        statement.actions.iter().any(|pattern| matches(&pattern.to_lowercase(), &action))
            && statement.resources.iter().any(|pattern| matches(pattern, &need.resource))
    };
    let mut named = statements.iter().filter(applies).peekable();
    named.peek().is_some() && named.all(|statement| statement.effect == Effect::Allow)
}

/// Whether a pattern with `*` and `?` matches a whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some(first) = pattern.chars().next() else { return text.is_empty() };
    let rest = pattern.get(first.len_utf8()..).unwrap_or_default();
    if first == '*' {
        let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
        return ends.into_iter().any(|at| matches(rest, text.get(at..).unwrap_or_default()));
    }
    let Some(next) = text.chars().next() else { return false };
    (first == '?' || first == next) && matches(rest, text.get(next.len_utf8()..).unwrap_or_default())
}

/// A call of a store that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The logical id of the function.
    pub function: String,
    /// What it would have needed.
    pub need: Need,
    /// Whether it was a URL that the function signed, in somebody else's hands, and not the function itself.
    pub presigned: bool,
}

/// The temporary credentials of one instance, and who it is. Source: *Lambda Developer Guide*, "Defining Lambda function
/// environment variables": every execution environment has the access key, secret and session token of the execution
/// role.
pub struct Principal {
    /// The logical id of the function.
    pub function: String,
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: String,
    statements: Arc<Vec<Statement>>,
    calls: Mutex<Vec<Call>>,
    /// What happens at some call: for faults.
    trap: Mutex<Option<Trap>>,
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Everything but the secrets.
        f.debug_struct("Principal")
            .field("function", &self.function)
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// A call that an instance made of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The operation, as its service names it, like `TransactWriteItems` or `GetObject`.
    pub operation: String,
    /// What it needed.
    pub needs: Vec<Need>,
    /// Whether it was refused.
    pub denied: bool,
}

/// On which side of a call something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Before the store sees it.
    Before,
    /// After the store did it, before the caller hears of it.
    After,
}

/// A call at which the caller dies.
#[derive(Debug)]
pub(crate) struct Trap {
    /// How many more calls it may make.
    pub(crate) left: u32,
    /// On which side of the last one it dies.
    pub(crate) side: Side,
    /// Told when it should.
    pub(crate) sprung: tokio::sync::oneshot::Sender<()>,
}

impl Principal {
    /// Whether its statements allow something.
    pub fn may(&self, need: &Need) -> bool {
        allows(&self.statements, need)
    }

    /// The calls since this was asked last.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *lock(&self.calls))
    }

    pub(crate) fn note(&self, call: Call) {
        lock(&self.calls).push(call);
    }

    pub(crate) fn set_trap(&self, trap: Option<Trap>) {
        *lock(&self.trap) = trap;
    }

    /// Counts a call. Returns the side on which the caller dies, if it does so at this one.
    pub(crate) fn step(&self) -> Option<Side> {
        let mut trap = lock(&self.trap);
        let set = trap.as_mut()?;
        if set.left > 0 {
            set.left -= 1;
            return None;
        }
        Some(set.side)
    }

    /// Kills the caller, if its trap is still set.
    pub(crate) fn spring(&self) {
        if let Some(trap) = lock(&self.trap).take() {
            let _ = trap.sprung.send(());
        }
    }
}

/// The credentials of an instance.
#[derive(Clone)]
pub struct AccessKey {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`. Empty for keys that last.
    pub session_token: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl AccessKey {
    /// A key that nobody else knows: for stores that hear from their door who calls.
    pub(crate) fn generate() -> std::io::Result<Self> {
        Ok(Self {
            // Temporary keys begin with ASIA. Source: *IAM User Guide*, "IAM identifiers", "Understanding unique ID
            // prefixes".
            access_key_id: format!("ASIA{}", random(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")?),
            secret_access_key: random(40, b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+/")?,
            // As long as those of Lambda are, since it is in every presigned URL.
            session_token: random(700, b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ+/")?,
        })
    }
}

/// A key, when it was made.
pub type Issued<'a> = Pin<Box<dyn Future<Output = std::io::Result<AccessKey>> + Send + 'a>>;

/// Makes the keys of instances, where the stores check signatures and must know them: an IAM beside these stores.
pub trait Issuer: fmt::Debug + Send + Sync {
    /// Makes a key for an instance of a function, with which it may do what the statements say.
    fn issue<'a>(&'a self, function: &'a str, statements: &'a [Statement]) -> Issued<'a>;
}

/// Everybody who has a key, and what was refused to whom.
#[derive(Debug, Default)]
pub struct Principals {
    known: Mutex<BTreeMap<String, Arc<Principal>>>,
    used: Mutex<BTreeSet<(String, Need)>>,
    denials: Mutex<Vec<Denial>>,
}

impl Principals {
    /// Lets in an instance of a function, with its credentials.
    pub(crate) fn admit(&self, function: &str, statements: &Arc<Vec<Statement>>, key: AccessKey) -> Arc<Principal> {
        let principal = Arc::new(Principal {
            function: function.to_owned(),
            access_key_id: key.access_key_id,
            secret_access_key: key.secret_access_key,
            session_token: key.session_token,
            statements: Arc::clone(statements),
            calls: Mutex::default(),
            trap: Mutex::default(),
        });
        lock(&self.known).insert(principal.access_key_id.clone(), Arc::clone(&principal));
        principal
    }

    /// Whose key it is. Keys stay valid when their instance is gone: URLs that it signed outlive it, as on AWS.
    pub fn of(&self, access_key_id: &str) -> Option<Arc<Principal>> {
        lock(&self.known).get(access_key_id).cloned()
    }

    /// What was allowed so far to which function, and asked for: by its instances, and by URLs that they signed. Of the
    /// resources below a bucket there is only `*`.
    pub fn used(&self) -> BTreeSet<(String, Need)> {
        lock(&self.used).clone()
    }

    pub(crate) fn note(&self, function: &str, need: &Need) {
        let resource = match need.resource.strip_prefix("arn:aws:s3:::").and_then(|rest| rest.split_once('/')) {
            Some((bucket, _)) => format!("arn:aws:s3:::{bucket}/*"),
            None => need.resource.clone(),
        };
        lock(&self.used).insert((function.to_owned(), Need { resource, ..need.clone() }));
    }

    /// What was refused since this was asked last.
    pub fn take_denials(&self) -> Vec<Denial> {
        std::mem::take(&mut *lock(&self.denials))
    }

    /// What was refused so far.
    pub fn denials(&self) -> Vec<Denial> {
        lock(&self.denials).clone()
    }

    pub(crate) fn deny(&self, denial: Denial) {
        lock(&self.denials).push(denial);
    }
}

/// Random characters of an alphabet of 32 or 64.
fn random(length: usize, alphabet: &[u8]) -> std::io::Result<String> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    let of = |byte: u8| alphabet.get(usize::from(byte) % alphabet.len()).map(|byte| char::from(*byte));
    Ok(bytes.into_iter().filter_map(of).collect())
}

/// Locks what each holder leaves in order at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(effect: Effect, action: &str, resource: &str) -> Statement {
        Statement { effect, actions: vec![action.to_owned()], resources: vec![resource.to_owned()] }
    }

    /// IAM User Guide, "IAM JSON policy elements: Action" and "… Resource".
    #[test]
    fn wildcards_match_any_text_and_any_character() {
        for (pattern, text, fits) in [
            ("s3:*", "s3:getobject", true),
            ("s3:get*", "s3:getobject", true),
            ("s3:get?bject", "s3:getobject", true),
            ("s3:get", "s3:getobject", false),
            ("*", "", true),
            ("?", "", false),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b/x/y", true),
            ("arn:aws:s3:::b/*", "arn:aws:s3:::b", false),
            ("a*c*e", "abcde", true),
            ("é?", "éö", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    /// IAM User Guide, "Policy evaluation logic".
    #[test]
    fn nothing_is_allowed_but_what_a_statement_allows_and_none_denies() {
        let table = "arn:aws:dynamodb:r:1:table/t";
        let need = |action: &str| Need::new(action, table);
        assert!(!allows(&[], &need("dynamodb:GetItem")));
        let mut statements = vec![statement(Effect::Allow, "DynamoDB:Get*", table)];
        assert!(allows(&statements, &need("dynamodb:GetItem")));
        assert!(!allows(&statements, &need("dynamodb:PutItem")));
        assert!(!allows(&statements, &Need::new("dynamodb:GetItem", "arn:aws:dynamodb:r:1:table/T")));
        statements.push(statement(Effect::Deny, "*", "*"));
        assert!(!allows(&statements, &need("dynamodb:GetItem")));
    }

    /// Lambda Developer Guide, "Defining Lambda function environment variables".
    #[test]
    fn every_instance_has_credentials_of_its_own_and_shows_no_secret() {
        let principals = Principals::default();
        let none = Arc::new(Vec::new());
        let [one, other] = [(), ()].map(|()| principals.admit("A", &none, AccessKey::generate().unwrap()));
        assert_ne!(one.access_key_id, other.access_key_id);
        assert_eq!(principals.of(&one.access_key_id).unwrap().secret_access_key, one.secret_access_key);
        assert!(principals.of("ASIA").is_none());
        assert!(!format!("{one:?}").contains(&one.secret_access_key));
        assert!(!format!("{one:?}").contains(&one.session_token));
    }
}
