//! What a compaction learns of keys while it walks a log, once, from an offset on.
//!
//! The walk is that of the survey, as far as it goes: records of a transaction count only once it is known how that
//! ended, which is when the survey is over. From the first of them on a walk of its own goes on.

use crate::error::Result;
use crate::format::decode::Batch;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_plan::Extent;
use crate::partition::compaction_reading::Reading;
use crate::partition::fates::Fates;
use crate::partition::latest_offsets::LatestOffsets;
use crate::partition::latest_offsets::Note;

/// Collects the latest offsets of keys.
pub(super) struct Keys {
    latest: LatestOffsets,
    /// Records below are passed over.
    from: i64,
    /// Where the survey has stopped to take notes.
    paused_at: Option<i64>,
    /// There was no room for the record at this offset.
    full_at: Option<i64>,
    /// Of some records with keys.
    notes: Vec<Note>,
}

impl Keys {
    /// Makes one that knows nothing, for records from an offset on.
    pub(super) fn within(bytes_max: usize, from: i64) -> Keys {
        Keys {
            latest: LatestOffsets::within(bytes_max, from),
            from,
            paused_at: None,
            full_at: None,
            notes: Vec::with_capacity(FETCHED_MAX),
        }
    }

    /// Makes one that no survey has told of anything.
    pub(super) fn of_nothing(how: &Compaction, from: i64) -> Keys {
        Keys { paused_at: Some(from), ..Keys::within(how.key_map_bytes_max, from) }
    }

    /// Takes note of the batch that comes next in the survey, unless what it counts for is known only later.
    pub(super) fn note_early(&mut self, batch: &Batch<'_>) {
        let attributes = batch.header().attributes;
        if self.paused_at.is_some() || batch.header().last_offset() < self.from {
            return;
        }
        if attributes.is_transactional() && !attributes.is_control() {
            self.paused_at = Some(batch.header().base_offset);
        } else if !attributes.is_control() {
            self.note(batch);
            self.paused_at = self.full_at;
        }
    }

    /// Takes note of what was left out, in segments that end at `end`, and gives what was found.
    pub(super) fn completed(
        mut self,
        extents: &[Extent],
        end: i64,
        fates: &Fates,
        reading: &mut Reading<'_>,
    ) -> Result<LatestOffsets> {
        if let Some(paused_at) = self.paused_at.take().filter(|_| self.full_at.is_none()) {
            self.from = paused_at;
            self.note_all(extents, fates, reading)?;
        }
        self.latest.set_end(self.full_at.unwrap_or(end));
        Ok(self.latest)
    }

    fn note_all(
        &mut self,
        extents: &[Extent],
        fates: &Fates,
        reading: &mut Reading<'_>,
    ) -> Result<()> {
        let from = self.from;
        let dirty = extents.iter().filter(|extent| extent.next > from);
        for extent in dirty.filter(|extent| extent.is_readable) {
            let file = reading.log_file(extent.base_offset)?;
            let mut scan = reading.scan(&file, extent.base_offset)?;
            while let Some(batch) = reading.next_again(&mut scan, &file)? {
                let header = batch.header();
                let is_done = header.last_offset() < self.from;
                if is_done || header.attributes.is_control() || fates.is_aborted(header) {
                    continue;
                }
                self.note(&batch);
                if self.full_at.is_some() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, batch: &Batch<'_>) {
        let Keys { latest, from, full_at, notes, .. } = self;
        let mut records = batch.records();
        while records.left() > 0 && full_at.is_none() {
            notes.clear();
            for record in records.by_ref().take(FETCHED_MAX).filter(|r| r.offset >= *from) {
                match record.key.map(|key| latest.note(key, record.offset)) {
                    Some(Some(note)) => notes.push(note),
                    Some(None) => {
                        *full_at = Some(record.offset);
                        break;
                    }
                    None => latest.put_keyless(record.offset),
                }
                if record.value.is_none() {
                    latest.put_tombstone(record.offset);
                }
            }
            *full_at = latest.put(notes).or(*full_at);
        }
    }
}

/// The entries of so many records are fetched before the first of them is changed: some kilobytes of cache lines.
const FETCHED_MAX: usize = 256;
