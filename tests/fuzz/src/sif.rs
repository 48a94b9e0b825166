//! Images: the reader stays within its limits on what it requests and what it keeps, whatever the file holds.

use crate::sparse::Sparse;
use shared::domain::sif::{self, SifError, SifFacts, Step};
use std::collections::BTreeSet;

/// The limits on requested ranges that the module documents.
const MOST_ASKS: usize = 7;
const MOST_BYTES: u64 = 4 << 20;
/// What a table row has room for.
const MOST_LISTED: usize = 64;
const MOST_TEXT: usize = 65_536;

/// Reads the file as if it had `size` bytes, and checks every range that is requested.
fn watched(file: &Sparse, size: u64) -> Result<SifFacts, SifError> {
    let (mut asks, mut asked) = (0, 0);
    let mut step = sif::start(size)?;
    loop {
        match step {
            Step::Need(ask) => {
                let range = ask.range();
                assert!(range.start < range.end && range.end <= size, "{range:?} of {size} bytes");
                asks += 1;
                asked += range.end - range.start;
                assert!(asks <= MOST_ASKS && asked <= MOST_BYTES, "{asked} bytes in {asks} ranges");
                step = ask.feed(&file.bytes(&range))?;
            }
            Step::Done(facts) => return Ok(facts),
        }
    }
}

fn check(facts: &SifFacts) {
    assert!(facts.partitions.len() <= MOST_LISTED && facts.fingerprints.len() <= MOST_LISTED);
    assert!(facts.definition.as_ref().is_none_or(|text| text.len() <= MOST_TEXT));
    assert!(facts.labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= MOST_TEXT);
    assert!(facts.signed || facts.fingerprints.is_empty());
    let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    assert!(facts.fingerprints.iter().all(|print| print.len() == 40 && print.bytes().all(upper)));
    assert_eq!(facts.fingerprints.iter().collect::<BTreeSet<_>>().len(), facts.fingerprints.len());
    let stored = serde_json::to_string(facts).expect("facts can be stored");
    assert_eq!(serde_json::from_str::<SifFacts>(&stored).expect("stored facts can be read"), *facts);
}

/// Checks one input.
///
/// # Panics
/// If something is wrong.
pub fn run(input: &[u8]) {
    let Some(file) = Sparse::read(input) else { return };
    let read = watched(&file, file.size);
    if let Ok(facts) = &read {
        check(facts);
        // Zeros after the end change nothing.
        for more in [1, 1 << 15, 1 << 40] {
            assert_eq!(watched(&file, file.size.saturating_add(more)).as_ref(), Ok(facts), "{more} bytes longer");
        }
    }
    if file.size < 1 << 16 {
        assert_eq!(sif::read(&file.bytes(&(0..file.size))), read, "the same in memory");
    }
    // Bytes of another length than requested are never accepted.
    if let Ok(Step::Need(ask)) = sif::start(file.size) {
        let range = ask.range();
        let short = file.bytes(&(range.start..range.end - 1));
        assert!(matches!(ask.feed(&short), Err(SifError::Read { .. })));
    }
}
