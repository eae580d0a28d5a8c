//! Which offsets of a log may be missing: compaction takes records out, and those that stay keep their offsets.
//!
//! Kafka says in its `cleaner-offset-checkpoint` how far a log was cleaned, and says so afterwards. Here a gap must
//! be known of before anybody can meet it, or it would pass for damage; so a mark in the partition's own directory
//! is raised before the first file is replaced.
//!
//! **Invariant (gaps foretold).** A batch is missing only below the mark, and the mark is durable, and raised in
//! memory, before the first gap it speaks of is in a file of the log. Only what is durable is compacted, so
//! everything below the mark is durable, too.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::storage::checkpoint;
use crate::storage::disk::Disk;
use crate::storage::file_name;

/// The offset below which gaps are no damage; shared by everyone who reads the log.
///
/// Stored with Release by the one who compacts, before it shows a file with gaps; loaded with Acquire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gaps(Arc<AtomicI64>);

impl Gaps {
    pub(crate) fn below_offset(offset: i64) -> Gaps {
        Gaps(Arc::new(AtomicI64::new(offset)))
    }

    /// Gives the offset below which compaction may have left gaps.
    #[inline]
    pub(crate) fn below(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }

    /// Lets gaps be below `offset`, if they may not be already.
    pub(crate) fn raise(&self, offset: i64) {
        self.0.fetch_max(offset, Ordering::AcqRel);
    }
}

/// Reads a partition's mark; 0 where there is none.
///
/// # Errors
///
/// * [`Error::Corrupt`](crate::Error::Corrupt) if it cannot be read. Then gaps may be anywhere.
pub(crate) fn read_mark(disk: &Disk, directory: &Path) -> Result<i64> {
    checkpoint::read_offset(disk, &directory.join(file_name::COMPACTED))
}

/// Puts a mark in place of the one that is there, durably.
pub(crate) fn write_mark(disk: &Disk, directory: &Path, offset: i64) -> Result<()> {
    checkpoint::write_offset(disk, &directory.join(file_name::COMPACTED), offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_makes_the_round_trip_and_one_that_is_missing_is_zero() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        assert_eq!(read_mark(&disk, directory.path()).unwrap(), 0);
        write_mark(&disk, directory.path(), 401).unwrap();
        assert_eq!(read_mark(&disk, directory.path()).unwrap(), 401);
        for text in ["", "0\n1\n", "0\n1\n-3\n", "0\n1\n3 4\n", "0\n2\n3\n4\n", "x"] {
            std::fs::write(directory.path().join(file_name::COMPACTED), text).unwrap();
            assert!(read_mark(&disk, directory.path()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn gaps_are_never_taken_back() {
        let gaps = Gaps::below_offset(5);
        gaps.clone().raise(9);
        gaps.raise(7);
        assert_eq!(gaps.below(), 9);
    }
}
