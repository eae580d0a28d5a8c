//! What one read brings: whole, verified batches of one segment, borrowed from its mapping.

use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::decode::BatchFault;
use crate::partition::Partition;
use crate::storage::map::View;
use crate::storage::scan::Continuity;
use crate::storage::segment::OpenSegment;

/// Where a reader stands: an offset, and the place in the file if it is known.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    pub(crate) position: i64,
    /// Holding the segment keeps its mapping while the reader works through it.
    place: Option<Place>,
}

#[derive(Debug)]
struct Place {
    segment: Arc<OpenSegment>,
    byte_position: u64,
    /// The base offset of the batch there.
    expected: i64,
}

impl Cursor {
    pub(crate) fn at(position: i64) -> Cursor {
        Cursor { position, place: None }
    }
}

/// How much one read may bring; the first batch always comes whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) records: usize,
}

/// Verified batches, and which of their records were asked for.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    pub(crate) view: View,
    /// Where the batches lie in the view.
    pub(crate) range: Range<usize>,
    /// Records below `offsets.start` or from `offsets.end` on were not asked for.
    pub(crate) offsets: Range<i64>,
    pub(crate) record_count: usize,
}

/// The answer to a read.
#[derive(Debug)]
pub(crate) enum ReadOutcome {
    Records(Fetched),
    /// Nothing is there yet; the cursor may have moved over batches without records for the reader.
    AtEnd,
    /// The cursor is below the log's start or above its end.
    OutOfRange {
        start: i64,
        end: i64,
    },
}

impl Partition {
    /// Brings what lies at the cursor and below `bound`, and moves the cursor behind it.
    ///
    /// Control batches and empty ones are stepped over. Every batch is verified: its checksum, its
    /// structure, and that its offsets continue.
    ///
    /// # Errors
    ///
    /// * [`Error::Corrupt`](crate::Error::Corrupt),
    ///   [`Error::UnsupportedCompression`](crate::Error::UnsupportedCompression) if the next batch cannot
    ///   be read. The cursor stays in front of it; what lay before has been brought by earlier reads.
    pub(crate) fn read(
        &self,
        cursor: &mut Cursor,
        limits: Limits,
        bound: i64,
    ) -> Result<ReadOutcome> {
        let (start, end) = (self.watermarks().log_start(), self.watermarks().log_end());
        if cursor.position < start || cursor.position > end {
            cursor.place = None;
            return Ok(ReadOutcome::OutOfRange { start, end });
        }
        let bound = bound.min(end);
        while cursor.position < bound {
            let Some(mut place) = self.place_of(cursor)? else {
                return Ok(ReadOutcome::AtEnd);
            };
            if let Some(fetched) =
                place.fetch(&mut cursor.position, limits, bound, self.gaps_below())?
            {
                cursor.place = Some(place);
                return Ok(ReadOutcome::Records(fetched));
            }
            cursor.place = Some(place);
        }
        Ok(ReadOutcome::AtEnd)
    }

    /// Takes the cursor's place out of it, or finds it: where the batch that holds its position begins.
    fn place_of(&self, cursor: &mut Cursor) -> Result<Option<Place>> {
        let mut segment = match cursor.place.take() {
            Some(place) if place.expected <= cursor.position => {
                if place.byte_position < place.segment.end() {
                    return Ok(Some(place));
                }
                // What is held may be an older view of a segment that has grown since: ask again before
                // going on to the next one.
                let base_offset = place.segment.base_offset();
                let segment = self.segments().holding(base_offset).open(self.context())?;
                if place.byte_position < segment.end() {
                    return Ok(Some(Place { segment, ..place }));
                }
                match self.segments().after(base_offset) {
                    Some(next) => next,
                    None => return Ok(None),
                }
            }
            _ => self.segments().holding(cursor.position),
        };
        loop {
            let open = segment.open(self.context())?;
            if let Some(found) = open.locate(cursor.position)? {
                let (byte_position, expected) = (found.position, found.header.base_offset);
                return Ok(Some(Place { segment: open, byte_position, expected }));
            }
            match self.segments().after(segment.base_offset()) {
                Some(next) => segment = next,
                None => return Ok(None),
            }
        }
    }
}

impl Place {
    /// Brings batches from here on and moves behind them; `None` if none of them held a record for the
    /// reader, but the position may have moved.
    fn fetch(
        &mut self,
        position: &mut i64,
        limits: Limits,
        bound: i64,
        gaps_below: i64,
    ) -> Result<Option<Fetched>> {
        let Some(view) = self.segment.view() else {
            return Ok(None);
        };
        let first_wanted = *position;
        let first_byte = self.byte_position as usize;
        let mut continuity = Continuity { expected: self.expected, gaps_below };
        let mut record_count = 0;
        loop {
            let byte_position = self.byte_position;
            let bytes = view.from(byte_position);
            if bytes.is_empty() {
                break;
            }
            let batch = match verified(bytes, &continuity) {
                Ok(batch) => batch,
                // What was met before the fault is brought first; the next read meets it again.
                Err(_) if record_count > 0 => break,
                Err(fault) => {
                    let expected = continuity.expected;
                    return Err(self.segment.fault_error(byte_position, fault, expected));
                }
            };
            let header = batch.header();
            let taken = byte_position as usize - first_byte;
            if header.last_offset() >= bound
                || (record_count > 0 && taken + header.len() > limits.bytes)
            {
                break;
            }
            let wanted = wanted_records(&batch, first_wanted);
            if record_count + wanted > limits.records {
                let room = limits.records - record_count;
                if room > 0 {
                    let mut records = batch.records().filter(|r| r.offset >= first_wanted);
                    let last = records.nth(room - 1).map_or(header.last_offset(), |r| r.offset);
                    *position = last + 1;
                    record_count += room;
                    // The rest of this batch is the next read's, so its place stays here.
                    let range = first_byte..byte_position as usize + header.len();
                    let offsets = first_wanted..*position;
                    return Ok(Some(Fetched { view, range, offsets, record_count }));
                }
                break;
            }
            record_count += wanted;
            continuity.advance(header);
            *position = header.last_offset() + 1;
            self.byte_position += header.len() as u64;
            self.expected = *position;
        }
        if record_count == 0 {
            return Ok(None);
        }
        let range = first_byte..self.byte_position as usize;
        Ok(Some(Fetched { view, range, offsets: first_wanted..*position, record_count }))
    }
}

/// Verifies the batch at the front of `bytes`, and that it continues the one before.
fn verified<'b>(bytes: &'b [u8], continuity: &Continuity) -> Result<Batch<'b>, BatchFault> {
    let header = decode::header_at(bytes).map_err(BatchFault::Header)?;
    continuity.check(&header)?;
    Batch::verify(bytes)
}

/// Counts the records of a batch that a reader at `position` is to see.
fn wanted_records(batch: &Batch<'_>, position: i64) -> usize {
    let header = batch.header();
    if header.attributes.is_control() {
        0
    } else if header.base_offset >= position {
        header.record_count as usize
    } else {
        batch.records().filter(|record| record.offset >= position).count()
    }
}
