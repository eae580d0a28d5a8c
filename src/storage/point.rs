//! One record of a segment, found by its offset.
//!
//! One look-up in the index, a short walk over headers, a short walk over records. Where anything on the way is not
//! as in a log in order, the careful walk of [`OpenSegment::locate`] takes over, which knows what to do about it.
//! Where records are compressed, only their batch is found and summed here.

use crate::error::Result;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::decode::RawRecords;
use crate::format::header;
use crate::format::header::Front;
use crate::storage::brought::Brought;
use crate::storage::map::View;
use crate::storage::segment::OpenSegment;
use crate::storage::verified::Checks;

/// A record in a segment, checked like every record that is handed out.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) view: View,
    /// Where its batch begins.
    pub(crate) batch_position: u64,
    pub(crate) place: Place,
}

/// Where in its batch a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It begins so many bytes before the end of its batch.
    Plain { len_to_end: usize },
    /// Among those that are compressed, if the batch has it. The batch is whole; what comes out of it is still to be
    /// checked, unless it is known.
    Packed { is_known: bool },
}

/// A batch that says it holds an offset.
struct Claim<'v> {
    position: u64,
    records: RawRecords<'v>,
    /// An index led here, or another place that is not known to be a batch's beginning.
    is_led: bool,
}

impl OpenSegment {
    /// Finds the record with this offset, or the compressed batch that says it has it; `None` if there is none.
    ///
    /// The batch it lies in is checked unless that was done before (invariants (checked once) and (marked)).
    ///
    /// # Errors
    ///
    /// * As [`locate`](Self::locate); [`Error::Corrupt`](crate::Error::Corrupt) if the batch cannot be read.
    pub(crate) fn point(&self, offset: i64) -> Result<Option<Point>> {
        let Some(view) = self.view() else {
            return Ok(None);
        };
        let near = self.claim_near(&view, offset)?;
        // A header that claims too much must not hide the batch that has the record.
        let found = match near {
            Some(claim) => {
                self.bring_batch(&view, claim.position)?;
                let found = self.record_in(&view, &claim, offset);
                found.ok().map(|place| (claim.position, place))
            }
            None => None,
        };
        let (batch_position, place) = match found {
            Some(found) => found,
            None => {
                let Some(found) = self.locate(offset)? else {
                    return Ok(None);
                };
                let position = found.position;
                self.bring_batch(&view, position)?;
                let in_batch = match RawRecords::split(view.from(position)) {
                    Some((records, _)) => {
                        let claim = Claim { position, records, is_led: found.is_led };
                        self.record_in(&view, &claim, offset)
                    }
                    None => return Ok(None),
                };
                let expected = found.header.base_offset;
                (position, in_batch.map_err(|fault| self.fault_error(position, fault, expected))?)
            }
        };
        Ok(place.map(|place| Point { view, batch_position, place }))
    }

    /// Finds the batch that says it holds `offset`, by the index and a walk; `None` as soon as anything on the way
    /// is not as it should be.
    fn claim_near<'v>(&self, view: &'v View, offset: i64) -> Result<Option<Claim<'v>>> {
        let (mut position, mut expected, mut is_led) = (0, self.base_offset(), false);
        if let Some(floor) = self.index_floor(offset)? {
            self.bring_header(view, floor.position)?;
            let Ok(header) = decode::header_at(view.from(floor.position)) else {
                return Ok(None);
            };
            if header.base_offset < expected || header.last_offset() > floor.last_offset {
                return Ok(None);
            }
            (position, expected) = (floor.position, header.base_offset);
            // What was noted as it was appended is no advice.
            is_led = !self.verified().is_born(position);
        }
        let (mut stride, mut brought) = (0, position);
        self.bring_header(view, position)?;
        loop {
            // Asked once a stretch: most batches are a fraction of one.
            if !Brought::is_one_stretch(brought, position + header::LEN as u64) {
                self.bring_header(view, position)?;
                brought = position;
            }
            let Some((records, _)) = RawRecords::split(view.from(position)) else {
                return Ok(None);
            };
            let front = records.front();
            let last_delta = i64::from(front.last_offset_delta());
            let is_in_order = front.magic() == header::MAGIC
                && front.base_offset() == expected
                && last_delta >= 0
                && last_delta < i64::MAX - expected;
            if !is_in_order {
                return Ok(None);
            }
            if offset - expected <= last_delta {
                return Ok(Some(Claim { position, records, is_led }));
            }
            // Else the next header would be asked for only once this one has come from memory.
            decode::stride_like(header::LEN + records.bytes().len(), &mut stride);
            position += stride as u64;
            expected += last_delta + 1;
        }
    }

    /// Finds the record in a batch that says it holds `offset`; `None` if the batch has no such record for readers.
    fn record_in(
        &self,
        view: &View,
        claim: &Claim<'_>,
        offset: i64,
    ) -> Result<Option<Place>, BatchFault> {
        let Claim { position, mut records, is_led } = *claim;
        let mut marked = self.marks().find(position);
        let is_checked =
            marked.is_some() || (!is_led && self.verified().known(Checks::All).holds(position));
        if !is_checked {
            let bytes = view.from(position);
            let header = decode::header_at(bytes).map_err(BatchFault::Header)?;
            if !decode::checksum_holds(&header, bytes) {
                return Err(BatchFault::Checksum);
            }
            if !is_packed(records.front()) {
                decode::check_structure(&header, bytes)?;
            }
        }
        let front = records.front();
        let base_offset = front.base_offset();
        if base_offset > offset || !front.attributes().is_plain() {
            let is_among_packed = base_offset <= offset && is_packed(front);
            return Ok(is_among_packed.then_some(Place::Packed { is_known: is_checked }));
        }
        if front.is_dense() {
            if marked.is_none() {
                self.marks().mark(self.mapped_len(), position, records);
                marked = self.marks().find(position);
            }
            let index = (offset - base_offset) as usize;
            match marked {
                Some(marked) => records = marked.pass(records, index),
                None => records.pass(index),
            }
        } else {
            records.pass_below(offset);
        }
        let len_to_end = records.bytes().len();
        let is_it = records.next().is_some_and(|record| record.offset == offset);
        Ok(is_it.then_some(Place::Plain { len_to_end }))
    }
}

/// Tells whether a batch has records for readers that must be unpacked.
fn is_packed(front: Front<'_>) -> bool {
    let attributes = front.attributes();
    attributes.codec() != 0 && !attributes.is_control() && front.record_count() > 0
}
