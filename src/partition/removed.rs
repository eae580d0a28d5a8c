//! What is left of the segments that were taken out of a log: files that could not be removed yet, and mappings that
//! somebody reads.

use std::sync::Weak;

use parking_lot::Mutex;

use crate::storage::map::Mapping;

/// What is left of the segments that were taken out of a log.
#[derive(Debug, Default)]
pub(crate) struct Removed {
    /// Held for one look; the files are removed without it. Lock rank 5.
    left: Mutex<Left>,
}

#[derive(Debug, Default)]
struct Left {
    /// Where the segments begin that have files still.
    files: Vec<i64>,
    /// What somebody may still read, and how many bytes that is.
    mapped: Vec<(Weak<Mapping>, u64)>,
}

impl Removed {
    /// Notes a segment whose files are about to go, and what is mapped of it.
    pub(super) fn note(&self, base_offset: i64, mapped: Option<(Weak<Mapping>, u64)>) {
        let mut left = self.left.lock();
        left.files.push(base_offset);
        left.mapped.retain(|(mapping, _)| mapping.strong_count() > 0);
        left.mapped.extend(mapped);
    }

    /// Gives where the segments begin that have files still.
    pub(super) fn files(&self) -> Vec<i64> {
        self.left.lock().files.clone()
    }

    /// Notes that these have none any more.
    pub(super) fn forget(&self, files: &[i64]) {
        self.left.lock().files.retain(|file| !files.contains(file));
    }

    /// Gives the bytes that take space as long as somebody reads them.
    pub(super) fn held_len(&self) -> u64 {
        let mut left = self.left.lock();
        left.mapped.retain(|(mapping, _)| mapping.strong_count() > 0);
        left.mapped.iter().map(|(_, len)| len).sum()
    }
}
