//! A log that another process appends to, as those see it who read it here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::partition::Partition;

impl Partition {
    /// Looks for what another process appended; does nothing where this process appends.
    pub(crate) fn refresh(&self) -> Result<()> {
        let Some(follow) = &self.shown.follow else {
            return Ok(());
        };
        let mut follow = follow.lock();
        if follow.is_gone(&self.context)? {
            self.shown.is_deleted.store(true, Ordering::Release);
            return Ok(());
        }
        let end = follow.advance(&self.context, &self.segments)?;
        self.show_followed(end, follow.log_start());
        Ok(())
    }

    /// Shows readers where another process's log begins and ends.
    fn show_followed(&self, log_end: i64, log_start: i64) {
        let marks = &self.shown.watermarks;
        marks.publish(log_end.max(marks.log_end()));
        marks.raise_log_start(log_start.min(marks.log_end()));
    }

    /// Notes where another process said that its log begins.
    pub(crate) fn note_start_elsewhere(&self, log_start: i64) {
        let marks = &self.shown.watermarks;
        marks.raise_log_start(log_start.min(marks.log_end()));
    }

    /// Asks the keeper to look soon for what another process appended; nobody else would ring.
    pub(crate) fn watch(self: &Arc<Self>) {
        if self.shown.follow.is_some() {
            self.ask_for_sync(WATCH_INTERVAL_MIN);
        }
    }

    /// Looks for what another process appended or deleted, for the keeper. Rings if there is something; otherwise
    /// says whether somebody still waits for it.
    pub(crate) fn look_again(
        &self,
        refresh_checkpoints: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        self.asked_within_ms.store(u64::MAX, Ordering::SeqCst);
        let marks = &self.shown.watermarks;
        let ends = || (marks.log_start(), marks.log_end(), marks.durable_end());
        let before = ends();
        refresh_checkpoints()?;
        self.refresh()?;
        if self.is_deleted() {
            self.shown.doorbells.ring_for_the_last_time();
            return Ok(false);
        }
        if before != ends() {
            self.shown.doorbells.ring();
        }
        Ok(self.shown.doorbells.is_armed())
    }

    #[inline]
    pub(crate) fn is_followed(&self) -> bool {
        self.shown.follow.is_some()
    }

    /// Notes how far another process said it has synchronised.
    pub(crate) fn note_durable_elsewhere(&self, recovery_point: i64) {
        self.shown.watermarks.note_durable(recovery_point.min(self.shown.watermarks.log_end()));
    }

    /// Looks at the log, and looks again if it turns out that another process has compacted it meanwhile.
    pub(super) fn despite_compaction<T>(&self, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        if !self.is_followed() {
            return look();
        }
        let (mut tries, mut in_vain) = (0, 0);
        loop {
            let known = (self.gaps_below(), self.segments.snapshot());
            let error = match look() {
                Err(error) if tries < TRIES => error,
                outcome => return outcome,
            };
            tries += 1;
            // Somebody else may have found out meanwhile.
            let is_known =
                known.0 == self.gaps_below() && Arc::ptr_eq(&known.1, &self.segments.snapshot());
            if is_known && !self.was_compacted(&error)? {
                // A file may have been replaced between the look at the log and the one at its directory.
                in_vain += 1;
                if !error.is_not_found() || in_vain > TRIES_IN_VAIN {
                    return Err(error);
                }
            }
        }
    }

    /// Tells whether an error may come from another process's compaction, and takes up what that left.
    fn was_compacted(&self, error: &Error) -> Result<bool> {
        let Some(follow) = &self.shown.follow else {
            return Ok(false);
        };
        // A file is gone, or holds something else than it did, gaps among it.
        let is_suspicious = error.is_not_found() || matches!(error, Error::Corrupt { .. });
        let mut follow = follow.lock();
        if !is_suspicious || follow.is_gone(&self.context)? {
            return Ok(false);
        }
        let was_compacted = follow.look_for_compaction(&self.context, &self.segments)?;
        if was_compacted {
            self.show_followed(follow.log_end(), follow.log_start());
        }
        Ok(was_compacted)
    }
}

/// How soon a log that another process appends to is looked at again while somebody waits for it.
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How often a look at the log may be overtaken by a compaction, and how often one is suspected that was none.
const TRIES: u32 = 1000;
const TRIES_IN_VAIN: u32 = 10;
