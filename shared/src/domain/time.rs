//! Points in time, in whole seconds.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Seconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// The end of time.
    pub const MAX: Self = Self(i64::MAX);

    /// The time `duration` later; the end of time if it would be later than that.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)))
    }

    /// The time that lies `duration` earlier.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)))
    }
}

impl Time {
    /// RFC 3339 with the zone in digits: `+00:00` instead of `Z`, which Python reads since 3.11 only.
    pub fn zoned(self) -> String {
        zoned(&self.to_string())
    }
}

impl Time {
    /// The day, in UTC.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(DAY))
    }
}

const DAY: i64 = 86_400;

/// A day in UTC, as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Day(pub i64);

impl Day {
    /// How many days are kept together.
    pub const TOGETHER: i64 = 32;

    /// The first of the days that are kept together with it.
    #[must_use]
    pub fn first_together(self) -> Self {
        Self(self.0.div_euclid(Self::TOGETHER) * Self::TOGETHER)
    }

    /// When it begins.
    pub fn begins(self) -> Time {
        Time(self.0.saturating_mul(DAY))
    }
}

impl fmt::Display for Day {
    /// Like `2026-12-31`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.begins().to_string().get(..10).unwrap_or_default())
    }
}

/// A time in UTC with its zone in digits.
pub fn zoned(time: &str) -> String {
    time.strip_suffix('Z').map_or_else(|| time.to_owned(), |time| format!("{time}+00:00"))
}

/// How far the clocks of two hosts may differ. Every comparison of times from different hosts has to allow for it.
pub const SKEW: Duration = Duration::from_mins(5);

/// The text is no point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a time is written like `2026-12-31T23:59:59Z`")]
pub struct TimeError;

impl FromStr for Time {
    type Err = TimeError;
    /// Reads RFC 3339. One without a zone is in UTC, as some clients write it. Parts of a second are left out.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let zoned = text.parse::<jiff::Timestamp>().ok();
        let read = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
        let time = zoned.or_else(|| read().map(|time| time.timestamp())).ok_or(TimeError)?;
        Ok(Self(time.as_second()))
    }
}

impl fmt::Display for Time {
    /// RFC 3339 with zone, the only form that all clients decode.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(time) => fmt::Display::fmt(&time, f),
            Err(_) => f.write_str(NEVER),
        }
    }
}

/// The time that clients read as "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_a_zone_or_in_utc() {
        for text in
            ["2024-01-02T03:04:05Z", "2024-01-02T03:04:05.87", "2024-01-02 03:04:05", "2024-01-02T04:04:05+01:00"]
        {
            assert_eq!(text.parse(), Ok(Time(1_704_164_645)), "{text}");
        }
        for text in ["", "x", "2024-13-02T03:04:05Z", "1704164645"] {
            assert_eq!(text.parse::<Time>(), Err(TimeError), "{text}");
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(Time(1_704_164_645).to_string(), "2024-01-02T03:04:05Z");
        assert_eq!(Time(i64::MAX).to_string(), NEVER);
        assert_eq!(Time(1_704_164_645).zoned(), "2024-01-02T03:04:05+00:00");
        assert_eq!(Time(i64::MAX).zoned(), "0001-01-01T00:00:00+00:00");
    }
}
