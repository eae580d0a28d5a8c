//! Group commit: one `fdatasync` for everyone who waits.
//!
//! The first waiter becomes the leader and synchronises for all who appended before it began; the others
//! sleep, and the first of those who came too late leads the next round. No lock is held during a sync.
//!
//! **Invariant (honest).** A waiter is told that its record is durable only by a sync that began after
//! the record was in the file. The target of a round is therefore read *before* its sync starts.
//!
//! **Invariant (once).** A failed sync is never repeated: what it was to save may be gone from the page
//! cache, and a second one would report success. Everyone who waits, now or later, gets the failure.

use std::cell::OnceCell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::thread;
use std::thread::Thread;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Result;
use crate::schedules;
use crate::schedules::between_steps;

/// Where those who wait for durability meet. Lock rank 7.
#[derive(Debug, Default)]
pub(crate) struct SyncGate {
    state: Mutex<GateState>,
    /// For those who never lead, and wait no longer than they said.
    turn: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    durable_end: i64,
    /// Somebody is synchronising; a [`Leading`] guard unsets it.
    is_syncing: bool,
    failure: Option<Arc<str>>,
    sleepers: Vec<(i64, Arc<Sleeper>)>,
    tasks: Vec<(i64, Waker)>,
}

/// A thread that waits for a sync of somebody else.
///
/// It is told what became of it through a word of its own, and wakes without the gate's lock: were all woken through
/// that, each would have to be scheduled before the next one could go on.
#[derive(Debug)]
struct Sleeper {
    /// What it was told, and nothing before. Stored with Release by who took it off the list, loaded with Acquire.
    told: AtomicU8,
    thread: Thread,
}

impl Sleeper {
    /// It is as durable as was asked for.
    const DURABLE: u8 = 1;
    /// It is to look again: there is a failure, or nobody leads.
    const LOOK: u8 = 2;

    /// Gives this thread's own; it waits in one place at a time.
    fn of_this_thread() -> Arc<Sleeper> {
        thread_local! {
            static OWN: OnceCell<Arc<Sleeper>> = const { OnceCell::new() };
        }
        let new = || Arc::new(Sleeper { told: AtomicU8::new(0), thread: thread::current() });
        if schedules::is_scheduled() {
            return new();
        }
        // A thread that is about to end has no place of its own any more.
        OWN.try_with(|own| Arc::clone(own.get_or_init(new))).unwrap_or_else(|_| new())
    }

    fn tell(&self, what: u8) {
        between_steps();
        self.told.store(what, Ordering::Release);
        self.thread.unpark();
    }

    /// Sleeps until it was told something, and gives that.
    fn sleep(&self) -> u8 {
        loop {
            between_steps();
            match self.told.swap(0, Ordering::Acquire) {
                0 => schedules::park(),
                told => return told,
            }
        }
    }
}

/// What a round of syncing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Synced {
    /// Everything below is durable.
    Upto(i64),
    /// It failed, for good.
    Failed(Arc<str>),
}

/// How a wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    Durable,
    TimedOut,
    Failed(Arc<str>),
}

impl SyncGate {
    pub(crate) fn new(durable_end: i64) -> SyncGate {
        let gate = SyncGate::default();
        gate.state.lock().durable_end = durable_end;
        gate
    }

    /// Waits until everything below `end` is durable, leading a sync if nobody else does. `sync` makes
    /// everything in the files durable and returns the log end as it was before it began.
    ///
    /// # Errors
    ///
    /// * What kept this thread's own round from beginning; the next round may succeed.
    pub(crate) fn wait(&self, end: i64, sync: impl Fn() -> Result<Synced>) -> Result<Waited> {
        loop {
            between_steps();
            let mut state = self.state.lock();
            if let Some(waited) = state.known(end) {
                return Ok(waited);
            }
            if state.is_syncing {
                let sleeper = Sleeper::of_this_thread();
                state.sleepers.push((end, Arc::clone(&sleeper)));
                drop(state);
                if sleeper.sleep() == Sleeper::DURABLE {
                    return Ok(Waited::Durable);
                }
                continue;
            }
            state.is_syncing = true;
            drop(state);
            let leading = Leading { gate: self, outcome: None };
            leading.finish(sync())?;
        }
    }

