//! What the threads of a responder share with its handle.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Error;
use crate::error::Result;

/// What the threads of a responder share with its handle.
#[derive(Debug)]
pub(crate) struct ResponderState {
    pub(crate) counts: Counts,
    /// Asks the threads to end. Stored with Release, loaded with Acquire.
    pub(crate) is_stopping: AtomicBool,
    /// How many wait for the threads to commit at once. The same.
    pub(crate) hurrying: AtomicUsize,
    /// Lock rank 8: one look.
    pub(crate) ends: Mutex<Ends>,
    /// A thread has committed or ended, or is to end.
    pub(crate) has_changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) running: usize,
    pub(crate) first_error: Option<Error>,
}

/// Relaxed throughout: numbers that order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) answered: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) not_asked: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) undeliverable: AtomicU64,
    pub(crate) uncorrelated: AtomicU64,
    pub(crate) unreadable: AtomicU64,
    pub(crate) retries: AtomicU64,
}

/// Notes that a thread is gone, even if it panicked: that would be a bug of ours, and must not hang who waits for it.
pub(crate) struct EndOnDrop(pub(crate) Arc<ResponderState>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.ends.lock().running -= 1;
        self.0.has_changed.notify_all();
    }
}

impl ResponderState {
    pub(crate) fn new() -> ResponderState {
        ResponderState {
            counts: Counts::default(),
            is_stopping: AtomicBool::new(false),
            hurrying: AtomicUsize::new(0),
            ends: Mutex::default(),
            has_changed: Condvar::new(),
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurrying.load(Ordering::Acquire) > 0
    }

    /// Tells those who wait for it that a thread has committed.
    pub(crate) fn note_commit(&self) {
        let _ends = self.ends.lock();
        self.has_changed.notify_all();
    }

    /// Lets time pass before something is tried again; not longer than until the end is asked for.
    pub(crate) fn rest(&self) {
        let deadline = Instant::now() + RETRY_AFTER;
        let mut ends = self.ends.lock();
        while !self.is_stopping() {
            if self.has_changed.wait_until(&mut ends, deadline).timed_out() {
                return;
            }
        }
    }

    pub(crate) fn note_end(&self, ended: Result<()>) {
        if let Err(error) = ended {
            self.ends.lock().first_error.get_or_insert(error);
        }
    }
}

const RETRY_AFTER: Duration = Duration::from_millis(50);
