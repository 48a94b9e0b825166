//! What is counted: one table of names, for everybody who publishes the numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Something that is counted. The numbers are of things that happened in this process, and say nothing of whose they
/// were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Calls of the table that read.
    TableReads,
    /// Transactions that were sent to the table.
    TableWrites,
    /// Of both, those that were sent once more because the table was busy.
    TableRetries,
    /// Transactions of which a condition did not hold.
    TransactionsLost,
    /// Upload sessions that were opened.
    UploadsOpened,
    /// Upload sessions whose image became visible.
    UploadsCommitted,
    /// Upload sessions that ended without an image.
    UploadsEnded,
    /// Uploads of images and blobs whose bytes had another digest.
    UploadsRefused,
    /// The bytes of the images of committed sessions.
    UploadedBytes,
    /// Blobs that registry clients sent.
    BlobsCommitted,
    /// Their bytes.
    BlobBytes,
    /// Sweeps that came to their end.
    Sweeps,
    /// Sweeps that failed.
    SweepsFailed,
    /// Objects that sweeps deleted.
    SweptObjects,
    /// Upload sessions that sweeps ended.
    SweptSessions,
    /// Things that sweeps could not collect or read.
    SweepErrors,
    /// Accounts that sweeps found to differ from what counts in them.
    WrongAccounts,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::TableReads,
        Self::TableWrites,
        Self::TableRetries,
        Self::TransactionsLost,
        Self::UploadsOpened,
        Self::UploadsCommitted,
        Self::UploadsEnded,
        Self::UploadsRefused,
        Self::UploadedBytes,
        Self::BlobsCommitted,
        Self::BlobBytes,
        Self::Sweeps,
        Self::SweepsFailed,
        Self::SweptObjects,
        Self::SweptSessions,
        Self::SweepErrors,
        Self::WrongAccounts,
    ];

    /// Its name, without the ending `_total` that each has when it is published.
    pub fn name(self) -> &'static str {
        match self {
            Self::TableReads => "stackroom_table_reads",
            Self::TableWrites => "stackroom_table_writes",
            Self::TableRetries => "stackroom_table_retries",
            Self::TransactionsLost => "stackroom_table_transactions_lost",
            Self::UploadsOpened => "stackroom_uploads_opened",
            Self::UploadsCommitted => "stackroom_uploads_committed",
            Self::UploadsEnded => "stackroom_uploads_ended",
            Self::UploadsRefused => "stackroom_uploads_refused",
            Self::UploadedBytes => "stackroom_uploads_bytes",
            Self::BlobsCommitted => "stackroom_blobs_committed",
            Self::BlobBytes => "stackroom_blobs_bytes",
            Self::Sweeps => "stackroom_sweeps",
            Self::SweepsFailed => "stackroom_sweeps_failed",
            Self::SweptObjects => "stackroom_sweep_objects_deleted",
            Self::SweptSessions => "stackroom_sweep_sessions_ended",
            Self::SweepErrors => "stackroom_sweep_errors",
            Self::WrongAccounts => "stackroom_sweep_wrong_accounts",
        }
    }

    /// What it is, in words without a full stop.
    pub fn help(self) -> &'static str {
        match self {
            Self::TableReads => "Calls of the table that read",
            Self::TableWrites => "Transactions sent to the table",
            Self::TableRetries => "Calls sent to the table once more because it was busy",
            Self::TransactionsLost => "Transactions of which a condition did not hold",
            Self::UploadsOpened => "Upload sessions of images that were opened",
            Self::UploadsCommitted => "Upload sessions whose image became visible",
            Self::UploadsEnded => "Upload sessions that ended without an image",
            Self::UploadsRefused => "Uploads of images and blobs whose bytes had another digest",
            Self::UploadedBytes => "Bytes of the images of committed upload sessions",
            Self::BlobsCommitted => "Blobs that registry clients sent",
            Self::BlobBytes => "Bytes of the blobs that registry clients sent",
            Self::Sweeps => "Sweeps that came to their end",
            Self::SweepsFailed => "Sweeps that failed",
            Self::SweptObjects => "Objects that sweeps deleted",
            Self::SweptSessions => "Upload sessions that sweeps ended",
            Self::SweepErrors => "Things that sweeps could not collect or read",
            Self::WrongAccounts => "Accounts that sweeps found to differ from what counts in them",
        }
    }

    /// Whether the numbers are of bytes.
    pub fn is_bytes(self) -> bool {
        matches!(self, Self::UploadedBytes | Self::BlobBytes)
    }
}

/// A number for each [`Count`].
#[derive(Debug, Default)]
pub struct Counts {
    numbers: [AtomicU64; Count::ALL.len()],
    /// When the last sweep ended, in seconds since 1970; 0 if there was none.
    swept: AtomicU64,
}

impl Counts {
    /// The number of one.
    pub fn of(&self, what: Count) -> u64 {
        self.numbers.get(what as usize).map_or(0, |number| number.load(Ordering::Relaxed))
    }

    /// Adds to the number of one.
    pub fn add(&self, what: Count, number: u64) {
        if let Some(sum) = self.numbers.get(what as usize) {
            sum.fetch_add(number, Ordering::Relaxed);
        }
        if what == Count::Sweeps {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.swept.store(now.as_secs(), Ordering::Relaxed);
        }
    }

    /// When the last sweep ended, in seconds since 1970, if there was one.
    pub fn last_sweep(&self) -> Option<u64> {
        Some(self.swept.load(Ordering::Relaxed)).filter(|time| *time > 0)
    }
}

impl Clone for Counts {
    fn clone(&self) -> Self {
        let copied = |number: &AtomicU64| AtomicU64::new(number.load(Ordering::Relaxed));
        Self { numbers: self.numbers.each_ref().map(copied), swept: copied(&self.swept) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_count_has_a_place_and_a_name_of_its_own() {
        let counts = Counts::default();
        for (what, number) in Count::ALL.into_iter().zip(1..) {
            counts.add(what, number);
        }
        let copy = counts.clone();
        counts.add(Count::Sweeps, 1);
        for (what, number) in Count::ALL.into_iter().zip(1..) {
            assert_eq!(copy.of(what), number, "{what:?}");
        }
        let names: BTreeSet<_> = Count::ALL.into_iter().map(Count::name).collect();
        assert_eq!(names.len(), Count::ALL.len());
        for what in Count::ALL {
            assert_eq!(what.is_bytes(), what.name().ends_with("_bytes"), "{what:?}");
        }
    }
}
