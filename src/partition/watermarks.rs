//! The positions of one log, and the doorbells that ring when they move.
//!
//! **Invariant (order).** `log_start ≤ log_end` and `durable_end ≤ log_end`. Each only grows while the
//! partition is open. The high watermark is the log end: there is one copy. Without transactions the
//! last stable offset is the same.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
use std::sync::atomic::fence;
use std::task::Waker;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// Where a log starts, where it ends, and how much of it is on stable storage. Ends are exclusive.
#[derive(Debug)]
pub(crate) struct Watermarks {
    log_start: AtomicI64,
    log_end: AtomicI64,
    durable_end: AtomicI64,
}

impl Watermarks {
    pub(crate) fn new(log_start: i64, log_end: i64) -> Watermarks {
        Watermarks {
            log_start: AtomicI64::new(log_start),
            log_end: AtomicI64::new(log_end),
            durable_end: AtomicI64::new(log_end),
        }
    }

    /// The watermarks of a log that another process appends to and synchronises.
    pub(crate) fn following(log_start: i64, log_end: i64, durable_end: i64) -> Watermarks {
        let watermarks = Watermarks::new(log_start, log_end);
        watermarks.durable_end.store(durable_end.min(log_end), Ordering::Release);
        watermarks
    }

    pub(crate) fn log_start(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn log_end(&self) -> i64 {
        // Acquire: pairs with the Release in `publish`; every byte below is in place.
        self.log_end.load(Ordering::Acquire)
    }

    #[inline]
    pub(crate) fn durable_end(&self) -> i64 {
        self.durable_end.load(Ordering::Acquire)
    }

    /// Shows readers everything below `end`. Called by the one who holds the writer's lock.
    #[inline]
    pub(crate) fn publish(&self, end: i64) {
        debug_assert!(end >= self.log_end.load(Ordering::Relaxed));
        self.log_end.store(end, Ordering::Release);
    }

    /// Notes that everything below `end` is on stable storage.
    pub(crate) fn note_durable(&self, end: i64) {
        assert!(end <= self.log_end(), "durable_end <= log_end");
        self.durable_end.fetch_max(end, Ordering::AcqRel);
    }
}

/// The doorbells of everyone who waits for one log to grow.
///
/// **Invariant (no lost wake-up).** A waiter arms, then looks at the log end; an appender publishes,
/// then looks at `armed`. The sequentially consistent fence between the two steps on either side makes
/// it impossible for both to miss the other.
#[derive(Debug, Default)]
pub(crate) struct Doorbells {
    armed: AtomicBool,
    /// Lock rank 6.
    bells: Mutex<Vec<Weak<Doorbell>>>,
}

impl Doorbells {
    /// Makes `bell` one of those that ring; it leaves when it is dropped.
    pub(crate) fn hang(&self, bell: &Arc<Doorbell>) {
        let mut bells = self.bells.lock();
        bells.retain(|hung| hung.strong_count() > 0);
        if !bells.iter().any(|hung| std::ptr::eq(hung.as_ptr(), Arc::as_ptr(bell))) {
            bells.push(Arc::downgrade(bell));
        }
    }

    pub(crate) fn take_down(&self, bell: &Arc<Doorbell>) {
        self.bells.lock().retain(|hung| !std::ptr::eq(hung.as_ptr(), Arc::as_ptr(bell)));
    }

    /// Asks for a ring at the next change. The caller looks for changes *after* this.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
    }

    /// Tells whether somebody waits for a ring.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Rings if somebody asked for it. The caller has published its change *before* this.
    #[inline]
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `arm`.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) {
            self.ring_all();
        }
    }

    /// Rings whether or not anybody asked: the log is closed or gone, and nothing else will ring.
    pub(crate) fn ring_for_the_last_time(&self) {
        self.armed.store(true, Ordering::SeqCst);
        self.ring_all();
    }

    #[cold]
    fn ring_all(&self) {
        // Everyone is rung, so one ring answers everyone who armed; they arm anew before they wait again.
        if self.armed.swap(false, Ordering::AcqRel) {
            let bells: Vec<_> = self.bells.lock().iter().filter_map(Weak::upgrade).collect();
            for bell in bells {
                bell.ring();
            }
        }
    }
}

/// What one waiter sleeps on, as a thread or as a task.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    state: Mutex<BellState>,
    rang: Condvar,
}

#[derive(Debug, Default)]
struct BellState {
    rung: bool,
    waker: Option<Waker>,
}

impl Doorbell {
    pub(crate) fn ring(&self) {
        let mut state = self.state.lock();
        if state.rung {
            return;
        }
        state.rung = true;
        let waker = state.waker.take();
        drop(state);
        self.rang.notify_all();
        // A waker is the user's code: it runs without the lock.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Forgets past rings. The caller looks for what it waits for after this and before it waits.
    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.rung = false;
        state.waker = None;
    }

    /// Sleeps until the bell rings or the deadline passes.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while !state.rung {
            match deadline {
                Some(deadline) => {
                    if self.rang.wait_until(&mut state, deadline).timed_out() {
                        return;
                    }
                }
                None => self.rang.wait(&mut state),
            }
        }
    }

    /// Has the task woken when the bell rings; false if it has rung already.
    pub(crate) fn wake_task(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if state.rung {
            return false;
        }
        state.waker = Some(waker.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn no_append_goes_unnoticed_by_a_waiter_that_armed_first() {
        const APPENDS: i64 = 20_000;
        let doorbells = Arc::new(Doorbells::default());
        let watermarks = Arc::new(Watermarks::new(0, 0));
        let appender = {
            let (doorbells, watermarks) = (Arc::clone(&doorbells), Arc::clone(&watermarks));
            thread::spawn(move || {
                for end in 1..=APPENDS {
                    watermarks.publish(end);
                    doorbells.ring();
                }
            })
        };
        let bell = Arc::new(Doorbell::default());
        doorbells.hang(&bell);
        let mut seen = 0;
        let limit = Instant::now() + Duration::from_secs(60);
        while seen < APPENDS {
            bell.reset();
            doorbells.arm();
            if watermarks.log_end() == seen {
                // A lost ring would leave this waiting until the limit.
                bell.wait_until(Some(limit));
            }
            // A ring may come late, for a change that was seen already; it must not stay out.
            assert!(Instant::now() < limit, "slept through the append after {seen}");
            seen = watermarks.log_end();
        }
        appender.join().unwrap();
    }

    #[test]
    fn a_dropped_bell_leaves() {
        let doorbells = Doorbells::default();
        let bell = Arc::new(Doorbell::default());
        doorbells.hang(&bell);
        doorbells.hang(&bell);
        assert_eq!(doorbells.bells.lock().len(), 1);
        drop(bell);
        doorbells.hang(&Arc::new(Doorbell::default()));
        assert_eq!(doorbells.bells.lock().len(), 1);
    }
}
