//! What one log takes of its store's budget: space granted to its tail, what its full segments are, and deleted ones whose
//! files are kept for a while.

use std::sync::Arc;

use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::budget::Tail;
use crate::partition::segments::Segment;
use crate::partition::writer::Writer;

impl Partition {
    /// Grants the last segment, which is open, space for `len` bytes more.
    ///
    /// # Errors
    ///
    /// * [`Error::StoreFull`]: nothing was granted. What can be done about it is done by [`relieve`](Self::relieve).
    pub(super) fn grant(&self, writer: &mut Writer, len: usize) -> Result<()> {
        if let Some(live) = &mut writer.live {
            let needed = live.tail.end() + len as u64;
            let base_offset = live.open.base_offset();
            live.tail.grant(self.charged.grant(&self.budget, base_offset, needed)?);
        }
        Ok(())
    }

    /// Does what there is to do about an append of `len` bytes for which there was no room: makes some, if that is the
    /// store's policy. Called with no lock held; blocks while segments go.
    ///
    /// # Errors
    ///
    /// * [`Error::StoreFull`] if it is not. What kept segments from going.
    pub(crate) fn relieve(&self, len: usize) -> Result<()> {
        self.budget.relieve(len)
    }

    /// Tells whether the log counts for the store's budget.
    pub(crate) fn is_charged(&self) -> bool {
        self.budget.limit().is_some() && !self.is_followed()
    }

    /// Works out what the log takes of the store's budget, where it has one, after its segments have changed.
    pub(crate) fn recharge(&self) -> Result<()> {
        while self.is_charged() && !self.is_deleted() {
            let segments = self.segments.snapshot();
            let Some((last, full)) = segments.split_last() else { return Ok(()) };
            let lens = full.iter().map(|segment| self.charged_len(segment)).sum::<Result<u64>>();
            let is_same = || Arc::ptr_eq(&segments, &self.segments.snapshot());
            let waiting = self.doomed_len();
            let full = match lens {
                Err(error) if error.is_not_found() && !is_same() => continue,
                lens => lens?,
            };
            let tail = if last.live_open().is_some() { Tail::Open } else { Tail::Closed };
            let end = self.charged_len(last)?;
            if is_same() {
                self.charged.charge(&self.budget, full + waiting, last.base_offset(), end, tail);
                break;
            }
        }
        Ok(())
    }

    fn charged_len(&self, segment: &Arc<Segment>) -> Result<u64, Error> {
        match segment.live_open() {
            Some(open) => Ok(open.end()),
            None => Ok(self.extent_of(segment)?.len),
        }
    }
}
