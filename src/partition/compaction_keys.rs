//! What a compaction learns of keys while it walks a log, once, from an offset on.
//!
//! The walk is that of the survey, as far as it goes: records of a transaction count only once it is known how that
//! ended, which is when the survey is over. From the first of them on a walk of its own goes on.

use crate::error::Result;
use crate::format::decode::Batch;
use crate::format::decode::RawRecord;
use crate::partition::compaction_plan::Compaction;
use crate::partition::compaction_plan::Extent;
use crate::partition::compaction_reading::Reading;
use crate::partition::fates::Fates;
use crate::partition::key_notes::KeyNotes;
use crate::partition::key_notes::KeyNotesBeside;
use crate::partition::key_notes::Seen;
use crate::partition::latest_offsets::LatestOffsets;

/// Collects the latest offsets of keys.
pub(super) struct Keys {
    noting: Noting,
    /// Records below are passed over.
    from: i64,
    /// Where the survey has stopped to take notes.
    paused_at: Option<i64>,
}

/// Who takes notes.
enum Noting {
    Here(KeyNotes),
    Beside(KeyNotesBeside),
}

impl Keys {
    /// Makes one that knows nothing, for records from an offset on, of a log of so many bytes.
    pub(super) fn of_log(how: &Compaction, from: i64, len: u64) -> Keys {
        let beside = (len >= how.keys_beside_from)
            .then(|| KeyNotesBeside::begin(how.key_map_bytes_max, from))
            .flatten();
        let here = || Noting::Here(KeyNotes::within(how.key_map_bytes_max, from));
        Keys { noting: beside.map_or_else(here, Noting::Beside), from, paused_at: None }
    }

    /// Makes one that no survey has told of anything.
    pub(super) fn of_nothing(how: &Compaction, from: i64) -> Keys {
        let noting = Noting::Here(KeyNotes::within(how.key_map_bytes_max, from));
        Keys { noting, from, paused_at: Some(from) }
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
            self.noting.take(batch, self.from);
            if self.noting.is_full() {
                self.paused_at = Some(batch.header().last_offset());
            }
        }
    }

    /// Takes note of what was left out, in segments that end at `end`, and gives what was found.
    pub(super) fn completed(
        self,
        extents: &[Extent],
        end: i64,
        fates: &Fates,
        reading: &mut Reading<'_>,
    ) -> Result<LatestOffsets> {
        let mut notes = match self.noting {
            Noting::Here(notes) => notes,
            Noting::Beside(beside) => beside.done(),
        };
        if let Some(paused_at) = self.paused_at.filter(|_| !notes.is_full()) {
            note_all(&mut notes, paused_at.max(self.from), extents, fates, reading)?;
        }
        let (mut latest, full_at) = notes.done();
        latest.set_end(full_at.unwrap_or(end));
        Ok(latest)
    }
}

impl Noting {
    /// Takes note of the records of a batch from an offset on.
    fn take(&mut self, batch: &Batch<'_>, from: i64) {
        match self {
            Noting::Here(notes) => seen(batch, from).for_each(|record| notes.take(record)),
            Noting::Beside(beside) => seen(batch, from).for_each(|record| beside.take(record)),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Noting::Here(notes) => notes.is_full(),
            Noting::Beside(beside) => beside.is_full(),
        }
    }
}

/// Walks over segments, and takes note of all records from an offset on that were not taken back, while there is room.
fn note_all(
    notes: &mut KeyNotes,
    from: i64,
    extents: &[Extent],
    fates: &Fates,
    reading: &mut Reading<'_>,
) -> Result<()> {
    let dirty = extents.iter().filter(|extent| extent.next > from);
    for extent in dirty.filter(|extent| extent.is_readable) {
        let file = reading.log_file(extent.base_offset)?;
        let mut scan = reading.scan(&file, extent.base_offset)?;
        while let Some(batch) = reading.next_again(&mut scan, &file)? {
            let header = batch.header();
            let is_done = header.last_offset() < from;
            if is_done || header.attributes.is_control() || fates.is_aborted(header) {
                continue;
            }
            seen(&batch, from).for_each(|record| notes.take(record));
            if notes.is_full() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[inline(always)]
fn seen<'b>(batch: &Batch<'b>, from: i64) -> impl Iterator<Item = Seen<'b>> + use<'b> {
    let records = batch.records().filter(move |record| record.offset >= from);
    records.map(|record| {
        let RawRecord { offset, key, value, .. } = record;
        Seen { offset, key, is_tombstone: value.is_none() }
    })
}
