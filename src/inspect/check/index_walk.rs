//! An index, compared with the batches of its segment as they are met.

use crate::inspect::index_entries::OffsetIndexEntry;
use crate::inspect::index_entries::TimeIndexEntry;
use crate::inspect::index_entries::offset_entry;
use crate::inspect::index_entries::time_entry;
use crate::inspect::index_entries::without_padding;
use crate::storage::offset_index;
use crate::storage::time_index;

/// What the walks over the entries of both indexes have in common.
#[derive(Default)]
pub(crate) struct IndexWalk {
    pub(crate) findings: Vec<(u64, String)>,
    /// The index of the entry to be met next.
    next: usize,
}

impl IndexWalk {
    /// Gives the bytes of whole entries; notes what is cut off and what is padding.
    fn entries<'b>(
        &mut self,
        bytes: &'b [u8],
        entry_len: usize,
    ) -> std::slice::ChunksExact<'b, u8> {
        let whole = &bytes[..bytes.len() - bytes.len() % entry_len];
        if whole.len() < bytes.len() {
            let what = format!("the length is not a multiple of {entry_len}");
            self.findings.push((whole.len() as u64, what));
        }
        let used = without_padding(whole, entry_len);
        if used.len() < whole.len() {
            let what = format!("{} bytes of padding", whole.len() - used.len());
            self.findings.push((used.len() as u64, what));
        }
        used.chunks_exact(entry_len)
    }
}

/// Compares an offset index with the batches as they are met.
pub(crate) struct OffsetWalk {
    pub(crate) walk: IndexWalk,
    entries: Vec<OffsetIndexEntry>,
}

impl OffsetWalk {
    pub(crate) fn new(bytes: Option<&[u8]>, base_offset: i64) -> OffsetWalk {
        let mut walk = IndexWalk::default();
        let entries: Vec<_> = walk
            .entries(bytes.unwrap_or_default(), offset_index::ENTRY_LEN)
            .map(|entry| offset_entry(base_offset, entry))
            .collect();
        let ascends = |pair: &[OffsetIndexEntry]| {
            pair[0].offset < pair[1].offset && pair[0].position < pair[1].position
        };
        if let Some(index) = entries.windows(2).position(|pair| !ascends(pair)) {
            let position = ((index + 1) * offset_index::ENTRY_LEN) as u64;
            walk.findings.push((position, "entries do not ascend".into()));
            // What is compared below relies on the order.
            walk.next = entries.len();
        }
        OffsetWalk { walk, entries }
    }

    pub(crate) fn note(&mut self, position: u64, last_offset: i64) {
        while let Some(entry) = self.entries.get(self.walk.next).copied() {
            if u64::from(entry.position) > position {
                return;
            }
            if u64::from(entry.position) < position {
                self.find(format!("no batch starts at byte {}", entry.position));
            } else if entry.offset < last_offset {
                // Of an append of several batches Kafka indexes the first position and the last offset.
                self.find(format!(
                    "offset {} for the batch at byte {position}, which ends at {last_offset}",
                    entry.offset
                ));
            }
            self.walk.next += 1;
        }
    }

    pub(crate) fn skip_below(&mut self, position: u64) {
        while self
            .entries
            .get(self.walk.next)
            .is_some_and(|entry| u64::from(entry.position) < position)
        {
            self.walk.next += 1;
        }
    }

    pub(crate) fn finish(&mut self, end: i64) {
        if let Some(entry) = self.entries.get(self.walk.next).copied() {
            self.find(format!("byte {} lies behind the log's end", entry.position));
        } else if self
            .entries
            .last()
            .is_some_and(|entry| entry.offset >= end && self.walk.findings.is_empty())
        {
            self.walk.next = self.entries.len() - 1;
            self.find(format!("the offset lies behind the log's end, {end}"));
        }
    }

    fn find(&mut self, what: String) {
        let position = (self.walk.next * offset_index::ENTRY_LEN) as u64;
        self.walk.findings.push((position, what));
    }
}

/// Compares a time index with the batches as they are met.
pub(crate) struct TimeWalk {
    pub(crate) walk: IndexWalk,
    entries: Vec<TimeIndexEntry>,
    max_timestamp_ms: i64,
    /// Damage lies in the segment: whose timestamp is greatest cannot be told.
    is_incomplete: bool,
}

impl TimeWalk {
    pub(crate) fn new(bytes: Option<&[u8]>, base_offset: i64) -> TimeWalk {
        let mut walk = IndexWalk::default();
        let entries: Vec<_> = walk
            .entries(bytes.unwrap_or_default(), time_index::ENTRY_LEN)
            .map(|entry| time_entry(base_offset, entry))
            .collect();
        let ascends = |pair: &[TimeIndexEntry]| {
            pair[0].timestamp_ms < pair[1].timestamp_ms && pair[0].offset <= pair[1].offset
        };
        // That the file is missing is reported elsewhere.
        let mut is_incomplete = bytes.is_none();
        if let Some(index) = entries.windows(2).position(|pair| !ascends(pair)) {
            let position = ((index + 1) * time_index::ENTRY_LEN) as u64;
            walk.findings.push((position, "entries do not ascend".into()));
            walk.next = entries.len();
            is_incomplete = true;
        }
        TimeWalk { walk, entries, max_timestamp_ms: -1, is_incomplete }
    }

    pub(crate) fn note(&mut self, last_offset: i64, max_timestamp_ms: i64) {
        self.max_timestamp_ms = self.max_timestamp_ms.max(max_timestamp_ms);
        while let Some(entry) = self.entries.get(self.walk.next).copied() {
            if entry.offset > last_offset {
                return;
            }
            if entry.offset < last_offset {
                self.find(format!("no batch ends at offset {}", entry.offset));
            } else if self.max_timestamp_ms > entry.timestamp_ms {
                self.find(format!(
                    "timestamp {} for offset {}, but there is {} up to it",
                    entry.timestamp_ms, entry.offset, self.max_timestamp_ms
                ));
            }
            self.walk.next += 1;
        }
    }

    pub(crate) fn skip_below(&mut self, offset: i64) {
        self.is_incomplete = true;
        while self.entries.get(self.walk.next).is_some_and(|entry| entry.offset < offset) {
            self.walk.next += 1;
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(entry) = self.entries.get(self.walk.next).copied() {
            self.find(format!("offset {} lies behind the log's end", entry.offset));
        } else if !self.is_incomplete {
            let indexed = self.entries.last().map_or(-1, |entry| entry.timestamp_ms);
            if indexed != self.max_timestamp_ms {
                let greatest = self.max_timestamp_ms;
                self.walk.next = self.entries.len().saturating_sub(1);
                self.find(format!("the last timestamp is not the greatest, {greatest}"));
            }
        }
    }

    fn find(&mut self, what: String) {
        let position = (self.walk.next * time_index::ENTRY_LEN) as u64;
        self.walk.findings.push((position, what));
    }
}
