//! What is kept of a segment's indexes while nobody appends to it.
//!
//! Entries are only ever added, so the front of an index may go to its file, and only what came since is kept:
//! little, however long the segment is. It is written when it is no longer little. So a log that is parked and
//! taken up again for every record writes one entry for each that its index gets, as one that stays open.

use std::path::Path;

use crate::error::Error;
use crate::error::Result;
use crate::storage::disk::Access;
use crate::storage::disk::Disk;
use crate::storage::file_name::OffsetFile;
use crate::storage::indexes::INDEX_LEN_MAX;
use crate::storage::indexes::Indexes;
use crate::storage::offset_index;
use crate::storage::offset_index::OffsetIndex;
use crate::storage::time_index;
use crate::storage::time_index::TimeIndex;

/// The indexes of a segment of which the front is in the files, and only there.
#[derive(Clone, Debug)]
pub(crate) struct ParkedIndexes {
    written: Written,
    rest: Indexes,
    /// The time of the last entry, wherever that is; −1 if there is none.
    last_timestamp_ms: i64,
}

/// How many entries of each index its file begins with, as this process wrote and synchronised them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    offsets: usize,
    times: usize,
}

impl ParkedIndexes {
    pub(crate) fn new(indexes: &Indexes, written: Written) -> ParkedIndexes {
        let rest = Indexes {
            interval: indexes.interval,
            offsets: indexes.offsets.behind(written.offsets),
            times: indexes.times.behind(written.times),
            latest: indexes.latest,
        };
        let last_timestamp_ms = indexes.times.last().map_or(-1, |entry| entry.timestamp_ms);
        ParkedIndexes { written, rest, last_timestamp_ms }
    }

    /// Tells whether what is kept in memory has become more than a little.
    pub(crate) fn is_large(&self) -> bool {
        self.rest.len_in_memory() > REST_LEN_MAX
    }

    pub(crate) fn largest_timestamp_ms(&self) -> i64 {
        self.rest.latest.timestamp_ms
    }

    pub(crate) fn written(&self) -> Written {
        self.written
    }

    /// Puts what is kept in memory into the files, durably. The segment itself is durable already.
    ///
    /// # Errors
    ///
    /// * It is still kept, and the files hold what they held, and perhaps more behind it.
    pub(crate) fn spill(&mut self, disk: &Disk, log: &Path) -> Result<()> {
        let (offsets, times) = (self.rest.offsets.len(), self.rest.times.len());
        self.write(disk, log, self.rest.offsets.to_bytes(), self.rest.times.to_bytes())?;
        self.written.offsets += offsets;
        self.written.times += times;
        self.rest.offsets = self.rest.offsets.behind(offsets);
        self.rest.times = self.rest.times.behind(times);
        Ok(())
    }

    /// Makes the files what they are for a segment that ends here, durably.
    pub(crate) fn finish(&self, disk: &Disk, log: &Path) -> Result<()> {
        let mut times = self.rest.times.clone();
        // The last timestamp is always indexed.
        if self.rest.latest.timestamp_ms > self.last_timestamp_ms {
            times.push_if_later(self.rest.latest);
        }
        self.write(disk, log, self.rest.offsets.to_bytes(), times.to_bytes())
    }

    /// Gives the whole indexes again; `None` if the files are not what was written.
    pub(crate) fn resumed(&self, disk: &Disk, log: &Path) -> Result<Option<Indexes>> {
        if self.written == Written::default() {
            return Ok(Some(self.rest.clone()));
        }
        let base_offset = self.rest.offsets.base_offset();
        let read = |kind: OffsetFile, len: usize| {
            let bytes = match disk.read_small(&kind.beside(log), INDEX_LEN_MAX) {
                Err(error) if error.is_not_found() || matches!(error, Error::Corrupt { .. }) => {
                    return Ok(None);
                }
                other => other?,
            };
            Ok(bytes.get(..len).map(<[u8]>::to_vec))
        };
        let offsets =
            read(OffsetFile::OffsetIndex, self.written.offsets * offset_index::ENTRY_LEN)?;
        let times = read(OffsetFile::TimeIndex, self.written.times * time_index::ENTRY_LEN)?;
        let (Some(offsets), Some(times)) = (offsets, times) else { return Ok(None) };
        let rest = &self.rest;
        let joined = [offsets, rest.offsets.to_bytes()].concat();
        let offsets = OffsetIndex::parse(base_offset, &joined, u64::MAX);
        let joined = [times, rest.times.to_bytes()].concat();
        let times = TimeIndex::parse(base_offset, &joined);
        Ok(match (offsets, times) {
            (Ok(offsets), Ok(times)) => Some(Indexes { offsets, times, ..*rest }),
            _ => None,
        })
    }

