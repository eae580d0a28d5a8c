//! What is said of a damaged batch of a segment, and where its readers can go on.

use crate::error::Error;
use crate::format::decode;
use crate::format::decode::BatchFault;
use crate::format::header;
use crate::storage::map::View;
use crate::storage::segment::Located;
use crate::storage::segment::OpenSegment;
use crate::storage::segment::is_whole;

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
                let behind =
                    self.view().and_then(|view| self.resync(&view, position, expected + 1));
                let resume = behind.map(|found| found.header.base_offset);
                Error::Corrupt { path, position, reason: fault.text(), resume }
            }
        }
    }

    /// Gives where the first whole batch behind damage at `position` begins, where `expected` is the offset that the
    /// damaged one should begin with.
    pub(crate) fn behind_damage(&self, position: u64, expected: i64) -> Option<u64> {
        let view = self.view()?;
        self.resync(&view, position, expected + 1).map(|found| found.position)
    }

    /// Finds the first whole batch behind damage at `from`, base offset at least `offset_min`.
    pub(super) fn resync(&self, view: &View, from: u64, offset_min: i64) -> Option<Located> {
        let whole_at = |position: u64| {
            let header = decode::header_at(view.from(position)).ok()?;
            let plausible = header.base_offset >= offset_min
                && header.base_offset - self.base_offset() <= i64::from(i32::MAX);
            let found = Located { position, header, is_led: true };
            (plausible && is_whole(view, found)).then_some(found)
        };
        // Damage in a batch's body leaves its length and offsets intact; see `Scan::resync`.
        if let Ok(damaged) = decode::header_at(view.from(from)) {
            let behind = whole_at(from + damaged.len() as u64);
            if behind.is_some_and(|b| b.header.base_offset == damaged.last_offset() + 1) {
                return behind;
            }
        }
        let magic = header::field::MAGIC.start as u64;
        // As in `Scan`: a file that was made to cost time costs a few passes over it.
        let mut left = view.end().saturating_mul(8).saturating_add(64 << 20);
        let mut whole_at = |position: u64| {
            let header = decode::header_at(view.from(position)).ok()?;
            left = left.checked_sub(header.len() as u64)?;
            whole_at(position)
        };
        let last = view.end().saturating_sub(header::LEN as u64);
        (from + 1..=last).find_map(|position| {
            let is_magic = view.from(position + magic).first() == Some(&(header::MAGIC as u8));
            if is_magic { whole_at(position) } else { None }
        })
    }
}
