//! Offset → byte position; sparse, rebuilt after a crash.
//!
//! A file of 8-byte entries: relative offset i32, position i32. The offset is the **last** offset of the
//! batch that starts at the position. An entry is made for a batch that starts more than
//! `index.interval.bytes` behind the last one indexed.

/// The entries of one segment's `.index` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetIndex {
    base_offset: i64,
    entries: Vec<OffsetEntry>,
}

/// One entry: a batch's position and its last offset, relative to the segment's base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OffsetEntry {
    relative_offset: u32,
    position: u32,
}

/// Where an indexed batch starts, and the last offset it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexedBatch {
    pub(crate) last_offset: i64,
    pub(crate) position: u64,
}

impl OffsetIndex {
    pub(crate) fn new(base_offset: i64) -> OffsetIndex {
        OffsetIndex { base_offset, entries: Vec::new() }
    }

    /// Reads a file's bytes. An index is advice: whatever cannot be true of a log of `log_len` bytes is
    /// refused, and the caller rebuilds it.
    pub(crate) fn parse(
        base_offset: i64,
        bytes: &[u8],
        log_len: u64,
    ) -> Result<Self, &'static str> {
        if bytes.len() % ENTRY_LEN != 0 {
            return Err("the length is not a multiple of 8");
        }
        let mut index = OffsetIndex::new(base_offset);
        index.entries.reserve_exact(bytes.len() / ENTRY_LEN);
        for entry in bytes.chunks_exact(ENTRY_LEN) {
            let (offset, position) = entry.split_at(4);
            let entry =
                OffsetEntry { relative_offset: big_endian(offset), position: big_endian(position) };
            let last_offset = base_offset.checked_add(i64::from(entry.relative_offset));
            if entry.relative_offset > i32::MAX as u32
                || last_offset.is_none()
                || u64::from(entry.position) >= log_len
            {
                return Err("an entry points outside the segment");
            }
            if let Some(last) = index.entries.last() {
                if entry.relative_offset <= last.relative_offset || entry.position <= last.position
                {
                    return Err("entries do not ascend");
                }
            }
            index.entries.push(entry);
        }
        Ok(index)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_LEN);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
            bytes.extend_from_slice(&entry.position.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// Gives the entries behind the first `count`.
    pub(crate) fn behind(&self, count: usize) -> OffsetIndex {
        let entries = self.entries.get(count..).unwrap_or_default().to_vec();
        OffsetIndex { base_offset: self.base_offset, entries }
    }

    /// Adds an entry. Both values are 32-bit by the writer's rolling rules.
    pub(crate) fn push(&mut self, batch: IndexedBatch) {
        self.entries.push(OffsetEntry {
            relative_offset: (batch.last_offset - self.base_offset) as u32,
            position: batch.position as u32,
        });
    }

    pub(crate) fn last(&self) -> Option<IndexedBatch> {
        self.entries.last().map(|entry| self.batch(entry))
    }

    /// Gives the last indexed batch that ends at or below `offset`.
    pub(crate) fn floor(&self, offset: i64) -> Option<IndexedBatch> {
        let relative = offset.checked_sub(self.base_offset)?;
        let after = self.count_upto(relative);
        after.checked_sub(1).map(|index| self.batch(&self.entries[index]))
    }

    /// Counts the entries up to an offset.
    ///
    /// Entries lie about as far apart as each other, so a guess lands near, and the search begins there: a few steps
    /// close to each other instead of many all over the index. Where the guess is bad the steps grow.
    fn count_upto(&self, relative: i64) -> usize {
        let entries = self.entries.as_slice();
        let is_upto = |entry: &OffsetEntry| i64::from(entry.relative_offset) <= relative;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return 0;
        };
        if is_upto(last) {
            return entries.len();
        }
        if !is_upto(first) {
            return 0;
        }
        // Both are 32-bit, and the last lies behind the first.
        let ahead = relative.abs_diff(i64::from(first.relative_offset));
        let span = u64::from(last.relative_offset - first.relative_offset);
        let guess = (ahead * (entries.len() as u64 - 1) / span) as usize;
        let mut step = STEP_MIN;
        // At `low` the offset is not passed yet, at `high` it is.
        let (mut low, mut high) = (0, entries.len() - 1);
        if is_upto(&entries[guess]) {
            low = guess;
            while low + step < high && is_upto(&entries[low + step]) {
                low += step;
                step *= 2;
            }
            high = high.min(low + step);
        } else {
            high = guess;
            while low + step < high && !is_upto(&entries[high - step]) {
                high -= step;
                step *= 2;
            }
            low = high.saturating_sub(step);
        }
        low + entries[low..high].partition_point(is_upto)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn batch(&self, entry: &OffsetEntry) -> IndexedBatch {
        IndexedBatch {
            last_offset: self.base_offset + i64::from(entry.relative_offset),
            position: u64::from(entry.position),
        }
    }
}