    fn write(&self, disk: &Disk, log: &Path, offsets: Vec<u8>, times: Vec<u8>) -> Result<()> {
        let offsets_from = self.written.offsets * offset_index::ENTRY_LEN;
        let times_from = self.written.times * time_index::ENTRY_LEN;
        for (kind, from, bytes) in [
            (OffsetFile::OffsetIndex, offsets_from, offsets),
            (OffsetFile::TimeIndex, times_from, times),
        ] {
            let file = disk.open(&kind.beside(log), Access::CreateOrKeep)?;
            let from = from as u64;
            if bytes.is_empty() && file.len()? == from {
                continue;
            }
            // What an earlier attempt, or an earlier life, left behind.
            file.set_len(from)?;
            file.write_all_at(&bytes, from)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

/// Some fifty entries: at the default interval, 200 KiB of the log. Little in tests, which reach it.
const REST_LEN_MAX: usize = if cfg!(test) { 40 } else { 1 << 10 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::indexes::write_indexes;

    #[test]
    fn indexes_that_are_parked_and_resumed_again_and_again_grow_as_if_they_never_were() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let log = directory.path().join("00000000000000000000.log");
        let mut straight = Indexes::new(0, 100);
        let mut resumed = Indexes::new(0, 100);
        let mut written = Written::default();
        let mut spills = 0;
        for n in 0..200_i64 {
            let (position, timestamp_ms) = (70 * n as u64, 500 - (n % 7) * 10 + n);
            straight.note(position, n, timestamp_ms);
            resumed.note(position, n, timestamp_ms);
            let mut parked = ParkedIndexes::new(&resumed, written);
            assert!(parked.rest.len_in_memory() <= REST_LEN_MAX + 20);
            if parked.is_large() {
                parked.spill(&disk, &log).unwrap();
                assert_eq!(parked.rest.len_in_memory(), 0);
                spills += 1;
            }
            written = parked.written();
            resumed = parked.resumed(&disk, &log).unwrap().unwrap();
            assert_eq!(resumed.finished(), straight.finished(), "{n}");
            assert_eq!(resumed.largest_timestamp_ms(), straight.largest_timestamp_ms());
            if n % 50 == 13 {
                // What a close writes is what one writes that never parked.
                parked.finish(&disk, &log).unwrap();
                let finished = straight.finished();
                let read = |kind: OffsetFile| std::fs::read(kind.beside(&log)).unwrap();
                assert_eq!(read(OffsetFile::OffsetIndex), finished.0);
                assert_eq!(read(OffsetFile::TimeIndex), finished.1);
            }
        }
        assert!(spills > 10, "{spills}");
    }

    #[test]
    fn files_that_are_not_what_was_written_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        let log = directory.path().join("00000000000000000000.log");
        let mut indexes = Indexes::new(0, 100);
        (0..50_i64).for_each(|n| indexes.note(200 * n as u64, n, n));
        let mut parked = ParkedIndexes::new(&indexes, Written::default());
        // What an earlier attempt left behind.
        for kind in [OffsetFile::OffsetIndex, OffsetFile::TimeIndex] {
            std::fs::write(kind.beside(&log), [7; 5000]).unwrap();
        }
        parked.spill(&disk, &log).unwrap();
        assert_eq!(parked.resumed(&disk, &log).unwrap().unwrap().finished(), indexes.finished());
        let len = std::fs::metadata(OffsetFile::TimeIndex.beside(&log)).unwrap().len();
        assert_eq!(len, 12 * parked.written.times as u64);
        write_indexes(&disk, &log, &Indexes::new(0, 100)).unwrap();
        assert!(parked.resumed(&disk, &log).unwrap().is_none());
        std::fs::remove_file(OffsetFile::TimeIndex.beside(&log)).unwrap();
        assert!(parked.resumed(&disk, &log).unwrap().is_none());
    }
}
