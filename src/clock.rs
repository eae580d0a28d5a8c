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

    /// What a thread was told last. One cell for each: what is written together and read apart, or the other way
    /// round, makes the processor wait for the write.
    struct Told {
        /// The tick it asked in, in nanoseconds.
        tick: Cell<i64>,
        /// How often it asked in that tick.
        count: Cell<u32>,
        now_ms: Cell<i64>,
        /// How often it may be told the same again; 0 unless it asked often in the tick before.
        left: Cell<u32>,
        is_fast: Cell<bool>,
    }

    thread_local! {
        static TOLD: Told = const {
            Told {
                tick: Cell::new(i64::MIN),
                count: Cell::new(0),
                now_ms: Cell::new(0),
                left: Cell::new(0),
                is_fast: Cell::new(false),
            }
        };
    }

    #[inline]
    pub(super) fn recent_ms(now_ms: impl Fn() -> i64) -> i64 {
        let tick = clock_gettime(ClockId::RealtimeCoarse);
        let tick = tick.tv_sec * 1_000_000_000 + tick.tv_nsec;
        let told = TOLD.try_with(|told| {
            let left = told.left.get();
            told.count.set(told.count.get().saturating_add(1));
            if left > 0 && told.tick.get() == tick {
                told.left.set(left - 1);
                return told.now_ms.get();
            }
            told.ask(tick, now_ms())
        });
        // A thread that is ending has no place for it any more.
        told.unwrap_or_else(|_| now_ms())
    }

    impl Told {
        fn ask(&self, tick: i64, now_ms: i64) -> i64 {
            let past = self.tick.replace(tick);
            if past != tick {
                let is_next = tick.wrapping_sub(past) <= TICK_MAX_NS && tick > past;
                self.is_fast.set(is_next && self.count.get() > FAST_COUNT);
                self.count.set(1);
            }
            self.left.set(if self.is_fast.get() { TOLD_AGAIN } else { 0 });
            self.now_ms.set(now_ms);
            now_ms
        }
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
