//! What is said of a damaged batch of a segment, and where its readers can go on.

use crate::error::Error;
use crate::error::Result;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::header;
use crate::storage::brought::Brought;
use crate::storage::map::View;
use crate::storage::segment::Located;
use crate::storage::segment::OpenSegment;

impl OpenSegment {
    /// Names a fault in the batch at `position`, where `expected` is the offset it should begin with: the
    /// path, the byte, and where reading can go on.
    pub(crate) fn fault_error(&self, position: u64, fault: BatchFault, expected: i64) -> Error {
        let path = self.path().to_path_buf();
        match fault {
            BatchFault::Compressed(codec) => {
                // The checksum held, so the header is to be believed.
                let header = self.view().and_then(|v| decode::header_at(v.from(position)).ok());
                let resume = header.map_or(expected, |header| header.last_offset()) + 1;
                Error::UnsupportedCompression { codec, offset: expected, path, resume }
            }
            fault => {
                let behind = match self.view() {
                    Some(view) => self.resync(&view, position, expected + 1),
                    None => Ok(None),
                };
                match behind.map(|behind| behind.map(|found| found.header.base_offset)) {
                    Ok(resume) => Error::Corrupt { path, position, reason: fault.text(), resume },
                    // What cannot be read is not called damaged.
                    Err(error) => error,
                }
            }
        }
    }

    /// Gives where the first whole batch behind damage at `position` begins, where `expected` is the offset that the
    /// damaged one should begin with.
    pub(crate) fn behind_damage(&self, position: u64, expected: i64) -> Result<Option<u64>> {
        let Some(view) = self.view() else {
            return Ok(None);
        };
        Ok(self.resync(&view, position, expected + 1)?.map(|found| found.position))
    }

    /// Tells whether a batch is as its checksum says.
    pub(super) fn is_whole(&self, view: &View, batch: Located) -> Result<bool> {
        self.bring_batch(view, batch.position)?;
        Ok(is_whole(view, batch))
    }

    /// Finds the first whole batch behind damage at `from`, base offset at least `offset_min`.
    pub(super) fn resync(
        &self,
        view: &View,
        from: u64,
        offset_min: i64,
    ) -> Result<Option<Located>> {
        let whole_at = |position: u64| {
            let Ok(header) = decode::header_at(view.from(position)) else {
                return Ok(None);
            };
            let plausible = header.base_offset >= offset_min
                && header.base_offset - self.base_offset() <= i64::from(i32::MAX);
            let found = Located { position, header, is_led: true };
            let is_found = plausible && self.is_whole(view, found)?;
            Ok(is_found.then_some(found))
        };
        // Damage in a batch's body leaves its length and offsets intact; see `Scan::resync`.
        self.bring_header(view, from)?;
        if let Ok(damaged) = decode::header_at(view.from(from)) {
            let position = from + damaged.len() as u64;
            self.bring_header(view, position)?;
            let behind = whole_at(position)?;
            if behind.is_some_and(|b| b.header.base_offset == damaged.last_offset() + 1) {
                return Ok(behind);
            }
        }
        let magic = header::field::MAGIC.start as u64;
        // As in `Scan`: a file that was made to cost time costs a few passes over it.
        let mut left = view.end().saturating_mul(8).saturating_add(64 << 20);
        let last = view.end().saturating_sub(header::LEN as u64);
        for position in from + 1..=last {
            // What is looked at is brought as the search comes to it: as a rule it does not come far.
            let header_last = position + header::LEN as u64 - 1;
            if position == from + 1 || !Brought::is_one_stretch(header_last - 1, header_last) {
                self.bring_header(view, position)?;
            }
            let is_magic = view.from(position + magic).first() == Some(&(header::MAGIC as u8));
            let header = is_magic.then(|| decode::header_at(view.from(position)).ok()).flatten();
            let Some(rest) = header.and_then(|header| left.checked_sub(header.len() as u64)) else {
                continue;
            };
            left = rest;
            let found = whole_at(position)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

fn is_whole(view: &View, batch: Located) -> bool {
    decode::checksum_holds(&batch.header, view.from(batch.position))
}
