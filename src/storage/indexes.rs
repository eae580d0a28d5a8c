//! A segment's two indexes together: noted batch by batch, written when the segment ends.

use std::path::Path;

use crate::error::Result;
use crate::format::header::BatchHeader;
use crate::storage::disk::Disk;
use crate::storage::file_name::OffsetFile;
use crate::storage::offset_index;
use crate::storage::offset_index::IndexedBatch;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::time_index;
use crate::storage::time_index::TimeEntry;
use crate::storage::time_index::TimeIndex;

/// A segment's two indexes as they grow, by the rules of Kafka's own rebuild.
///
/// The same code notes a batch that is being appended and one that is met by a scan, so that a live
/// index and a rebuilt one are the same bytes.
#[derive(Clone, Debug)]
pub(crate) struct Indexes {
    pub(super) interval: u32,
    pub(super) offsets: OffsetIndex,
    pub(super) times: TimeIndex,
    /// The greatest timestamp so far and the end of the batch that brought it.
    pub(super) latest: TimeEntry,
}

/// What decides whether a batch gets index entries. The one who appends has its own, so that a batch without
/// entries, as most are, touches nothing that readers share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noting {
    interval: u32,
    last_indexed: u64,
    latest: TimeEntry,
}

impl Noting {
    /// Notes a batch; tells whether it gets index entries.
    #[inline]
    pub(crate) fn note(&mut self, position: u64, last_offset: i64, max_timestamp_ms: i64) -> bool {
        if max_timestamp_ms > self.latest.timestamp_ms {
            self.latest = TimeEntry { timestamp_ms: max_timestamp_ms, last_offset };
        }
        let is_due = position - self.last_indexed > u64::from(self.interval);
        if is_due {
            self.last_indexed = position;
        }
        is_due
    }
}

impl Noting {
    pub(crate) fn largest_timestamp_ms(&self) -> i64 {
        self.latest.timestamp_ms
    }
}

impl Indexes {
    pub(crate) fn new(base_offset: i64, interval: u32) -> Indexes {
        Indexes {
            interval,
            offsets: OffsetIndex::new(base_offset),
            times: TimeIndex::new(base_offset),
            latest: TimeEntry { timestamp_ms: -1, last_offset: base_offset },
        }
    }

    /// Notes the batch that starts at `position`; batches come in order.
    pub(crate) fn note(&mut self, position: u64, last_offset: i64, max_timestamp_ms: i64) {
        let mut noting = self.noting();
        if noting.note(position, last_offset, max_timestamp_ms) {
            self.add(&noting, position, last_offset);
        }
        self.latest = noting.latest;
    }

    /// Gives what is needed to note further batches.
    pub(crate) fn noting(&self) -> Noting {
        let last_indexed = self.offsets.last().map_or(0, |batch| batch.position);
        Noting { interval: self.interval, last_indexed, latest: self.latest }
    }

    /// Adds the entries of a batch of which [`Noting::note`] has said that it gets some.
    pub(crate) fn add(&mut self, noting: &Noting, position: u64, last_offset: i64) {
        self.latest = noting.latest;
        self.offsets.push(IndexedBatch { last_offset, position });
        self.times.push_if_later(self.latest);
    }

    /// Takes over the latest timestamp, which grows between entries.
    pub(crate) fn catch_up(&mut self, noting: &Noting) {
        self.latest = noting.latest;
    }

    /// Notes the first batch behind damage, so that look-ups behind it need not cross it.
    pub(crate) fn note_behind_damage(&mut self, position: u64, header: &BatchHeader) {
        let last_offset = header.last_offset();
        if self.offsets.last().is_none_or(|last| last.position < position) && position > 0 {
            self.offsets.push(IndexedBatch { last_offset, position });
        }
        self.note(position, last_offset, header.max_timestamp_ms);
    }

    /// Gives both files' bytes for a segment that ends here: the last timestamp is always indexed.
    pub(crate) fn finished(&self) -> (Vec<u8>, Vec<u8>) {
        let mut times = self.times.clone();
        times.push_if_later(self.latest);
        (self.offsets.to_bytes(), times.to_bytes())
    }

    /// Tells whether one more entry might exceed `segment.index.bytes`.
    pub(crate) fn is_full(&self, index_bytes_max: u32) -> bool {
        let len_max = index_bytes_max as usize;
        self.offsets.len() >= len_max / offset_index::ENTRY_LEN
            || self.times.len() + 1 >= len_max / time_index::ENTRY_LEN
    }

