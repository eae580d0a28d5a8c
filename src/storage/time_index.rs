//! Timestamp → offset; sparse, rebuilt after a crash.
//!
//! A file of 12-byte entries: timestamp i64 (milliseconds), relative offset i32. No batch up to and
//! including the one that ends at the offset has a timestamp greater than the entry's.

/// The entries of one segment's `.timeindex` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeIndex {
    base_offset: i64,
    entries: Vec<TimeEntry>,
}

/// The greatest timestamp so far, and the last offset of the batch that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp_ms: i64,
    pub(crate) last_offset: i64,
}

impl TimeIndex {
    pub(crate) fn new(base_offset: i64) -> TimeIndex {
        TimeIndex { base_offset, entries: Vec::new() }
    }

    /// Reads a file's bytes; what cannot be true is refused, and the caller rebuilds the index.
    pub(crate) fn parse(base_offset: i64, bytes: &[u8]) -> Result<TimeIndex, &'static str> {
        if bytes.len() % ENTRY_LEN != 0 {
            return Err("the length is not a multiple of 12");
        }
        let mut index = TimeIndex::new(base_offset);
        index.entries.reserve_exact(bytes.len() / ENTRY_LEN);
        for entry in bytes.chunks_exact(ENTRY_LEN) {
            let (timestamp, offset) = entry.split_at(8);
            let timestamp_ms =
                i64::from_be_bytes(timestamp.try_into().expect("the front half has eight bytes"));
            let relative =
                i32::from_be_bytes(offset.try_into().expect("the back half has four bytes"));
            let last_offset = base_offset.checked_add(i64::from(relative));
            let Some(last_offset) = last_offset.filter(|_| relative >= 0 && timestamp_ms >= 0)
            else {
                return Err("an entry points outside the segment");
            };
            if let Some(last) = index.entries.last() {
                if timestamp_ms <= last.timestamp_ms || last_offset < last.last_offset {
                    return Err("entries do not ascend");
                }
            }
            index.entries.push(TimeEntry { timestamp_ms, last_offset });
        }
        Ok(index)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len() * ENTRY_LEN);
        for entry in &self.entries {
            bytes.extend_from_slice(&entry.timestamp_ms.to_be_bytes());
            bytes.extend_from_slice(&((entry.last_offset - self.base_offset) as i32).to_be_bytes());
        }
        bytes
    }

    /// Gives the entries behind the first `count`.
    pub(crate) fn behind(&self, count: usize) -> TimeIndex {
        let entries = self.entries.get(count..).unwrap_or_default().to_vec();
        TimeIndex { base_offset: self.base_offset, entries }
    }

    /// Adds an entry if its timestamp is greater than the last one's.
    pub(crate) fn push_if_later(&mut self, entry: TimeEntry) {
        if entry.timestamp_ms > self.entries.last().map_or(-1, |last| last.timestamp_ms) {
            self.entries.push(entry);
        }
    }

    /// Takes off the entries that end behind `offset`: what a close added to a segment that goes on.
    pub(crate) fn truncate_behind(&mut self, offset: i64) {
        self.entries.retain(|entry| entry.last_offset <= offset);
    }

    pub(crate) fn last(&self) -> Option<TimeEntry> {
        self.entries.last().copied()
    }

    /// Gives the last entry whose timestamp is at most `timestamp_ms`.
    pub(crate) fn floor(&self, timestamp_ms: i64) -> Option<TimeEntry> {
        let after = self.entries.partition_point(|entry| entry.timestamp_ms <= timestamp_ms);
        after.checked_sub(1).map(|index| self.entries[index])
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// The size of an entry in the file.
pub(crate) const ENTRY_LEN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_later_timestamps_are_kept() {
        let mut index = TimeIndex::new(0);
        for (timestamp_ms, last_offset) in [(-1, 0), (5, 1), (5, 2), (4, 3), (9, 4)] {
            index.push_if_later(TimeEntry { timestamp_ms, last_offset });
        }
        assert_eq!(index.len(), 2);
        assert_eq!(index.floor(8), Some(TimeEntry { timestamp_ms: 5, last_offset: 1 }));
        assert_eq!(index.floor(4), None);
        assert_eq!(TimeIndex::parse(0, &index.to_bytes()), Ok(index.clone()));
        index.truncate_behind(3);
        assert_eq!(index.last().map(|e| e.timestamp_ms), Some(5));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(TimeIndex::parse(0, &[0; 11]).is_err());
        assert!(TimeIndex::parse(0, &[0; 24]).is_err());
        assert!(TimeIndex::parse(0, &[0xff; 12]).is_err());
    }
}