    /// Waits without ever leading: somebody else has been asked to synchronise.
    pub(crate) fn wait_until(&self, end: i64, deadline: Instant) -> Waited {
        let mut state = self.state.lock();
        self.turn.wait_while_until(&mut state, |state| state.known(end).is_none(), deadline);
        // Asked anew: it may have become known in the moment that time was up.
        state.known(end).unwrap_or(Waited::TimedOut)
    }

    /// Has a task woken once everything below `end` is durable or never will be; says so at once if that
    /// is known already.
    pub(crate) fn wake_task(&self, end: i64, waker: &Waker) -> Option<Waited> {
        let mut state = self.state.lock();
        let known = state.known(end);
        if known.is_none()
            && !state.tasks.iter().any(|(at, other)| *at == end && other.will_wake(waker))
        {
            state.tasks.push((end, waker.clone()));
        }
        known
    }

    /// Notes what became durable by other means: a segment was sealed.
    pub(crate) fn note_durable(&self, end: i64) {
        self.settle(|state| state.durable_end = state.durable_end.max(end));
    }

    /// Lets everyone who waits, now or later, know that it will not happen.
    pub(crate) fn fail(&self, reason: &Arc<str>) {
        self.settle(|state| state.fail(Arc::clone(reason)));
    }

    /// Takes up what changed, tells those whom it concerns, and has one of the others lead if nobody does.
    fn settle(&self, change: impl FnOnce(&mut GateState)) {
        between_steps();
        let mut state = self.state.lock();
        change(&mut state);
        let (durable_end, failed) = (state.durable_end, state.failure.is_some());
        let is_ready = |end: i64| failed || end <= durable_end;
        let (woken, waiting) = mem::take(&mut state.tasks)
            .into_iter()
            .partition::<Vec<_>, _>(|(end, _)| is_ready(*end));
        state.tasks = waiting;
        let (told, asleep) = mem::take(&mut state.sleepers)
            .into_iter()
            .partition::<Vec<_>, _>(|(end, _)| is_ready(*end));
        state.sleepers = asleep;
        let next = state.next_leader();
        drop(state);
        // First of all: the disk is idle until it begins.
        if let Some(next) = next {
            next.tell(Sleeper::LOOK);
        }
        let what = if failed { Sleeper::LOOK } else { Sleeper::DURABLE };
        for (_, sleeper) in told {
            sleeper.tell(what);
        }
        self.turn.notify_all();
        // A waker is the user's code: it runs without the lock.
        for (_, waker) in woken {
            waker.wake();
        }
    }
}

impl GateState {
    /// Tells how a wait for `end` ends, if that is known.
    fn known(&self, end: i64) -> Option<Waited> {
        if self.durable_end >= end {
            return Some(Waited::Durable);
        }
        self.failure.as_ref().map(|failure| Waited::Failed(Arc::clone(failure)))
    }

    /// Notes why nothing more becomes durable; what was noted first, everyone is told.
    fn fail(&mut self, reason: Arc<str>) {
        self.failure.get_or_insert(reason);
    }

    /// Takes one who sleeps off the list, to be told, unless somebody leads.
    ///
    /// **Invariant (somebody leads).** Whenever somebody sleeps, somebody synchronises, or was told to look and has not
    /// yet. For one falls asleep only while another synchronises, and every [`settle`](SyncGate::settle) behind which
    /// nobody does takes one off the list. If that one finds, when it looks, that it need not lead, then another was
    /// quicker, and its settle has taken the next off.
    fn next_leader(&mut self) -> Option<Arc<Sleeper>> {
        if self.is_syncing || self.sleepers.is_empty() {
            return None;
        }
        Some(self.sleepers.remove(0).1)
    }
}

/// Unsets `is_syncing` however the leader's sync ends; a panic in it counts as a failure.
struct Leading<'g> {
    gate: &'g SyncGate,
    /// `None` until the sync has returned.
    outcome: Option<Outcome>,
}

#[derive(Debug)]
enum Outcome {
    Synced(Synced),
    /// Nothing was synchronised, nothing is lost.
    PutOff,
}