    /// Gives the bytes of memory that the entries take.
    pub(crate) fn len_in_memory(&self) -> usize {
        self.offsets.len() * offset_index::ENTRY_LEN + self.times.len() * time_index::ENTRY_LEN
    }

    pub(crate) fn largest_timestamp_ms(&self) -> i64 {
        self.latest.timestamp_ms
    }

    /// Takes up the indexes of a closed segment that is to grow again.
    pub(super) fn resume(
        interval: u32,
        offsets: OffsetIndex,
        mut times: TimeIndex,
        base_offset: i64,
    ) -> Indexes {
        let latest =
            times.last().unwrap_or(TimeEntry { timestamp_ms: -1, last_offset: base_offset });
        // What the close added would not be there had the segment grown without a break.
        times.truncate_behind(offsets.last().map_or(i64::MIN, |batch| batch.last_offset));
        Indexes { interval, offsets, times, latest }
    }
}

/// Writes both index files of a segment that ends here, durably. Also where they say so already: what the cache shows
/// may never have reached the disk, after a sync that failed or in a life that was killed before it.
///
/// The time index comes last, and all at once: a segment that has one is believed to have both, whole.
pub(crate) fn write_indexes(disk: &Disk, log: &Path, indexes: &Indexes) -> Result<()> {
    let (offsets, times) = indexes.finished();
    disk.write_synced(&OffsetFile::OffsetIndex.beside(log), &offsets)?;
    disk.replace(&OffsetFile::TimeIndex.beside(log), &times)
}

/// Twice what Kafka allows by default; indexes of any sane segment fit.
pub(crate) const INDEX_LEN_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chance::Chance;
    use crate::storage::medium::Medium;
    use crate::storage::memory::Memory;
    use crate::storage::memory::PLACE;

    #[test]
    fn a_resumed_index_grows_as_if_it_had_never_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let mut straight = Indexes::new(0, 100);
        let mut resumed = Indexes::new(0, 100);
        for n in 0..100_i64 {
            straight.note(70 * n as u64, n, 500 - (n % 7) * 10 + n);
            resumed.note(70 * n as u64, n, 500 - (n % 7) * 10 + n);
            let (offsets, times) = resumed.finished();
            resumed = Indexes::resume(
                100,
                OffsetIndex::parse(0, &offsets, u64::MAX).unwrap(),
                TimeIndex::parse(0, &times).unwrap(),
                0,
            );
        }
        assert_eq!(straight.finished(), resumed.finished());
        drop(directory);
    }

    /// The power failed while a segment was sealed, and a part of its time index was on the device: some sectors, at its
    /// full length. It passed for whole, and so for the sign that the segment was durable and put in order; times were
    /// then sought by it, and recovery looked no further. It is now written beside, and given its name once it is
    /// durable.
    #[test]
    fn a_time_index_that_a_power_cut_leaves_is_whole_or_none() {
        let mut indexes = Indexes::new(0, 1);
        (0..300).for_each(|n| indexes.note(70 * n as u64, n, 1000 + n));
        let (offsets, times) = indexes.finished();
        assert!(times.len() > 2000, "several sectors");
        let mut chance = Chance(42);
        let mut wholes = 0;
        for n in 1..12 {
            for _ in 0..40 {
                let medium = Medium::Memory(Arc::new(Memory::new()));
                let root = Path::new(PLACE).join("d");
                let log = root.join("00000000000000000000.log");
                let disk = Disk::on(&medium);
                disk.create_directories(&root).unwrap();
                // As they are while the segment takes appends.
                let files = [OffsetFile::OffsetIndex, OffsetFile::TimeIndex];
                let [offset_index, time_index] = files.map(|kind| kind.beside(&log));
                disk.write_synced(&offset_index, b"").unwrap();
                disk.write_synced(&time_index, b"").unwrap();
                disk.sync_directory(&root).unwrap();
                disk.script().arm(n, libc::EIO, true);
                let written = write_indexes(&disk, &log, &indexes);
                disk.script().cut_power(&root, &mut |limit| chance.below(limit));
                let found = medium.read(&time_index).unwrap();
                assert!(found.is_empty() || found == times, "effect {n}: a part of it");
                if !found.is_empty() {
                    assert_eq!(medium.read(&offset_index).unwrap(), offsets, "effect {n}");
                    wholes += 1;
                }
                assert!(written.is_err() || !found.is_empty(), "effect {n}");
            }
        }
        assert!((40..11 * 40).contains(&wholes), "{wholes}");
    }
}
