//! The positions of one log, and the doorbells that ring when they move.
//!
//! **Invariant (order).** `log_start ≤ log_end` and `durable_end ≤ log_end`. Each only grows while the
//! partition is open. The high watermark is the log end: there is one copy. Without transactions the
//! last stable offset is the same.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU8;
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

    /// Lets the log begin at `start`, unless it begins further on already: what lies below is deleted. The caller
    /// has put that on record, or it is in the names of the files.
    pub(crate) fn raise_log_start(&self, start: i64) {
        assert!(start <= self.log_end(), "log_start <= log_end");
        // Release: who finds the segments below gone, finds this, too.
        self.log_start.fetch_max(start, Ordering::AcqRel);
    }

    /// Notes that everything below `end` is on stable storage.
    pub(crate) fn note_durable(&self, end: i64) {
        assert!(end <= self.log_end(), "durable_end <= log_end");
        self.durable_end.fetch_max(end, Ordering::AcqRel);
    }
}

/// The doorbells of everyone who waits for one log to grow.
///
/// **Invariant (no lost wake-up).** A waiter resets its bell, arms, and then looks at the log end; an
/// appender publishes, and then looks at `armed`. The sequentially consistent fence between the two steps
/// on either side makes it impossible for both to miss the other. Who finds `armed` set clears it and
/// rings *every* bell, so an arming that somebody else's ring used up was answered: by a ring behind the
/// reset, which the waiter finds when it goes to sleep, or by one before it, and then the waiter sees what
/// that ring was for and its arming came after.
#[derive(Debug, Default)]
pub(crate) struct Doorbells {
    /// Set by waiters, cleared by who rings; ordered by the fences around.
    armed: AtomicBool,
    /// A snapshot, so that bells ring without the lock. Lock rank 6.
    bells: Mutex<Arc<Vec<Arc<Doorbell>>>>,
}

impl Doorbells {
    /// Makes `bell` one of those that ring, until it is taken down.
    pub(crate) fn hang(&self, bell: &Arc<Doorbell>) {
        let mut bells = self.bells.lock();
        if !bells.iter().any(|hung| Arc::ptr_eq(hung, bell)) {
            Arc::make_mut(&mut bells).push(Arc::clone(bell));
        }
    }

    pub(crate) fn take_down(&self, bell: &Arc<Doorbell>) {
        let mut bells = self.bells.lock();
        if bells.iter().any(|hung| Arc::ptr_eq(hung, bell)) {
            Arc::make_mut(&mut bells).retain(|hung| !Arc::ptr_eq(hung, bell));
        }
    }

    /// Asks for a ring at the next change. It counts once [`armed`] was called; the caller looks for changes
    /// after that.
    #[inline]
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Tells whether somebody waits for a ring. Who armed *after* this sees what was stored *before* it.
    pub(crate) fn is_armed(&self) -> bool {
        // Pairs with the fence in `armed`.
        fence(Ordering::SeqCst);
        self.armed.load(Ordering::Relaxed)
    }

    /// Rings if somebody asked for it. The caller has published its change *before* this.
    #[inline]
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `armed`.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) {
            self.ring_all();
        }
    }

    /// Rings whether or not anybody asked: the log is closed or gone, and nothing else will ring.
    pub(crate) fn ring_for_the_last_time(&self) {
        // Pairs with the fence in `armed`.
        fence(Ordering::SeqCst);
        self.armed.store(true, Ordering::Relaxed);
        self.ring_all();
    }

    #[cold]
    fn ring_all(&self) {
        // Of several who find it armed one rings, and everyone: one ring answers all who armed.
        if self.armed.swap(false, Ordering::AcqRel) {
            let bells = Arc::clone(&self.bells.lock());
            for bell in bells.iter() {
                bell.ring();
            }
        }
    }
}

/// Makes everything that this thread armed count: one fence for any number of doorbells.
pub(crate) fn armed() {
    // Pairs with the fences in `Doorbells`.
    fence(Ordering::SeqCst);
}

/// What one waiter sleeps on, as a thread or as a task.
///
/// Resetting and ringing are both read-modify-write operations on `state`: a ring before the reset happened
/// before whatever the waiter looks at after it; a ring behind the reset stays until the next one.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    /// [`QUIET`], [`WAITING`] or [`RUNG`]. Becomes `WAITING` under `sleeper`'s lock only.
    state: AtomicU8,
    /// The task to be woken, if it is a task that waits. Lock rank 7.
    sleeper: Mutex<Option<Waker>>,
    rang: Condvar,
}

/// Nobody sleeps and nobody rang.
const QUIET: u8 = 0;
/// Somebody sleeps, or has a waker here.
const WAITING: u8 = 1;
/// Rung since the last reset.
const RUNG: u8 = 2;

