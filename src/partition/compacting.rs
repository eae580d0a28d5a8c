//! Whose turn it is to compact a log, and whether it may still be done.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use parking_lot::MutexGuard;

use crate::error::Error;
use crate::error::Result;

/// What keeps compactions of one log apart from one another, and from the end of the log.
#[derive(Debug, Default)]
pub(crate) struct Compacting {
    /// Held for a whole compaction, syncs included; lock rank 3. Inside: why no other may begin, if so.
    turn: Mutex<Option<Arc<str>>>,
    /// The log is being closed or deleted. Stored with Release by the one who ends it, loaded with Acquire.
    is_over: AtomicBool,
}

impl Compacting {
    /// Waits until nobody else compacts the log.
    ///
    /// # Errors
    ///
    /// * [`Error::Closed`] once the log is being closed or deleted.
    /// * [`Error::Unavailable`] after one that left files behind which only an open can put in order.
    pub(super) fn begin(&self, directory: &Path) -> Result<MutexGuard<'_, Option<Arc<str>>>> {
        let turn = self.turn.lock();
        self.go_on()?;
        match &*turn {
            Some(reason) => {
                let (path, reason) = (directory.to_path_buf(), Arc::clone(reason));
                Err(Error::Unavailable { path, reason })
            }
            None => Ok(turn),
        }
    }

    /// As [`begin`](Self::begin), but does not wait: `None` while somebody else has the turn.
    pub(super) fn try_begin(
        &self,
        directory: &Path,
    ) -> Result<Option<MutexGuard<'_, Option<Arc<str>>>>> {
        let Some(turn) = self.turn.try_lock() else { return Ok(None) };
        self.go_on()?;
        match &*turn {
            Some(reason) => {
                let (path, reason) = (directory.to_path_buf(), Arc::clone(reason));
                Err(Error::Unavailable { path, reason })
            }
            None => Ok(Some(turn)),
        }
    }

    /// Asked again and again by the one who compacts.
    pub(super) fn go_on(&self) -> Result<()> {
        if self.is_over.load(Ordering::Acquire) { Err(Error::Closed) } else { Ok(()) }
    }

    /// Ends the compaction that is under way, and lets no other begin. Afterwards no file is touched any more.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        drop(self.turn.lock());
    }
}