/// The size of an entry in the file.
pub(crate) const ENTRY_LEN: usize = 8;

/// Entries in one line of the processor's cache.
const STEP_MIN: usize = 8;

fn big_endian(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("entries are split into halves of four bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(entries: &[(i64, u64)]) -> OffsetIndex {
        let mut index = OffsetIndex::new(100);
        for (last_offset, position) in entries {
            index.push(IndexedBatch { last_offset: *last_offset, position: *position });
        }
        index
    }

    #[test]
    fn the_floor_is_the_last_batch_that_ends_at_or_below() {
        let index = index(&[(110, 4100), (120, 8300)]);
        let floor = |offset| index.floor(offset).map(|batch| batch.position);
        assert_eq!(floor(99), None);
        assert_eq!(floor(109), None);
        assert_eq!(floor(110), Some(4100));
        assert_eq!(floor(119), Some(4100));
        assert_eq!(floor(i64::MAX), Some(8300));
    }

    #[test]
    fn a_guess_however_bad_finds_what_a_search_of_everything_finds() {
        let even = (1..=500).map(|n| n * 24);
        let steps = (1..=500).map(|n| n + n / 100 * 100_000);
        let bent = (1..=500).map(|n| n * n * n);
        let late = (1..=500).map(|n| if n < 500 { n } else { i64::from(i32::MAX) });
        let early = (1..=500).map(|n| if n > 1 { i64::from(i32::MAX) - 500 + n } else { n });
        let kinds: [Vec<i64>; 5] =
            [even.collect(), steps.collect(), bent.collect(), late.collect(), early.collect()];
        for offsets in kinds {
            for count in [0, 1, 2, 3, 8, 9, 100, 500] {
                let offsets = &offsets[..count];
                let entries: Vec<_> = offsets.iter().map(|o| (100 + o, *o as u64)).collect();
                let index = index(&entries);
                for offset in offsets.iter().flat_map(|o| [o - 1, *o, o + 1]) {
                    let expected = offsets.iter().rev().find(|o| **o <= offset).copied();
                    let found = index.floor(100 + offset).map(|batch| batch.position as i64);
                    assert_eq!(found, expected, "{offset} of {count}");
                }
            }
        }
    }

    #[test]
    fn files_make_the_round_trip_and_nonsense_is_refused() {
        let good = index(&[(110, 4100), (120, 8300)]);
        let bytes = good.to_bytes();
        assert_eq!(OffsetIndex::parse(100, &bytes, 9000), Ok(good));
        assert!(OffsetIndex::parse(100, &bytes, 8300).is_err());
        assert!(OffsetIndex::parse(100, &bytes[..15], 9000).is_err());
        assert!(OffsetIndex::parse(100, &[bytes.clone(), vec![0; 8]].concat(), 9000).is_err());
        assert!(OffsetIndex::parse(100, &[0xff; 8], u64::MAX).is_err());
    }

    /// A fuzzer's: beside a segment that begins near the greatest offset there is, an entry was taken whose offset is
    /// beyond that. It would have come out negative, and an open in a debug build would have panicked. A time index
    /// was refused for the same.
    #[test]
    fn an_entry_beyond_the_greatest_offset_is_refused() {
        let entry = [0, 0, 0, 9, 0, 0, 0, 0];
        assert!(OffsetIndex::parse(i64::MAX - 9, &entry, 100).is_ok());
        assert!(OffsetIndex::parse(i64::MAX - 8, &entry, 100).is_err());
    }
}