impl Doorbell {
    pub(crate) fn ring(&self) {
        // AcqRel: pairs with the swap in `reset`.
        if self.state.swap(RUNG, Ordering::AcqRel) != WAITING {
            // Whoever goes to sleep from here on looks at the state first.
            return;
        }
        // The lock is free only once the one who waits really sleeps. By now that may be another than the
        // one who was waiting above: then it wakes in vain, and looks again.
        let waker = self.sleeper.lock().take();
        self.rang.notify_one();
        // A waker is the user's code: it runs without the lock.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Forgets past rings. The caller looks for what it waits for after this and before it waits.
    pub(crate) fn reset(&self) {
        // AcqRel: pairs with the swap in `ring`.
        if self.state.swap(QUIET, Ordering::AcqRel) == WAITING {
            // A task that gave up waiting, or a thread whose time was up.
            let past = self.sleeper.lock().take();
            drop(past);
        }
    }

    /// Sleeps until the bell rings or the deadline passes.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) {
        let mut sleeper = self.sleeper.lock();
        *sleeper = None;
        if !self.begins_to_wait() {
            return;
        }
        while self.state.load(Ordering::Acquire) == WAITING {
            match deadline {
                Some(deadline) => {
                    if self.rang.wait_until(&mut sleeper, deadline).timed_out() {
                        // The state says that somebody waits until the next reset: a ring in vain.
                        return;
                    }
                }
                None => self.rang.wait(&mut sleeper),
            }
        }
    }

    /// Has the task woken when the bell rings; false if it has rung already.
    pub(crate) fn wake_task(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut sleeper = self.sleeper.lock();
        let waits = self.begins_to_wait();
        let past = std::mem::replace(&mut *sleeper, waits.then_some(waker));
        drop(sleeper);
        drop(past);
        waits
    }

    /// Called with `sleeper` locked and after a reset; false if the bell has rung since.
    fn begins_to_wait(&self) -> bool {
        let was = self.state.compare_exchange(QUIET, WAITING, Ordering::AcqRel, Ordering::Acquire);
        was.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    /// What a waiter does: it sleeps until one of the logs has grown beyond what it has seen of it.
    fn wait_for_more(bell: &Doorbell, logs: &[(Watermarks, Doorbells)], seen: &mut [i64]) {
        bell.reset();
        for (_, doorbells) in logs {
            doorbells.arm();
        }
        armed();
        if logs.iter().zip(&*seen).all(|((watermarks, _), seen)| watermarks.log_end() == *seen) {
            // A lost ring leaves this waiting until the limit.
            let limit = Instant::now() + LIMIT;
            bell.wait_until(Some(limit));
            // Rung late, for a change that was seen already, is allowed; not rung is not.
            assert!(Instant::now() < limit, "slept through an append behind {seen:?}");
        }
        for ((watermarks, _), seen) in logs.iter().zip(seen) {
            *seen = watermarks.log_end();
        }
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn no_append_goes_unnoticed_by_any_of_several_who_wait_for_several_logs() {
        const APPENDS: i64 = 4_000;
        let logs: Vec<_> = (0..3).map(|_| (Watermarks::new(0, 0), Doorbells::default())).collect();
        let seen: Vec<AtomicI64> = (0..3).map(|_| AtomicI64::new(0)).collect();
        thread::scope(|scope| {
            for all_seen in &seen {
                let logs = &logs;
                let bell = Arc::new(Doorbell::default());
                for (_, doorbells) in logs {
                    doorbells.hang(&bell);
                }
                scope.spawn(move || {
                    let mut seen = [0; 3];
                    while seen.iter().sum::<i64>() < APPENDS {
                        wait_for_more(&bell, logs, &mut seen);
                        all_seen.store(seen.iter().sum(), Ordering::SeqCst);
                    }
                });
            }
            let limit = Instant::now() + 3 * LIMIT;
            for count in 0..APPENDS {
                // In turns, so that no later append makes up for a ring that was lost.
                while seen.iter().any(|seen| seen.load(Ordering::SeqCst) < count) {
                    assert!(Instant::now() < limit, "somebody did not see append {count}");
                    thread::yield_now();
                }
                let (watermarks, doorbells) = &logs[count as usize % logs.len()];
                watermarks.publish(watermarks.log_end() + 1);
                doorbells.ring();
            }
        });
    }

    #[test]
    fn of_one_who_arms_and_one_who_publishes_at_the_same_time_one_notices_the_other() {
        const ROUNDS: i64 = 100_000;
        // Each in a cache line of its own: a store then takes long enough for the other side to look.
        #[repr(align(128))]
        struct Apart<T>(T);
        let (watermarks, doorbells) = (Apart(Watermarks::new(0, 0)), Apart(Doorbells::default()));
        let (Apart(watermarks), Apart(doorbells)) = (&watermarks, &doorbells);
        let bell = Arc::new(Doorbell::default());
        doorbells.hang(&bell);
        let (begun, ended) = (AtomicI64::new(0), AtomicI64::new(0));
        let wait_for = |count: &AtomicI64, round: i64| {
            for turn in 0_u32.. {
                if count.load(Ordering::SeqCst) >= round {
                    return;
                }
                if turn % 1024 == 1023 {
                    thread::yield_now();
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    wait_for(&begun, round);
                    watermarks.publish(round);
                    doorbells.ring();
                    ended.store(round, Ordering::SeqCst);
                }
            });
            let mut missed = 0;
            for round in 1..=ROUNDS {
                bell.reset();
                begun.store(round, Ordering::SeqCst);
                // About as long as the other side takes to hear of it.
                for _ in 0..round % 2000 {
                    std::hint::black_box(watermarks.log_end());
                }
                doorbells.arm();
                armed();
                let has_seen = watermarks.log_end() == round;
                wait_for(&ended, round);
                let has_rung = bell.state.load(Ordering::SeqCst) == RUNG;
                missed += i64::from(!has_seen && !has_rung);
            }
            assert_eq!(missed, 0, "of {ROUNDS}");
        });
    }

