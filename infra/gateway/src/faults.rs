//! What goes wrong on purpose: drawn from a seed, at rates that the caller sets.
//!
//! Source: *Lambda Developer Guide*, "Understanding the Lambda execution environment lifecycle" (instances go away at any
//! time), "Understanding retry behavior in Lambda" and "How Lambda processes records from stream and queue-based event
//! sources" (events arrive at least once), "Understanding Lambda function scaling" (throttling); *`DynamoDB` Developer
//! Guide*, "Error handling with `DynamoDB`" (throttling of the store).
//!
//! Draws are the same for the same seed. Which request gets which draw is the same only if they come one at a time.

use crate::policy::{Side, lock};
use std::sync::Mutex;
use std::time::Duration;

/// How often each fault happens, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// An instance that waits for work is thrown away, so that the next request starts another one.
    pub cold: f64,
    /// The process is killed at one of its next calls of a store: before the call, or after it was done and before the
    /// function hears of it.
    pub killed: f64,
    /// An event that is no request is delivered a second time.
    pub twice: f64,
    /// An invocation is refused because there are too many.
    pub throttled: f64,
    /// A call of a store is refused because there are too many. The SDK tries it again.
    pub slow: f64,
    /// How much longer each call of a store takes. Requests with presigned URLs are as fast as ever.
    pub late: Duration,
}

/// The faults of an installation.
#[derive(Debug, Default)]
pub struct Faults {
    rates: Mutex<Rates>,
    state: Mutex<u64>,
}

/// The most calls that a killed invocation makes first. Few invocations make more.
const CALLS: u64 = 8;

impl Faults {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Faults at some rates, drawn from a seed.
    pub fn drawn(seed: u64, rates: Rates) -> Self {
        Self { rates: Mutex::new(rates), state: Mutex::new(seed) }
    }

    /// Changes the rates, for example to none before a test looks at what is left.
    pub fn set(&self, rates: Rates) {
        *lock(&self.rates) = rates;
    }

    /// How much longer a call of a store takes.
    pub(crate) fn late(&self) -> Duration {
        lock(&self.rates).late
    }

    /// Whether something happens that has the rate which `of` picks.
    pub(crate) fn happens(&self, of: impl FnOnce(&Rates) -> f64) -> bool {
        let rate = of(&lock(&self.rates));
        // Nothing is drawn for a fault that is switched off.
        rate > 0.0 && self.fraction() < rate
    }

    /// After how many calls, and on which side of the next one, a process is killed.
    pub(crate) fn death(&self) -> (u32, Side) {
        let drawn = self.next();
        let side = if drawn & 1 == 0 { Side::Before } else { Side::After };
        (u32::try_from((drawn >> 1) % CALLS).unwrap_or_default(), side)
    }

    #[expect(clippy::cast_precision_loss, reason = "a number of 32 bits is exact in a float")]
    fn fraction(&self) -> f64 {
        (self.next() >> 32) as f64 / (1_u64 << 32) as f64
    }

    /// `SplitMix64`, a small generator with a state of one number.
    fn next(&self) -> u64 {
        let mut state = lock(&self.state);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_drawn_at_their_rates_and_the_same_for_a_seed() {
        let draw = |seed| {
            let faults = Faults::drawn(seed, Rates { killed: 0.05, ..Rates::default() });
            (0..10_000).map(|_| faults.happens(|rates| rates.killed)).collect::<Vec<_>>()
        };
        let (one, other) = (draw(1), draw(2));
        assert_eq!(one, draw(1));
        assert_ne!(one, other);
        let happened = one.iter().filter(|happens| **happens).count();
        assert!((400..600).contains(&happened), "{happened}");
        assert!(!Faults::none().happens(|rates| rates.killed));
        let faults = Faults::drawn(1, Rates { killed: 1.0, ..Rates::default() });
        assert!(faults.happens(|rates| rates.killed) && !faults.happens(|rates| rates.cold));
        faults.set(Rates::default());
        assert!(!faults.happens(|rates| rates.killed));
    }

    #[test]
    fn a_process_dies_at_each_of_its_first_calls_and_on_both_sides() {
        let faults = Faults::drawn(7, Rates::default());
        let drawn: std::collections::BTreeSet<(u32, bool)> =
            (0..400).map(|_| faults.death()).map(|(calls, side)| (calls, side == Side::Before)).collect();
        assert_eq!(drawn.len(), 16, "{drawn:?}");
    }
}
