//! How the beginning of a log is let go of: its segments leave the list, then the disk.
//!
//! Their files go at once, or stay under another name for `file.delete.delay.ms`; so do those that compaction replaced.
//!
//! The log's start was raised before, and that is on record. Readers that stand below it are told so when they read
//! next; the records they have in hand stay readable, and their space comes free with the last of them.
//!
//! **Invariant (deleted stays deleted).** A log's start is durable, on record or in the names of its files, before
//! anybody sees it raised; and everything below it was durable before that, so that no offset is given out twice.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use crate::error::Error;
use crate::error::Result;
use crate::partition::Attention;
use crate::partition::Partition;
use crate::partition::producer_snapshot;
use crate::partition::removed::Doomed;
use crate::storage::file_name::DELETED_SUFFIX;
use crate::storage::removal;
use crate::storage::removal::Order;
use crate::storage::swap;

/// Whether to wait for a compaction that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    /// Somebody looks again later.
    Pass,
}

/// Which of the files that wait are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Those that have waited for `file.delete.delay.ms`.
    Over,
    /// All: there is no room for them.
    All,
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
    pub(crate) fn remove_below_start(
        self: &Arc<Self>,
        patience: Patience,
        order: Order,
    ) -> Result<()> {
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
        if !files.is_empty() {
            removal::rename(&self.context, &files, order)?;
            self.doom(&files)?;
            self.removed.forget(&files);
        }
        // In an order that has to be kept there is no room even for a record of it.
        let waiting = if order == Order::OldestFirst { Waiting::All } else { Waiting::Over };
        let removed = self.remove_waiting(waiting);
        if !files.is_empty() {
            self.recharge()?;
            producer_snapshot::remove_replaced(&self.context, &files)?;
        }
        removed.map(drop)
    }

    /// Has the files of segments removed, which were renamed, once `file.delete.delay.ms` is over. The caller has the
    /// turn, and calls [`remove_waiting`](Self::remove_waiting).
    pub(super) fn doom(&self, base_offsets: &[i64]) -> Result<()> {
        let since = Instant::now();
        let doomed: Result<Vec<Doomed>> = base_offsets
            .iter()
            .map(|base_offset| {
                let len = removal::renamed_len(&self.context, *base_offset)?;
                Ok(Doomed { base_offset: *base_offset, len, since })
            })
            .collect();
        self.removed.doom(&doomed?);
        Ok(())
    }

    /// Removes files that have waited for long enough, or all that wait, unless somebody compacts the log at this moment;
    /// gives how many bytes of batches were in them.
    ///
    /// # Errors
    ///
    /// * As [`remove_below_start`](Self::remove_below_start); what is left goes with the next call.
    pub(crate) fn remove_doomed(self: &Arc<Self>, waiting: Waiting) -> Result<u64> {
        if self.removed.doomed().is_empty() {
            return Ok(0);
        }
        // A compaction may be about to give files their names back.
        let Some(_turn) = self.compacting.try_begin(&self.context.directory)? else {
            self.ask_to_remove(TURN_INTERVAL);
            return Ok(0);
        };
        self.remove_waiting(waiting)
    }

    /// As [`remove_doomed`](Self::remove_doomed), for those who have the turn; asks for the rest to be removed in time.
    pub(super) fn remove_waiting(self: &Arc<Self>, waiting: Waiting) -> Result<u64> {
        let doomed = self.removed.doomed();
        let delay_ms = self.writer.lock().config.file_delete_delay_ms;
        let delay = Duration::from_millis(u64::try_from(delay_ms).unwrap_or(0));
        let is_over = |doomed: &&Doomed| waiting == Waiting::All || doomed.since.elapsed() >= delay;
        let going: Vec<Doomed> = doomed.iter().take_while(is_over).copied().collect();
        if let Some(next) = doomed.get(going.len()) {
            self.ask_to_remove(delay.saturating_sub(next.since.elapsed()));
        }
        if going.is_empty() {
            return Ok(0);
        }
        let base_offsets: Vec<i64> = going.iter().map(|doomed| doomed.base_offset).collect();
        swap::remove_replaced(&self.context, &base_offsets)?;
        self.removed.forget_doomed(&base_offsets);
        self.recharge()?;
        Ok(going.iter().map(|doomed| doomed.len).sum())
    }

    /// Has [`remove_doomed`](Self::remove_doomed) called in the background.
    pub(super) fn ask_to_remove(self: &Arc<Self>, within: Duration) {
        // The keeper is gone only once the store is closing; what is left then the next open removes.
        drop(self.attention.send(Attention::Remove { partition: Arc::downgrade(self), within }));
    }

    /// Looks again whether files have waited for long enough, for it was changed how long that is.
    pub(super) fn look_at_waiting(self: &Arc<Self>) {
        if !self.removed.doomed().is_empty() {
            self.ask_to_remove(Duration::ZERO);
        }
    }

    /// Gives the bytes of batches in files that wait to be removed.
    pub(super) fn doomed_len(&self) -> u64 {
        self.removed.doomed().iter().map(|doomed| doomed.len).sum()
    }

    /// Gives the bytes of the files in the log's directory that are about to be removed, whoever is to do so.
    pub(crate) fn deleted_len(&self) -> Result<u64> {
        let context = &self.context;
        let mut len = 0;
        for entry in context.disk.entries(&context.directory)? {
            if entry.name.ends_with(DELETED_SUFFIX) {
                match context.disk.len(&context.directory.join(&entry.name)) {
                    Err(error) if error.is_not_found() => {}
                    found => len += found?,
                }
            }
        }
        Ok(len)
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

/// How soon files are looked at again that a compaction may have to give their names back.
const TURN_INTERVAL: Duration = Duration::from_secs(1);
