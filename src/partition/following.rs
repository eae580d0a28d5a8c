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
        self.shown.watermarks.publish(end.max(self.shown.watermarks.log_end()));
        Ok(())
    }

    /// Asks the keeper to look soon for what another process appended; nobody else would ring.
    pub(crate) fn watch(self: &Arc<Self>) {
        if self.shown.follow.is_some() {
            self.ask_for_sync(WATCH_INTERVAL_MIN);
        }
    }

    /// Looks for what another process appended, for the keeper. Rings if there is something; otherwise
    /// says whether somebody still waits for it.
    pub(crate) fn look_again(
        &self,
        refresh_durable_end: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        self.asked_within_ms.store(u64::MAX, Ordering::SeqCst);
        let before = (self.shown.watermarks.log_end(), self.shown.watermarks.durable_end());
        refresh_durable_end()?;
        self.refresh()?;
        if self.is_deleted() {
            self.shown.doorbells.ring_for_the_last_time();
            return Ok(false);
        }
        if before != (self.shown.watermarks.log_end(), self.shown.watermarks.durable_end()) {
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
            let end = follow.log_end().max(self.shown.watermarks.log_end());
            self.shown.watermarks.publish(end);
        }
        Ok(was_compacted)
    }
}

/// How soon a log that another process appends to is looked at again while somebody waits for it.
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// How often a look at the log may be overtaken by a compaction, and how often one is suspected that was none.
const TRIES: u32 = 1000;
const TRIES_IN_VAIN: u32 = 10;
