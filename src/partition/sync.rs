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

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use parking_lot::Condvar;
use parking_lot::Mutex;

use crate::error::Result;

/// Where those who wait for durability meet. Lock rank 7.
#[derive(Debug, Default)]
pub(crate) struct SyncGate {
    state: Mutex<GateState>,
    turn: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    durable_end: i64,
    /// Somebody is synchronising; a [`Leading`] guard unsets it.
    is_syncing: bool,
    failure: Option<Arc<str>>,
    tasks: Vec<(i64, Waker)>,
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
        let mut state = self.state.lock();
        loop {
            if state.durable_end >= end {
                return Ok(Waited::Durable);
            }
            if let Some(failure) = &state.failure {
                return Ok(Waited::Failed(Arc::clone(failure)));
            }
            if state.is_syncing {
                self.turn.wait(&mut state);
                continue;
            }
            state.is_syncing = true;
            drop(state);
            let leading = Leading { gate: self, outcome: None };
            leading.finish(sync())?;
            state = self.state.lock();
        }
    }

    /// Waits without ever leading: somebody else has been asked to synchronise.
    pub(crate) fn wait_until(&self, end: i64, deadline: Instant) -> Waited {
        let mut state = self.state.lock();
        loop {
            if state.durable_end >= end {
                return Waited::Durable;
            }
            if let Some(failure) = &state.failure {
                return Waited::Failed(Arc::clone(failure));
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
        if state.durable_end >= end {
            return Some(Waited::Durable);
        }
        if let Some(failure) = &state.failure {
            return Some(Waited::Failed(Arc::clone(failure)));
        }
        if !state.tasks.iter().any(|(at, other)| *at == end && other.will_wake(waker)) {
            state.tasks.push((end, waker.clone()));
        }
        None
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

    fn settle(&self, change: impl FnOnce(&mut GateState)) {
        let mut state = self.state.lock();
        change(&mut state);
        let (durable_end, failed) = (state.durable_end, state.failure.is_some());
        let ready = |(end, _): &(i64, Waker)| failed || *end <= durable_end;
        let (woken, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.tasks).into_iter().partition(ready);
        state.tasks = waiting;
        drop(state);
        self.turn.notify_all();
        // A waker is the user's code: it runs without the lock.
        for (_, waker) in woken {
            waker.wake();
        }
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
