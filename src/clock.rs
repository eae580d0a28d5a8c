//! The only reader of the wall clock.
//!
//! Everything that stores or compares timestamps asks a [`Clock`], so that a test can set the time.
//! Waiting uses the monotonic [`Instant`](std::time::Instant) and is unaffected by clock changes.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::time::Duration;
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

    /// Gives the wall clock's time, and to a thread that asks very often, within microseconds of it: one that
    /// asked a thousand times in the system's last tick (1 to 10 ms) is told for a while what it was told
    /// before, sixteen times at most and within one tick. That costs a quarter.
    #[inline]
    pub(crate) fn recent_ms(&self) -> i64 {
        match self.fixed_ms {
            None => tick::recent_ms(|| self.now_ms()),
            Some(_) => self.now_ms(),
        }
    }

    /// Gives the time that was so long ago, and not before 1970.
    pub(crate) fn ms_before(&self, age: Duration) -> i64 {
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.now_ms().saturating_sub(age_ms).max(0)
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

#[cfg(target_os = "linux")]
mod tick {
    use std::cell::Cell;

    use rustix::time::ClockId;
    use rustix::time::clock_gettime;

    /// What a thread was told last.
    #[derive(Clone, Copy)]
    struct Told {
        /// The tick it asked in, in nanoseconds.
        tick: i64,
        /// How often it asked in that tick.
        count: u32,
        now_ms: i64,
        /// How often it may be told the same again.
        left: u32,
        is_fast: bool,
    }

    thread_local! {
        static TOLD: Cell<Told> = const {
            Cell::new(Told { tick: i64::MIN, count: 0, now_ms: 0, left: 0, is_fast: false })
        };
    }

    #[inline]
    pub(super) fn recent_ms(now_ms: impl Fn() -> i64) -> i64 {
        let tick = clock_gettime(ClockId::RealtimeCoarse);
        let tick = tick.tv_sec * 1_000_000_000 + tick.tv_nsec;
        let told = TOLD.try_with(|told| {
            let mut now = told.get();
            if now.tick != tick {
                let is_next = tick.wrapping_sub(now.tick) <= TICK_MAX_NS && tick > now.tick;
                let is_fast = is_next && now.count >= FAST_COUNT;
                now = Told { tick, count: 0, now_ms: 0, left: 0, is_fast };
            }
            now.count = now.count.saturating_add(1);
            if now.is_fast && now.left > 0 {
                now.left -= 1;
            } else {
                now.now_ms = now_ms();
                now.left = TOLD_AGAIN;
            }
            told.set(now);
            now.now_ms
        });
        // A thread that is ending has no place for it any more.
        told.unwrap_or_else(|_| now_ms())
    }

    const TICK_MAX_NS: i64 = 10_000_000;
    const FAST_COUNT: u32 = 1000;
    const TOLD_AGAIN: u32 = 15;
}

#[cfg(not(target_os = "linux"))]
mod tick {
    pub(super) fn recent_ms(now_ms: impl Fn() -> i64) -> i64 {
        now_ms()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recent_time_is_never_ahead_and_hardly_behind() {
        let clock = Clock::system();
        for _ in 0..200_000 {
            let before = clock.now_ms();
            let recent = clock.recent_ms();
            let after = clock.now_ms();
            assert!(recent <= after, "{recent} > {after}");
            // A tick has at most ten milliseconds, but a machine that is kept waiting may be late with it.
            assert!(recent + 2_000 >= before, "{recent} is far older than {before}");
        }
    }
}
