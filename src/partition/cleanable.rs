//! How much of a log there is to compact, and when there will be more: what Kafka's cleaner chooses by.
//!
//! Known from the sizes of segments and from the ends of their time indexes; no record is read.

use std::time::UNIX_EPOCH;

use crate::compaction_config::CompactionConfig;
use crate::error::Result;
use crate::format::header;
use crate::format::header::BatchHeader;
use crate::partition::Partition;
use crate::storage::disk::Access;
use crate::storage::file_name::OffsetFile;
use crate::storage::time_index::TimeIndex;

/// What there is to compact in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cleanable {
    /// Bytes in front of the first dirty offset.
    pub(crate) clean_len: u64,
    /// Bytes from there on that may be compacted.
    pub(crate) dirty_len: u64,
    /// Where those end.
    pub(crate) upto: i64,
    /// The time of the oldest record that was not compacted yet, in a segment that is closed. Not looked up unless
    /// `max.compaction.lag.ms` is set.
    pub(crate) oldest_dirty_ms: Option<i64>,
    /// When there is more, though nothing is appended.
    pub(crate) more_at_ms: Option<i64>,
}

impl Cleanable {
    /// Gives which part of the log's bytes is dirty, not counting what may not be compacted yet.
    pub(crate) fn dirty_ratio(&self) -> f64 {
        let all = self.clean_len + self.dirty_len;
        if all == 0 { 0.0 } else { self.dirty_len as f64 / all as f64 }
    }

    /// Tells whether the log is to be compacted.
    pub(crate) fn is_due(&self, config: &CompactionConfig, now_ms: i64) -> bool {
        let is_late = self
            .oldest_dirty_ms
            .is_some_and(|oldest| oldest < now_ms.saturating_sub(config.lag_max_ms));
        self.dirty_len > 0 && (is_late || self.dirty_ratio() > config.dirty_ratio_min)
    }

    /// Gives when a log that is not due may become so, though nothing is appended.
    pub(crate) fn due_ms(&self, config: &CompactionConfig, now_ms: i64) -> Option<i64> {
        let late = self.oldest_dirty_ms.map(|oldest| oldest.saturating_add(config.lag_max_ms));
        // What is late already waits for what it may not be compacted before.
        let late = late.filter(|late| (now_ms..i64::MAX).contains(late)).map(|late| late + 1);
        [late, self.more_at_ms].into_iter().flatten().min()
    }
}

impl Partition {
    /// Looks how much there is to compact behind an offset below which everything was compacted.
    ///
    /// # Errors
    ///
    /// * [`Error::Io`](crate::Error::Io) if a file cannot be looked at; one that was replaced meanwhile is not found.
    pub(crate) fn cleanable(
        &self,
        first_dirty: i64,
        config: &CompactionConfig,
        now_ms: i64,
    ) -> Result<Cleanable> {
        let first_dirty = if first_dirty > self.watermarks().log_end() { 0 } else { first_dirty };
        let list = self.segments().snapshot();
        let mut found = Cleanable { upto: list[0].base_offset(), ..Cleanable::default() };
        let mut may_be_compacted = true;
        for pair in list.windows(2) {
            let (segment, next) = (&pair[0], pair[1].base_offset());
            if segment.live_open().is_some() {
                // Not durable yet. Somebody is about to see to that, and says so.
                break;
            }
            let base_offset = segment.base_offset();
            let len = self.context.disk.len(&self.context.log_path(base_offset))?;
            if base_offset < first_dirty {
                found.clean_len += len;
                found.upto = next;
                continue;
            }
            if config.lag_max_ms < i64::MAX {
                let first_ms = first_batch_ms(self, base_offset)?;
                found.oldest_dirty_ms =
                    [found.oldest_dirty_ms, first_ms].into_iter().flatten().min();
            }
            if may_be_compacted && config.lag_min_ms > 0 {
                let allowed_at_ms = latest_ms(self, base_offset)?.saturating_add(config.lag_min_ms);
                if allowed_at_ms > now_ms {
                    found.more_at_ms = Some(allowed_at_ms);
                    may_be_compacted = false;
                }
            }
            if may_be_compacted {
                found.dirty_len += len;
                found.upto = next;
            }
        }
        Ok(found)
    }
}

