//! Whether each account is the sum of everything that counts for its entity, found out while pushes run.
//!
//! A scan is no snapshot: what is written while it runs may be in it or not. So a difference that one scan finds is only
//! a suspicion.
//!
//! 1. Scan the table, and compare each account with its sum. Whoever differs is a suspect. There are rarely any.
//! 2. Read the accounts of the suspects, scan again for their rows alone, and read their accounts again.
//! 3. A suspect whose account agrees with its sum is none. One whose account changed between the two reads stays one. One
//!    whose account has not changed, and differs, is wrong if the round before found the same: the same version of the
//!    account, and the very same rows. What changes an account raises its version in the same transaction; what moves
//!    something without changing it, such as an upload that is given up and whose object is condemned, replaces one row by
//!    another. So if neither has changed, nothing was written there in the second round, and its scan saw what there is.
//! 4. Back to 2, a few times; whoever is a suspect still is reported as undecided.
//! 5. If that is wanted, correct each wrong account in one transaction, on condition of its version: so the sum is still
//!    right. *Lost*: it was changed since, and is reported as wrong and not corrected.
//!
//! *Dies*: nothing is left.

use super::tally::{Sum, Tally};
use super::{all_rows, is_unreadable};
use crate::app::App;
use crate::auth::Credential;
use crate::changes::accounts;
use crate::domain::EntityName;
use crate::domain::quota::Numbers;
use crate::error::Error;
use crate::rules::{Action, Grant, Resource};
use crate::service::access::Access;
use crate::store::keys::{self, RowKind};
use crate::store::rows::{Account, AccountNumbers};
use crate::store::table::Written;
use std::collections::{BTreeMap, BTreeSet};

/// How often the rows of suspects are read.
const ROUNDS: usize = 6;

/// Whether to correct what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correction {
    /// Only report it.
    Report,
    /// Correct it.
    Correct,
}

/// An account that is not the sum of what counts.
#[derive(Debug)]
pub struct Drift {
    /// The entity.
    pub entity: String,
    /// What its account says.
    pub account: Numbers,
    /// What it should say.
    pub sum: Numbers,
    /// Whether it was corrected.
    pub corrected: bool,
    version: u64,
}

/// What was found out about the accounts.
#[derive(Debug, Default)]
pub struct Compared {
    /// How many accounts there are.
    pub checked: u64,
    /// Those that are wrong.
    pub wrong: Vec<Drift>,
    /// Entities that changed too fast to be told.
    pub undecided: Vec<String>,
    /// Rows that could not be read. While there are any, nothing is corrected: they may count.
    pub failed: u64,
}

/// Compares all accounts with everything that counts, for a site admin.
pub async fn compare(app: &App, credential: &Credential, correction: Correction) -> Result<Compared, Error> {
    let access = Access::load(app, credential, None, []).await?;
    let grant = access.require(Action::Sweep, &Resource::Installation, "installation", "compare the accounts")?;
    let mut compared = Compared::default();
    let mut suspects = suspects(app, &mut compared).await?;
    let mut last: BTreeMap<String, Seen> = BTreeMap::new();
    for _ in 0..ROUNDS {
        if suspects.is_empty() {
            break;
        }
        let round = Round::run(app, &suspects).await?;
        compared.failed = compared.failed.max(round.failed);
        suspects.retain(|entity| match round.verdict(entity, &mut last) {
            Verdict::Right => false,
            Verdict::Unknown => true,
            Verdict::Wrong(drift) => {
                compared.wrong.push(drift);
                false
            }
        });
    }
    compared.undecided.extend(suspects);
    if correction == Correction::Correct && compared.failed == 0 {
        for drift in &mut compared.wrong {
            drift.corrected = correct(app, &grant, drift).await?;
        }
    }
    Ok(compared)
}

/// Step 1: the entities whose accounts differ from what one scan found.
async fn suspects(app: &App, compared: &mut Compared) -> Result<BTreeSet<String>, Error> {
    let (mut tally, mut says) = (Tally::default(), BTreeMap::new());
    compared.failed = all_rows(app, |row| {
        if keys::kind(&row.key) == RowKind::Account {
            let account: AccountNumbers = row.read()?;
            says.insert(account.entity.to_string(), account.numbers());
            return Ok(());
        }
        tally.scanned(row)
    })
    .await?;
    compared.checked = says.len() as u64;
    let differs = |(entity, numbers): (String, Numbers)| (tally.sum(&entity).numbers != numbers).then_some(entity);
    Ok(says.into_iter().filter_map(differs).collect())
}

/// What a round found of an entity whose account did not change in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    version: u64,
    sum: Sum,
}

enum Verdict {
    Right,
    Wrong(Drift),
    Unknown,
}

/// Step 2: one scan for the rows of some entities, between two reads of their accounts.
struct Round {
    before: BTreeMap<String, AccountNumbers>,
    tally: Tally,
    after: BTreeMap<String, AccountNumbers>,
    failed: u64,
}

impl Round {
    async fn run(app: &App, entities: &BTreeSet<String>) -> Result<Self, Error> {
        let before = read(app, entities).await?;
        let mut tally = Tally::of(entities);
        let failed = all_rows(app, |row| tally.scanned(row)).await?;
        Ok(Self { before, tally, after: read(app, entities).await?, failed })
    }

    /// Step 3.
    fn verdict(&self, entity: &str, last: &mut BTreeMap<String, Seen>) -> Verdict {
        let (Some(before), Some(after)) = (self.before.get(entity), self.after.get(entity)) else {
            return Verdict::Unknown;
        };
        if before != after {
            last.remove(entity);
            return Verdict::Unknown;
        }
        let (sum, account, version) = (self.tally.sum(entity), after.numbers(), after.version);
        if sum.numbers == account {
            return Verdict::Right;
        }
        let seen = Seen { version, sum };
        if last.insert(entity.to_owned(), seen) != Some(seen) {
            return Verdict::Unknown;
        }
        let (entity, sum) = (entity.to_owned(), sum.numbers);
        Verdict::Wrong(Drift { entity, account, sum, corrected: false, version })
    }
}

async fn read(app: &App, entities: &BTreeSet<String>) -> Result<BTreeMap<String, AccountNumbers>, Error> {
    let names: Vec<EntityName> = entities.iter().filter_map(|name| name.parse().ok()).collect();
    let mut rows = app.table.batch(names.iter().map(keys::account)).await?;
    let mut found = BTreeMap::new();
    for name in names {
        match rows.take::<AccountNumbers>(&keys::account(&name)) {
            Ok(account) => found.extend(account.map(|account| (name.to_string(), account))),
            // It counts as one that changes: nothing is said of it.
            Err(error) if is_unreadable(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

/// Step 5. Returns whether it was done.
async fn correct(app: &App, grant: &Grant, drift: &Drift) -> Result<bool, Error> {
    let account: Option<Account> = app.table.get(keys::account(&drift.entity.parse()?)).await?;
    let Some(account) = account.filter(|account| account.version == drift.version) else { return Ok(false) };
    let changes = accounts::corrected(&account, drift.account, drift.sum)?;
    Ok(app.commit(grant, changes).await? == Written::Done)
}