    #[test]
    fn no_append_goes_unnoticed_while_others_follow_at_once() {
        const APPENDS: i64 = 20_000;
        let logs = [(Watermarks::new(0, 0), Doorbells::default())];
        let bell = Arc::new(Doorbell::default());
        logs[0].1.hang(&bell);
        thread::scope(|scope| {
            scope.spawn(|| {
                for end in 1..=APPENDS {
                    logs[0].0.publish(end);
                    logs[0].1.ring();
                }
            });
            let mut seen = [0];
            while seen[0] < APPENDS {
                wait_for_more(&bell, &logs, &mut seen);
            }
        });
    }

    #[test]
    fn a_ring_stands_until_the_bell_is_reset() {
        let bell = Doorbell::default();
        for deadline in [None, Some(Instant::now() + LIMIT)] {
            bell.ring();
            bell.wait_until(deadline);
            bell.wait_until(deadline);
            bell.reset();
            let soon = Instant::now() + Duration::from_millis(5);
            bell.wait_until(Some(soon));
            assert!(Instant::now() >= soon);
            // Nobody waits any more: nothing is left of that wait.
            bell.reset();
        }
    }

    struct Count(AtomicI64);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_and_not_at_all_once_it_gave_up() {
        let bell = Doorbell::default();
        let (first, second) =
            (Arc::new(Count(AtomicI64::new(0))), Arc::new(Count(AtomicI64::new(0))));
        let count = |task: &Arc<Count>| task.0.load(Ordering::SeqCst);
        assert!(bell.wake_task(&Waker::from(Arc::clone(&first))));
        bell.ring();
        bell.ring();
        assert_eq!(count(&first), 1);
        assert!(!bell.wake_task(&Waker::from(Arc::clone(&first))), "it has rung already");
        bell.reset();
        assert!(bell.wake_task(&Waker::from(Arc::clone(&first))));
        bell.reset();
        assert_eq!(Arc::strong_count(&first), 1, "its waker is kept");
        assert!(bell.wake_task(&Waker::from(Arc::clone(&second))));
        bell.ring();
        assert_eq!((count(&first), count(&second)), (1, 1));
        bell.reset();
        assert!(bell.wake_task(&Waker::from(Arc::clone(&second))));
        bell.reset();
        // A thread waits after a task gave up.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| bell.wait_until(None));
            bell.ring();
            waiting.join().unwrap();
        });
        assert_eq!(count(&second), 1);
    }

    #[test]
    fn a_bell_hangs_once_until_it_is_taken_down() {
        let doorbells = Doorbells::default();
        let bells = [Arc::new(Doorbell::default()), Arc::new(Doorbell::default())];
        for bell in [&bells[0], &bells[1], &bells[0]] {
            doorbells.hang(bell);
        }
        assert_eq!(doorbells.bells.lock().len(), 2);
        doorbells.take_down(&bells[0]);
        doorbells.take_down(&bells[0]);
        assert_eq!(Arc::strong_count(&bells[0]), 1);
        assert_eq!(doorbells.bells.lock().len(), 1);
    }

    #[test]
    fn a_consumer_that_goes_takes_its_bells_with_it() {
        let store = crate::Store::temporary().unwrap();
        let topic = store.create_topic("t", crate::TopicConfig::new().partitions(2)).unwrap();
        let open = [0, 1].map(|number| topic.state.open_partition(number).unwrap());
        let hung = || open.each_ref().map(|open| open.doorbells().bells.lock().len());
        let mut consumer = store.consumer().assign(topic.partitions()).unwrap();
        assert_eq!(hung(), [1, 1]);
        consumer.assign([topic.partition(1).unwrap()]).unwrap();
        assert_eq!(hung(), [0, 1]);
        let bell = Arc::downgrade(&consumer.wakeup_handle().bell);
        drop(consumer);
        assert_eq!(hung(), [0, 0]);
        // Those who wait for the store to be closed do not pile up, either.
        assert_eq!(bell.strong_count(), 0);
    }
}