/// Gives the latest time of any record in a closed segment, or where none has a time that of its file.
pub(super) fn latest_ms(partition: &Partition, base_offset: i64) -> Result<i64> {
    let context = &partition.context;
    let times = OffsetFile::TimeIndex.path(&context.directory, base_offset);
    let last = context.disk.exists(&times)?.then(|| {
        let file = context.disk.open(&times, Access::Read)?;
        let mut entry = [0; TIME_ENTRY_LEN];
        let Some(position) = file.len()?.checked_sub(entry.len() as u64) else {
            return Ok(None);
        };
        file.read_exact_at(&mut entry, position)?;
        Ok(TimeIndex::parse(base_offset, &entry).ok().and_then(|index| index.last()))
    });
    if let Some(last) = last.transpose()?.flatten() {
        return Ok(last.timestamp_ms);
    }
    let modified = context.disk.open(&context.log_path(base_offset), Access::Read)?.modified()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Gives the time of a closed segment's first batch; `None` if there is none, or it has no time.
fn first_batch_ms(partition: &Partition, base_offset: i64) -> Result<Option<i64>> {
    let context = &partition.context;
    let file = context.disk.open(&context.log_path(base_offset), Access::Read)?;
    let mut front = [0; header::LEN];
    if file.len()? < front.len() as u64 {
        return Ok(None);
    }
    file.read_exact_at(&mut front, 0)?;
    Ok(Some(BatchHeader::read(&front).max_timestamp_ms).filter(|ms| *ms > 0))
}

const TIME_ENTRY_LEN: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dirty_ratio_min: f64, lag_max_ms: i64) -> CompactionConfig {
        CompactionConfig { dirty_ratio_min, lag_max_ms, ..CompactionConfig::default() }
    }

    #[test]
    fn a_log_is_due_when_it_is_dirty_enough_or_has_been_dirty_for_too_long() {
        let log = |clean_len, dirty_len, oldest_dirty_ms| Cleanable {
            clean_len,
            dirty_len,
            oldest_dirty_ms,
            ..Cleanable::default()
        };
        let cases = [
            ("nothing is dirty", log(0, 0, None), config(0.0, i64::MAX), false),
            ("nothing is dirty, however late", log(9, 0, Some(1)), config(0.0, 5), false),
            ("half of it is not more than half", log(50, 50, None), config(0.5, i64::MAX), false),
            ("more than half is", log(49, 50, None), config(0.5, i64::MAX), true),
            ("all of it is not more than all", log(0, 50, None), config(1.0, i64::MAX), false),
            ("anything is more than nothing", log(1000, 1, None), config(0.0, i64::MAX), true),
            ("it is late", log(1000, 1, Some(94)), config(0.5, 5), true),
            ("it is just in time", log(1000, 1, Some(95)), config(0.5, 5), false),
        ];
        for (what, log, config, is_due) in cases {
            assert_eq!(log.is_due(&config, 100), is_due, "{what}");
        }
        assert_eq!(log(1, 1, Some(95)).due_ms(&config(0.5, 5), 100), Some(101));
        assert_eq!(log(1, 1, Some(95)).due_ms(&config(0.5, i64::MAX), 100), None);
        let more = Cleanable { more_at_ms: Some(103), ..log(1, 0, Some(99)) };
        assert_eq!(more.due_ms(&config(0.5, 5), 100), Some(103));
        let late = Cleanable { more_at_ms: Some(103), ..log(1, 0, Some(7)) };
        assert!(!late.is_due(&config(0.5, 5), 100), "nothing of it may be compacted yet");
        assert_eq!(late.due_ms(&config(0.5, 5), 100), Some(103));
    }
}