impl Leading<'_> {
    fn finish(mut self, synced: Result<Synced>) -> Result<()> {
        let (outcome, result) = match synced {
            Ok(synced) => (Outcome::Synced(synced), Ok(())),
            Err(error) => (Outcome::PutOff, Err(error)),
        };
        self.outcome = Some(outcome);
        result
    }
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        self.gate.settle(|state| {
            state.is_syncing = false;
            match outcome {
                Some(Outcome::Synced(Synced::Upto(end))) => {
                    state.durable_end = state.durable_end.max(end);
                }
                Some(Outcome::Synced(Synced::Failed(reason))) => state.fail(reason),
                Some(Outcome::PutOff) => {}
                None => state.fail("the sync panicked".into()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::told;
    use crate::error::Error;
    use shuttle::scheduler::RandomScheduler;
    use std::sync::atomic::AtomicI64;
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn many_waiters_share_few_syncs_and_none_is_told_too_early() {
        const THREADS: i64 = 8;
        const ROUNDS: i64 = 200;
        let gate = Arc::new(SyncGate::new(0));
        let appended = Arc::new(AtomicI64::new(0));
        let synced = Arc::new(AtomicI64::new(0));
        let sync_count = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (gate, appended) = (Arc::clone(&gate), Arc::clone(&appended));
                let (synced, sync_count) = (Arc::clone(&synced), Arc::clone(&sync_count));
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        let end = appended.fetch_add(1, Ordering::SeqCst) + 1;
                        let waited = gate.wait(end, || {
                            let target = appended.load(Ordering::SeqCst);
                            thread::sleep(Duration::from_micros(100));
                            sync_count.fetch_add(1, Ordering::SeqCst);
                            synced.fetch_max(target, Ordering::SeqCst);
                            Ok(Synced::Upto(target))
                        });
                        assert_eq!(waited.unwrap(), Waited::Durable);
                        assert!(synced.load(Ordering::SeqCst) >= end, "told before it was true");
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let count = sync_count.load(Ordering::SeqCst);
        assert!(count < (THREADS * ROUNDS) as u64 / 2, "{count} syncs are no group commit");
    }

    /// Four threads append and wait, in as many orders as there is time for; a round may be put off.
    #[test]
    fn in_whatever_order_threads_step_everyone_is_told_and_none_too_early() {
        let count = told("OTTLA_SCHEDULES").map(|count| count as usize);
        let scheduler = RandomScheduler::new_from_seed(7, count.unwrap_or(3000));
        schedules::run(scheduler, || {
            let gate = Arc::new(SyncGate::new(0));
            let ends = Arc::new([const { AtomicI64::new(0) }; 2]);
            let rounds = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (gate, ends) = (Arc::clone(&gate), Arc::clone(&ends));
                    let rounds = Arc::clone(&rounds);
                    shuttle::thread::spawn(move || {
                        let [appended, synced] = &*ends;
                        for _ in 0..3 {
                            let end = appended.fetch_add(1, Ordering::SeqCst) + 1;
                            let sync = || {
                                between_steps();
                                if rounds.fetch_add(1, Ordering::SeqCst) % 5 == 4 {
                                    return Err(Error::Closed);
                                }
                                let target = appended.load(Ordering::SeqCst);
                                between_steps();
                                synced.fetch_max(target, Ordering::SeqCst);
                                Ok(Synced::Upto(target))
                            };
                            match gate.wait(end, sync) {
                                Ok(waited) => {
                                    assert_eq!(waited, Waited::Durable);
                                    assert!(synced.load(Ordering::SeqCst) >= end, "told too early");
                                }
                                Err(error) => assert!(matches!(error, Error::Closed)),
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert!(gate.state.lock().sleepers.is_empty());
        });
    }

    #[test]
    fn a_failure_is_final_and_reaches_everyone() {
        let gate = SyncGate::new(5);
        let failing = || Ok(Synced::Failed("broken".into()));
        let fine = || Ok(Synced::Upto(100));
        assert_eq!(gate.wait(5, failing).unwrap(), Waited::Durable);
        assert_eq!(gate.wait(6, failing).unwrap(), Waited::Failed("broken".into()));
        assert_eq!(gate.wait(6, fine).unwrap(), Waited::Failed("broken".into()));
        assert_eq!(gate.wait(5, fine).unwrap(), Waited::Durable);
        let soon = Instant::now() + Duration::from_secs(1);
        assert_eq!(gate.wait_until(6, soon), Waited::Failed("broken".into()));
    }

    #[test]
    fn a_round_that_was_put_off_fails_its_leader_alone() {
        let gate = SyncGate::new(0);
        let full = || Err(Error::OutOfSpace { action: "write", path: "f".into() });
        assert!(matches!(gate.wait(1, full), Err(Error::OutOfSpace { .. })));
        assert_eq!(gate.wait(1, || Ok(Synced::Upto(1))).unwrap(), Waited::Durable);
    }

    #[test]
    fn a_panicking_leader_does_not_leave_the_others_waiting() {
        let gate = Arc::new(SyncGate::new(0));
        let leader = Arc::clone(&gate);
        let panicked = thread::spawn(move || leader.wait(1, || panic!("in the sync"))).join();
        assert!(panicked.is_err());
        let failed = Waited::Failed("the sync panicked".into());
        assert_eq!(gate.wait(1, || Ok(Synced::Upto(1))).unwrap(), failed);
    }

    /// A sync fails for good while others sleep: whichever steps come between, everyone is told the failure or what was
    /// durable before it.
    #[test]
    fn in_whatever_order_threads_step_a_failure_reaches_everyone_who_sleeps() {
        let count = told("OTTLA_SCHEDULES").map(|count| count as usize);
        let scheduler = RandomScheduler::new_from_seed(11, count.unwrap_or(1000));
        schedules::run(scheduler, || {
            let gate = Arc::new(SyncGate::new(0));
            let shared = Arc::new([const { AtomicI64::new(0) }; 3]);
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (gate, shared) = (Arc::clone(&gate), Arc::clone(&shared));
                    shuttle::thread::spawn(move || {
                        let [appended, synced, rounds] = &*shared;
                        for _ in 0..2 {
                            let end = appended.fetch_add(1, Ordering::SeqCst) + 1;
                            let sync = || {
                                between_steps();
                                let target = appended.load(Ordering::SeqCst);
                                if rounds.fetch_add(1, Ordering::SeqCst) == 1 {
                                    return Ok(Synced::Failed("broken".into()));
                                }
                                between_steps();
                                synced.fetch_max(target, Ordering::SeqCst);
                                Ok(Synced::Upto(target))
                            };
                            match gate.wait(end, sync).unwrap() {
                                Waited::Durable => {
                                    assert!(synced.load(Ordering::SeqCst) >= end, "told too early");
                                }
                                waited => assert_eq!(waited, Waited::Failed("broken".into())),
                            }
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let [_, _, rounds] = &*shared;
            assert!(rounds.load(Ordering::SeqCst) <= 2, "a failed sync was repeated");
            assert!(gate.state.lock().sleepers.is_empty());
        });
    }

    /// Two things fail at about the same time. Whoever asks why is told the cause, not what followed from it.
    #[test]
    fn what_failed_first_is_what_everyone_is_told() {
        let first = Waited::Failed("first".into());
        let gate = SyncGate::new(0);
        gate.fail(&"first".into());
        gate.fail(&"second".into());
        assert_eq!(gate.wait(1, || Ok(Synced::Upto(1))).unwrap(), first);
        // A sync that was under way.
        let gate = SyncGate::new(0);
        let late = || {
            gate.fail(&"first".into());
            Ok(Synced::Failed("second".into()))
        };
        assert_eq!(gate.wait(1, late).unwrap(), first);
        let gate = SyncGate::new(0);
        let panicking = || {
            gate.fail(&"first".into());
            panic!("in the sync")
        };
        assert!(
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.wait(1, panicking)))
                .is_err()
        );
        assert_eq!(gate.wait(1, || Ok(Synced::Upto(1))).unwrap(), first);
    }

    #[test]
    fn what_is_durable_stays_durable_whatever_is_noted_later() {
        let gate = SyncGate::new(0);
        gate.note_durable(5);
        gate.note_durable(3);
        let unwanted = || panic!("nothing is left to synchronise");
        assert_eq!(gate.wait(5, unwanted).unwrap(), Waited::Durable);
        assert_eq!(gate.wait(6, || Ok(Synced::Upto(6))).unwrap(), Waited::Durable);
        // A round began before something else became durable.
        let overtaken = || {
            gate.note_durable(9);
            Ok(Synced::Upto(7))
        };
        assert_eq!(gate.wait(7, overtaken).unwrap(), Waited::Durable);
        assert_eq!(gate.wait(9, || panic!("nor here")).unwrap(), Waited::Durable);
    }

    struct Count(AtomicU64);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_for_each_end_that_it_waits_for_and_never_before() {
        let gate = SyncGate::new(0);
        let task = Arc::new(Count(AtomicU64::new(0)));
        let waker = Waker::from(Arc::clone(&task));
        let woken = || task.0.load(Ordering::SeqCst);
        for end in [1, 1, 2, 4, 2] {
            assert_eq!(gate.wake_task(end, &waker), None);
        }
        gate.note_durable(0);
        assert_eq!(woken(), 0);
        gate.note_durable(1);
        assert_eq!(woken(), 1);
        gate.note_durable(3);
        assert_eq!(woken(), 2);
        // What is known already needs no waker.
        let others = Arc::new(Count(AtomicU64::new(0)));
        assert_eq!(gate.wake_task(3, &Waker::from(Arc::clone(&others))), Some(Waited::Durable));
        assert_eq!(Arc::strong_count(&others), 1, "its waker is kept");
        let failed = Waited::Failed("broken".into());
        gate.fail(&"broken".into());
        assert_eq!(woken(), 3);
        assert_eq!(gate.wake_task(4, &Waker::from(Arc::clone(&others))), Some(failed));
        assert_eq!(Arc::strong_count(&others), 1, "its waker is kept");
        assert!(gate.state.lock().tasks.is_empty());
    }

    /// A segment is sealed in the middle of a sync. Those whom that does not concern sleep on: the one who synchronises
    /// wakes them.
    #[test]
    fn nobody_is_woken_in_vain_while_another_synchronises() {
        let gate = SyncGate::new(0);
        let sleeper = Sleeper::of_this_thread();
        let told = || sleeper.told.swap(0, Ordering::Acquire);
        let sync = || {
            gate.state.lock().sleepers.push((7, Arc::clone(&sleeper)));
            gate.note_durable(6);
            assert_eq!((told(), gate.state.lock().sleepers.len()), (0, 1));
            gate.note_durable(7);
            assert_eq!((told(), gate.state.lock().sleepers.len()), (Sleeper::DURABLE, 0));
            gate.state.lock().sleepers.push((9, Arc::clone(&sleeper)));
            Ok(Synced::Upto(8))
        };
        assert_eq!(gate.wait(8, sync).unwrap(), Waited::Durable);
        // The one who slept on is to lead the next round.
        assert_eq!((told(), gate.state.lock().sleepers.len()), (Sleeper::LOOK, 0));
    }

    /// Long beyond what any step takes.
    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn whoever_waits_no_longer_than_he_said_is_woken_as_soon_as_it_is_durable_or_never_will_be() {
        const ROUNDS: i64 = 50;
        let gate = SyncGate::new(0);
        let begun = AtomicI64::new(0);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                for end in 1..=ROUNDS + 1 {
                    let deadline = Instant::now() + LIMIT;
                    begun.store(end, Ordering::SeqCst);
                    let expected = match end {
                        end if end > ROUNDS => Waited::Failed("broken".into()),
                        _ => Waited::Durable,
                    };
                    assert_eq!(gate.wait_until(end, deadline), expected);
                    assert!(Instant::now() < deadline, "slept through {end}");
                }
            });
            for end in 1..=ROUNDS + 1 {
                while begun.load(Ordering::SeqCst) < end {
                    assert!(!waiting.is_finished());
                    thread::yield_now();
                }
                // As a rule the other one sleeps by now. If it does not, this round shows nothing.
                thread::sleep(Duration::from_micros(200));
                if end > ROUNDS { gate.fail(&"broken".into()) } else { gate.note_durable(end) }
            }
        });
    }

    #[test]
    fn a_bounded_wait_ends() {
        let gate = SyncGate::new(0);
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(gate.wait_until(1, soon), Waited::TimedOut);
    }
}
