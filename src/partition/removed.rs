//! What is left of the segments that were taken out of a log: files that could not be renamed yet, files that wait for
//! `file.delete.delay.ms`, and mappings that somebody reads.

use std::sync::Weak;
use std::time::Instant;

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
    /// Where the segments begin that have files still, under their old names.
    files: Vec<i64>,
    /// Renamed, and removed later; one for each base offset, for the file of a later one takes the place of an
    /// earlier one's.
    doomed: Vec<Doomed>,
    /// What somebody may still read, and how many bytes that is.
    mapped: Vec<(Weak<Mapping>, u64)>,
}

/// The files of a segment that are renamed, and removed later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doomed {
    pub(super) base_offset: i64,
    /// The bytes of its log.
    pub(super) len: u64,
    pub(super) since: Instant,
}

impl Removed {
    /// Of segments that an open could not remove there are files left.
    pub(super) fn with_files(files: Vec<i64>) -> Removed {
        Removed { left: Mutex::new(Left { files, ..Left::default() }) }
    }

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

    /// Notes files that are to be removed later.
    pub(super) fn doom(&self, doomed: &[Doomed]) {
        let mut left = self.left.lock();
        left.doomed.retain(|old| doomed.iter().all(|new| new.base_offset != old.base_offset));
        left.doomed.extend_from_slice(doomed);
    }

    /// Gives those, the oldest first.
    pub(super) fn doomed(&self) -> Vec<Doomed> {
        let mut doomed = self.left.lock().doomed.clone();
        doomed.sort_by_key(|doomed| doomed.since);
        doomed
    }

    /// Notes that these are not there any more.
    pub(super) fn forget_doomed(&self, base_offsets: &[i64]) {
        self.left.lock().doomed.retain(|doomed| !base_offsets.contains(&doomed.base_offset));
    }

    /// Gives the bytes that take space as long as somebody reads them.
    pub(super) fn held_len(&self) -> u64 {
        let mut left = self.left.lock();
        left.mapped.retain(|(mapping, _)| mapping.strong_count() > 0);
        left.mapped.iter().map(|(_, len)| len).sum()
    }
}
