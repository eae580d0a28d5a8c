//! A walk over a whole log, batch by batch, for those who keep their own papers in one.
//!
//! Unlike a read it shows control batches too, and goes on behind what cannot be read.

use crate::error::Error;
use crate::error::Result;
use crate::format::compression::Unpacked;
use crate::format::compression::Unpacker;
use crate::format::decode;
use crate::format::decode::Batch;
use crate::format::decode::BatchFault;
use crate::format::header::BatchHeader;
use crate::format::header::HeaderFault;
use crate::partition::Partition;
use crate::storage::map::View;

/// What a walk meets.
#[derive(Debug)]
pub(crate) enum Walked<'b> {
    Batch(Batch<'b>),
    /// Something that is damaged, or compressed in a way that cannot be read; it is stepped over.
    Unreadable(Error),
}

impl Partition {
    /// Shows every whole batch from the log's start to its end, in order.
    ///
    /// # Errors
    ///
    /// * A segment could not be opened or read; what lies before was shown.
    pub(crate) fn walk(&self, mut show: impl FnMut(Walked<'_>)) -> Result<()> {
        // Compaction may join segments meanwhile; what was shown is not shown again.
        let mut shown_below = self.watermarks().log_start();
        self.despite_compaction(|| self.walk_at_once(&mut shown_below, &mut show))
    }

    fn walk_at_once(&self, shown_below: &mut i64, show: &mut impl FnMut(Walked<'_>)) -> Result<()> {
        let (mut unpacker, mut unpacked) = (Unpacker::default(), Unpacked::default());
        for segment in self.segments().snapshot().iter() {
            let open = self.open_segment(segment)?;
            let Some(view) = open.view() else { continue };
            let (mut position, mut expected) = (0, open.base_offset());
            while position < view.end() {
                open.bring_batch(&view, position)?;
                let bytes = view.from(position);
                unpacked.clear();
                let fault = match unpacker.verify(bytes, &mut unpacked) {
                    Ok(batch) if is_borne_out(&view, position, batch.header(), expected) => {
                        let header = *batch.header();
                        if header.last_offset() >= *shown_below {
                            *shown_below = header.last_offset() + 1;
                            show(Walked::Batch(batch));
                        }
                        // Not the batch's own length: it may have been unpacked.
                        let len = decode::header_at(bytes).map_or(0, |header| header.len());
                        position += len as u64;
                        expected = header.last_offset().saturating_add(1);
                        continue;
                    }
                    // The checksum holds, and so does the length that led to it.
                    Ok(_) => {
                        let fault = BatchFault::Header(HeaderFault::Offsets);
                        show(Walked::Unreadable(open.fault_error(position, fault, expected)));
                        let len = decode::header_at(bytes).map_or(0, |header| header.len());
                        position += len as u64;
                        continue;
                    }
                    Err(fault) => fault,
                };
                let error = open.fault_error(position, fault, expected);
                let next = match (fault, decode::header_at(bytes)) {
                    // Its checksum holds, so its length is to be believed.
                    (BatchFault::Compressed(_), Ok(header)) => Some(position + header.len() as u64),
                    // By its position: a look-up of its offset would come past the damage, and may believe it.
                    _ => open.behind_damage(position, expected)?,
                };
                show(Walked::Unreadable(error));
                match next {
                    Some(next) if next > position => position = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// Tells whether a batch's neighbours bear out the offset it claims, which its checksum does not cover: offsets
/// ascend, and one that leaves a gap, as compaction does, is not followed by one that would lie in it.
fn is_borne_out(view: &View, position: u64, header: &BatchHeader, expected: i64) -> bool {
    if header.base_offset <= expected {
        return header.base_offset == expected;
    }
    let own = decode::header_at(view.from(position)).map_or(0, |own| own.len());
    let next = decode::header_at(view.from(position + own as u64));
    !next.is_ok_and(|next| (expected..=header.last_offset()).contains(&next.base_offset))
}
