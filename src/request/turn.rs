//! Work that one thread does for all who call for it.
//!
//! **Invariant (done after).** Behind every call, all of the work is done at least once by somebody: by the caller, or
//! by the one who is at it, who does it again before it goes. Nobody waits for anybody.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use crate::schedules::between_steps;

/// Who is at the work, and how many have called since.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Zero: nobody is at it. AcqRel throughout: what a caller did before it called is seen by who does the work after.
    calls: AtomicU32,
}

impl Turn {
    /// Does the work, unless somebody is at it: then that one does it again.
    pub(crate) fn call(&self, mut work: impl FnMut()) {
        between_steps();
        if self.calls.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let _end = EndOnUnwind(&self.calls);
        loop {
            between_steps();
            let seen = self.calls.load(Ordering::Acquire);
            work();
            between_steps();
            let ended = self.calls.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Acquire);
            if ended.is_ok() {
                return;
            }
        }
    }
}

/// If the work panics, the next who calls does it.
struct EndOnUnwind<'t>(&'t AtomicU32);

impl Drop for EndOnUnwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    #[test]
    fn who_calls_while_another_is_at_it_has_it_done_again() {
        let turn = Turn::default();
        let mut rounds = 0;
        turn.call(|| {
            rounds += 1;
            if rounds < 3 {
                turn.call(|| panic!("two are at it"));
            }
        });
        assert_eq!(rounds, 3);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            turn.call(|| panic!("a bug"));
        }));
        assert!(panicked.is_err());
        turn.call(|| rounds += 1);
        assert_eq!(rounds, 4);
    }

    #[test]
    fn nothing_that_was_published_before_a_call_is_overlooked() {
        let (turn, published, seen) = (Turn::default(), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        published.fetch_add(1, Ordering::Relaxed);
                        turn.call(|| {
                            seen.store(published.load(Ordering::Relaxed), Ordering::Relaxed)
                        });
                    }
                });
            }
        });
        assert_eq!(seen.into_inner(), 60_000);
    }
}
