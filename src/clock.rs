//! The only reader of the wall clock.
//!
//! Everything that stores or compares timestamps asks a [`Clock`], so that a test can set the time.
//! Waiting uses the monotonic [`Instant`](std::time::Instant) and is unaffected by clock changes.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

/// Gives the current time in milliseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Set only by tests: the time to report instead of the system's.
    fixed_ms: Option<Arc<AtomicI64>>,
}

impl Clock {
    pub(crate) fn system() -> Clock {
        Clock::default()
    }

    #[cfg(test)]
    pub(crate) fn fixed(now_ms: i64) -> (Clock, Arc<AtomicI64>) {
        let cell = Arc::new(AtomicI64::new(now_ms));
        (Clock { fixed_ms: Some(Arc::clone(&cell)) }, cell)
    }

    /// Gives the wall clock's time; a clock set before 1970 reads as 0.
    pub(crate) fn now_ms(&self) -> i64 {
        if let Some(fixed) = &self.fixed_ms {
            // Relaxed: a test's clock orders nothing.
            return fixed.load(Ordering::Relaxed);
        }
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}
