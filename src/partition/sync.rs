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
        loop {
            if let Some(known) = state.known(end) {
                return known;
            }
            if self.turn.wait_until(&mut state, deadline).timed_out() && state.durable_end < end {
                return Waited::TimedOut;
            }
        }
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
        self.settle(|state| {
            state.failure.get_or_insert_with(|| Arc::clone(reason));
        });
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
                Some(Outcome::Synced(Synced::Failed(reason))) => state.failure = Some(reason),
                Some(Outcome::PutOff) => {}
                None => state.failure = Some("the sync panicked".into()),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let count = std::env::var("OTTLA_SCHEDULES").ok().and_then(|count| count.parse().ok());
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

    #[test]
    fn a_bounded_wait_ends() {
        let gate = SyncGate::new(0);
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(gate.wait_until(1, soon), Waited::TimedOut);
    }
}
