//! How a member is told that it has something to do, and how it shows that it is still at work.
//!
//! A [`Signal`] is one member's, and ends with the membership; [`Polls`] are its consumer's.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::partition::watermarks::Doorbell;

/// How a member is told that it has something to do.
#[derive(Debug)]
pub(crate) struct Signal {
    /// Stored with Release behind a change, taken with Acquire before a look.
    pending: AtomicBool,
    bell: Arc<Doorbell>,
    polls: Arc<Polls>,
}

/// When a consumer polled last, whatever it was a member of then and is now.
#[derive(Debug)]
pub(crate) struct Polls {
    begun: Instant,
    /// In milliseconds since `begun`; `u64::MAX` while it is polling. Stored by the consumer's thread only.
    polled_ms: AtomicU64,
    /// How long it may go without; `u64::MAX` is for ever.
    interval_ms: u64,
}

impl Signal {
    pub(crate) fn new(bell: Arc<Doorbell>, polls: Arc<Polls>) -> Signal {
        Signal { pending: AtomicBool::new(true), bell, polls }
    }

    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes the mark off; what it was for is looked at after this.
    pub(crate) fn take(&self) -> bool {
        self.pending.swap(false, Ordering::AcqRel)
    }

    /// Marks the member; false if it was marked already. What it is for was changed before this.
    pub(crate) fn mark(&self) -> bool {
        !self.pending.swap(true, Ordering::AcqRel)
    }

    /// Wakes the member; its waker may be the user's code.
    pub(crate) fn ring(&self) {
        self.bell.ring();
    }

    /// As [`Polls::patience_left`], of the member's consumer.
    pub(crate) fn patience_left(&self) -> Option<Duration> {
        self.polls.patience_left()
    }
}

impl Polls {
    pub(crate) fn new(max_poll_interval: Option<Duration>) -> Polls {
        let interval = max_poll_interval.map(|interval| interval.as_millis());
        let interval_ms = interval.map_or(u64::MAX, |ms| u64::try_from(ms).unwrap_or(u64::MAX));
        Polls { begun: Instant::now(), polled_ms: AtomicU64::new(0), interval_ms }
    }

    /// Tells whether anybody asks.
    pub(crate) fn matter(&self) -> bool {
        self.interval_ms != u64::MAX
    }

    /// Notes that the consumer polls, from now on until [`end`](Self::end).
    pub(crate) fn begin(&self) {
        // Relaxed, like all of these: who asks compares it with a clock.
        self.polled_ms.store(u64::MAX, Ordering::Relaxed);
    }

    /// Notes that the consumer has polled.
    pub(crate) fn end(&self) {
        self.polled_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Lets the time begin anew for one who becomes a member; within a poll it has not begun.
    pub(crate) fn begin_anew(&self) {
        if self.polled_ms.load(Ordering::Relaxed) != u64::MAX {
            self.end();
        }
    }

    /// Gives how long until the consumer may have gone without for too long, zero if it has; `None` if it may take
    /// for ever. While it is polling its time has not begun.
    fn patience_left(&self) -> Option<Duration> {
        if !self.matter() {
            return None;
        }
        let left_ms = match self.polled_ms.load(Ordering::Relaxed) {
            u64::MAX => self.interval_ms.max(1),
            polled_ms => polled_ms.saturating_add(self.interval_ms).saturating_sub(self.now_ms()),
        };
        Some(Duration::from_millis(left_ms))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }
}
