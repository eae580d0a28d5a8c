//! How the beginning of a log is let go of: its segments leave the list, then the disk.
//!
//! The log's start was raised before, and that is on record. Readers that stand below it are told so when they read
//! next; the records they have in hand stay readable, and their space comes free with the last of them.
//!
//! **Invariant (deleted stays deleted).** A log's start is durable, on record or in the names of its files, before
//! anybody sees it raised; and everything below it was durable before, so that no offset is given out twice.

use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;
use crate::partition::producer_snapshot;
use crate::storage::removal;
use crate::storage::removal::Order;

/// Whether to wait for a compaction that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    /// Somebody looks again later.
    Pass,
}

impl Partition {
    /// Lets the log begin at `start`, unless it begins further on already. The caller has put that on record.
    pub(crate) fn raise_log_start(&self, start: i64) {
        self.watermarks().raise_log_start(start);
        // Whoever waits below it is to hear of it.
        self.doorbells().ring();
    }

    /// Removes the segments that lie below the log's start, and what an earlier attempt left. Blocks while segments
    /// before it are sealed.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`] if the log is being closed or deleted, [`Error::Unavailable`] after a compaction that only
    ///   an open can put in order, [`Error::Latched`]: nothing was removed.
    /// * Others: nobody finds the segments any more, but some of their files are there. The next call removes them,
    ///   or the next open.
    pub(crate) fn remove_below_start(&self, patience: Patience, order: Order) -> Result<()> {
        if self.is_followed() {
            return Err(Error::ReadOnly { action: "remove segments" });
        }
        let turn = match patience {
            Patience::Wait => Some(self.compacting.begin(&self.context.directory)?),
            Patience::Pass => self.compacting.try_begin(&self.context.directory)?,
        };
        let Some(_turn) = turn else { return Ok(()) };
        let first_kept = self.segments.holding(self.watermarks().log_start()).base_offset();
        if self.segments.first().base_offset() < first_kept {
            self.refuse_if_latched()?;
            self.seal_below(first_kept)?;
            let taken = self.segments.take_below(first_kept);
            for (base_offset, open) in taken {
                self.removed.note(base_offset, open.and_then(|o| Some((o.mapping()?, o.end()))));
            }
        }
        let files = self.removed.files();
        if files.is_empty() {
            return Ok(());
        }
        removal::remove(&self.context, &files, order)?;
        self.removed.forget(&files);
        self.recharge()?;
        producer_snapshot::remove_replaced(&self.context, &files)
    }

    /// Tells whether files are left of segments that are not of the log any more.
    pub(crate) fn has_files_to_remove(&self) -> bool {
        !self.removed.files().is_empty()
    }

    /// Gives the bytes that the files of the log's directory take on the disk.
    pub(crate) fn allocated_len(&self) -> Result<u64> {
        self.context.disk.allocated_len(&self.context.directory)
    }

    /// Gives the bytes of removed segments that take space as long as somebody reads them.
    pub(crate) fn held_len(&self) -> u64 {
        self.removed.held_len()
    }
}
